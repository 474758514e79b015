"""A store in one SQLite file.

The file is in write-ahead mode, so that several processes may share it, and a row is on disk before
its solve is used. Every row has a checksum, and nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import RLock
from typing import Any, Final, final

from zo_bilevel.store import sql
from zo_bilevel.store.records import StoredSolve
from zo_bilevel.store.rows import Value
from zo_bilevel.store.sql_store import SQLStore, T
from zo_bilevel.store.sqlite_file import explained, open_file
from zo_bilevel.store.theta_files import LARGE_THETA_BYTES, read_theta_file, write_theta_file
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.run_locks import lock_run, unlock_run

CLOCK: Final = "((julianday('now') - 2440587.5) * 86400.0)"


@final
class SQLiteStore(SQLStore):
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

    clock = CLOCK

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        must_exist: bool = False,
    ) -> None:
        if "\0" in str(path):
            raise InputError(f"store must be a path without zero bytes, got {path!r}")
        self.path = Path(path)
        if self.path.is_dir():
            raise InputError(f"store must be a file, got the directory {self.path}")
        if self.path.exists() and not self.path.is_file():  # a pipe would be waited for for ever
            raise InputError(f"store must be a file, got a pipe or device, {self.path}")
        if not self.path.parent.is_dir():
            raise InputError(f"store must lie in a directory that exists, got {self.path}")
        if (read_only or must_exist) and not self.path.exists():
            raise InputError(f"store does not exist: {self.path}")
        self.read_only = read_only
        # a solver may change the working directory
        file = self.path.resolve()
        self._thetas = file.with_name(file.name + ".theta")
        self._locks = file.with_name(file.name + ".lock")
        super().__init__()
        self._guard = RLock()
        with explained(self.path, "open"), ExitStack() as opened:
            self.connection = open_file(self.path, opened, read_only=read_only)
            self._opened = opened.pop_all()

    @property
    def name(self) -> str:
        """The file, as it was given."""
        return str(self.path)

    def make(self, statements: Iterable[str]) -> None:
        """Make tables and indices that are missing."""
        for statement in statements:
            self.ask(sql.unless_there(statement))

    def ask(self, statement: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """The rows that a statement gives; outside of a transaction it is one by itself."""
        with explained(self.path, "read" if statement.startswith("SELECT") else "write to"):
            return self.connection.execute(statement, values).fetchall()

    def at_once(self, action: Callable[[], T]) -> T:
        """Do all of an action or nothing, and nobody else writes meanwhile."""
        with self._guard, explained(self.path, "write to"):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                given = action()
            except Exception:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
            except BaseException:
                self.connection.execute("COMMIT")  # Ctrl-C: what is written by now is right
                raise
            self.connection.execute("COMMIT")
            return given

    def _lock(self, run: int) -> bool:
        return lock_run(self._locks, run)

    def _unlock(self, run: int) -> None:
        unlock_run(self._locks, run)

    def _with_theta(self, solve: StoredSolve) -> StoredSolve | None:
        if solve.theta_digest and solve.theta is None:
            data = read_theta_file(self._thetas, solve.theta_digest)
            solve = dataclasses.replace(solve, theta=data)
        return super()._with_theta(solve)

    def _inline(self, solve: StoredSolve) -> bytes | None:
        if solve.theta is None or len(solve.theta) <= LARGE_THETA_BYTES:
            return solve.theta
        with explained(self.path, "write a large inner solution of"):
            write_theta_file(self._thetas, solve.theta, solve.theta_digest)
        return None

    def close(self) -> None:
        """Close the file; what was added stays."""
        for run in list(self._held):
            self.release(run)
        self._opened.close()


Store = SQLiteStore
"""The name by which people know it."""
