"""Opening an SQLite file, whoever wrote it and wherever it lies."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from zo_bilevel.store import sql
from zo_bilevel.store.queue.schema import QUEUE
from zo_bilevel.support.errors import StoreError

FORMAT: Final = 4
BUSY_SECONDS: Final = 60.0
MOST_BYTES: Final = 1 << 28
"""Of a value: what a file from elsewhere may make this process read at once."""


@contextmanager
def explained(path: Path, action: str) -> Iterator[None]:
    """Turn what SQLite or the disk says into one sentence that names file and action.

    Raises:
        StoreError: In place of any SQLite or operating-system error.
    """
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise StoreError(f"cannot {action} store {path}: {error}") from error
    except (sqlite3.Error, sqlite3.Warning, OverflowError, MemoryError, ValueError) as error:
        raise StoreError(
            f"cannot {action} store {path}: the file is damaged or no store ({error}); "
            "move it away or name another file"
        ) from error


def open_file(path: Path, opened: ExitStack, *, read_only: bool) -> sqlite3.Connection:
    """A connection to a store file, with our tables in it where it was empty.

    Raises:
        StoreError: If the file is no store of this version.
    """
    file = path.resolve()
    if not read_only:
        return _writable(_connected(path, file, "", opened))
    log = file.with_name(file.name + "-wal")
    try:
        return _connected(path, file, "?mode=ro", opened)
    except sqlite3.OperationalError:
        # SQLite wants to make a file beside one in write-ahead mode, even to read it
        if not log.exists():
            return _connected(path, file, "?immutable=1", opened)
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        for part in (file, log):
            shutil.copy(part, folder)
        return _connected(path, Path(folder, file.name), "", opened)


def _connected(path: Path, file: Path, way: str, opened: ExitStack) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{file.as_uri()}{way}",
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    opened.callback(connection.close)
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
    connection.execute("PRAGMA trusted_schema = OFF")
    _check_schema(connection, path)
    return connection


def _schema(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, sql FROM sqlite_master"))


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Take only a file whose tables are ours: no trigger and no view of somebody else's."""
    found = _schema(connection)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    known = {**sql.SCHEMA, **QUEUE}
    is_whole = sql.SCHEMA.items() <= found.items() and found.items() <= known.items()
    if not found or (is_whole and version == FORMAT):
        return
    if {"runs", "solves"} <= found.keys() or {"runs", "evaluations"} <= found.keys():
        raise StoreError(
            f"store {path} is damaged or of another version of zo_bilevel; move it away or name "
            "another file"
        )
    raise StoreError(f"{path} is an SQLite file but no store of this package")


def _writable(connection: sqlite3.Connection) -> sqlite3.Connection:
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("BEGIN IMMEDIATE")  # others may open the same new file right now
    if not _schema(connection):
        for statement in sql.SCHEMA.values():
            connection.execute(statement)
    # a file that cannot be written is refused by this, not after the first solve
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch the file to write-ahead mode; SQLite's own patience does not cover this step."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
