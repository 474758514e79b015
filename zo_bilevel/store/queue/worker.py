"""A worker: takes solves from a queue until it is told to leave."""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from typing import Final, final

from zo_bilevel.problem.problem import Problem
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.dispatch.joblib import shipment_of
from zo_bilevel.solve.dispatch.processes.pool import Limits, WorkerPool, run_job
from zo_bilevel.store.queue.tables import Claim, QueueTables, Version
from zo_bilevel.support.errors import InputError, StoreError

SIGN_S: Final = 30.0
"""For how long a worker says that it is there."""
SHORTEST_WAIT_S, LONGEST_WAIT_S, WAIT_SHARE = 0.01, 1.0, 0.05


def work(
    place: str | os.PathLike[str],
    problem: Problem,
    *,
    token: str | None = None,
    timeout_s: float | None = None,
    idle_s: float | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> int:
    """Solve what a queue holds for this problem, one after the other, in a process of its own.

    Args:
        place: As for `Queue`.
        problem: The same as the run's: a run asks for one version of it, and no other is taken.
        token: As for `Queue`.
        timeout_s: Seconds that a solve may take, or `None`.
        idle_s: Leave after so many seconds without anything to do; `None` stays until Ctrl-C.
        say: Told what happens, a line at a time.

    Returns:
        How many solves it made.

    Raises:
        InputError: If the token is missing, or runs ask for another version of the problem.
        StoreError: If the database cannot be reached.
    """
    tables = QueueTables(place, token)
    worker = _Worker(
        tables,
        Solve(problem.inner, None, problem.name, problem.version, problem.unmeasured),
        timeout_s,
    )
    say(f"{worker.name} works on {worker.version.identity} from {tables.name}")
    try:
        return worker.loop(idle_s, say)
    finally:
        with suppress(StoreError), tables.unwaited():
            tables.sign_out(worker.name)
        worker.close()
        tables.close()


@final
class _Worker:
    def __init__(self, tables: QueueTables, solve: Solve, timeout_s: float | None) -> None:
        self.name = f"{socket.gethostname()}/{os.getpid()}-{secrets.token_hex(2)}"
        self.version = Version.of(solve)
        self._shipment = shipment_of(solve)
        self._limits = Limits(timeout_s)
        self._tables = tables
        self._thread, self._pool = ThreadPoolExecutor(1), WorkerPool(1)
        self._signed = -math.inf

    def close(self) -> None:
        """End the process that solves."""
        self._pool.close()
        self._thread.shutdown()

    def loop(self, idle_s: float | None, say: Callable[[str], object]) -> int:
        solves, since = 0, time.monotonic()
        refused: set[str] = set()
        while True:
            self._give_sign()
            num_refused = len(refused)
            claim = self._tables.claim(self.name, self.version, refused)
            if len(refused) > num_refused:
                say(f"{len(refused)} tasks were not written by a run that knows the token: refused")
            if claim is not None:
                solves += self._answer(claim)
                since = time.monotonic()
                continue
            self._refuse_other_versions()
            waited = time.monotonic() - since
            if idle_s is not None and waited > idle_s:
                return solves
            time.sleep(min(max(WAIT_SHARE * waited, SHORTEST_WAIT_S), LONGEST_WAIT_S))

    def _give_sign(self) -> None:
        if time.monotonic() - self._signed > SIGN_S / 3:
            self._tables.sign_in(self.name, self.version, SIGN_S)
            self._signed = time.monotonic()

    def _refuse_other_versions(self) -> None:
        wanted = self._tables.other_versions(self.version)
        if wanted:
            raise InputError(
                f"this worker has {self.version.identity}, but the run at {self._tables.name} asks "
                f"for {wanted[0]}: start it with the same file, which the run imports as a module, "
                "or give zb.Problem a name and version"
            )

    def _answer(self, claim: Claim) -> bool:
        """Solve, and give signs meanwhile; whether the answer was the first."""
        try:
            job = self._tables.job_of(claim)
            running = self._thread.submit(run_job, self._pool, self._shipment, job, self._limits)
            while not wait_for([running], min(claim.lease, SIGN_S) / 3).done:
                self._give_sign()
                if not self._tables.renew(claim):  # answered elsewhere, or no longer wanted
                    self._pool.close()
                    wait_for([running])
                    self._pool = WorkerPool(1)
                    return False
            return self._tables.answer(claim, running.result(), self.name)
        except BaseException:
            self._pool.close()
            with suppress(StoreError), self._tables.unwaited():
                self._tables.give_back(claim)
            raise
