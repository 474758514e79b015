"""One run's view of the store: finds what is already solved, writes what is new.

A stored answer stands in for a solve only when the inner solver (name and version), the point
and the seed are the same, and what is derived from them too: the directions of a derivative, and
the outer objective of a gradient that was pulled back. The n-th request of a run for one key is
answered by the run's own n-th row, so that a resumed run sees the numbers it saw before, even when
the inner solver draws random numbers of its own. A solve taken over from another run gets a row
that names its source, for the same reason. Failures are taken over only from the run itself.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias, final

import cloudpickle
import numpy as np

from zo_bilevel.problem.problem import Problem
from zo_bilevel.solve.evaluation import Evaluation, Outcome, Point
from zo_bilevel.store.arrays import (
    LARGE_THETA_BYTES,
    LITTLE_ENDIAN,
    layout_to_json,
    outcome_from_row,
    pack_array,
    with_derivative,
    write_theta_file,
)
from zo_bilevel.store.store import Store, explained
from zo_bilevel.support.arrays import FloatArray

Found: TypeAlias = tuple[FloatArray, float, float | None]
"""The final point, scaled, its loss, and its standard error where it was solved again."""

PATIENCE_S = 0.2
"""Losses are written along with the next solve, or at once when solves are slower than this."""
ROWS_AHEAD = 32
"""A replay asks for its rows nearly in their order: reading some at once saves most of the time."""
# the plus sign keeps SQLite from sorting all rows of the run by another index
_OWN = (
    "SELECT e.status, e.seconds, e.cost, e.worker, e.error, d.layout, d.theta, d.theta_file,"
    " e.judged, e.id FROM evaluations e JOIN evaluations d ON d.id = COALESCE(e.source, e.id)"
    " WHERE e.id >= ? AND +e.run = ? ORDER BY e.id LIMIT ?"
)
_OTHERS = (
    "SELECT status, seconds, cost, worker, error, layout, theta, theta_file, id FROM evaluations"
    " WHERE key = ?1 AND run <> ?2 AND status = 'ok' AND source IS NULL AND id NOT IN"
    " (SELECT source FROM evaluations WHERE key = ?1 AND run = ?2 AND source IS NOT NULL)"
    " ORDER BY id LIMIT 1"
)
_COLUMNS = ("status", "seconds", "cost", "worker", "error", "layout", "theta", "theta_file", "last")
_ADD = (
    "INSERT INTO evaluations (run, step, place, key, point, seed, role, status, seconds, cost,"
    " worker, error, layout, theta, theta_file, source) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_JUDGE = "UPDATE evaluations SET judged = ?, loss = ? WHERE id = ?"
_FORGET = "UPDATE evaluations SET judged = '', loss = NULL WHERE id = ?"


@final
class Recorder:
    """Reads and writes one run.

    Args:
        store: The open store.
        problem: Gives the inner solver's name and version.
        run: The run's number.
    """

    def __init__(self, store: Store, problem: Problem, run: int) -> None:
        self.store = store
        self.run = run
        self.replayed = 0
        prefix = f"{problem.name}\0{problem.version}\0{problem.space!r}\0"
        self._digest = hashlib.sha256(prefix.encode())
        self._outer = problem.outer
        self._outer_digest = b""
        self._own = self._own_rows()
        self._ahead: dict[int, tuple[Any, ...]] = {}
        self._keys: dict[int, bytes] = {}
        self._unjudged: dict[int, int] = {}
        self._losses: list[tuple[str, float | None, int]] = []
        self._written = time.monotonic()

    def _own_rows(self) -> dict[bytes, deque[int]]:
        """Rows of this run by key, in the order in which they were asked for."""
        found: dict[bytes, deque[int]] = {}
        with explained(self.store.path, "read"):
            for key, row in self.store.connection.execute(
                "SELECT key, id FROM evaluations WHERE run = ? ORDER BY step, place, id",
                (self.run,),
            ):
                found.setdefault(key, deque()).append(row)
        return found

    def _key(self, point: Point, seed: int) -> bytes:
        digest = self._digest.copy()
        digest.update(str(seed).encode())
        digest.update(np.ascontiguousarray(point.x, LITTLE_ENDIAN).tobytes())
        if point.derivative is not None:
            digest.update(b"\0derivative\0" + point.derivative.key())
            if point.derivative.uses_outer:
                digest.update(self._objective())
        return digest.digest()

    def _objective(self) -> bytes:
        """Tells outer objectives apart; at worst the same one looks different, and is solved."""
        if not self._outer_digest:
            self._outer_digest = hashlib.sha256(cloudpickle.dumps(self._outer)).digest()
        return self._outer_digest

    def find(self, step: int, place: int, point: Point, seed: int) -> Outcome | None:
        """Look for a stored answer.

        Args:
            step: Round, from 1.
            place: Place in the round.
            point: The point.
            seed: Seed of the solve.

        Returns:
            The outcome, or `None` when it has to be solved.
        """
        key = self._keys[place] = self._key(point, seed)
        own = self._own.get(key)
        number = own.popleft() if own else 0
        row = self._own_row(number) if number else self._row_of_others(key)
        if row is None:
            return None
        found = dict(zip(_COLUMNS, row, strict=True))
        self.replayed += 1
        outcome = outcome_from_row(self.store.path, found)
        if not number:
            self._write((step, place, point, seed), outcome, source=found["last"])
        elif not found["last"]:  # killed between the solve and its judgement
            self._unjudged[place] = number
        return outcome

    def _own_row(self, number: int) -> tuple[Any, ...] | None:
        if number not in self._ahead:
            if len(self._ahead) > 4 * ROWS_AHEAD:
                self._ahead.clear()
            with explained(self.store.path, "read"):
                rows = self.store.connection.execute(_OWN, (number, self.run, ROWS_AHEAD))
                self._ahead.update((row[-1], row[:-1]) for row in rows)
        return self._ahead.pop(number, None)

    def _row_of_others(self, key: bytes) -> tuple[Any, ...] | None:
        with explained(self.store.path, "read"):
            cursor = self.store.connection.execute(_OTHERS, (key, self.run))
            row: tuple[Any, ...] | None = cursor.fetchone()
        return row

    def add(self, step: int, place: int, point: Point, seed: int, outcome: Outcome) -> None:
        """Write one finished solve that `find` did not have; it is on disk when this returns.

        Args:
            step: Round, from 1.
            place: Place in the round.
            point: The point.
            seed: Seed of the solve.
            outcome: How it ended.

        Raises:
            StoreError: If it cannot be written; what was written before stays.
        """
        self._write((step, place, point, seed), outcome)

    def _write(
        self, what: tuple[int, int, Point, int], outcome: Outcome, source: int | None = None
    ) -> None:
        step, place, point, seed = what
        layout = data = theta_file = None
        with explained(self.store.path, "write to"):
            theta = with_derivative(outcome) if source is None else None
            if theta is not None:
                data = pack_array(theta)
            if data is not None and len(data) > LARGE_THETA_BYTES:
                theta_file, data = write_theta_file(self.store.path, data), None
            if outcome.layout is not None and source is None:
                shape = None if outcome.derivative is None else outcome.derivative.shape
                layout = layout_to_json(outcome.layout, shape)
            values = (
                *(self.run, step, place, self._keys[place], pack_array(point.x), seed, point.role),
                *(outcome.status, outcome.seconds, outcome.cost, outcome.worker, outcome.error),
                *(layout, data, theta_file, source),
            )
            with self._one_transaction() as connection:
                self._unjudged[place] = int(connection.execute(_ADD, values).lastrowid or 0)

    @contextmanager
    def _one_transaction(self) -> Iterator[sqlite3.Connection]:
        """Write the losses that wait, and whatever the block writes, at the price of one."""
        connection = self.store.connection
        self._written = time.monotonic()
        if not self._losses:
            yield connection
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(_JUDGE, self._losses)
            yield connection
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        except BaseException:
            connection.execute("COMMIT")  # Ctrl-C: what is written by now is right
            raise
        connection.execute("COMMIT")
        self._losses.clear()

    def judged(self, evaluations: Mapping[int, Evaluation]) -> None:
        """Add the loss and the final status of the round's new rows, for people to read.

        Args:
            evaluations: By place in the round.
        """
        self._losses += [
            (evaluations[place].status, _finite(evaluations[place].loss), row)
            for place, row in self._unjudged.items()
            if place in evaluations
        ]
        self._unjudged.clear()
        self._keys.clear()
        if time.monotonic() - self._written > PATIENCE_S:
            self._flush()

    def _flush(self) -> None:
        if self._losses:
            with explained(self.store.path, "write to"), self._one_transaction():
                pass

    def end(self, status: str, stop_reason: str, found: Found | None = None) -> None:
        """Note how the run ended.

        Args:
            status: As in `Store.end_run`.
            stop_reason: Why, in words.
            found: The point, its loss and standard error, if it came to that. Solves of an
                earlier and longer run that it did not ask for are then no longer judged: they
                are kept, but no part of it.
        """
        self._flush()
        if found is None:
            self.store.end_run(self.run, status, stop_reason)
            return
        unused = [(row,) for rows in self._own.values() for row in rows]
        if unused:
            with explained(self.store.path, "write to"):
                self.store.connection.executemany(_FORGET, unused)
        x, loss, standard_error = found
        stored = pack_array(x), loss, _storable(standard_error)
        self.store.end_run(self.run, status, stop_reason, stored)


def _storable(standard_error: float | None) -> float | None:
    """Of a mean of one solve it is NaN, which SQLite would take for nothing: infinity instead."""
    return math.inf if standard_error is not None and math.isnan(standard_error) else standard_error


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
