"""The words that a store says to its database: tables, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from zo_bilevel.store.rows import RUN_COLUMNS, SEAL, SOLVE_COLUMNS

_TYPES: Final = {
    "str": "TEXT NOT NULL",
    "bytes": "BLOB NOT NULL",
    "int": "INTEGER NOT NULL",
    "big int": "TEXT NOT NULL",
    "float": "REAL",
    "float | None": "REAL",
}


def _definition(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} {_TYPES[kind]}" for name, kind in columns.items())


SCHEMA: Final = {
    "runs": (
        f"CREATE TABLE runs (number INTEGER PRIMARY KEY, {_definition(RUN_COLUMNS)},"
        " seal BLOB NOT NULL)"
    ),
    "solves": (
        f"CREATE TABLE solves (number INTEGER PRIMARY KEY, {_definition(SOLVE_COLUMNS)},"
        " seal BLOB NOT NULL, theta BLOB)"
    ),
    "runs_by_identity": "CREATE UNIQUE INDEX runs_by_identity ON runs (identity)",
    "solves_by_key": "CREATE INDEX solves_by_key ON solves (key)",
    "solves_by_run": "CREATE INDEX solves_by_run ON solves (run, step, place)",
}
RUN: Final = ", ".join([*RUN_COLUMNS, SEAL])
SOLVE: Final = ", ".join([*SOLVE_COLUMNS, SEAL])
SAVE: Final = (
    f"INSERT INTO runs ({RUN}, number) VALUES ({', '.join('?' * (len(RUN_COLUMNS) + 2))})"
    " ON CONFLICT (number) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in [*RUN_COLUMNS, SEAL])
)
ADD: Final = (
    f"INSERT INTO solves ({SOLVE}, theta) VALUES ({', '.join('?' * (len(SOLVE_COLUMNS) + 2))})"
    " RETURNING number"
)
JUDGE: Final = "UPDATE solves SET judged = ?, loss = ?, seal = ? WHERE number = ?"
INDEX: Final = (
    "SELECT number, step, place, key FROM solves WHERE run = ? ORDER BY step, place, number"
)
OTHERS: Final = (
    "SELECT number FROM solves WHERE key = ? AND run <> ? AND status = 'ok' AND LENGTH(source) = 0"
    " ORDER BY number"
)
STAMP: Final = (
    "SELECT (SELECT MAX(number) FROM solves), (SELECT COUNT(*) FROM solves WHERE judged <> ''),"
    " (SELECT MAX(updated) FROM runs)"
)
FIND: Final = "SELECT number, created FROM runs WHERE identity = ?"
NEXT_RUN: Final = "SELECT COALESCE(MAX(number), 0) + 1 FROM runs"
DROP: Final = "DELETE FROM solves WHERE number = ?"


def unless_there(statement: str) -> str:
    """A statement of a schema that does nothing where it was said before."""
    for what in ("TABLE", "UNIQUE INDEX", "INDEX"):
        if statement.startswith(f"CREATE {what} "):
            return statement.replace(what, f"{what} IF NOT EXISTS", 1)
    return statement


def runs_with(columns: Iterable[str]) -> str:
    """What reads the runs that have the values asked for in some columns."""
    condition = " AND ".join(f"{name} = ?" for name in columns) or "TRUE"
    return f"SELECT number, {RUN} FROM runs WHERE {condition} ORDER BY number"


def read(count: int, *, with_theta: bool) -> str:
    """What reads some solves by number."""
    theta = "theta" if with_theta else "NULL"
    places = ", ".join("?" * count)
    return f"SELECT number, {theta}, {SOLVE} FROM solves WHERE number IN ({places})"
