"""Solves one after the other, in this process."""

from collections.abc import Iterator, Sequence
from typing import final

from zo_bilevel.solve.dispatch.base import Solve, Stream, Waiting, WithBlock
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
        return Waiting(lambda jobs: self.run(solve, jobs))

    def close(self) -> None:
        """Nothing to let go of."""

    def __repr__(self) -> str:
        return "Serial()"
