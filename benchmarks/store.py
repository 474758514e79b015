"""What the store costs: milliseconds a solve, and the time to resume a long run.

The overhead is the time of a run with a store less that of the same run without one, per solve,
best of a few repeats: a busy machine only ever adds, and adds less to the processor time, which is
the second figure of each pair. Resuming replays a finished run, so all of its time is the store and
the method. Run as `python benchmarks/store.py`; takes one to two minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import zo_bilevel as zb


class Free:
    """An inner solver that costs next to nothing and returns incompressible numbers.

    Args:
        length: Numbers in theta.
    """

    def __init__(self, length: int) -> None:
        self.name = f"free-{length}"
        self.wave = np.random.default_rng(0).normal(size=length)

    def __call__(self, phi):
        return self.wave * (1.0 + phi["a"][0])


def seconds(length: int, solves: int, width: int, store: Path | None) -> tuple[float, float]:
    """Wall-clock and processor seconds of one random search."""
    space = zb.Space(a=zb.Real(-1, 1, (10,)))
    problem = zb.Problem(space, Free(length), zb.SquaredError(np.zeros(length)))
    started, worked = time.perf_counter(), time.process_time()
    zb.minimize(problem, zb.RandomSearch(), max_solves=solves, store=store, round_width=width)
    return time.perf_counter() - started, time.process_time() - worked


def overhead(length: int, solves: int, width: int, repeats: int, folder: Path) -> list[float]:
    """Milliseconds a solve that the store adds, wall-clock and processor."""
    seconds(length, solves, width, None)
    without, with_store = [], []
    for repeat in range(repeats):
        without.append(seconds(length, solves, width, None))
        store = folder / f"{length}-{width}-{repeat}.sqlite"
        with_store.append(seconds(length, solves, width, store))
    best = zip(np.min(without, axis=0), np.min(with_store, axis=0), strict=True)
    return [(after - before) / solves * 1e3 for before, after in best]


def main() -> None:
    """Print one row a setting, then the resume time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--solves", type=int, default=1000, help="Solves of an overhead run.")
    parser.add_argument("--evaluations", type=int, default=100_000, help="Of the resumed run.")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("numbers in theta | solves a round | store's ms a solve | of it processor")
        for length in (10, 1000, 10_000):
            for width in (1, 16):
                wall, cpu = overhead(length, arguments.solves, width, arguments.repeats, folder)
                print(f"{length:16} | {width:14} | {wall:18.3f} | {cpu:.3f}")
        count, store = arguments.evaluations, folder / "long.sqlite"
        for word in ("first", "resumed"):
            wall, cpu = seconds(10, count, 1, store)
            print(f"{count} evaluations, {word}: {wall:.1f} s, of it processor {cpu:.1f} s")


if __name__ == "__main__":
    main()
