"""The verbs of a store in a database, whichever it is."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

from zo_bilevel.store import sql
from zo_bilevel.store.abstract import ROWS_AT_ONCE, AbstractStore
from zo_bilevel.store.records import (
    DAMAGED,
    RUNNING,
    StoredRun,
    StoredSolve,
    digest_of,
)
from zo_bilevel.store.rows import Value, row_of, run_of, solve_of
from zo_bilevel.support.errors import StoreError

T = TypeVar("T")


class SQLStore(AbstractStore):
    """A store whose rows lie in two tables of a database.

    Attributes:
        clock: What the database calls the seconds since 1970 by its own clock.
        reconnected: When the database was last reached again, in monotonic seconds.
    """

    clock: ClassVar[str]

    def __init__(self) -> None:
        self.reconnected = -math.inf
        self._held: set[int] = set()

    @abstractmethod
    def make(self, statements: Iterable[str]) -> None:
        """Make tables and indices that are missing."""

    @abstractmethod
    def ask(self, statement: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """The rows that a statement gives; outside of a transaction it is one by itself."""

    def now(self) -> float:
        """Seconds since 1970 by the database's clock, the one that all its users share."""
        return float(self.ask(f"SELECT {self.clock}")[0][0])

    @abstractmethod
    def at_once(self, action: Callable[[], T]) -> T:
        """Do all of an action or nothing, and nobody else writes meanwhile.

        Args:
            action: What it asks; may be called again where the database went away in the middle.
        """

    @abstractmethod
    def _lock(self, run: int) -> bool:
        """Take a run, until this process ends at the latest; whether it was free."""

    @abstractmethod
    def _unlock(self, run: int) -> None:
        """Give a run back."""

    def begin(self, run: StoredRun) -> StoredRun:
        """Open a run, or the one of the same identity to go on with, and keep others off it."""

        def action() -> StoredRun:
            known = self.ask(sql.FIND, (run.identity,)) or [(*self.ask(sql.NEXT_RUN)[0], None)]
            number, created = known[0]
            if number in self._held or not self._lock(number):
                raise StoreError(
                    f"run {number} of store {self.name} is being worked on by somebody else: wait "
                    "for it, or use another seed or store"
                )
            created = created if isinstance(created, float) else self.now()
            opened = dataclasses.replace(run, number=number, created=created)
            self.save(opened)
            return opened

        opened = self.at_once(action)
        self._held.add(opened.number)
        return opened

    def release(self, run: int) -> None:
        """Let others work on a run."""
        if run in self._held:
            self._held.discard(run)
            self._unlock(run)

    def save(self, run: StoredRun) -> None:
        """Write a run's record anew."""
        row = row_of(dataclasses.replace(run, updated=self.now()))
        self.ask(sql.SAVE, (*row, run.number))

    def records(self, number: int | None = None, *, identity: str | None = None) -> list[StoredRun]:
        """All runs, the oldest first; of one that is damaged, number and status only."""
        wanted = {"number": number, "identity": identity}
        given = {name: value for name, value in wanted.items() if value is not None}
        rows = self.ask(sql.runs_with(given), list(given.values()))
        damaged = StoredRun(status=DAMAGED)
        return [
            run_of(row, number) or dataclasses.replace(damaged, number=number)
            for number, *row in rows
        ]

    def change(self, number: int, **facts: str) -> bool:
        """Write texts into a run's record while somebody works on it."""

        def action() -> bool:  # nobody may write how it ended in between
            for run in self.records(number):
                if run.status == RUNNING:
                    self.save(dataclasses.replace(run, **facts))  # type: ignore[arg-type] # by name
                    return True
            return False

        return self.at_once(action)

    def index(self, run: int) -> list[tuple[int, int, int, bytes]]:
        """Number, step, place and key of each solve of a run, in its order; not yet checked."""
        return self.ask(sql.INDEX, (run,))

    def others(self, run: int, key: bytes) -> list[int]:
        """Numbers of the solves of other runs that were asked for under a key."""
        return [number for (number,) in self.ask(sql.OTHERS, (key, run))]

    def read(self, numbers: Sequence[int], *, with_theta: bool = True) -> dict[int, StoredSolve]:
        """Solves by number; those that are damaged or gone are left out."""
        asked = numbers[:ROWS_AT_ONCE]
        if not asked:
            return {}
        found = {}
        for number, data, *row in self.ask(sql.read(len(asked), with_theta=with_theta), asked):
            solve = solve_of(row, number, data)
            if solve is not None and with_theta:
                solve = self._with_theta(solve)
            if solve is not None:
                found[number] = solve
        return found

    def _with_theta(self, solve: StoredSolve) -> StoredSolve | None:
        """The solve with its inner solution, or nothing when that is damaged."""
        if not solve.theta_digest:
            return solve if solve.theta is None else None
        is_whole = isinstance(solve.theta, bytes) and digest_of(solve.theta) == solve.theta_digest
        return solve if is_whole else None

    def write(
        self,
        new: Sequence[StoredSolve] = (),
        *,
        judged: Sequence[StoredSolve] = (),
        dropped: Sequence[int] = (),
    ) -> list[int]:
        """Write all of it, or nothing; it survives the end of this process."""
        rows = [(*row_of(solve), self._inline(solve)) for solve in new]

        def action() -> list[int]:
            for solve in judged:
                values = (solve.judged, solve.loss, row_of(solve)[-1], solve.number)
                self.ask(sql.JUDGE, values)
            for number in dropped:
                self.ask(sql.DROP, (number,))
            return [self.ask(sql.ADD, row)[0][0] for row in rows]

        return self.at_once(action)

    def _inline(self, solve: StoredSolve) -> bytes | None:
        """What of the inner solution lies in the row."""
        return solve.theta

    def stamp(self) -> str:
        """What tells one state of the store from the next."""
        return repr(self.ask(sql.STAMP))
