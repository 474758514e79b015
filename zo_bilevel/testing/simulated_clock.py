"""A dispatcher whose workers take simulated time: rounds and arrivals are compared without waiting.

Every solve runs at once, in this process; when it would have ended is drawn, from its seed and the
order in which solves start. Runs on it are repeatable, those without rounds too.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import final

import numpy as np

from zo_bilevel.solve.dispatch.base import Solve, WithBlock
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.arguments import whole_number


@final
class SimulatedClock(WithBlock):
    """Workers that take as long as is drawn.

    Args:
        num_workers: How many solves run at once, >= 1.
        seconds: Draws how long one solve takes.
        seed: Of the draws, >= 0.

    Attributes:
        now: Simulated seconds so far, at the arrival that was given out last.
        busy: Simulated seconds that workers spent solving, those of solves that run included.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> clock = SimulatedClock(2, lambda rng: 3.0)
        >>> jobs = [Job(k, {"a": float(k)}, 0) for k in range(3)]
        >>> [index for index, _ in clock.run(Solve(lambda phi: phi["a"]), jobs)], clock.now
        ([0, 1, 2], 6.0)
    """

    def __init__(
        self, num_workers: int, seconds: Callable[[np.random.Generator], float], seed: int = 0
    ) -> None:
        self.num_workers = whole_number("num_workers", num_workers, least=1)
        self.now = self.busy = 0.0
        self._seconds = seconds
        self._rng = np.random.default_rng(whole_number("seed", seed, least=0))

    def run(self, solve: Solve, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Run a round: the clock goes on to the end of its slowest solve.

        Yields:
            Each job's index and outcome in the order in which they end.
        """
        with closing(self.stream(solve)) as stream:
            for job in jobs:
                stream.submit(job)
            for _ in jobs:
                yield stream.next()

    def stream(self, solve: Solve) -> SimulatedStream:
        """Run solves one by one."""
        return SimulatedStream(self, solve)

    def close(self) -> None:
        """Nothing to let go of."""

    def draw(self) -> float:
        """How long the next solve takes."""
        seconds = float(self._seconds(self._rng))
        self.busy += seconds
        return seconds


@final
class SimulatedStream:
    """Solves on a `SimulatedClock`."""

    def __init__(self, clock: SimulatedClock, solve: Solve) -> None:
        self._clock, self._solve = clock, solve
        self._free = [clock.now] * clock.num_workers
        self._ends: list[tuple[float, int, Job]] = []
        self._count = 0

    def submit(self, job: Job) -> None:
        """Start a job on the worker that is free first."""
        start = max(heapq.heappop(self._free), self._clock.now)
        end = start + self._clock.draw()
        heapq.heappush(self._free, end)
        heapq.heappush(self._ends, (end, self._count, job))
        self._count += 1

    def next(self, seconds: float = np.inf) -> tuple[int, Outcome]:  # noqa: ARG002 - real ones
        """Go on to the end of the solve that ends first."""
        self._clock.now, _, job = heapq.heappop(self._ends)
        return job.index, self._solve(job)

    def close(self) -> None:
        """Forget what runs."""
        self._ends.clear()
