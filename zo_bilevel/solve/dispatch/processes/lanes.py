"""One round on lanes: as many threads as workers, each running one job after the other."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, final

from zo_bilevel.solve.dispatch.processes.pool import RoundCancelledError
from zo_bilevel.solve.evaluation import Job, Outcome

JOIN_LIMIT_S = 2.0


class Killable(Protocol):
    """What runs a job and can be told to stop."""

    def kill(self) -> None:
        """Stop now; returns at once."""
        ...


RunJob = Callable[[Job, Callable[[Killable], None]], Outcome]


@final
class Round:
    """Runs jobs on a number of threads and gives the outcomes as they come.

    joblib's own loop is not used here: it looks for answers every 10 ms, which costs a round of
    50 ms solves up to 20 %, and cannot stop a job that runs.

    Args:
        run_job: Runs one job; tells its second argument what to kill if the round is cancelled.
        jobs: The round.
        num_lanes: How many jobs run at once.
        quorum: Share of the jobs that must have come to an end of their own; the rest are then
            cancelled. `None`: all.
    """

    def __init__(
        self, run_job: RunJob, jobs: Sequence[Job], num_lanes: int, quorum: float | None = None
    ) -> None:
        self._run_job = run_job
        self._waiting = deque(jobs)
        self._unanswered = {job.index for job in jobs}
        self._wanted = len(jobs) if quorum is None else math.ceil(quorum * len(jobs) - 1e-9)
        self._quorum = quorum
        self._answers: queue.SimpleQueue[tuple[int, Outcome] | BaseException] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._cancelled = False
        self._running: dict[int, Killable] = {}
        self._lanes = [
            threading.Thread(target=self._lane, name=f"zo-bilevel-lane-{k}", daemon=True)
            for k in range(min(num_lanes, len(jobs)))
        ]

    def outcomes(self, seconds: float = math.inf) -> Iterator[tuple[int, Outcome]]:
        """Start the lanes and yield each job's index and outcome as it finishes.

        Closing the iterator, or an exception in the caller's thread (Ctrl-C), kills what runs.

        Args:
            seconds: After so many, what runs is killed and has no outcome.
        """
        ended, deadline = 0, time.monotonic() + seconds
        try:
            for lane in self._lanes:
                lane.start()
            while self._unanswered and ended < self._wanted:
                try:
                    index, outcome = self._answer(deadline)
                except queue.Empty:
                    return
                ended += outcome.status != "timed_out"
                yield index, outcome
            yield from self._cut_short()
        finally:
            self.cancel()

    def _answer(self, deadline: float = math.inf) -> tuple[int, Outcome]:
        left = None if deadline == math.inf else max(deadline - time.monotonic(), 0.0)
        answer = self._answers.get(timeout=left)
        if isinstance(answer, BaseException):
            raise answer
        self._unanswered.discard(answer[0])
        return answer

    def _cut_short(self) -> Iterator[tuple[int, Outcome]]:
        """Stop the rest of the round; what is finished by now still counts."""
        if not self._unanswered:
            return
        self.cancel()
        while not self._answers.empty():
            yield self._answer()
        for index in sorted(self._unanswered):
            error = f"cancelled: quorum={self._quorum:g} of the round was reached"
            yield index, Outcome("timed_out", error=error)
        self._unanswered.clear()

    def cancel(self) -> None:
        """Start no further job, kill what runs, wait for the lanes that were killed."""
        with self._lock:
            self._cancelled = True
            self._waiting.clear()
            killed = dict(self._running)
            for running in killed.values():
                running.kill()
        for lane in self._lanes:
            if lane.ident in killed:
                lane.join(JOIN_LIMIT_S)

    def _lane(self) -> None:
        try:
            while True:
                try:
                    job = self._waiting.popleft()
                except IndexError:
                    return
                outcome = self._run_job(job, self._register)
                with self._lock:
                    self._running.pop(threading.get_ident(), None)
                    if self._cancelled and outcome.status in ("crashed", "timed_out"):
                        return
                self._answers.put((job.index, outcome))
        except RoundCancelledError:
            return
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._answers.put(error)
        finally:
            with self._lock:
                self._running.pop(threading.get_ident(), None)

    def _register(self, running: Killable) -> None:
        with self._lock:
            if self._cancelled:
                raise RoundCancelledError
            self._running[threading.get_ident()] = running
