"""Two phases against each phase alone at equal CPU time: `python benchmarks/two_phases.py`.

100 weights of an overdetermined sum over slow and fast inner modes, 60 inner steps. Truncated
reverse mode (5 steps) is cheap and stops at a biased point; (FG)2U is exact and starts slowly. The
first phase ends by itself. Five problems, each method at the best of three rates on three others,
the first phase at that of the truncated gradient alone; two minutes on one core.
"""

import argparse
import statistics
import time

import numpy as np
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import TorchUnroll
from zo_bilevel.run.evaluator import Evaluator

SIZE, ROWS, STEPS, KEPT, RATE = 100, 200, 60, 5, 0.5


def make(seed):
    """The problem, and the excess loss of a point by the closed form."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(ROWS, SIZE)) / np.sqrt(SIZE)
    speed = np.where(rng.random(ROWS) < 0.5, 1.0, 0.03)
    target = rng.normal(size=ROWS) + matrix @ rng.normal(size=SIZE)
    a, b, y = (torch.from_numpy(part) for part in (speed, matrix, target))

    def step(state, phi, t, batch):
        return state - RATE * a * (state - b @ phi["x"])

    loop = TorchUnroll(
        lambda phi: torch.zeros(ROWS, dtype=torch.float64), step, STEPS, dtype=torch.float64
    )
    space = zb.Space(x=zb.Real(-6, 6, shape=(SIZE,)))
    problem = zb.Problem(space, loop, loop.outer(lambda s, phi: 0.5 * ((s - y) ** 2).mean()))
    jacobian = (1 - (1 - RATE * speed) ** STEPS)[:, None] * matrix

    def loss(x):
        return 0.5 * np.mean((jacobian @ x - target) ** 2)

    least = loss(np.linalg.lstsq(jacobian, target, rcond=None)[0])
    return problem, lambda x: loss(x) - least


def cheap(rate):
    return zb.GradientMethod(zb.TruncatedUnroll(KEPT), lr=rate)


def exact(rate):
    return zb.GradientMethod(zb.FG2U(8), lr=rate)


def both(first_rate):
    return lambda rate: zb.TwoPhase([(cheap(first_rate), "auto"), (exact(rate), None)])


CHOSEN_ON = (1000, 1001, 1002)
"""Problems on which rates are chosen, none of those reported."""
FIRST_REPORTED = 10
"""Problems 0 to 4 served to make the methods."""


def excess_after(method, problem, excess, seconds, seed):
    """Excess loss of the best point when the CPU time is over."""
    state = method.start(problem, seed, initial={"x": np.zeros(SIZE)})
    evaluator, best = Evaluator(problem, zb.Serial(), seed), None
    started = time.process_time()
    while (points := method.ask(state)) and time.process_time() - started < seconds:
        evaluations = evaluator.evaluate(points)
        found = min(evaluations, key=lambda evaluation: evaluation.loss)
        best = found if best is None or found.loss < best.loss else best
        state = method.tell(state, evaluations)
    return excess(problem.space.decode(best.point.x)["x"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time of a run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.03, 0.1, 0.3])
    options = parser.parse_args()
    reported = range(FIRST_REPORTED, FIRST_REPORTED + options.seeds)
    chosen_on, problems = ({seed: make(seed) for seed in seeds} for seeds in (CHOSEN_ON, reported))

    def tried(method, rate, problems):
        return [
            excess_after(method(rate), problem, excess, options.seconds, seed)
            for seed, (problem, excess) in problems.items()
        ]

    def report(name, method):
        trials = {r: statistics.median(tried(method, r, chosen_on)) for r in options.rates}
        rate = min(trials, key=trials.__getitem__)
        values = tried(method, rate, problems)
        print(
            f"{name:26} {statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f}) "
            f"at rate {rate:g}; tried " + ", ".join(f"{r:g}: {v:.4f}" for r, v in trials.items()),
            flush=True,
        )
        return rate

    print(f"excess loss after {options.seconds:g} CPU seconds, median (range) of {options.seeds}")
    first_rate = report("TRGU(5)", cheap)
    report("FG2U(8)", exact)
    report("two phases, by themselves", both(first_rate))


if __name__ == "__main__":
    main()
