"""Which runs of a store may be compared: those of one problem, made under the same conditions.

Seeds differ, and starts may differ from seed to seed, as `compare` makes them; at one seed all
methods must have begun at the same point.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np

from zo_bilevel.comparison.stored_runs import Row, decoded
from zo_bilevel.problem.space_text import space_from_text
from zo_bilevel.support.tables import number

Runner: TypeAlias = tuple[str, ...]
"""A method and all its conditions but the start."""
SETTINGS = {
    "solves a run": "max_solves",
    "seconds a run": "max_seconds",
    "cost a run": "max_cost",
    "runs stop at loss": "tolerance",
    "round width": "round_width",
}
MOST_CHARACTERS = 60
"""What is longer is told by its number: a space, for instance."""


@final
@dataclass(frozen=True, slots=True)
class Group:
    """Runs that may be compared.

    Args:
        rows: The runs.
        differs: What is different in other groups of the same problem, and what it is here.
    """

    rows: tuple[Row, ...]
    differs: Mapping[str, str]

    @property
    def words(self) -> str:
        """What is different here, for a title; empty when there is no other group."""
        return "; ".join(f"{name} {value}" for name, value in self.differs.items())


def groups_of(rows: Sequence[Row]) -> list[Group]:
    """The runs of one problem in groups that may be compared.

    Args:
        rows: Runs as `Store.runs` gives them, the oldest first.

    Returns:
        Groups, in the order in which they were begun.

    Raises:
        StoreError: If the space or the start of a run is damaged.
    """
    conditions = [_conditions(row) for row in rows]
    runners = [(row["method"], *c.values()) for row, c in zip(rows, conditions, strict=True)]
    starts = _sets_of_starts(rows, runners)
    codes: dict[str, list[Hashable]] = {
        **{name: [found[name] for found in conditions] for name in conditions[0]},
        "start": [*starts],
    }
    groups: dict[tuple[Hashable, ...], list[int]] = {}
    for index, key in enumerate(zip(*codes.values(), strict=True)):
        groups.setdefault(key, []).append(index)
    labels = {name: _labels(code, code) for name, code in codes.items() if len(set(code)) > 1}
    if "start" in labels:
        labels["start"] = _labels(starts, _start_texts(rows, starts))
    return [
        Group(
            tuple(rows[index] for index in members),
            {name: found[codes[name][members[0]]] for name, found in labels.items()},
        )
        for members in groups.values()
    ]


def difference(problem: str, groups: Sequence[Group]) -> str:
    """Why not all runs of a problem are compared, in words; empty when all are.

    Args:
        problem: Its name.
        groups: From `groups_of`.
    """
    if len(groups) < 2:
        return ""
    values = {name: dict.fromkeys(g.differs[name] for g in groups) for name in groups[0].differs}
    found = ", ".join(f"{name} ({'; '.join(known)})" for name, known in values.items())
    return (
        f"The store holds runs of {problem} that differ in {found}. They are compared only where "
        "these are the same: no ranking follows between them."
    )


def _conditions(row: Row) -> dict[str, str]:
    """Everything but the start, as text."""
    settings = json.loads(row["settings"])
    limits = {name: settings.get(key) for name, key in SETTINGS.items()}
    return {
        **{name: "none" if limit is None else f"{limit:g}" for name, limit in limits.items()},
        "outer objective": row.get("objective") or "not known",
        "version": row["version"],
        "space": row["space"],
    }


def _sets_of_starts(rows: Sequence[Row], runners: Sequence[Runner]) -> list[int]:
    """For each run the number of its set of starts, one start for each seed.

    A run belongs to the set that has its start at its seed. A set grows by a further seed where
    the start is one that it has already, or a method of its goes on to that seed.
    """
    sets: list[_Starts] = []
    found = []
    for row, runner in zip(rows, runners, strict=True):
        seed, start = row["seed"], row.get("start")
        fits = [known.fit(seed, start, runner) for known in sets]
        if not any(fits):
            fits.append(1)
            sets.append(_Starts())
        found.append(int(np.argmax(fits)))
        sets[found[-1]].add(seed, start, runner)
    return found


@final
class _Starts:
    """Starts by seed, and who began there."""

    def __init__(self) -> None:
        self._by_seed: dict[int, bytes | None] = {}
        self._points: set[bytes | None] = set()
        self._runners: set[Runner] = set()

    def add(self, seed: int, start: bytes | None, runner: Runner) -> None:
        self._by_seed[seed] = start
        self._points.add(start)
        self._runners.add(runner)

    def fit(self, seed: int, start: bytes | None, runner: Runner) -> int:
        """How well a run fits in, the most first; 0 where it does not."""
        if seed in self._by_seed:
            return 3 if self._by_seed[seed] == start else 0
        return 2 if start in self._points else int(runner in self._runners)


def _start_texts(rows: Sequence[Row], starts: Sequence[int]) -> list[str]:
    points: dict[int, dict[bytes | None, Row]] = {}
    for row, which in zip(rows, starts, strict=True):
        points.setdefault(which, {})[row.get("start")] = row
    return [
        "another for each seed" if len(points[which]) > 1 else _start_text(row)
        for row, which in zip(rows, starts, strict=True)
    ]


def _start_text(row: Row) -> str:
    if row.get("start") is None:
        return "not known"
    phi = decoded(space_from_text(row["space"]), row["start"])
    shown = {n: number(v, 4) if isinstance(v, float) else str(v) for n, v in phi.items()}
    return ", ".join(f"{name}={' '.join(value.split())}" for name, value in shown.items())


def _labels(codes: Sequence[Hashable], texts: Sequence[object]) -> dict[Hashable, str]:
    """What codes are called: by their text where it is short and no other's, else by number."""
    known = dict(zip(codes, map(str, texts), strict=True))
    shown = list(known.values())
    is_clear = len(set(shown)) == len(shown) and max(map(len, shown)) <= MOST_CHARACTERS
    return {
        code: text if is_clear else str(place)
        for place, (code, text) in enumerate(known.items(), start=1)
    }
