"""What people ask a store: which runs it holds, what one of them found, all its solves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.problem.space import Space
from zo_bilevel.problem.space_text import space_from_text
from zo_bilevel.run.final_point import Verdict, chosen
from zo_bilevel.run.ledger import CONFIRM_ROLE
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.store.arrays import unpack_array
from zo_bilevel.store.store import Store
from zo_bilevel.support.errors import InputError, StoreError

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


@final
@dataclass(frozen=True, slots=True)
class Found:
    """What a run reports.

    Args:
        phi: Its final point by name.
        loss: Loss there.
        standard_error: Of the loss, when it is a mean over fresh solves.
    """

    phi: Mapping[str, Any]
    loss: float
    standard_error: float | None = None


def found_by(store: Store, run: Row) -> Found | None:
    """What a run reports; of one that has not ended, or failed, the lowest loss so far.

    Args:
        store: The open store.
        run: From `find_run`.

    Returns:
        The point that was chosen when the run ended. Stores of the schemas before 3 do not keep
        it: there it is chosen again, by the same rule. `None` when no solve is ok.

    Raises:
        StoreError: If a point is damaged.
    """
    space = space_from_text(run["space"])
    if run.get("point") is not None:
        error = run["standard_error"]
        is_of_one = error is not None and math.isinf(error)
        found = decoded(space, run["point"]), run["loss"]
        return Found(*found, math.nan if is_of_one else error)
    verdict = _verdict(store, run) if run["status"] in ("finished", "running") else None
    if verdict is not None:
        x = verdict.evaluation.point.x
        return Found(space.decode(x), verdict.loss, verdict.standard_error)
    rows = store.query(
        "SELECT loss, point FROM evaluations WHERE run = ? AND judged = 'ok' AND role <> 'confirm'"
        " ORDER BY loss, step, place LIMIT 1",
        (run["id"],),
    )
    return Found(decoded(space, rows[0]["point"]), rows[0]["loss"]) if rows else None


def _verdict(store: Store, run: Row) -> Verdict | None:
    """What the run's own fresh solves of its candidates say."""
    groups: dict[bytes, list[Evaluation]] = {}
    for row in store.query(
        "SELECT judged, loss, point FROM evaluations WHERE run = ?1 AND role = 'confirm'"
        " AND judged <> '' AND step = (SELECT MAX(step) FROM evaluations WHERE run = ?1 AND"
        " role = 'confirm' AND judged <> '') ORDER BY place, id",
        (run["id"],),
    ):
        point = Point(unpack_array(row["point"]), role=CONFIRM_ROLE)
        loss = math.inf if row["loss"] is None else row["loss"]
        solve = Evaluation(point, row["judged"], None, loss)
        groups.setdefault(row["point"], []).append(solve)
    return chosen(list(groups.values()))


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
        values = decoded(space, row["point"]).values()
        flat = [part for value in values for part in np.asarray(value, dtype=object).ravel()]
        yield [*(row[name] for name in FACTS), *flat]


def _columns(space: Space) -> list[str]:
    names = []
    for name, parameter in space.parameters.items():
        places = np.ndindex(*parameter.shape) if parameter.shape else [()]
        names += [f"{name}[{','.join(map(str, p))}]" if p else name for p in places]
    return names


def decoded(space: Space, point: bytes) -> dict[str, Any]:
    """A stored point by name.

    Args:
        space: Of its run.
        point: From `pack_array`.

    Raises:
        StoreError: If it is damaged or of another space.
    """
    x = unpack_array(point)
    if x.size != space.size:
        raise StoreError(f"a point in the store has {x.size} coordinates, its space {space.size}")
    return space.decode(x)
