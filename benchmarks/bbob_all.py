"""All 24 bbob functions: how many pairs of a budget and a target each method reaches, as in COCO.

python benchmarks/bbob_all.py --size 5    # an hour on a CPU; other instances than the suites use
"""

import argparse

import numpy as np

from zo_bilevel.comparison.compare import compare
from zo_bilevel.methods.names import method_from_name
from zo_bilevel.tasks.bbob import bbob_task

METHODS = (
    "default",
    "scipy:L-BFGS-B",
    "nevergrad:NGOpt",
    "nevergrad:Cobyla",
    "nevergrad:OnePlusOne",
    "nevergrad:CMA",
)
TARGETS = 10.0 ** np.arange(2, -8.01, -0.5)
"""Losses above the optimum."""
FIRST_INSTANCE = 40


def shares(run, budget):
    """Share of all pairs, budgets evenly spaced in their logarithm, and of targets at the end."""
    solves = np.logspace(0, np.log10(budget), 60)
    best = np.full(solves.size, np.inf)
    for step in run.improvements:
        best[solves >= step.solve] = step.true_loss
    return np.array([(best[:, None] <= TARGETS).mean(), (best[-1] <= TARGETS).mean()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--functions", type=int, nargs="*", default=range(1, 25))
    chosen = parser.parse_args()
    budget = 100 * (chosen.size + 1)
    found = {name: [] for name in METHODS}
    print(f"N = {chosen.size}, {budget} solves, share of pairs / share of targets at the end")
    for function in chosen.functions:
        for name in METHODS:
            rows = []
            for seed in range(chosen.seeds):
                task = bbob_task(function, chosen.size, instance=FIRST_INSTANCE + seed)
                methods = {name: method_from_name(name)}
                (run,) = compare(task, methods, max_solves=budget, seeds=[seed]).runs
                rows.append(shares(run, budget))
            found[name].append(np.mean(rows, axis=0))
        line = "  ".join(f"{found[m][-1][0]:.2f}/{found[m][-1][1]:.2f}" for m in METHODS)
        print(f"f{function:<2}  {line}", flush=True)
    for name in METHODS:
        area, end = np.mean(found[name], axis=0)
        print(f"{name:22} {area:.3f} {end:.3f}")


if __name__ == "__main__":
    main()
