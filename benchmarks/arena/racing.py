"""Run a method on a case with a seed, remember what came, on as many processes as there are."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import zo_bilevel as zb
from benchmarks.arena.case import Case
from benchmarks.arena.methods import fingerprint, make_method
from benchmarks.arena.remembered import Work, results


@dataclass(frozen=True)
class Trace:
    """What one run found.

    Args:
        case: `str(case)`.
        method: Name of the method.
        seed: Of the run.
        status: As of `zb.Run`.
        error: Why it was refused or failed.
        loss: At the point that the run reports, without noise.
        solves: Solves spent.
        processor_seconds: Of the whole run, its solves included.
        steps: Pairs of a solve, from 1, and the lowest loss so far, without noise.
    """

    case: str
    method: str
    seed: int
    status: str
    error: str
    loss: float
    solves: int
    processor_seconds: float
    steps: tuple[tuple[int, float], ...]

    def best_at(self, solves: NDArray[np.float64]) -> NDArray[np.float64]:
        """Lowest loss after so many solves, infinity before the first.

        Args:
            solves: Numbers of solves, any shape.
        """
        best = np.full(np.shape(solves), np.inf)
        for solve, loss in self.steps:
            best[solves >= solve] = loss
        return best


@dataclass(frozen=True)
class Job:
    """A run to make.

    Args:
        case: On what.
        method: Name of the method.
        seed: Of the instance, the start and the run.
        round_width: Solves that may run at once.
    """

    case: Case
    method: str
    seed: int
    round_width: int = 1

    def path(self, folder: Path) -> Path:
        """Where the run is remembered.

        Args:
            folder: Of the cache.
        """
        make = self.case.make  # a partial function
        words = [str(self.case), repr(make.args), self.method, self.seed, self.round_width]
        digest = hashlib.sha256(json.dumps(words).encode() + _sources(make.func.__module__))
        digest.update(fingerprint(self.method).encode())
        return folder / f"{digest.hexdigest()[:24]}.json"


@cache
def _sources(module: str) -> bytes:
    """All files of a suite: those whose names begin with the same word as the module's."""
    file = Path(str(sys.modules[module].__file__))
    suite = file.stem.partition("_")[0]
    return b"".join(path.read_bytes() for path in sorted(file.parent.glob(f"{suite}_*.py")))


def solve(job: Job) -> Trace:
    """Make one run.

    Args:
        job: Which.

    Returns:
        What it found; a method that cannot work on the case says so in it.
    """
    began = time.process_time()
    try:
        (run,) = zb.compare(
            job.case.make(job.seed),
            {job.method: make_method(job.method)},
            max_solves=job.case.max_solves,
            seeds=[job.seed],
            round_width=job.round_width,
        ).runs
    except zb.ZoBilevelError as error:
        return Trace(str(job.case), job.method, job.seed, "refused", str(error), np.inf, 0, 0.0, ())
    return Trace(
        str(job.case),
        job.method,
        job.seed,
        run.status,
        run.error,
        run.loss,
        run.solves,
        time.process_time() - began,
        tuple((step.solve, step.true_loss) for step in run.improvements),
    )


def solve_all(jobs: Iterable[Job], folder: Path | None, processes: int) -> Iterator[Trace]:
    """Make the runs that are not remembered.

    Args:
        jobs: Which.
        folder: The cache, or `None` for none.
        processes: How many runs at once, >= 1.

    Returns:
        Remembered runs first, then the others in the order in which they end.
    """
    work = [Work(partial(solve, job), None if folder is None else job.path(folder)) for job in jobs]
    return results(work, Trace, processes)
