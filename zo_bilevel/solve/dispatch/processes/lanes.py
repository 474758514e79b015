"""Jobs on lanes: as many threads as workers, each running one job after the other."""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, final

from zo_bilevel.solve.dispatch.base import Stream
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
class Lanes:
    """Runs jobs on a number of threads and gives the outcomes as they come.

    joblib's own loop is not used here: it looks for answers every 10 ms, which costs a round of
    50 ms solves up to 20 %, and cannot stop a job that runs.

    Args:
        run_job: Runs one job; tells its second argument what to kill if the lanes are closed.
        num_lanes: How many jobs run at once.
    """

    def __init__(self, run_job: RunJob, num_lanes: int) -> None:
        self._run_job, self._num_lanes = run_job, num_lanes
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[int, Outcome] | BaseException] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._running: dict[int, Killable] = {}
        self._lanes: list[threading.Thread] = []
        self._num_open = 0

    def submit(self, job: Job) -> None:
        """Run a job as soon as a lane is free."""
        self._num_open += 1
        self._waiting.put(job)
        if len(self._lanes) < min(self._num_lanes, self._num_open):
            name = f"zo-bilevel-lane-{len(self._lanes)}"
            self._lanes.append(threading.Thread(target=self._lane, name=name, daemon=True))
            self._lanes[-1].start()

    def next(self, seconds: float = math.inf) -> tuple[int, Outcome] | None:
        """The index and outcome of the job that ends next; `Exception` what a lane ended by."""
        try:
            left = None if seconds == math.inf else max(seconds, 0.0)
            answer = self._answers.get(timeout=left)
        except queue.Empty:
            return None
        if isinstance(answer, BaseException):
            raise answer
        self._num_open -= 1
        return answer

    def close(self) -> None:
        """Start no further job, kill what runs, wait for the lanes that were killed."""
        with self._lock:
            self._closed = True
            killed = dict(self._running)
            for running in killed.values():
                running.kill()
        for _ in self._lanes:
            self._waiting.put(None)
        for lane in self._lanes:
            if lane.ident in killed:
                lane.join(JOIN_LIMIT_S)

    def _lane(self) -> None:
        try:
            while True:
                job = self._waiting.get()
                if job is None or self._closed:
                    return
                outcome = self._run_job(job, self._register)
                with self._lock:
                    self._running.pop(threading.get_ident(), None)
                    if self._closed and outcome.status in ("crashed", "timed_out"):
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
            if self._closed:
                raise RoundCancelledError
            self._running[threading.get_ident()] = running


@final
class Round:
    """Jobs that belong together.

    Args:
        lanes: Run them.
        jobs: The round.
        quorum: Share of the jobs that must have come to an end of their own; the rest are then
            cancelled. `None`: all.
    """

    def __init__(self, lanes: Stream, jobs: Sequence[Job], quorum: float | None = None) -> None:
        self._lanes, self._jobs, self._quorum = lanes, jobs, quorum
        self._wanted = len(jobs) if quorum is None else math.ceil(quorum * len(jobs) - 1e-9)

    def outcomes(self, seconds: float = math.inf) -> Iterator[tuple[int, Outcome]]:
        """Start the lanes and yield each job's index and outcome as it finishes.

        Closing the iterator, or an exception in the caller's thread (Ctrl-C), kills what runs.
        """
        ended, deadline = 0, time.monotonic() + seconds
        unanswered = {job.index for job in self._jobs}
        try:
            for job in self._jobs:
                self._lanes.submit(job)
            while unanswered and ended < self._wanted:
                answer = self._lanes.next(deadline - time.monotonic())
                if answer is None:
                    return
                unanswered.discard(answer[0])
                ended += answer[1].status != "timed_out"
                yield answer
            if not unanswered:
                return
            self._lanes.close()
            while (answer := self._lanes.next(0.0)) is not None:  # finished by now: it counts
                unanswered.discard(answer[0])
                yield answer
            for index in sorted(unanswered):
                error = f"cancelled: quorum={self._quorum:g} of the round was reached"
                yield index, Outcome("timed_out", error=error)
        finally:
            self._lanes.close()
