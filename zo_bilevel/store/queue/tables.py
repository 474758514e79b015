"""The verbs of a queue: what runs and workers do in its tables.

Every time is that of the database, so that clocks of machines may differ.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, final

from zo_bilevel.problem.content import DerivedName
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.store.places import open_store
from zo_bilevel.store.queue import schema
from zo_bilevel.store.queue.messages import (
    Seals,
    answer_from_row,
    answer_to_row,
    job_from_json,
    job_to_json,
)
from zo_bilevel.store.rows import Value
from zo_bilevel.store.sql_store import SQLStore
from zo_bilevel.support.errors import InputError

ALIVE_S: Final = 5.0
"""Seconds without a sign after which a run counts as gone; it gives one each second."""
NOBODY: Final = "nobody"
"""With what no session's name begins."""
FORGET_S: Final = 30 * 86400.0
MOST_LOST: Final = 10
"""Workers that one solve may lose before it counts as crashed."""
RETURN_S: Final = 2.0
"""How long after an outage of the database a worker leaves the solves of others to them: leases ran
out meanwhile, and who still solves, or has an answer by now, comes back as well."""


@final
@dataclass(frozen=True, slots=True)
class Version:
    """Which inner solver it is.

    Args:
        label: What people call it.
        identity: Label, version and a hash of what the solver is made of, for people too.
    """

    label: str
    identity: str

    @classmethod
    def of(cls, solve: Solve) -> Version:
        """Of a solve.

        Raises:
            InputError: If nobody gave a name and the solver cannot be told from others.
        """
        label = str(solve.name)
        if isinstance(solve.name, DerivedName):  # a module's name depends on how it is started
            label = label.partition("#")[0].rpartition(".")[2]
        exact = hashlib.sha256(solve.identity().encode("utf-8", "surrogatepass")).hexdigest()
        return cls(label, f"{label}, version {solve.version} ({exact[:12]})")


@final
@dataclass(frozen=True, slots=True)
class Claim:
    """A task that a worker has taken."""

    number: int
    task: str
    job: str
    lease: float


@final
@dataclass(frozen=True, slots=True)
class Progress:
    """How a task of a run stands: `taken` counts claims, `live` those that hold."""

    task: str
    is_answered: bool
    taken: int
    live: int


