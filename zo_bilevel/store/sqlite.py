"""A store in one SQLite file.

The file is in write-ahead mode, so that several processes may share it, and a row is on disk before
its solve is used. Every row has a checksum, and nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, final

from zo_bilevel.store import sql
from zo_bilevel.store.abstract import ROWS_AT_ONCE, AbstractStore
from zo_bilevel.store.records import DAMAGED, RUNNING, STOPPING, StoredRun, StoredSolve, digest_of
from zo_bilevel.store.rows import row_of, run_of, solve_of
from zo_bilevel.store.run_locks import lock_run, unlock_run
from zo_bilevel.store.sqlite_file import explained, open_file
from zo_bilevel.store.theta_files import LARGE_THETA_BYTES, read_theta_file, write_theta_file
from zo_bilevel.support.errors import InputError, StoreError


@final
class SQLiteStore(AbstractStore):
    """An open store file.

    Args:
        path: The file; made when missing, in a directory that exists.
        read_only: Only look: the file must exist, and nothing is written; works on a read-only
            disk, too.
        must_exist: Refuse a file that is missing.

    Raises:
        InputError: If the path is a directory or its directory does not exist.
        StoreError: If the file cannot be written, is damaged, or is no store of this version.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with SQLiteStore(os.path.join(folder, "runs.sqlite")) as store:
        ...         store.runs()
        []
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        must_exist: bool = False,
    ) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise InputError(f"store must be a file, got the directory {self.path}")
        if not self.path.parent.is_dir():
            raise InputError(f"store must lie in a directory that exists, got {self.path}")
        if (read_only or must_exist) and not self.path.exists():
            raise InputError(f"store does not exist: {self.path}")
        self.read_only = read_only
        # a solver may change the working directory
        file = self.path.resolve()
        self._thetas = file.with_name(file.name + ".theta")
        self._locks = file.with_name(file.name + ".lock")
        self._held: set[int] = set()
        self._guard = RLock()
        with explained(self.path, "open"), ExitStack() as opened:
            self.connection = open_file(self.path, opened, read_only=read_only)
            self._opened = opened.pop_all()

    @property
    def name(self) -> str:
        """The file, as it was given."""
        return str(self.path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard, explained(self.path, "write to"):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
            except Exception:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
            except BaseException:
                self.connection.execute("COMMIT")  # Ctrl-C: what is written by now is right
                raise
            self.connection.execute("COMMIT")

    def begin(self, run: StoredRun) -> StoredRun:
        """Open a run, or the one of the same identity to go on with, and keep others off it."""
        with self._transaction() as connection:
            known = connection.execute(sql.FIND, (run.identity,)).fetchone()
            now = time.time()
            if known is None:
                (number,) = connection.execute(sql.NEXT_RUN)
                known = (*number, now)
            number, created = known
            if not lock_run(self._locks, number):
                raise StoreError(
                    f"run {number} of store {self.path} is being worked on by somebody else: wait "
                    "for it, or use another seed or store"
                )
            self._held.add(number)
            created = created if isinstance(created, float) else now
            opened = dataclasses.replace(run, number=number, created=created)
            self._save(opened)
        return opened

    def release(self, run: int) -> None:
        """Let others work on a run."""
        if run in self._held:
            self._held.discard(run)
            unlock_run(self._locks, run)

    def save(self, run: StoredRun) -> None:
        """Write a run's record anew."""
        with explained(self.path, "write to"):
            self._save(run)

    def _save(self, run: StoredRun) -> None:
        row = row_of(dataclasses.replace(run, updated=time.time()))
        self.connection.execute(sql.SAVE, (*row, run.number))

    def records(self, number: int | None = None) -> list[StoredRun]:
        """All runs, the oldest first; of one that is damaged, number and status only."""
        with explained(self.path, "read"):
            rows = self.connection.execute(sql.RUNS, (number, number)).fetchall()
        damaged = StoredRun(status=DAMAGED)
        return [
            run_of(row, number) or dataclasses.replace(damaged, number=number)
            for number, *row in rows
        ]

    def stop(self, number: int) -> bool:
        """Ask whoever works on a run to stop."""
        with self._transaction():  # nobody may write how it ended in between
            for run in self.records(number):
                if run.status == RUNNING:
                    self._save(dataclasses.replace(run, status=STOPPING))
                    return True
        return False

    def index(self, run: int) -> list[tuple[int, int, int, bytes]]:
        """Number, step, place and key of each solve of a run, in its order; not yet checked."""
        with explained(self.path, "read"):
            return self.connection.execute(sql.INDEX, (run,)).fetchall()

    def others(self, run: int, key: bytes) -> list[int]:
        """Numbers of the solves of other runs that were asked for under a key."""
        with explained(self.path, "read"):
            return [number for (number,) in self.connection.execute(sql.OTHERS, (key, run))]

    def read(self, numbers: Sequence[int], *, with_theta: bool = True) -> dict[int, StoredSolve]:
        """Solves by number; those that are damaged or gone are left out."""
        asked = numbers[:ROWS_AT_ONCE]
        select = sql.read_statement(len(asked), with_theta=with_theta)
        found = {}
        with explained(self.path, "read"):
            for number, data, *row in self.connection.execute(select, asked):
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
        if solve.theta is None:
            data = read_theta_file(self._thetas, solve.theta_digest)
            return None if data is None else dataclasses.replace(solve, theta=data)
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
        for solve in new:
            if solve.theta is not None and len(solve.theta) > LARGE_THETA_BYTES:
                with explained(self.path, "write a large inner solution of"):
                    write_theta_file(self._thetas, solve.theta, solve.theta_digest)
        with self._transaction() as connection:
            connection.executemany(sql.JUDGE, map(_judgement, judged))
            connection.executemany(sql.DROP, [(number,) for number in dropped])
            return [int(connection.execute(sql.ADD, _new(solve)).lastrowid or 0) for solve in new]

    def stamp(self) -> str:
        """What tells one state of the store from the next."""
        with explained(self.path, "read"):
            return repr(self.connection.execute(sql.STAMP).fetchone())

    def close(self) -> None:
        """Close the file; what was added stays."""
        for run in list(self._held):
            self.release(run)
        self._opened.close()


def _judgement(solve: StoredSolve) -> tuple[Any, ...]:
    return solve.judged, solve.loss, row_of(solve)[-1], solve.number


def _new(solve: StoredSolve) -> tuple[Any, ...]:
    is_large = solve.theta is not None and len(solve.theta) > LARGE_THETA_BYTES
    return (*row_of(solve), None if is_large else solve.theta)


Store = SQLiteStore
"""The name by which people know it."""
