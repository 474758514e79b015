"""Efficiency of a dispatcher: the time that solves need over the time that a round takes.

Each solve waits a fixed time without using a core, so that the figures show what dispatching
costs and not what else the machine does. A round of n solves on w workers cannot take less than
ceil(n / w) solves. Run as `python benchmarks/dispatch.py`; takes half a minute.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import joblib

from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.dispatch.joblib import Joblib
from zo_bilevel.solve.evaluation import Job


def make_solver(seconds: float) -> Callable[..., float]:
    """A solver that takes this long."""

    def solver(phi):
        until = time.perf_counter() + seconds
        time.sleep(seconds)
        while time.perf_counter() < until:
            pass
        return phi["a"]

    return solver


def timed(run_round: Callable[[], None], repeats: int) -> float:
    """Median seconds of a round, the first (which starts the workers) left out."""
    run_round()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        run_round()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def round_seconds(kind: str, num_workers: int, seconds: float, num_solves: int, repeats: int):
    """Median seconds of one round of `num_solves` solves."""
    jobs = [Job(k, {"a": float(k)}, 0) for k in range(num_solves)]
    solve = Solve(make_solver(seconds))
    if kind == "ours":
        # a time limit that nothing reaches: the clock itself is part of the cost
        with Joblib(n_jobs=num_workers, timeout_s=60) as dispatcher:
            return timed(lambda: list(dispatcher.run(solve, jobs)), repeats)
    options = {"n_jobs": num_workers, "backend": "loky", "return_as": "generator_unordered"}
    task = joblib.delayed(solve)
    with joblib.Parallel(**options) as parallel:
        return timed(lambda: list(parallel(task(job) for job in jobs)), repeats)


def main() -> None:
    """Print one row a setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    print("ms a solve | workers | solves a round | efficiency ours | joblib loky | ratio of times")
    for milliseconds in (1, 10, 50):
        for num_workers in (1, 2):
            for num_solves in (2 * num_workers, 32):
                ideal = math.ceil(num_solves / num_workers) * milliseconds / 1000
                took = {
                    kind: round_seconds(
                        kind, num_workers, milliseconds / 1000, num_solves, arguments.repeats
                    )
                    for kind in ("ours", "loky")
                }
                print(
                    f"{milliseconds:10} | {num_workers:7} | {num_solves:14} | "
                    f"{ideal / took['ours']:15.3f} | {ideal / took['loky']:11.3f} | "
                    f"{took['loky'] / took['ours']:.2f}"
                )


if __name__ == "__main__":
    main()
