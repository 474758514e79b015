"""Simulated time to target without rounds and with them; how busy real workers are.

    python benchmarks/asynchronous.py [PROBLEM ...] [--seeds 5] [--workers 4 16] [--real]

Solve times are drawn from a heavy-tailed distribution, on a simulated clock: nobody waits. Medians
over seeds of times, of solves and of starts; a run that never arrives counts as infinite.
"""

import argparse
import functools
import statistics
import time

import numpy as np

import zo_bilevel as zb
from zo_bilevel import tasks
from zo_bilevel.testing import SimulatedClock

TIMES = {
    "lognormal": lambda rng: float(rng.lognormal(0.0, 1.0)),
    "pareto": lambda rng: 1.0 + float(rng.pareto(1.5)),
}


def of_task(name, seed, **options):
    task = tasks.load(name, **options)
    return task.problem, task.start(seed) if callable(task.start) else task.start


def ridge(seed):
    """Each seed begins elsewhere: how a search gets on varies by a factor of three."""
    problem = tasks.load("ridge-penalties").problem
    return problem, problem.space.decode(np.random.default_rng(seed).uniform(-0.5, 0.5, 300))


def scalar(size, loss, seed, lower=-2.0, upper=2.0):
    space = zb.Space(x=zb.Real(lower, upper, shape=(size,)))
    start = np.random.default_rng(seed).uniform(0.5 * lower, 0.5 * upper, size)
    return zb.Problem(space, lambda phi: loss(phi["x"])), {"x": start}


def rosenbrock(x):
    return float(np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2))


def quadratic(x):
    return float(np.logspace(0, 3, len(x)) @ (x - 0.3) ** 2)


def curved(x):
    """A logistic regression whose weights are sought: smooth, convex, no least squares."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((60, len(x)))
    signs = np.sign(rows @ np.linspace(-1, 1, len(x)) + 0.3 * rng.standard_normal(60))
    return float(np.mean(np.logaddexp(0.0, -signs * (rows @ x))) + 0.01 * x @ x)


def least(loss, size):
    from scipy.optimize import minimize

    return float(minimize(loss, np.zeros(size), tol=1e-12).fun)


# problem: how to make it from a seed, the loss to reach, solves at most
PROBLEMS = {
    "heat-field": (functools.partial(of_task, "heat-field", size=64), 1e-6, 400),
    "ridge": (ridge, 0.31, 1500),
    "rosenbrock-3": (functools.partial(scalar, 3, rosenbrock), 1e-6, 3000),
    "quadratic-12": (functools.partial(scalar, 12, quadratic), 1e-3, 2000),
    "logistic-10": (functools.partial(scalar, 10, curved), least(curved, 10) + 1e-3, 2000),
}


def simulated(name, seed, workers, seconds, *, asynchronous):
    """Seconds and solves to the target."""
    make, target, most = PROBLEMS[name]
    problem, start = make(seed)
    clock = SimulatedClock(workers, seconds, seed)
    result = zb.minimize(
        problem,
        initial=start,
        seed=seed,
        dispatcher=clock,
        round_width=workers,
        asynchronous=asynchronous,
        max_solves=most,
        tolerance=target,
    )
    is_there = result.loss <= target
    return (clock.now if is_there else np.inf), (result.solves if is_there else np.inf)


def table(names, seeds, widths):
    print(f"{'problem':14} {'times':10} {'workers':>7} {'rounds':>16} {'without':>16} {'ratio':>6}")
    for name in names:
        for kind, seconds in TIMES.items():
            for workers in widths:
                ways = [
                    [
                        simulated(name, seed, workers, seconds, asynchronous=asynchronous)
                        for seed in range(seeds)
                    ]
                    for asynchronous in (False, True)
                ]
                times, solves = (
                    [statistics.median(row[k] for row in rows) for rows in ways] for k in (0, 1)
                )
                cells = [f"{t:7.1f} s {n:5.0f} n" for t, n in zip(times, solves, strict=True)]
                ratio = times[1] / times[0]
                print(f"{name:14} {kind:10} {workers:7} {cells[0]:>16} {cells[1]:>16} {ratio:6.2f}")


class Slow:
    """50 ms a solve, one in twenty ten times that."""

    name = "slow"

    def __call__(self, phi):
        a, begun = phi["a"], time.perf_counter()
        time.sleep(0.5 if int(abs(a[0]) * 1e6) % 20 == 0 else 0.05)
        return zb.WithCost(np.concatenate([a, a**2]), time.perf_counter() - begun)


def busy(workers, solves, *, asynchronous):
    """Share of the time that real worker processes spend solving, starting them apart."""
    target = np.concatenate([np.full(6, 0.4), np.full(6, 0.2)])
    problem = zb.Problem(
        zb.Space(a=zb.Real(-2, 2, shape=(6,))), Slow(), zb.SquaredError(target), name="slow"
    )
    with zb.Joblib(workers) as dispatcher:
        options = {"dispatcher": dispatcher, "round_width": workers, "asynchronous": asynchronous}
        method = zb.RandomSearch()
        zb.minimize(problem, method, max_solves=2 * workers, **options)  # workers start
        begun = time.perf_counter()
        result = zb.minimize(problem, method, max_solves=solves, seed=1, **options)
        return result.cost / workers / (time.perf_counter() - begun)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--real", action="store_true")
    arguments = parser.parse_args()
    if arguments.real:
        for workers in arguments.workers:
            shares = [busy(workers, 160 * workers, asynchronous=way) for way in (False, True)]
            print(f"{workers} workers busy: {shares[0]:.2f} with rounds, {shares[1]:.2f} without")
        return
    table(arguments.problems, arguments.seeds, arguments.workers)


if __name__ == "__main__":
    main()
