"""Which runs of a store may be compared: those of one problem, made under the same conditions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from zo_bilevel.store.records import StoredRun
from zo_bilevel.support.errors import StoreError

MOST_CHARACTERS = 60
"""What is longer is told by its number: a space, for instance."""


@final
@dataclass(frozen=True, slots=True)
class Group:
    """Runs that may be compared.

    Args:
        runs: The runs.
        differs: What is different in other groups of the same problem, and what it is here.
    """

    runs: tuple[StoredRun, ...]
    differs: Mapping[str, str]

    @property
    def words(self) -> str:
        """What is different here, for a title; empty when there is no other group."""
        return "; ".join(f"{name} {value}" for name, value in self.differs.items())


def groups_of(runs: Sequence[StoredRun]) -> list[Group]:
    """The runs of one problem in groups that may be compared.

    Raises:
        StoreError: If the conditions of a run are damaged.
    """
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(run.conditions, []).append(run)
    conditions = [_conditions(members[0]) for members in groups.values()]
    names = dict.fromkeys(name for known in conditions for name in known)
    labels: list[dict[str, str]] = [{} for _ in groups]
    for name in names:
        found = [known.get(name, ("not known", "")) for known in conditions]
        if len({exact for _, exact in found}) > 1:
            for label, word in zip(labels, _labels(found), strict=True):
                label[name] = word
    return [
        Group(tuple(members), differs)
        for members, differs in zip(groups.values(), labels, strict=True)
    ]


def difference(problem: str, groups: Sequence[Group]) -> str:
    """Why not all runs of a problem are compared, in words; empty when all are."""
    if len(groups) < 2:
        return ""
    values = {name: dict.fromkeys(g.differs[name] for g in groups) for name in groups[0].differs}
    found = ", ".join(f"{name} ({'; '.join(known)})" for name, known in values.items())
    return (
        f"The store holds runs of {problem} that differ in {found}. They are compared only where "
        "these are the same: no ranking follows between them."
    )


def _conditions(run: StoredRun) -> dict[str, tuple[str, str]]:
    """By name, what a condition is in words, and a hash of what it is exactly."""
    try:
        pairs = json.loads(run.conditions).items()
        return {str(name): (str(words), str(exact)) for name, (words, exact) in pairs}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"the conditions of run {run.number} are damaged: {error}") from error


def _labels(found: Sequence[tuple[str, str]]) -> list[str]:
    """What conditions are called: their words where these are short and no other's, or a number."""
    known = dict.fromkeys(found)
    words = [text for text, _ in known]
    is_clear = len(set(words)) == len(words) and max(map(len, words)) <= MOST_CHARACTERS
    numbers = {pair: str(place) for place, pair in enumerate(known, start=1)}
    return [pair[0] if is_clear else numbers[pair] for pair in found]
