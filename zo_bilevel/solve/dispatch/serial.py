"""Solves one after the other, in this process."""

from collections.abc import Callable, Iterator, Sequence
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
        return Waiting(lambda jobs: self.run(solve, jobs))

    def close(self) -> None:
        """Nothing to let go of."""

    def __repr__(self) -> str:
        return "Serial()"


@final
class Waiting:
    """Solves of a dispatcher that only runs rounds: asked for an answer, it runs all that wait."""

    def __init__(self, run: Callable[[Sequence[Job]], Iterator[tuple[int, Outcome]]]) -> None:
        self._run, self._jobs = run, list[Job]()
        self._answers: Iterator[tuple[int, Outcome]] = iter(())

    def submit(self, job: Job) -> None:
        """Have a job wait."""
        self._jobs.append(job)

    def next(self, seconds: float) -> tuple[int, Outcome] | None:  # noqa: ARG002 - no way to stop
        """The next answer; none when nothing waits."""
        answer = next(self._answers, None)
        if answer is None:
            jobs, self._jobs = self._jobs, []
            self._answers = self._run(jobs)
            answer = next(self._answers, None)
        return answer

    def close(self) -> None:
        """Forget what waits."""
        self._jobs, self._answers = [], iter(())
