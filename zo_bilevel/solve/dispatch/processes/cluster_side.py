"""What runs beside a cluster's own worker: solves in supervised processes.

A solve that crashes must not take the cluster's worker, and the other solves there, with it.
"""

import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from zo_bilevel.solve.dispatch.processes.pool import (
    Limits,
    RoundCancelledError,
    WorkerPool,
    run_job,
)
from zo_bilevel.solve.dispatch.processes.supervisor import Shipment, SupervisedWorker
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.errors import ZoBilevelError

IDLE_LIMIT_S = 60.0
"""When the solver processes of a cluster worker with nothing to do are ended."""


def solve_on_cluster(
    shipment: Shipment, job: Job, limits: Limits, token: str
) -> Outcome | ZoBilevelError:
    """Run one job in a supervised process of the machine that this is called on.

    What is wrong with the solver is given back and not raised: clusters wrap exceptions.
    """

    def started(worker: SupervisedWorker) -> None:
        with _here.lock:
            _here.check(token)
            _here.running.setdefault(token, set()).add(worker)

    try:
        with _here.in_use(token) as pool:
            return run_job(pool, _local(shipment), job, limits, started)
    except RoundCancelledError:
        return Outcome("timed_out", error="cancelled")
    except ZoBilevelError as error:
        return error


def end_solves(token: str) -> None:
    """Kill what runs here under a token, and start no more of it."""
    with _here.lock:
        _here.cancelled.append(token)
        for worker in _here.running.pop(token, ()):
            worker.kill()


def close_local_pool() -> None:
    """End the solver processes beside this cluster worker."""
    _here.close()


class _Here:
    """The solver processes beside one cluster worker, shared by its threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.running: dict[str, set[SupervisedWorker]] = {}
        self.cancelled: deque[str] = deque(maxlen=1000)
        self._pool: WorkerPool | None = None
        self._users = 0
        self._timer: threading.Timer | None = None

    def check(self, token: str) -> None:
        """Refuse work that was cancelled."""
        if token in self.cancelled:
            raise RoundCancelledError

    @contextmanager
    def in_use(self, token: str) -> Iterator[WorkerPool]:
        """Lend the pool to one task; with no task for a while it is closed."""
        with self.lock:
            self.check(token)
            self._users += 1
            if self._timer is not None:
                self._timer.cancel()
            if self._pool is None:
                self._pool = WorkerPool(sys.maxsize)  # the cluster decides how many run at once
            pool = self._pool
        try:
            yield pool
        finally:
            self._leave(token)

    def _leave(self, token: str) -> None:
        with self.lock:
            self._users -= 1
            if self._users:
                return
            self.running.pop(token, None)
            self._timer = threading.Timer(IDLE_LIMIT_S, self._close_if_idle)
            self._timer.daemon = True
            self._timer.start()

    def _close_if_idle(self) -> None:
        with self.lock:
            idle = self._users == 0
        if idle:
            self.close()

    def close(self) -> None:
        with self.lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


_here = _Here()


def _local(shipment: Shipment) -> Shipment:
    """A shipment as this machine can use it: its own paths first, then the sender's, if here."""
    own = set(sys.path)
    extra = [path for path in shipment.path if path not in own and Path(path).exists()]
    folder = shipment.folder if Path(shipment.folder).is_dir() else str(Path.cwd())
    return replace(shipment, path=(*sys.path, *extra), folder=folder)