@final
class QueueTables:
    """A queue in a store's database.

    Raises:
        InputError: If the token is missing or short.
        StoreError: If the database cannot be reached.
    """

    def __init__(self, place: str | os.PathLike[str], token: str | None) -> None:
        self._seals = Seals(token)
        store = open_store(place)
        if not isinstance(store, SQLStore):
            raise InputError(f"a queue needs a database, got store {store.name}")
        self._store = store
        store.make(schema.QUEUE.values())

    @property
    def name(self) -> str:
        """Of the database, without user and password."""
        return self._store.name

    def close(self) -> None:
        """Close the connection."""
        self._store.close()

    def unwaited(self) -> AbstractContextManager[object]:
        """Within this block a database that is away is not waited for."""
        return self._store.unwaited()

    def _ask(self, statement: str, *values: Value) -> list[tuple[Any, ...]]:
        return self._store.ask(statement.replace("{now}", self._store.clock), values)

    # what a run does

    def submit(
        self,
        version: Version,
        job: Job,
        owner: str,
        lease: float,
        overdue: float | None,
        run: str = "",
    ) -> str:
        """Put a solve into the queue, or take over that of a session that has died.

        Args:
            version: Of the inner solver.
            job: The solve.
            owner: Name of the run's session.
            lease: Seconds without a sign after which its worker counts as lost.
            overdue: Seconds after which a second worker may take it, too.
            run: With what the names of this run's sessions begin: its others are dead.
        """
        text, name = job_to_json(job), secrets.token_hex(16)
        seal = self._seals.of("job", name, version.identity, text)

        def action() -> str:
            asked = (owner, version.identity, text, owner, ALIVE_S)
            left = self._ask(schema.ADOPT, *asked, len(run or NOBODY), run or NOBODY)
            if left:
                return str(left[0][0])
            facts = (name, version.label, version.identity, text, seal, owner, lease, overdue)
            self._ask(schema.SUBMIT, *facts)
            return name

        return self._store.at_once(action)

    def give_sign(self, owner: str) -> None:
        """Say that a run is alive."""
        self._ask(schema.SEEN, owner)

    def progress(self, owner: str) -> list[Progress]:
        """How the tasks of a run stand."""
        rows = self._ask(schema.STATE, owner)
        return [Progress(name, bool(done), taken, live) for name, done, taken, live in rows]

    def collect(self, task: str) -> Outcome | None:
        """The answer to a task; none, and it is open again, where that is not to be believed."""
        for job, answer, theta, seal in self._ask(schema.ANSWER_OF, task):
            if self._seals.fits(seal, "answer", task, job, answer, theta):
                return answer_from_row(answer, theta)
            self._ask(schema.REOPEN, task)
        return None

    def withdraw(self, tasks: Sequence[str]) -> None:
        """Take tasks out of the queue; workers that solve them give up."""

        def action() -> None:
            for task in tasks:
                for statement in schema.WITHDRAW:
                    self._ask(statement, task)

        self._store.at_once(action)

    def count_workers(self, version: Version) -> int:
        """How many workers of a version are there."""
        return int(self._ask(schema.WORKERS, version.identity)[0][0])

    # what a worker does

    def sign_in(self, worker: str, version: Version, seconds: float) -> None:
        """Say that a worker is there for so many seconds."""
        self._ask(schema.JOIN, worker, version.identity, seconds)

    def sign_out(self, worker: str) -> None:
        """Say that a worker has left, and forget what nobody has asked for in a long time."""
        self._ask(schema.LEAVE, worker)
        for statement in schema.FORGET:
            self._ask(statement, FORGET_S)

    def claim(self, worker: str, version: Version, refused: set[str]) -> Claim | None:
        """Take a task: one that nobody solves, or that is overdue elsewhere.

        Args:
            worker: Who asks.
            version: Of its inner solver.
            refused: Names of tasks that were not written by a run that knows the token; what is
                found so is added.
        """

        def free() -> list[tuple[Any, ...]]:
            is_back = time.monotonic() - self._store.reconnected < RETURN_S
            return self._ask(
                schema.FREE, version.identity, 1 if is_back else MOST_LOST, worker, ALIVE_S
            )

        if not free():
            return None

        def action() -> Claim | None:
            for name, job, seal, lease in free():
                if name in refused:
                    continue
                if not self._seals.fits(seal, "job", name, version.identity, job):
                    refused.add(name)
                    continue
                number = self._ask(schema.CLAIM, name, worker, lease)[0][0]
                return Claim(number, name, job, lease)
            return None

        return self._store.at_once(action)

    def job_of(self, claim: Claim) -> Job:
        """The solve that a worker took."""
        return job_from_json(claim.job)

    def renew(self, claim: Claim) -> bool:
        """Say that a worker is still at it."""
        return bool(self._ask(schema.RENEW, claim.lease, claim.number))

    def give_back(self, claim: Claim) -> None:
        """Leave a task to others."""
        self._ask(schema.GIVE_BACK, claim.number)

    def answer(self, claim: Claim, outcome: Outcome, worker: str) -> bool:
        """Write an answer; the first one counts."""
        text, theta = answer_to_row(outcome, worker)
        seal = self._seals.of("answer", claim.task, claim.job, text, theta)
        is_first = bool(self._ask(schema.ANSWER, text, theta, seal, claim.task))
        self._ask(schema.COUNT, worker)
        return is_first

    def other_versions(self, version: Version) -> list[str]:
        """What runs ask for under the same label, of which a worker has another version."""
        rows = self._ask(schema.OTHER_VERSIONS, version.label, version.identity, ALIVE_S)
        return [identity for (identity,) in rows]
