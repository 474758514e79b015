"""The store: one SQLite file that remembers every evaluation.

Rows are plain numbers, text and float64 bytes; nothing is ever unpickled. The file is in
write-ahead mode, so that several runs may share it, and a row is on disk before its evaluation is
used. Arrays and large inner solutions: `stored_arrays.py`. What people ask it: `stored_runs.py`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from zo_bilevel.support.errors import InputError, StoreError

SCHEMA_VERSION = 3
"""2: a solve that a run took over from another run has a row of its own, with its `source`.
3: a run has its `start` and `objective`, and once it ended the point it found, with its loss."""
BUSY_SECONDS = 60.0

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,
    problem TEXT NOT NULL, version TEXT NOT NULL, method TEXT NOT NULL,
    seed INTEGER NOT NULL, created REAL NOT NULL, updated REAL NOT NULL,
    status TEXT NOT NULL, stop_reason TEXT NOT NULL DEFAULT '',
    space TEXT NOT NULL, command TEXT NOT NULL DEFAULT '[]', settings TEXT NOT NULL DEFAULT '{}',
    start BLOB, objective TEXT, point BLOB, loss REAL, standard_error REAL
);
CREATE TABLE IF NOT EXISTS evaluations (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs(id),
    step INTEGER NOT NULL, place INTEGER NOT NULL,
    key BLOB NOT NULL, point BLOB NOT NULL, seed INTEGER NOT NULL, role TEXT NOT NULL,
    status TEXT NOT NULL, judged TEXT NOT NULL DEFAULT '', loss REAL,
    seconds REAL NOT NULL, cost REAL NOT NULL,
    worker TEXT NOT NULL, error TEXT NOT NULL,
    layout TEXT, theta BLOB, theta_file TEXT, source INTEGER
);
CREATE INDEX IF NOT EXISTS evaluations_by_key ON evaluations (key);
CREATE INDEX IF NOT EXISTS evaluations_by_run ON evaluations (run, step, place);
"""
_ADDED = (
    ("evaluations", "source", "INTEGER"),
    ("runs", "start", "BLOB"),
    ("runs", "objective", "TEXT"),
    ("runs", "point", "BLOB"),
    ("runs", "loss", "REAL"),
    ("runs", "standard_error", "REAL"),
)
"""Columns that files of older schemas do not have."""
_BEGIN = """
INSERT INTO runs (identity, problem, version, method, seed, created, updated, status, space,
    command, settings, start, objective)
VALUES (:identity, :problem, :version, :method, :seed, :now, :now, 'running', :space,
    :command, :settings, :start, :objective)
ON CONFLICT(identity) DO UPDATE SET status = 'running', stop_reason = '',
    updated = excluded.updated, settings = excluded.settings, command = excluded.command,
    start = excluded.start, objective = excluded.objective,
    point = NULL, loss = NULL, standard_error = NULL
"""


