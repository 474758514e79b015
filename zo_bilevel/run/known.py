"""Solves that were made before, by whomever: none is made again, and a search begins with them."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.problem.content import content_digest
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.space_values import checked
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.run.identity import Initial, start_at
from zo_bilevel.run.known_store import stored_rows
from zo_bilevel.run.outcome_judge import FREE
from zo_bilevel.run.result import Result
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import CHEAP_ROLE, Evaluation, Outcome, Point
from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.support.errors import InputError, ZoBilevelError

Known: TypeAlias = Any
"""A result, a store or its file, a `DataFrame`, or pairs of phi and theta."""
Row: TypeAlias = tuple[Mapping[str, Any], Outcome]
THETA = "theta"
"""The column of a table that holds inner solutions."""


@final
class KnownSolves:
    """Solves of other runs or of no run at all, that fit a problem.

    Args:
        known: A result, a store or its file, whose solves count where names and bounds fit; a
            table of pandas with a column for each parameter ("a", "field[3]") and one "theta"; or
            pairs of named values and an inner solution. Of a problem with a fidelity those of the
            full level.
        problem: The problem.

    Raises:
        InputError: If it is none of them, a row given by hand does not fit the parameters, or no
            row fits.
    """

    def __init__(self, known: Known, problem: Problem) -> None:
        self._space, self._fidelity = problem.space, problem.fidelity
        self.rows: list[tuple[dict[str, Any], Outcome]] = []
        why = "it is empty"
        is_by_hand = not isinstance(known, Result | AbstractStore | str | os.PathLike)
        for number, (phi, outcome) in enumerate(_rows(known, problem)):
            try:
                self.rows.append((_free_values(problem.space, self._exact(phi)), outcome))
            except InputError as error:
                if is_by_hand:
                    raise InputError(f"known row {number}: {error}") from error
                why = str(error)
        if not self.rows:
            raise InputError(f"known holds no solve that fits the parameters: {why}")
        self._places = {_key(phi): place for place, (phi, _) in enumerate(self.rows)}
        self._given: set[int] = set()

    def _exact(self, phi: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values without the level, which has to be the full one."""
        if self._fidelity is None or self._fidelity.name not in phi:
            return phi
        name, full = self._fidelity.name, self._fidelity.full
        if phi[name] != full:
            raise InputError(f"{name} must be {full}, the full level, got {phi[name]}")
        return {other: value for other, value in phi.items() if other != name}

    @property
    def digest(self) -> str:
        """A hash of all rows, a part of what a run is."""
        facts = [(phi, outcome.theta) for phi, outcome in self.rows]
        return content_digest(facts).hex()

    def best(self, problem: Problem) -> dict[str, Any]:
        """The values of lowest loss, as the problem sees it now.

        Raises:
            InputError: If no inner solution fits the outer objective.
        """
        losses = []
        for phi, outcome in self.rows:
            try:
                losses.append(_loss(problem, phi, outcome))
            except (ZoBilevelError, ValueError, ArithmeticError) as error:
                losses.append(np.inf)
                why = str(error)
        if not np.isfinite(losses).any():
            raise InputError(f"known holds no solve that fits the outer objective: {why}")
        return self.rows[int(np.argmin(losses))][0]

    def _also_at(self, place: int, phi: Mapping[str, Any]) -> None:
        """Let a row be found under values that differ from its own by rounding."""
        self._places.setdefault(_key({name: phi[name] for name in self._space.parameters}), place)

    def find(self, phi: Mapping[str, Any]) -> Outcome | None:
        """The answer to exactly these values; free the first time, so that no search is endless."""
        place = self._places.get(_key({name: phi[name] for name in self._space.parameters}))
        is_cheap = self._fidelity is not None and phi[self._fidelity.name] != self._fidelity.full
        if place is None or is_cheap:
            return None
        worker = "" if place in self._given else FREE
        self._given.add(place)
        return dataclasses.replace(self.rows[place][1], seconds=0.0, cost=0.0, worker=worker)

    def evaluations(self, problem: Problem, seed: int) -> tuple[Evaluation, ...]:
        """The rows as a run sees them that searches this problem."""
        evaluator, found = Evaluator(problem, Serial(), seed), []
        for place, (phi, outcome) in enumerate(self.rows):
            try:
                x = problem.space.encode(phi)
            except InputError:  # further away than is searched
                continue
            self._also_at(place, problem.space.decode(x))
            found.append(evaluator.judge(Point(x, role="known"), outcome))
        return tuple(evaluation for evaluation in found if evaluation.ok)


