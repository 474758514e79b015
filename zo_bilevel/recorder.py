"""One run's view of the store: finds what is already solved, writes what is new.

A stored answer stands in for a solve only when the inner solver (name and version), the point
and the seed are the same. The n-th request of a run for one key is answered by the n-th stored
row, the run's own rows first, so that a resumed run sees the numbers it saw before, even when
the inner solver draws random numbers of its own. Failures are taken over only from the run itself.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.evaluation import Evaluation, Outcome, Point
from zo_bilevel.problem import Problem
from zo_bilevel.store import (
    LARGE_THETA_BYTES,
    Store,
    explained,
    layout_to_json,
    outcome_from_row,
    pack_array,
    with_derivative,
    write_theta_file,
)

FloatArray: TypeAlias = NDArray[np.float64]

_FIND = (
    "SELECT status, seconds, cost, worker, error, layout, theta, theta_file, id FROM evaluations"
    " WHERE key = ? AND (run = ? OR status = 'ok') ORDER BY run <> ?, id LIMIT 1 OFFSET ?"
)
_COLUMNS = ("status", "seconds", "cost", "worker", "error", "layout", "theta", "theta_file", "id")


def run_identity(
    problem: Problem, method: str, seed: int, start: FloatArray, round_width: int
) -> str:
    """What makes two runs the same run: everything but the budget and the machine.

    Args:
        problem: The problem.
        method: Name of the method.
        seed: Seed of the run.
        start: Scaled start, shape `(N,)`.
        round_width: Solves a round.

    Returns:
        A hash as text.
    """
    parts = [
        problem.name,
        problem.version,
        repr(problem.space),
        str(problem.is_scalar),
        method,
        str(seed),
        start.tobytes().hex(),
        str(round_width),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


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
        prefix = f"{problem.name}\0{problem.version}\0{problem.space!r}\0"
        self._digest = hashlib.sha256(prefix.encode())
        self._asked: Counter[bytes] = Counter()
        self._rows: dict[int, int] = {}
        self.replayed = 0

    def _key(self, point: Point, seed: int) -> bytes:
        digest = self._digest.copy()
        digest.update(str(seed).encode())
        digest.update(np.ascontiguousarray(point.x, dtype="<f8").tobytes())
        if point.derivative is not None:
            digest.update(b"\0derivative\0" + point.derivative.key())
        return digest.digest()

    def find(self, point: Point, seed: int) -> Outcome | None:
        """Look for a stored answer.

        Args:
            point: The point.
            seed: Seed of the solve.

        Returns:
            The outcome, or `None` when it has to be solved.
        """
        key = self._key(point, seed)
        turn = self._asked[key]
        self._asked[key] += 1
        with explained(self.store.path, "read"):
            row = self.store.connection.execute(_FIND, (key, self.run, self.run, turn)).fetchone()
        if row is None:
            return None
        self.replayed += 1
        found = dict(zip(_COLUMNS, row, strict=True))
        return outcome_from_row(self.store.path, found)

    def add(self, step: int, place: int, point: Point, seed: int, outcome: Outcome) -> None:
        """Write one finished solve; it is on disk when this returns.

        Args:
            step: Round, from 1.
            place: Place in the round.
            point: The point.
            seed: Seed of the solve.
            outcome: How it ended.

        Raises:
            StoreError: If it cannot be written; what was written before stays.
        """
        data = None if outcome.theta is None else pack_array(with_derivative(outcome))
        theta_file = None
        with explained(self.store.path, "write to"):
            if data is not None and len(data) > LARGE_THETA_BYTES:
                theta_file = write_theta_file(self.store.path, data)
                data = None
            cursor = self.store.connection.execute(
                "INSERT INTO evaluations (run, step, place, key, point, seed, role, status,"
                " seconds, cost, worker, error, layout, theta, theta_file)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    self.run,
                    step,
                    place,
                    self._key(point, seed),
                    pack_array(point.x),
                    seed,
                    point.role,
                    outcome.status,
                    outcome.seconds,
                    outcome.cost,
                    outcome.worker,
                    outcome.error,
                    None if outcome.layout is None else layout_to_json(outcome.layout),
                    data,
                    theta_file,
                ),
            )
        self._rows[place] = int(cursor.lastrowid or 0)

    def judged(self, evaluations: Mapping[int, Evaluation]) -> None:
        """Add the loss and the final status of the round's new rows, for people to read.

        Args:
            evaluations: By place in the round.
        """
        updates = [
            (evaluations[place].status, _finite(evaluations[place].loss), row)
            for place, row in self._rows.items()
        ]
        self._rows.clear()
        if not updates:
            return
        connection = self.store.connection
        with explained(self.store.path, "write to"):
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(
                    "UPDATE evaluations SET judged = ?, loss = ? WHERE id = ?", updates
                )
            finally:
                connection.execute("COMMIT")

    def end(self, status: str, stop_reason: str) -> None:
        """Note how the run ended: "finished", "interrupted" or "failed", and why."""
        self.store.end_run(self.run, status, stop_reason)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def open_recorder(
    store: Store,
    problem: Problem,
    method: str,
    seed: int,
    start: FloatArray,
    settings: dict[str, Any],
    command: Sequence[str] | None = None,
) -> Recorder:
    """Open the run that these arguments name, new or to be resumed.

    Args:
        store: The open store.
        problem: The problem.
        method: Name of the method.
        seed: Seed of the run.
        start: Scaled start, shape `(N,)`.
        settings: Budget and round width, shown by `zo-bilevel show`.
        command: Command line that repeats the run, or `None`.

    Returns:
        The run's recorder.
    """
    width = int(settings.get("round_width", 1))
    facts = {
        "problem": problem.name,
        "version": problem.version,
        "method": method,
        "seed": seed,
        "space": repr(problem.space),
    }
    identity = run_identity(problem, method, seed, start, width)
    run = store.begin_run(identity, facts, settings, command or [])
    return Recorder(store, problem, run)
