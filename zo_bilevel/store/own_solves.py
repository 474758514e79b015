"""What a run stored before, given out again in the places where it was asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final, final

from zo_bilevel.store.abstract import ROWS_AT_ONCE, AbstractStore
from zo_bilevel.store.records import StoredSolve

ROWS_AHEAD: Final = 32
"""A replay asks for its solves nearly in order: reading some at once saves most of the time."""


@final
class OwnSolves:
    """What the run stored before, each given out once.

    Attributes:
        damaged: Numbers of solves to drop.
        arrivals: Place of the first solve of each step.
        places: Step and place of each solve.
    """

    def __init__(self, store: AbstractStore, run: int) -> None:
        self.damaged: list[int] = []
        self._store, self._run = store, run
        self._order: list[int] = []
        self._rank: dict[int, int] = {}
        self._free: dict[bytes, dict[tuple[int, int], int]] = {}
        self._ahead: dict[int, StoredSolve] = {}
        self.arrivals: dict[int, int] = {}
        self.places: set[tuple[int, int]] = set()
        for number, step, place, key in store.index(run):
            self._rank[number] = len(self._order)
            self.arrivals.setdefault(step, place)
            self.places.add((step, place))
            self._order.append(number)
            if self._free.setdefault(key, {}).setdefault((step, place), number) != number:
                self.damaged.append(number)  # there twice

    def take(self, step: int, place: int, key: bytes) -> StoredSolve | None:
        """The solve of that place, or the oldest one under the key that is not yet used."""
        free = self._free.get(key)
        if not free:
            return None
        at = (step, place)
        if at not in free:
            if self.damaged:
                return None  # the numbers of later places must not move up
            at = next(iter(free))
        number = free.pop(at)
        solve = self._read(number)
        if solve is None or not solve.is_at(self._run, *at, key):
            self.damaged.append(number)
            return None
        return solve

    def _read(self, number: int) -> StoredSolve | None:
        if number not in self._ahead:
            first = self._rank[number]
            self._ahead = self._store.read(self._order[first : first + ROWS_AHEAD])
        return self._ahead.pop(number, None)

    def sources(self) -> set[bytes]:
        """Seals of what was taken over from other runs."""
        return {solve.source for solve in self._whole(self._order) if solve.source}

    def forgotten(self) -> list[StoredSolve]:
        """What was not asked for, as no part of the run."""
        left = [number for free in self._free.values() for number in free.values()]
        solves = [solve for solve in self._whole(left) if solve.judged]
        return [dataclasses.replace(solve, judged="", loss=None) for solve in solves]

    def _whole(self, numbers: list[int]) -> Iterable[StoredSolve]:
        """Those that are not damaged; the others are to be dropped."""
        for first in range(0, len(numbers), ROWS_AT_ONCE):
            asked = numbers[first : first + ROWS_AT_ONCE]
            found = self._store.read(asked, with_theta=False)
            self.damaged += [n for n in asked if n not in found and n not in self.damaged]
            yield from found.values()