@contextmanager
def explained(path: Path, action: str) -> Iterator[None]:
    """Turn what SQLite or the disk says into one sentence that names file and action.

    Args:
        path: The store file.
        action: What was being done, for the message.

    Raises:
        StoreError: In place of any SQLite or operating-system error.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(f"cannot {action} store {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"cannot {action} store {path}: the file is damaged or no store ({error}); "
            "move it away or name another file"
        ) from error
    except OSError as error:
        raise StoreError(f"cannot {action} store {path}: {error}") from error


@final
class Store:
    """An open store file.

    Args:
        path: The file; made when missing, in a directory that exists.
        read_only: Only look: the file must exist, and nothing is written.

    Raises:
        InputError: If the path is a directory or its directory does not exist.
        StoreError: If the file is read-only, damaged, no store, or of a newer schema.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Store(os.path.join(folder, "runs.sqlite")) as store:
        ...         store.runs()
        []
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise InputError(f"store must be a file, got the directory {self.path}")
        if not self.path.parent.is_dir():
            raise InputError(f"store must lie in a directory that exists, got {self.path}")
        if read_only and not self.path.exists():
            raise InputError(f"store does not exist: {self.path}")
        self.read_only = read_only
        with explained(self.path, "open"):
            self.connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except BaseException:
            self.connection.close()
            raise

    def _prepare(self) -> None:
        with explained(self.path, "open"):
            names = {
                row[0]
                for row in self.connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                )
            }
        if names and "evaluations" not in names:
            raise StoreError(f"{self.path} is an SQLite file but no store of this package")
        if names:
            self._check_schema()
        if not self.read_only:
            with explained(self.path, "write to"):
                self._make_tables()

    def _make_tables(self) -> None:
        """Make what is missing, in one step: others may open the same new file right now."""
        self._write_ahead()
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute("BEGIN IMMEDIATE")
        for statement in _TABLES.split(";"):
            self.connection.execute(statement)
        for table, column, kind in _ADDED:
            columns = self.connection.execute(f"SELECT name FROM pragma_table_info('{table}')")
            if (column,) not in columns.fetchall():
                self.connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
        # a read-only file is refused by this, not after the first solve
        self.connection.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [("schema", str(SCHEMA_VERSION)), ("opened", str(time.time()))],
        )
        self.connection.execute("COMMIT")

    def _write_ahead(self) -> None:
        """Switch the file to write-ahead mode; SQLite's own patience does not cover this step."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self.connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _check_schema(self) -> None:
        with explained(self.path, "read"):
            row = self.connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        found = int(row[0]) if row else 1
        if found > SCHEMA_VERSION:
            raise StoreError(
                f"store {self.path} has schema {found}, this version of zo_bilevel knows up to "
                f"{SCHEMA_VERSION}: use a newer zo_bilevel"
            )

    def begin_run(
        self,
        identity: str,
        facts: dict[str, Any],
        settings: dict[str, Any],
        command: Sequence[str],
        former: str = "",
    ) -> int:
        """Open a run, or find the one of the same identity to go on with.

        Args:
            identity: Same problem, space, method, seed and start give the same text.
            facts: Keys "problem", "version", "method", "seed", "space", "start", "objective".
            settings: Everything else worth showing, as JSON.
            command: Command line that started the run, or empty.
            former: What the identity was before the schema knew outer objectives.

        Returns:
            The run's number.
        """
        values = {
            **facts,
            "identity": identity,
            "now": time.time(),
            "command": json.dumps(list(command)),
            "settings": json.dumps(settings),
        }
        with explained(self.path, "write to"):
            if former:
                self.connection.execute(
                    "UPDATE OR IGNORE runs SET identity = ? WHERE identity = ?", (identity, former)
                )
            self.connection.execute(_BEGIN, values)
            row = self.connection.execute(
                "SELECT id FROM runs WHERE identity = ?", (identity,)
            ).fetchone()
        return int(row[0])

    def end_run(
        self,
        run: int,
        status: str,
        stop_reason: str,
        found: tuple[bytes, float, float | None] | None = None,
    ) -> None:
        """Note how a run ended.

        Args:
            run: Its number.
            status: "finished", "interrupted", "failed", "refused" or "disqualified".
            stop_reason: Why, in words.
            found: The point it reports, packed, with its loss and standard error.
        """
        with explained(self.path, "write to"):
            self.connection.execute(
                "UPDATE runs SET status = ?, stop_reason = ?, updated = ?, point = ?, loss = ?,"
                " standard_error = ? WHERE id = ?",
                (status, stop_reason, time.time(), *(found or (None,) * 3), run),
            )

    def runs(self) -> list[dict[str, Any]]:
        """All runs with their number of solves and lowest loss, oldest first."""
        return self.query(
            "SELECT r.*, COUNT(e.id) AS solves, SUM(e.judged NOT IN ('ok', '')) AS failures,"
            " MIN(CASE WHEN e.judged = 'ok' AND e.role <> 'confirm' THEN e.loss END) AS best_loss,"
            " COALESCE(SUM(e.cost), 0) AS cost"
            " FROM runs r LEFT JOIN evaluations e ON e.run = r.id GROUP BY r.id ORDER BY r.id"
        )

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows of a SELECT as dicts."""
        with explained(self.path, "read"):
            cursor = self.connection.execute(sql, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def close(self) -> None:
        """Close the file; what was added stays."""
        self.connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