@final
@dataclasses.dataclass(frozen=True, slots=True)
class WarmStart:
    """Where a run begins, and what it knows by then.

    Args:
        problem: In the coordinates of the run.
        initial: The start as it was given, or the best point known.
        start: The same by name.
        solves: Made before, that stand in for others; `None` for an inner solver that takes a
            seed, of which they tell the start only.
        evaluations: The same as the problem sees them.
        digest: Of what was known; empty without.
    """

    problem: Problem
    initial: Initial
    start: Mapping[str, Any] | None
    solves: KnownSolves | None = None
    evaluations: tuple[Evaluation, ...] = ()
    digest: str = ""


def warm_start(problem: Problem, initial: Initial, known: Known, seed: int) -> WarmStart:
    """Begin at a given start, or else at the best point known.

    Raises:
        InputError: If the start or what is known does not fit the problem.
    """
    start = start_at(initial, seed)
    if known is None:
        return WarmStart(problem.placed_at(start), initial, start)
    solves = KnownSolves(known, problem)
    best = solves.best(problem)
    start = best if start is None else start
    problem = problem.placed_at(start)
    warm = WarmStart(problem, start, start, digest=solves.digest)
    if takes_seed(problem.inner):
        return warm
    evaluations = solves.evaluations(problem, seed)
    return dataclasses.replace(warm, solves=solves, evaluations=evaluations)


def _key(free: Mapping[str, Any]) -> bytes:
    return content_digest(list(free.values()))


def _free_values(space: Space, phi: Mapping[str, Any]) -> dict[str, Any]:
    """The free values as the solver is given them; `InputError` where they do not fit."""
    missing = [name for name in space.parameters if name not in phi]
    if missing:
        raise InputError(f"it has no value of {', '.join(missing)}")
    space.placed_at(phi).encode(phi)  # names, and what fixed and tied ones must be
    return {name: checked(name, p, phi[name]) for name, p in space.parameters.items()}


def _loss(problem: Problem, phi: Mapping[str, Any], outcome: Outcome) -> float:
    theta, layout = outcome.theta, outcome.layout
    if theta is None or layout is None:
        return np.inf
    placed = problem.placed_at(phi)
    x = placed.space.encode(phi)
    return placed.bind(theta, layout, x).value(theta, x)


def _rows(known: Known, problem: Problem) -> Iterator[Row]:
    if isinstance(known, Result):
        ended = (r for r in known.history if r.status == "ok" and r.role != CHEAP_ROLE)
        pairs = ((r.phi, r.theta) for r in ended if r.phi and not r.error)
        return _answered((phi, theta) for phi, theta in pairs if theta is not None)
    if isinstance(known, AbstractStore | str | os.PathLike):
        return stored_rows(known, problem)
    if hasattr(known, "columns") and hasattr(known, "to_dict"):
        return _answered(_of_table(known, problem.space))
    if isinstance(known, Sequence):
        return _answered(known)
    raise InputError(
        "known must be a result, a store, a DataFrame or pairs of phi and theta, got "
        f"{type(known).__name__}"
    )


def _answered(pairs: Iterable[Any]) -> Iterator[Row]:
    for number, pair in enumerate(pairs):
        if not isinstance(pair, Sequence) or len(pair) != 2 or not isinstance(pair[0], Mapping):
            raise InputError(f"known row {number} must be a pair of phi, a dict, and theta")
        try:
            theta, layout = flatten_theta(pair[1])
        except (TypeError, ValueError) as error:
            raise InputError(f"known row {number}: {error}") from error
        if not np.isfinite(theta).all():
            raise InputError(f"known row {number}: theta must be finite, got {pair[1]!r}")
        yield pair[0], Outcome("ok", theta, layout)


def _of_table(table: Any, space: Space) -> Iterator[tuple[dict[str, Any], Any]]:  # noqa: ANN401
    """Named values and inner solution of each row of a `DataFrame`."""
    if THETA not in table.columns:
        raise InputError(f"known must have a column {THETA!r} of inner solutions")
    for record in table.to_dict("records"):
        is_ok = record.get("status", "ok") == "ok" and not record.get("error")
        if not is_ok or record.get("role") == CHEAP_ROLE or record[THETA] is None:
            continue
        phi: dict[str, Any] = {}
        for name, parameter in space.parameters.items():
            if parameter.shape and name not in record:
                places = [f"{name}[{', '.join(map(str, p))}]" for p in np.ndindex(parameter.shape)]
                if all(place in record for place in places):
                    flat = [record[place] for place in places]
                    phi[name] = np.array(flat).reshape(parameter.shape)
            elif name in record:
                phi[name] = record[name]
        yield phi, record[THETA]
