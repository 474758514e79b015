"""Solves to target on every task, against the fair Nevergrad set, pycma, scipy, DFO-LS, ES-MDA.

    python benchmarks/solves_to_target.py [TASK ...] [--seeds 10] [--scalar] [--all]

Medians over seeds count runs that never arrive as infinite. Without `--all` a short set of rivals.
"""

import argparse

import numpy as np

import zo_bilevel as zb
from zo_bilevel import tasks
from zo_bilevel.methods.names import method_from_name
from zo_bilevel.support.errors import UnsupportedProblemError

SHORT = ["nevergrad:CMA", "nevergrad:OnePlusOne", "nevergrad:Cobyla", "scipy:L-BFGS-B"]
LONG = [
    *SHORT,
    "nevergrad:TBPSA",
    "nevergrad:TwoPointsDE",
    "nevergrad:PSO",
    "nevergrad:NGOpt",
    "nevergrad:NgIohTuned",
    "cma",
    "scipy:COBYQA",
    "random",
]
VECTOR = ["scipy:least_squares", "dfols", "esmda"]

# task, options, budget of solves, losses to reach (None: the published error of the task)
ROWS = {
    "burgers": ({}, 80, None),
    "allen-cahn": ({}, 80, None),
    "kdv": ({}, 80, None),
    "burgers-two": ({}, 60, (1e-7,)),
    "heat-field": ({"size": 64}, 200, (1e-6, 1e-12)),
    "heat-field-1024": ({"size": 1024}, 300, (1e-5, 1e-8, 1e-10)),
    "heat-field-no-length": ({"size": 64, "correlation_length": None}, 300, (1e-3, 2e-10)),
    "ridge-penalties": ({}, 1500, (0.31, 0.28)),
    "quadratic": ({}, 100, (1e-9,)),
}


def first_solve(result, reached):
    return next((r.solve for r in result.history if reached(r.best_loss)), np.inf)


def error_solves(task, method, problem, seed, budget):
    """Solves until a solved point has the published error."""
    solves, errors = [], []

    def watched(phi):
        solves.append(len(solves) + 1)
        errors.append(task.error(phi))
        return problem.inner(phi)

    watched.name = problem.name
    target = zb.Problem(problem.space, watched, problem.outer, is_scalar=problem.is_scalar)
    zb.minimize(target, method, initial=task.start(seed), max_solves=budget, seed=seed)
    return next((s for s, e in zip(solves, errors, strict=True) if e <= task.target_error), np.inf)


def row(name, method_name, seeds, *, scalar):
    options, budget, targets = ROWS[name]
    task = tasks.load(name.removesuffix("-1024").removesuffix("-no-length"), **options)
    problem = task.problem.scalar if scalar else task.problem
    counts = []
    for seed in range(seeds):
        method = method_from_name(method_name)
        if targets is None:
            counts.append([error_solves(task, method, problem, seed, budget)])
            continue
        result = zb.minimize(
            problem, method, initial=task.start(seed), max_solves=budget, seed=seed
        )
        counts.append([first_solve(result, lambda v, t=t: v <= t) for t in targets])
    return np.array(counts)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--scalar", action="store_true")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    rivals = (LONG if arguments.all else SHORT) + ([] if arguments.scalar else VECTOR)
    for name in arguments.tasks or ROWS:
        print(f"{name}{' (scalar)' if arguments.scalar else ''}: solves to {ROWS[name][2]}")
        for method in ["default", *rivals]:
            try:
                counts = row(name, method, arguments.seeds, scalar=arguments.scalar)
            except UnsupportedProblemError as error:
                print(f"  {method:22s} refused: {str(error)[:60]}")
                continue
            cells = [
                f"{np.median(c):6.0f} (worst {np.max(c):.0f}, {np.isfinite(c).sum()}/{len(c)})"
                for c in counts.T
            ]
            print(f"  {method:22s} " + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()
