"""The solves that a store holds of a problem, experiments put together again."""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, final

from zo_bilevel.problem.experiments import Experiments
from zo_bilevel.problem.parameters import Log, Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.space_text import space_from_text
from zo_bilevel.run.experiment_parts import ExperimentParts
from zo_bilevel.run.identity import solvers_of
from zo_bilevel.run.lifecycle import opened
from zo_bilevel.run.run_text import decoded
from zo_bilevel.solve.evaluation import CHEAP_ROLE, Outcome, Point
from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.store.arrays import outcome_of_solve, unpack_array
from zo_bilevel.store.records import StoredRun, StoredSolve
from zo_bilevel.store.solve_keys import SolveKeys
from zo_bilevel.support.errors import InputError, StoreError

Row: TypeAlias = tuple[Mapping[str, Any], Outcome]


def stored_rows(place: AbstractStore | str | os.PathLike[str], problem: Problem) -> Iterator[Row]:
    """The solves of all runs of a store whose inner solver has this problem's name and version.

    Raises:
        InputError: If there is no such store, or it holds other problems only.
    """
    path = "" if isinstance(place, AbstractStore) else os.fspath(place)
    if path and "://" not in path and not os.path.exists(path):
        raise InputError(f"known must be a store that exists, got {path!r}")
    with opened(place) as store:
        others, records = set(), list(store.records())
        for run in records:
            if (run.problem, run.version) == (str(problem.name), problem.version):
                yield from _rows_of(store, run, problem)
            else:
                others.add(f"{run.problem}, version {run.version}")
        if others and len(others) == len({(r.problem, r.version) for r in records}):
            raise InputError(
                f"known holds no solve of {problem.name}, version {problem.version}, but of "
                f"{'; '.join(sorted(others))}"
            )


def _rows_of(store: AbstractStore, run: StoredRun, problem: Problem) -> Iterator[Row]:
    space = space_from_text(run.space)
    parts = _Parts(problem, space) if isinstance(problem.inner, Experiments) else None
    for number, *_ in store.index(run.number):
        solve = store.read([number]).get(number)
        if solve is None or not _is_usable(solve):
            continue
        try:
            phi, outcome = decoded(space, solve.point), outcome_of_solve(solve)
        except StoreError:  # damaged
            continue
        whole = outcome if parts is None else parts.joined(solve, outcome)
        if whole is not None:
            yield phi, whole


def _is_usable(solve: StoredSolve) -> bool:
    is_ok = solve.status == "ok" and (solve.judged or "ok") == "ok"
    return is_ok and solve.role != CHEAP_ROLE


@final
class _Parts:
    """Puts the solves of experiments together, those whose conditions are what they were."""

    def __init__(self, problem: Problem, space: Space) -> None:
        self._size, self._problem = space.size, problem
        written = [_as_written(space, whole) for whole in (float, int)]
        solvers = [solvers_of(problem, tried) for tried in written]
        self._names = list(solvers[0])
        self._keys = [SolveKeys(problem, texts).key for texts in solvers]
        self._found: dict[bytes, dict[int, Outcome]] = {}

    def joined(self, solve: StoredSolve, outcome: Outcome) -> Outcome | None:
        """The whole solve, once all of its experiments were seen."""
        x = unpack_array(solve.point, self._size)
        for index, name in enumerate(self._names):
            point = Point(x, part=(name, index))
            if any(key(point, solve.seed) == solve.key for key in self._keys):
                found = self._found.setdefault(solve.point, {})
                found[index] = outcome
                if len(found) == len(self._names):
                    return ExperimentParts(self._problem).joined(found)[0]
        return None


def _as_written(space: Space, whole: type[float] | type[int]) -> Space:
    """The space with bounds that are whole numbers as `whole`: solves are kept under either."""

    def bound(value: float) -> float:
        return whole(value) if math.isfinite(value) and value == int(value) else value

    declared = {
        name: dataclasses.replace(p, lower=bound(p.lower), upper=bound(p.upper))
        if isinstance(p, Real | Log)
        else p
        for name, p in space.declared.items()
    }
    return Space(declared).placed(space.placements) if space.is_placed else Space(declared)
