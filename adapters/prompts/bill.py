"""One sum of money that threads, processes and restarts of a program share."""

from __future__ import annotations

import math
import os
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from zo_bilevel.support.errors import InputError, StopRunError
from zo_bilevel.support.run_locks import lock_run, unlock_run

BUSY_SECONDS = 60.0
TABLE = "CREATE TABLE IF NOT EXISTS bills (name TEXT PRIMARY KEY, spent REAL NOT NULL)"


@final
class Bill:
    """What was spent under a name: in a file once there is one, until then in memory.

    What a call can cost is added before it is made and corrected afterwards, so a program that is
    killed in between has booked the most that the call can have cost.

    Args:
        name: Whose bill it is; a file may hold several.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._file: Path | None = None
        self._spent = 0.0
        self._in_file: dict[Path, float] = {}
        self._begin()

    def _begin(self) -> None:
        self._lock, self._owner = threading.Lock(), os.getpid()
        self._connection: sqlite3.Connection | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process adds to the same file: a temporary one if there is no other."""
        if self._file is None:
            handle, name = tempfile.mkstemp(".bill")
            os.close(handle)
            weakref.finalize(self, Path(name).unlink, missing_ok=True)
            self.keep_in(Path(name))
        return {"name": self.name, "file": self._file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["name"])
        self._file = state["file"]

    def keep_in(self, file: Path) -> None:
        """Go on in a file, adding to it what was spent here and does not stand there yet."""
        with self._lock:
            missing = self._spent - self._in_file.get(file, 0.0)
            self._in_file[file] = self._spent
            if self._connection is not None and file != self._file:
                self._connection.close()
                self._connection = None
            self._file = file
        if missing:
            self._change(missing)

    def add(self, amount: float, limit: float | None = None) -> float:
        """Add to the sum unless it would exceed the limit; a correction may be negative.

        Returns:
            What is missing: 0 where the amount was added.
        """
        missing = self._change(amount, limit)
        if not missing:
            with self._lock:
                self._spent += amount
                if self._file is not None:
                    self._in_file[self._file] = self._in_file.get(self._file, 0.0) + amount
        return missing

    @property
    def total(self) -> float:
        """The whole sum: with a file, what earlier processes spent too."""
        if self._file is None:
            return self._spent
        with self._lock, self._transaction() as connection:
            found = connection.execute("SELECT spent FROM bills WHERE name = ?", (self.name,))
            return float((found.fetchone() or (0.0,))[0])

    def _change(self, amount: float, limit: float | None = None) -> float:
        with self._lock:
            if self._file is None:
                return 0.0 if limit is None else max(self._spent + amount - limit, 0.0)
            with self._transaction() as connection:
                found = connection.execute("SELECT spent FROM bills WHERE name = ?", (self.name,))
                spent = (found.fetchone() or (0.0,))[0] + amount
                if limit is not None and spent > limit:
                    return float(spent - limit)
                add = "INSERT OR REPLACE INTO bills (name, spent) VALUES (?, ?)"
                connection.execute(add, (self.name, spent))
        return 0.0

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is None:
                self._connection = opened(Path(self._file or ""))
                self._connection.execute(TABLE)
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            finally:
                self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StopRunError(f"cannot keep the bill in {self._file}: {error}") from error


def bill_file(store: str | os.PathLike[str]) -> Path:
    """Where bill and answers of a store are; `InputError` if it is the address of a database."""
    if "://" in str(store):  # which may hold a password: no message shows it
        raise InputError("store must be a file: bill and answers are kept beside it")
    file = Path(store).resolve()
    return file.with_name(f"{file.name}.bill")


def rows_of(file: Path, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """What a table of a file holds, in the order it came; nothing where there is none of both."""
    if not file.is_file():
        return
    connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
    try:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            yield from connection.execute(f"SELECT {columns} FROM {table} ORDER BY rowid")
    finally:
        connection.close()


def sum_of(file: Path) -> float:
    """What stands on all bills of a file."""
    return math.fsum(spent for (spent,) in rows_of(file, "bills", "spent"))


@contextmanager
def alone_at(store: str | os.PathLike[str] | None, place: int) -> Iterator[None]:
    """Two searches at once on one store would each pay for what the other asks.

    Args:
        store: Of the search; `None` for none.
        place: Of the lock: whoever holds another one keeps nobody out.

    Raises:
        InputError: If another process, or another thread, is there, or the store has no folder.
    """
    if store is None:
        yield
        return
    file = bill_file(store)
    if not file.parent.is_dir():
        raise InputError(f"store must lie in a directory that exists, got {store}")
    lock = file.with_name(f"{file.name}.lock")
    if not lock_run(lock, place):
        raise InputError(
            f"another search is at work with {store}: wait for it, or take another store"
        )
    try:
        yield
    finally:
        unlock_run(lock, place)


def opened(file: Path) -> sqlite3.Connection:
    """A connection for many threads that waits for other processes.

    Raises:
        StopRunError: If the file cannot be opened.
    """
    try:
        connection = sqlite3.connect(
            str(file), BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")  # else every call waits for the disk
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error as error:
        raise StopRunError(f"cannot keep bill and answers in {file}: {error}") from error
    return connection
