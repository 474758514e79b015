"""The dispatcher that leaves solves to workers which come and go."""

from __future__ import annotations

import dataclasses
import math
import os
import secrets
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Final, final

from zo_bilevel.solve.dispatch.base import Solve, Stream, WithBlock, answers_until
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.store.queue.messages import job_to_json
from zo_bilevel.store.queue.tables import MOST_LOST, Progress, QueueTables, Version
from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.errors import StoreError

SIGN_S: Final = 1.0
"""How often a run says that it is alive."""
SILENCE_S: Final = 10.0
"""After how long a run says that no worker has taken a solve."""
SHORTEST_WAIT_S, LONGEST_WAIT_S, WAIT_SHARE = 0.005, 0.5, 0.05
"""How long between two looks: a share of what was waited so far."""


@final
class Queue(WithBlock):
    """Leave solves to `zo-bilevel worker` processes on any machine that reaches a database.

    Workers join and leave while the run goes on, and numbers do not depend on them. A worker that
    gives no sign for `lease_s` seconds, by the database's clock, is lost and its solve is taken up
    by another one; so is a solve that takes longer than `overdue_s`, and then the first answer
    counts. Without workers a run waits. Solves of a run that was killed go on, and the same run
    finds their answers when it is started again.

    Points and inner solutions pass through the database as numbers and JSON, sealed by a secret
    that run and workers share; nothing is unpickled. Exact derivatives of an inner solver do not
    pass.

    Args:
        place: "postgresql://user@host/database", or a file for workers on this machine; it may be
            the run's store.
        token: The secret, at least 16 characters; default the environment variable
            ZO_BILEVEL_TOKEN.
        lease_s: Seconds, > 0. Workers give a sign three times as often.
        overdue_s: Seconds, > 0, after which a solve is given to a second worker too; `None` never.

    Raises:
        InputError: If an argument breaks its rule.
        StoreError: If the database cannot be reached.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Queue(os.path.join(folder, "queue.sqlite"), token="a secret of ours") as queue:
        ...         queue.num_workers
        0
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        *,
        token: str | None = None,
        lease_s: float = 30.0,
        overdue_s: float | None = None,
    ) -> None:
        self.lease_s = finite_number("lease_s", lease_s, "> 0")
        self.overdue_s = None if overdue_s is None else finite_number("overdue_s", overdue_s, "> 0")
        self._place, self._token = place, token
        self._tables: QueueTables | None = QueueTables(place, token)
        self._version: Version | None = None
        self._run = ""

    def name_run(self, name: str) -> None:
        """Take over what an earlier life of this run has asked for, from now on.

        Args:
            name: The same whenever the run goes on, and no other's.
        """
        self._run = name

    def run(self, solve: Solve, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Put the jobs into the queue and wait for their answers.

        Args:
            solve: Tells which inner solver workers must have.
            jobs: The round.

        Yields:
            Each job's index and outcome as it arrives. Closing takes the others out of the queue.

        Raises:
            InputError: If a job cannot be sent, before the first solve.
            StoreError: If the database cannot be used.
        """
        return self.run_within(solve, jobs, math.inf)

    def run_within(
        self, solve: Solve, jobs: Sequence[Job], seconds: float
    ) -> Iterator[tuple[int, Outcome]]:
        """As `run`; jobs that are late are taken out of the queue and have no outcome."""
        for job in jobs:
            job_to_json(job)  # all can be sent, or none is
        deadline = time.monotonic() + seconds
        with closing(self.stream(solve)) as stream:
            for job in jobs:
                stream.submit(job)
            yield from answers_until(stream, len(jobs), deadline)

    def stream(self, solve: Solve) -> Stream:
        """Run solves one by one: each goes into the queue at once.

        Args:
            solve: Tells which inner solver workers must have.
        """
        self._version = Version.of(solve)
        return _Stream(self._open(), self._version, self.lease_s, self.overdue_s, self._run)

    @property
    def num_workers(self) -> int:
        """How many workers are there for the solver of the last round."""
        return 0 if self._version is None else self._open().count_workers(self._version)

    def _open(self) -> QueueTables:
        if self._tables is None:
            self._tables = QueueTables(self._place, self._token)
        return self._tables

    def close(self) -> None:
        """Close the connection; workers stay."""
        if self._tables is not None:
            self._tables.close()
            self._tables = None

    def __repr__(self) -> str:
        return f"Queue({self._open().name!r})"


@final
class _Stream:
    """Tasks of one session of a run, by name."""

    def __init__(
        self,
        tables: QueueTables,
        version: Version,
        lease: float,
        overdue: float | None,
        run: str,
    ) -> None:
        self._tables, self._version, self._limits = tables, version, (lease, overdue, run)
        self._owner = f"{run}{secrets.token_hex(8)}"
        self._waiting: dict[str, Job] = {}
        self._given = ""
        self._signed = time.monotonic()
        self._has_warned = False

    def submit(self, job: Job) -> None:
        """Put a job into the queue."""
        task = self._tables.submit(self._version, job, self._owner, *self._limits)
        self._waiting[task] = job

    def next(self, seconds: float) -> tuple[int, Outcome] | None:
        """Wait for the next answer; none if that takes longer, or nothing is asked for."""
        self._forget()
        since = now = time.monotonic()
        while self._waiting and now - since <= seconds:
            states = {state.task: state for state in self._tables.progress(self._owner)}
            for task, job in list(self._waiting.items()):
                if task not in states:  # somebody emptied the queue
                    del self._waiting[task]
                    self.submit(job)
                elif outcome := _outcome(self._tables, states[task]):
                    self._given = task
                    return job.index, outcome
            now = time.monotonic()
            if now - self._signed > SIGN_S:
                self._tables.give_sign(self._owner)
                self._signed = now
            if now - since > SILENCE_S and not self._has_warned:
                self._warn(states.values())
            wait = min(max(WAIT_SHARE * (now - since), SHORTEST_WAIT_S), LONGEST_WAIT_S)
            time.sleep(max(min(wait, seconds - (now - since)), 0.0))
        return None

    def _warn(self, states: Iterable[Progress]) -> None:
        """Say once that nobody solves, and why that may be."""
        self._has_warned = True
        if any(state.taken or state.is_answered for state in states):
            return
        workers = self._tables.count_workers(self._version)
        reason = "busy elsewhere, or with another token" if workers else "start some"
        warnings.warn(
            f"no worker has taken a solve from {self._tables.name} for {SILENCE_S:g} s: "
            f"{workers} workers are there; {reason}",
            RuntimeWarning,
            stacklevel=2,
        )

    def _forget(self) -> None:
        """Take the last answer out of the queue; not before whoever asked has stored it."""
        if self._given:
            del self._waiting[self._given]
            self._tables.withdraw([self._given])
            self._given = ""

    def close(self) -> None:
        """Take everything out of the queue; what cannot be, as that is away, nobody needs."""
        with suppress(StoreError), self._tables.unwaited():
            self._tables.withdraw(list(self._waiting))
        self._waiting.clear()
        self._given = ""


def _outcome(tables: QueueTables, state: Progress) -> Outcome | None:
    """What became of a task, or nothing yet."""
    if state.is_answered:
        outcome = tables.collect(state.task)
        if outcome is None or state.taken < 2:
            return outcome
        worker = f"{outcome.worker}, first of {state.taken} claims"
        return dataclasses.replace(outcome, worker=worker)
    if state.taken >= MOST_LOST and not state.live:
        return Outcome("crashed", error=f"{state.taken} workers were lost with it, one by one")
    return None
