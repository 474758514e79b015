"""A loss that is a sum of functions of one coordinate each: every coordinate is searched alone.

Two solves tell most others. With the values of two known points x and y exchanged in half of the
coordinates, f(x with y's) + f(y with x's) = f(x) + f(y) for every such sum (eq. 7). Then a value of
each coordinate is tried alone, and all of them together: what the loss rises by must add up, which
tries every pair of coordinates. N searches of one number then take the place of one search of N
numbers. Equation numbers: docs/methods/trust-region.md.
"""

from __future__ import annotations

from typing import final

import numpy as np

from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart
from zo_bilevel.methods.trust_region.coordinate_line import CoordinateLine
from zo_bilevel.support.arrays import FloatArray

AGREEMENT = 1e-8
"""Share of what the loss changes by, within which two sums are the same."""
LEAST_CHANGE = 1e-4
"""Share of the loss that it must change by; below it rounding decides."""
CHECK = 1e-6
"""Share of the loss by which values found apart may miss what they promise together."""
HIGHEST_RISE = 1e3
"""Losses further above the best than so many times the gain so far tell no more than this."""
ROUNDING_SHARE = 1e-15
"""Gains of less than this share of the loss are lost in its digits."""


@final
class SumTest:
    """Asks whether the loss is such a sum.

    Args:
        part: The coordinates.
        best: The best point known, shape `(n,)`, and its loss.
        other: Another point and its loss.
        rng: Random numbers.

    Attributes:
        is_sum: The answer.
        lines: What is known of each coordinate.
    """

    def __init__(
        self,
        part: ContinuousPart,
        best: tuple[FloatArray, float],
        other: tuple[FloatArray, float],
        rng: np.random.Generator,
    ) -> None:
        self._part, self._rng = part, rng
        (self._x, self._level), self._other = best, other
        self.is_sum = False
        self.lines = self._lines(np.inf)

    def _lines(self, ceiling: float) -> list[CoordinateLine]:
        return [
            CoordinateLine(float(low), float(high), float(start), ceiling)
            for low, high, start in zip(*self._part.box, self._x, strict=True)
        ]

    def rounds(self) -> RoundsThen[None]:
        """An exchange; where it agrees, a value of each coordinate, alone and together."""
        ask, x, level = self._part.ask, self._x, self._level
        values = np.array([line.promise.value for line in self.lines])
        (y, there), together = self._other, None
        if np.count_nonzero(x != y) < 2:
            (together,) = yield from ask([values], "sketch")
            y, there = values, np.nan if together is None else together
        differ = self._rng.permutation(np.flatnonzero(x != y))
        half = np.isin(np.arange(len(x)), differ[: len(differ) // 2])
        losses = yield from ask([np.where(half, x, y), np.where(half, y, x)], "sketch")
        if not _adds_up(level, there, *losses):
            return
        self.lines = self._lines(HIGHEST_RISE * float(np.ptp([level, there, *losses])))
        points = [_replaced(x, k, value) for k, value in enumerate(values)]
        alone = yield from ask(points if together is not None else [*points, values], "sketch")
        together = alone.pop() if together is None else together
        rises = np.array([np.nan if loss is None else loss - level for loss in alone])
        rise = np.nan if together is None else together - level
        missed = max(abs(rise - rises.sum()), ROUNDING_SHARE * np.abs(rises).max())
        self.is_sum = bool(missed <= AGREEMENT * np.median(np.abs(rises[rises != 0.0])))
        for line, one in zip(self.lines, rises.tolist(), strict=True):
            line.tell(None if np.isnan(one) else one, ROUNDING_SHARE * abs(level))


@final
class SeparableSearch:
    """Searches such a sum: a coordinate moves where that promises most, the others at their best.

    Where several coordinates gain in one round, all at their best is a point not solved yet: it
    joins the next round.

    Args:
        part: The coordinates.
        test: Has found that it is a sum.
        level: The loss at the best point when the test began.
    """

    def __init__(self, part: ContinuousPart, test: SumTest, level: float) -> None:
        self._part, self._lines = part, test.lines
        self._level = level + sum(line.gain for line in self._lines)

    def rounds(self) -> RoundsThen[None]:
        """Rounds until no coordinate promises anything, or the loss turns out to be no sum."""
        lines, level, is_solved = self._lines, self._level, False
        swept, before = self._best, level
        asked = 0
        while True:
            x = self._best
            order = np.argsort([-line.promise.gain for line in lines], kind="stable")
            chosen = [k for k in order[: self._part.width] if lines[k].promise.gain > 0.0]
            points = [_replaced(x, k, lines[k].promise.value) for k in chosen]
            if not is_solved:
                points.append(x)
            if not points:
                return
            losses = yield from self._part.ask(points, "trial")
            if not is_solved:
                together = losses.pop()
                if together is None or abs(together - level) > CHECK * abs(level):
                    return
                level = together
            gains = []
            for k, loss in zip(chosen, losses, strict=True):
                rise = None if loss is None else loss - level
                lines[k].tell(rise, ROUNDING_SHARE * abs(level))
                gains.append(min(rise or 0.0, 0.0))
            level, is_solved = level + sum(gains), bool(np.count_nonzero(gains) <= 1)
            asked += len(chosen)
            if asked >= len(lines) and level < before:
                moved = self._best
                self._part.judge_step(swept, moved, before, level, 1.0)
                swept, before, asked = moved, level, 0

    @property
    def _best(self) -> FloatArray:
        """Every coordinate at its best, shape `(n,)`."""
        return np.array([line.best for line in self._lines])


def _adds_up(here: float, there: float, first: float | None, second: float | None) -> bool:
    """Whether (eq. 7) holds, of losses that differ enough to tell."""
    if first is None or second is None:
        return False
    known = np.array([here, there, first, second])
    change = float(np.ptp(known))
    is_same = abs(here + there - first - second) <= AGREEMENT * change
    return bool(is_same and change >= LEAST_CHANGE * float(np.abs(known).max()))


def _replaced(x: FloatArray, place: int, value: float) -> FloatArray:
    moved = x.copy()
    moved[place] = value
    return moved
