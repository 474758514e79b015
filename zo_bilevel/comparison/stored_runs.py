"""What people ask a store: what one of its runs found, and all its solves."""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from zo_bilevel.comparison.columns import apart_from
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.space_text import space_from_text
from zo_bilevel.run.run_text import decoded, run_from_text, run_to_text, single_values
from zo_bilevel.run.runs import Improvement, Run
from zo_bilevel.solve.evaluation import NEVER_BEST
from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.store.recorder import SPENT
from zo_bilevel.store.records import StoredRun, StoredSolve
from zo_bilevel.support.errors import StoreError

FACTS = ("step", "place", "role", "status", "loss", "seconds", "cost", "seed", "worker", "error")
"""Columns of an export before those of the meta-parameters."""


def command_of(run: StoredRun) -> list[str]:
    """The command line that started a run; empty when Python did; `StoreError` if it is damaged."""
    words = json_of(run, "command", list)
    if not all(isinstance(word, str) for word in words):
        raise StoreError(f"the command of run {run.number} is damaged: {words!r}")
    return [str(word) for word in words]


WORDS = ("stop rules", "known", SPENT)
"""Settings that are no limits."""


def settings_of(run: StoredRun) -> dict[str, int | float]:
    """The limits of a run by name, those that it had; `StoreError` if they are damaged."""
    given = json_of(run, "settings", dict)
    found = {
        name: value
        for name, value in given.items()
        if value is not None and value is not False and name not in WORDS
    }
    if any(type(value) not in (int, float, bool) for value in found.values()):
        raise StoreError(f"the settings of run {run.number} are damaged: {given!r}")
    return found


def json_of(run: StoredRun, name: str, kind: type) -> Any:  # noqa: ANN401 - of that kind
    """A column that holds JSON; `StoreError` if it is damaged."""
    try:
        found = json.loads(getattr(run, name))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"the {name} of run {run.number} is damaged: {error}") from error
    if not isinstance(found, kind):
        raise StoreError(f"the {name} of run {run.number} is damaged: {found!r}")
    return found


def found_by(store: AbstractStore, run: StoredRun) -> Run:
    """What a run found, as it was when it ended; of one that has not, what it has so far.

    Raises:
        StoreError: If it is damaged.
    """
    store.check_run(run)
    return run_from_text(run) if run.found else _so_far(store, run)


def _so_far(store: AbstractStore, run: StoredRun) -> Run:
    """A run that is still at it, or was killed; its seconds are those of its solves."""
    space = space_from_text(run.space)
    steps: list[Improvement] = []
    failures: dict[str, int] = {}
    solves, seconds, cost, phi, rounds = 0, 0.0, 0.0, {}, set()
    for solve in store.solves(run):
        if not solve.judged:
            continue
        solves, seconds, cost = solves + solve.charge, seconds + solve.seconds, cost + solve.cost
        rounds.add(solve.step)
        if solve.judged != "ok":
            failures[solve.judged] = failures.get(solve.judged, 0) + 1
        elif solve.role in NEVER_BEST:
            continue
        elif _loss(solve) < (steps[-1].loss if steps else math.inf):
            phi = decoded(space, solve.point)
            values = single_values(space, phi)
            steps.append(Improvement(solves, len(rounds), seconds, _loss(solve), values=values))
    return Run(
        method=run.method,
        seed=run.seed,
        loss=steps[-1].loss if steps else math.inf,
        solves=solves,
        rounds=len(rounds),
        seconds=seconds,
        cost=cost,
        stop_reason=run.status,
        failures=failures,
        phi=phi,
        improvements=tuple(steps),
    )


def _loss(solve: StoredSolve) -> float:
    return math.inf if solve.loss is None else solve.loss


def keep(store: AbstractStore, stored: StoredRun | None, run: Run) -> None:
    """Write a run as it was judged after its end."""
    if stored is not None and stored.found:
        store.save(dataclasses.replace(stored, found=run_to_text(run)))


def quoted_failures(store: AbstractStore, run: StoredRun) -> dict[str, str]:
    """One message for each kind of failed solve of a run; `StoreError` if a solve is damaged."""
    failed = (solve for solve in store.solves(run) if solve.judged not in ("", "ok"))
    return {solve.judged: solve.error for solve in failed}


def exported(store: AbstractStore, run: StoredRun) -> Iterator[list[Any]]:
    """The solves of a run as rows of a table, in the order of the run, header first.

    Yields:
        The names of the columns; then per solve the facts and the meta-parameters, an array's
        numbers each in a column of its own.

    Raises:
        StoreError: If a solve is damaged or gone.
    """
    space = space_from_text(run.space)
    yield [*FACTS, *apart_from(FACTS, _columns(space))]
    for solve in store.solves(run):
        values = decoded(space, solve.point).values()
        flat = [part for value in values for part in np.asarray(value, dtype=object).ravel()]
        facts = {name: getattr(solve, name) for name in FACTS}
        facts["status"] = solve.judged or solve.status
        yield [*facts.values(), *flat]


def _columns(space: Space) -> list[str]:
    names = []
    for name, shape in space.shapes.items():
        places = np.ndindex(*shape) if shape else [()]
        names += [f"{name}[{','.join(map(str, p))}]" if p else name for p in places]
    return names
