"""Solves one after the other, in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import final

from zo_bilevel.solve.dispatch.base import Solve, Stream, WithBlock
from zo_bilevel.solve.evaluation import Job, Outcome


@final
class Serial(WithBlock):
    """Run each solve in the calling process, in order.

    Example:
        >>> from zo_bilevel.solve.evaluation import Job
        >>> solve = Solve(lambda phi: phi["a"] ** 2)
        >>> [outcome.theta.item() for _, outcome in Serial().run(solve, [Job(0, {"a": 3.0}, 0)])]
        [9.0]
    """

    def run(self, solve: Solve, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Run the jobs in order."""
        for job in jobs:
            yield job.index, solve(job)

    def stream(self, solve: Solve) -> Stream:
        """Run solves one by one, each when its answer is asked for."""
        return _InOrder(solve)

    def close(self) -> None:
        """Nothing to let go of."""

    def __repr__(self) -> str:
        return "Serial()"


@final
class _InOrder:
    def __init__(self, solve: Solve) -> None:
        self._solve = solve
        self._waiting: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def next(self, seconds: float) -> tuple[int, Outcome] | None:  # noqa: ARG002 - no way to stop
        job = self._waiting.popleft()
        return job.index, self._solve(job)

    def close(self) -> None:
        self._waiting.clear()
