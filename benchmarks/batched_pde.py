"""Solves per second of the PDE tasks: one call a round against one call a solve.

Rounds of 1, 16 and 256 directions at random coefficients, float64, through the dispatchers that a
run would use. Run as `python benchmarks/batched_pde.py [--device cuda]`; where torch finds no GPU
it runs on the CPU, in one to two minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from zo_bilevel.solve.dispatch.base import Dispatcher, Solve
from zo_bilevel.solve.dispatch.batched import Batched
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.tasks import load

TASKS = ("burgers", "allen-cahn", "kdv", "heat-field")
ROUNDS = (1, 16, 256)


def best_rate(run_round: Callable[[], object], count: int, seconds: float) -> float:
    """Solves per second of the fastest round; the first is left out, and one is enough."""
    run_round()
    fastest, started = np.inf, time.perf_counter()
    while True:
        begun = time.perf_counter()
        run_round()
        fastest = min(fastest, time.perf_counter() - begun)
        if time.perf_counter() - started > seconds:
            return count / fastest


def difference(one: Dispatcher, other: Dispatcher, solve: Solve, jobs: list[Job]) -> float:
    """Largest relative difference of theta between two dispatchers."""
    first, second = dict(one.run(solve, jobs)), dict(other.run(solve, jobs))
    return max(
        np.abs(first[k].theta - second[k].theta).max() / np.abs(first[k].theta).max() for k in first
    )


def main() -> None:
    """Print one row a task and number of directions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="Least time of a figure.")
    arguments = parser.parse_args()
    serial, batched = Serial(), Batched(device=arguments.device)
    print(
        f"device {arguments.device}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    print("task       | directions | serial 1/s | batched 1/s | ratio | largest difference")
    for name in TASKS:
        problem = load(name).problem
        solve, rng = Solve(problem.inner), np.random.default_rng(0)
        xs = rng.uniform(-1.0, 1.0, (max(ROUNDS), problem.space.size))
        jobs = [Job(k, problem.space.decode(x), 0) for k, x in enumerate(xs)]
        # one at a time is as fast in a round of any size
        alone = best_rate(lambda s=solve, j=jobs[:4]: dict(serial.run(s, j)), 4, arguments.seconds)
        for count in ROUNDS:
            some = jobs[:count]
            rate = best_rate(
                lambda s=solve, j=some: dict(batched.run(s, j)), count, arguments.seconds
            )
            apart = difference(serial, batched, solve, some[:16])
            print(
                f"{name:10} | {count:10} | {alone:10.1f} | {rate:11.1f} | {rate / alone:5.1f} | "
                f"{apart:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
