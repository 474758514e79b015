"""The store: one SQLite file that remembers every evaluation.

Rows are plain numbers, text and compressed float64 bytes; nothing is ever unpickled. The file is
in write-ahead mode, so that several runs may share it, and a row is on disk before its
evaluation is used. Inner solutions above `LARGE_THETA_BYTES` go to a file of their own in the
directory `<store>.theta`, named by their content.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.errors import InputError, StoreError
from zo_bilevel.evaluation import Outcome, ThetaLayout

FloatArray: TypeAlias = NDArray[np.float64]

SCHEMA_VERSION = 1
LARGE_THETA_BYTES = 1 << 20
BUSY_SECONDS = 60.0

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,
    problem TEXT NOT NULL, version TEXT NOT NULL, method TEXT NOT NULL,
    seed INTEGER NOT NULL, created REAL NOT NULL, updated REAL NOT NULL,
    status TEXT NOT NULL, stop_reason TEXT NOT NULL DEFAULT '',
    space TEXT NOT NULL, command TEXT NOT NULL DEFAULT '[]', settings TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE IF NOT EXISTS evaluations (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs(id),
    step INTEGER NOT NULL, place INTEGER NOT NULL,
    key BLOB NOT NULL, point BLOB NOT NULL, seed INTEGER NOT NULL, role TEXT NOT NULL,
    status TEXT NOT NULL, judged TEXT NOT NULL DEFAULT '', loss REAL,
    seconds REAL NOT NULL, cost REAL NOT NULL,
    worker TEXT NOT NULL, error TEXT NOT NULL,
    layout TEXT, theta BLOB, theta_file TEXT
);
CREATE INDEX IF NOT EXISTS evaluations_by_key ON evaluations (key);
CREATE INDEX IF NOT EXISTS evaluations_by_run ON evaluations (run, step, place);
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
        if self.read_only:
            return
        with explained(self.path, "write to"):
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = NORMAL")
            self.connection.executescript(_TABLES)
            self.connection.execute(
                "INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),)
            )
            # a read-only file must be refused now, not after the first solve
            self.connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('opened', ?)", (time.time(),)
            )

    def _check_schema(self) -> None:
        with explained(self.path, "read"):
            row = self.connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        found = int(row[0]) if row else 0
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
    ) -> int:
        """Open a run, or find the one of the same identity to go on with.

        Args:
            identity: Same problem, space, method, seed and start give the same text.
            facts: Keys "problem", "version", "method", "seed", "space".
            settings: Everything else worth showing, as JSON.
            command: Command line that started the run, or empty.

        Returns:
            The run's number.
        """
        now = time.time()
        with explained(self.path, "write to"):
            self.connection.execute(
                "INSERT INTO runs (identity, problem, version, method, seed, created, updated,"
                " status, space, command, settings) VALUES (?,?,?,?,?,?,?,'running',?,?,?)"
                " ON CONFLICT(identity) DO UPDATE SET status='running', updated=excluded.updated,"
                " settings=excluded.settings, command=excluded.command",
                (
                    identity,
                    facts["problem"],
                    facts["version"],
                    facts["method"],
                    facts["seed"],
                    now,
                    now,
                    facts["space"],
                    json.dumps(list(command)),
                    json.dumps(settings),
                ),
            )
            row = self.connection.execute(
                "SELECT id FROM runs WHERE identity = ?", (identity,)
            ).fetchone()
        return int(row[0])

    def end_run(self, run: int, status: str, stop_reason: str) -> None:
        """Note how a run ended ("finished", "interrupted", "failed") and why."""
        with explained(self.path, "write to"):
            self.connection.execute(
                "UPDATE runs SET status = ?, stop_reason = ?, updated = ? WHERE id = ?",
                (status, stop_reason, time.time(), run),
            )

    def runs(self) -> list[dict[str, Any]]:
        """All runs with their number of solves and best loss, oldest first."""
        return self.query(
            "SELECT r.*, COUNT(e.id) AS solves, SUM(e.judged NOT IN ('ok', '')) AS failures,"
            " MIN(CASE WHEN e.judged = 'ok' THEN e.loss END) AS best_loss,"
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


def pack_array(values: FloatArray) -> bytes:
    """Little-endian float64 bytes, compressed."""
    return zlib.compress(np.ascontiguousarray(values, dtype="<f8").tobytes(), 1)


def unpack_array(data: bytes) -> FloatArray:
    """Undo `pack_array`.

    Raises:
        StoreError: If the bytes are damaged.
    """
    try:
        return np.frombuffer(zlib.decompress(data), dtype="<f8").astype(np.float64)
    except (zlib.error, ValueError) as error:
        raise StoreError(f"an array in the store is damaged: {error}") from error


def layout_to_json(layout: ThetaLayout) -> str:
    """Structure of theta as text."""
    return json.dumps([layout.names, layout.shapes, layout.dtype, layout.is_torch])


def layout_from_json(text: str) -> ThetaLayout:
    """Undo `layout_to_json`."""
    names, shapes, dtype, is_torch = json.loads(text)
    return ThetaLayout(tuple(names), tuple(tuple(s) for s in shapes), dtype, bool(is_torch))


def write_theta_file(store: Path, data: bytes) -> str:
    """Put a large inner solution beside the store; the name is its content's hash.

    Args:
        store: The store file.
        data: Compressed bytes.

    Returns:
        The file's name inside `<store>.theta`.
    """
    folder = store.with_name(store.name + ".theta")
    name = hashlib.sha256(data).hexdigest() + ".f8z"
    folder.mkdir(exist_ok=True)
    if not (folder / name).exists():
        partial = folder / f"{name}.{os.getpid()}.part"
        partial.write_bytes(data)
        partial.replace(folder / name)
    return name


def read_theta_file(store: Path, name: str) -> bytes:
    """Bytes of a large inner solution.

    Raises:
        StoreError: If the file is gone.
    """
    path = store.with_name(store.name + ".theta") / Path(name).name
    with explained(store, "read a large inner solution of"):
        return path.read_bytes()


def outcome_from_row(store: Path, row: dict[str, Any]) -> Outcome:
    """Rebuild an outcome from a row of the table `evaluations`.

    Args:
        store: The store file, for large inner solutions.
        row: The row.

    Returns:
        The outcome as the dispatcher gave it.
    """
    theta = None
    if row["theta_file"]:
        theta = unpack_array(read_theta_file(store, row["theta_file"]))
    elif row["theta"] is not None:
        theta = unpack_array(row["theta"])
    layout = None if row["layout"] is None else layout_from_json(row["layout"])
    derivative = None
    if theta is not None and layout is not None and theta.size > layout.size:
        theta, derivative = theta[: layout.size], theta[layout.size :]
    return Outcome(
        row["status"],
        theta,
        layout,
        row["seconds"],
        row["cost"],
        row["error"],
        row["worker"],
        derivative,
    )


def with_derivative(outcome: Outcome) -> FloatArray:
    """Theta as it is stored: its derivatives, where it has them, flat behind it."""
    assert outcome.theta is not None  # noqa: S101 - only finished solves are stored
    if outcome.derivative is None:
        return outcome.theta
    return np.concatenate([outcome.theta, outcome.derivative.ravel()])
