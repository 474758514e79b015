"""A pool of supervised workers: lends them out, runs a job with its retries, replaces the dead."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

from zo_bilevel.solve.dispatch.processes.supervisor import (
    START_LIMIT_S,
    Shipment,
    SupervisedWorker,
    WorkerDiedError,
    WorkerTooSlowError,
    pack_job,
)
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.errors import InnerSolverError

START_ATTEMPTS = 3
CLOSE_LIMIT_S = 2.0
RETRIED_STATUSES = ("failed", "timed_out", "crashed")
"""NaN is an answer: the same seed would give it again."""


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may take: seconds of one attempt, and further attempts with the same seed."""

    timeout_s: float | None = None
    retries: int = 0


class RoundCancelledError(Exception):
    """The round no longer wants this job's outcome."""


@final
class WorkerPool:
    """Workers that live on between rounds; at most `size` are busy at once, a further one waits."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._idle: list[SupervisedWorker] = []
        self._all: set[SupervisedWorker] = set()
        self._changed = threading.Condition()
        self._busy = 0
        self._closed = False
        self._owner = os.getpid()

    @property
    def is_own(self) -> bool:
        """Whether this process made it, and not the one that this one was forked from."""
        return self._owner == os.getpid()

    def borrow(self, shipment: Shipment) -> SupervisedWorker:
        """Give a worker that has the solver loaded, starting one when needed.

        Raises:
            InnerSolverError: If the solver cannot be loaded, or workers die of loading it.
            RoundCancelledError: If the pool was closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._busy < self.size or self._closed)
            self._busy += 1
        try:
            return self._ready_worker(shipment)
        except BaseException:
            self._done()
            raise

    def _ready_worker(self, shipment: Shipment) -> SupervisedWorker:
        how = ""
        for _ in range(START_ATTEMPTS):
            worker = self._take_idle(shipment) or self._start(shipment)
            try:
                worker.load(shipment)
            except WorkerDiedError as error:
                how = str(error)
                self.discard(worker)
            except WorkerTooSlowError as error:
                self.discard(worker)
                raise InnerSolverError(
                    f"a worker process took over {START_LIMIT_S:g} s to load the inner solver"
                ) from error
            except BaseException:
                self.discard(worker)
                raise
            else:
                return worker
        raise InnerSolverError(
            f"{START_ATTEMPTS} worker processes died while they loaded the inner solver; "
            f"the last one {how}"
        )

    def give_back(self, worker: SupervisedWorker) -> None:
        """Return a worker, for the next borrower."""
        with self._changed:
            closed = self._closed
            if not closed:
                self._idle.append(worker)
        if closed:
            self.discard(worker)
        self._done()

    def drop(self, worker: SupervisedWorker) -> None:
        """Return a worker that is of no more use; its process tree is gone afterwards."""
        self.discard(worker)
        self._done()

    def discard(self, worker: SupervisedWorker) -> None:
        """End a worker, and forget it."""
        worker.end()
        with self._changed:
            self._all.discard(worker)
            self._changed.notify_all()

    def close(self) -> None:
        """End all workers, busy ones too, and wait until they are gone."""
        if not self.is_own:
            return  # a forked copy of the pool has no say over its original's workers
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            for worker in self._all.difference(idle):
                worker.kill()  # the thread that waits for it collects it
            self._changed.notify_all()
        for worker in idle:
            worker.ask_to_end()
        for worker in idle:
            self.discard(worker)
        with self._changed:
            self._changed.wait_for(lambda: not self._all, CLOSE_LIMIT_S)

    def _take_idle(self, shipment: Shipment) -> SupervisedWorker | None:
        """Take the idle worker that suits best: one that has the solver already."""
        dead: list[SupervisedWorker] = []
        chosen: SupervisedWorker | None = None
        with self._changed:
            self._idle.sort(key=lambda worker: worker.digest == shipment.digest)
            while self._idle and chosen is None:
                candidate = self._idle.pop()
                if candidate.alive:
                    chosen = candidate
                else:
                    dead.append(candidate)  # died while idle: no solve's fault
        for worker in dead:
            self.discard(worker)
        return chosen

    def _start(self, shipment: Shipment) -> SupervisedWorker:
        with self._changed:
            if self._closed or not self.is_own:
                raise RoundCancelledError
            worker = SupervisedWorker(shipment)
            self._all.add(worker)
        return worker

    def _done(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify()


def run_job(
    pool: WorkerPool,
    shipment: Shipment,
    job: Job,
    limits: Limits,
    started: Callable[[SupervisedWorker], None] = lambda _: None,
) -> Outcome:
    """Run one job on a borrowed worker, with its retries.

    Returns:
        The first good outcome or the last bad one, with the seconds and cost of all attempts.
    """
    packed = pack_job(job)
    return with_retries(
        lambda: _attempt(pool, shipment, packed, limits.timeout_s, started), limits.retries
    )


def with_retries(attempt: Callable[[], Outcome], retries: int) -> Outcome:
    """Attempt until the outcome is good or the retries are used up.

    Example:
        >>> outcomes = iter([Outcome("crashed", seconds=1.0), Outcome("ok", seconds=2.0)])
        >>> outcome = with_retries(lambda: next(outcomes), retries=3)
        >>> outcome.status, outcome.seconds
        ('ok', 3.0)
    """
    outcome = attempt()
    for repeat in range(retries):
        if outcome.status not in RETRIED_STATUSES:
            break
        before, outcome = outcome, attempt()
        error = f"{outcome.error} (attempt {repeat + 2})" if outcome.error else ""
        outcome = replace(
            outcome,
            seconds=before.seconds + outcome.seconds,
            cost=before.cost + outcome.cost,
            error=error,
        )
    return outcome


def _attempt(
    pool: WorkerPool,
    shipment: Shipment,
    packed: bytes,
    timeout_s: float | None,
    started: Callable[[SupervisedWorker], None],
) -> Outcome:
    worker = pool.borrow(shipment)
    begun = time.perf_counter()
    try:
        started(worker)
        outcome = worker.call(packed, timeout_s)
    except WorkerTooSlowError:
        pool.drop(worker)
        seconds = time.perf_counter() - begun
        return Outcome("timed_out", seconds=seconds, error=f"killed after timeout_s={timeout_s:g}")
    except WorkerDiedError as error:
        pool.drop(worker)
        seconds = time.perf_counter() - begun
        return Outcome("crashed", seconds=seconds, error=f"its worker process {error}")
    except RoundCancelledError:
        pool.give_back(worker)
        raise
    except BaseException:
        pool.drop(worker)
        raise
    pool.give_back(worker)
    return outcome
