"""What people ask a store: which runs it holds, what one of them found, all its solves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from zo_bilevel.errors import InputError, StoreError
from zo_bilevel.space import Space
from zo_bilevel.space_text import space_from_text
from zo_bilevel.store import Store
from zo_bilevel.stored_arrays import unpack_array

Row: TypeAlias = dict[str, Any]

FACTS = ("step", "place", "role", "status", "loss", "seconds", "cost", "seed", "worker", "error")
"""Columns of an export before those of the meta-parameters."""
MOST_NAMED = 5


def find_run(store: Store, run: int) -> Row:
    """One run with its number of solves and best loss.

    Args:
        store: The open store.
        run: Its number.

    Raises:
        InputError: If there is no such run, with the nearest numbers.
    """
    rows = store.runs()
    for row in rows:
        if row["id"] == run:
            return row
    if not rows:
        raise InputError(f"store {store.path} holds no runs")
    near = sorted(sorted(row["id"] for row in rows), key=lambda known: abs(known - run))
    named = ", ".join(str(known) for known in sorted(near[:MOST_NAMED]))
    raise InputError(
        f"store {store.path} has no run {run}; the nearest: {named} ({len(rows)} in all)"
    )


def command_of(run: Row) -> list[str]:
    """The command line that started a run; empty when Python did.

    Args:
        run: From `find_run`.

    Raises:
        StoreError: If it is damaged.
    """
    try:
        words = json.loads(run["command"])
    except ValueError as error:
        raise StoreError(f"the command of run {run['id']} is damaged: {error}") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise StoreError(f"the command of run {run['id']} is damaged: {words!r}")
    return words


def best_solve(store: Store, run: Row) -> tuple[Row, dict[str, Any]] | None:
    """The solve of lowest loss and its meta-parameters; `None` when none is ok.

    Args:
        store: The open store.
        run: From `find_run`.
    """
    rows = store.query(
        "SELECT step, place, loss, point FROM evaluations"
        " WHERE run = ? AND judged = 'ok' AND role <> 'confirm'"
        " ORDER BY loss, step, place LIMIT 1",
        (run["id"],),
    )
    if not rows:
        return None
    return rows[0], _decoded(space_from_text(run["space"]), rows[0]["point"])


def failures(store: Store, run: Row) -> list[Row]:
    """The failed solves of a run by status: `status`, `count`, and one `error`."""
    return store.query(
        "SELECT judged AS status, COUNT(*) AS count, MIN(error) AS error FROM evaluations"
        " WHERE run = ? AND judged NOT IN ('ok', '') GROUP BY judged ORDER BY count DESC",
        (run["id"],),
    )


def exported(store: Store, run: Row) -> Iterator[list[Any]]:
    """The solves of a run as rows of a table, in the order of the run, header first.

    Args:
        store: The open store.
        run: From `find_run`.

    Yields:
        The names of the columns; then per solve the facts and the meta-parameters, an array's
        numbers each in a column of its own.

    Raises:
        StoreError: If a row is damaged.
    """
    space = space_from_text(run["space"])
    yield [*FACTS, *_columns(space)]
    rows = store.query(
        "SELECT step, place, role, COALESCE(NULLIF(judged, ''), status) AS status, loss, seconds,"
        " cost, seed, worker, error, point FROM evaluations WHERE run = ? ORDER BY step, place, id",
        (run["id"],),
    )
    for row in rows:
        values = _decoded(space, row["point"]).values()
        flat = [part for value in values for part in np.asarray(value, dtype=object).ravel()]
        yield [*(row[name] for name in FACTS), *flat]


def _columns(space: Space) -> list[str]:
    names = []
    for name, parameter in space.parameters.items():
        places = np.ndindex(*parameter.shape) if parameter.shape else [()]
        names += [f"{name}[{','.join(map(str, p))}]" if p else name for p in places]
    return names


def _decoded(space: Space, point: bytes) -> dict[str, Any]:
    x = unpack_array(point)
    if x.size != space.size:
        raise StoreError(f"a point in the store has {x.size} coordinates, its space {space.size}")
    return space.decode(x)
