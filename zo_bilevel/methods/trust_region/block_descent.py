"""Descent for many parameters without structure: one block of directions after the other.

A block costs one difference a direction. Its slopes over the mean curvature are a step, and the
step shows the curvature. As the next block begins where this one ended, a cycle through all
directions does far more than a gradient of the same cost. Every few blocks the way of the last
cycle is tried again. It has no model, so a solve costs next to nothing.

Source: block coordinate descent: Nesterov (2012), "Efficiency of coordinate descent methods on
huge-scale optimization problems"; pattern moves: Hooke, Jeeves (1961), "Direct search solution of
numerical and statistical problems".
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple, TypeAlias, final

import numpy as np

from zo_bilevel.methods.trust_region.block_directions import BlockDirections
from zo_bilevel.support.arrays import FloatArray

Values: TypeAlias = list[float | None]

DIFFERENCE = 0.1
"""Length of a difference, in units of a typical step along one direction."""
PAIRED = 8
"""Directions measured on both sides while the curvature is not known."""
SEGMENT = 4
"""Blocks after which the way of the last cycle is tried again."""
LEAST_WAY = 1e-7
"""A cycle that moved less has converged, once steps are as short; scaled units."""
FAILURES = 2
"""Blocks in a row without gain after which it looks for noise."""
MULTIPLES = (1.0, 2.0, 0.5, 4.0, 0.25, 1.5, 0.75, 3.0, 0.1, 6.0)
"""Of a step, tried at once in wide rounds."""
PATTERN = (0.5, 1.5, 1.0, 3.0)
"""The same of the way of a cycle."""
LONGEST = 4.0
"""Most that a line search goes on, in steps."""


class Asked(NamedTuple):
    """One proposed point.

    Args:
        kind: "step" or "difference".
        x: Shape `(N,)`.
    """

    kind: str
    x: FloatArray


Answers: TypeAlias = Generator[list[Asked], Values, Values]
Blocks: TypeAlias = Generator[list[Asked], Values, None]


@final
class BlockDescent:
    """One local search; ends at noise, which it has no answer to.

    Args:
        start: A solved point, shape `(N,)`.
        value: Its loss.
        directions: In blocks.
        width: Solves that may run at once.
        length: Typical step along one direction, in units.
        cycles: Ends after so many; 0 for no limit.

    Attributes:
        x: The best point.
        value: Its loss.
        length: Typical step along one direction now.
        noise: Difference of two solves of one point, 0 unless there is noise.
        converged: Whether a whole cycle gained nothing.
    """

    def __init__(
        self,
        start: FloatArray,
        value: float,
        directions: BlockDirections,
        *,
        width: int = 1,
        length: float = 1.0,
        cycles: int = 0,
    ) -> None:
        self.x, self.value, self.length = start, value, length
        self.noise, self.converged = 0.0, False
        self._directions, self._width, self._cycles = directions, width, cycles
        self._curvature = 0.0
        self._reach = length * float(np.sqrt(directions.block))
        self._failed = FAILURES  # the first block looks for noise
        self._is_flat = True  # no slope seen in this cycle
        self._passed = [start]
        self._per_cycle = 0

    def rounds(self) -> Blocks:
        """Rounds until a whole cycle gains nothing, there is noise, or the cycles are done."""
        cycle, begun, count = self._directions.cycles, self.x, 0
        while True:
            units = self._directions.next_block(self.x, self._directions.block)
            if self._directions.cycles > cycle:
                cycle += 1
                self._per_cycle = self._per_cycle or len(self._passed)
                way = float(np.linalg.norm(self.x - begun))
                self.converged = way < LEAST_WAY and (self._is_flat or self.length < LEAST_WAY)
                self._is_flat = True
                begun = self.x
                if self.converged or 0 < self._cycles <= cycle:
                    return
            yield from self._search_block(units)
            if self.noise > 0.0:
                return
            count += 1
            if count % SEGMENT == 0:
                yield from self._try_the_way()

    def _search_block(self, units: list[FloatArray]) -> Blocks:
        length = DIFFERENCE * self.length
        moves = self._directions.moves(self.x, units, length)
        values = yield from self._ask("difference", [self.x + move for move in moves])
        if self._curvature <= 0.0:
            yield from self._measure_curvature(moves, values, length)
        rises = [(m, v - self.value) for m, v in zip(moves, values, strict=True) if v is not None]
        if not rises:
            self.length *= 0.5  # nothing solves around here: look closer
            return
        ways = np.array([move for move, _ in rises]) / length
        bend = 0.5 * self._curvature * length**2
        slopes = np.array([(rise - bend) / length for _, rise in rises])
        if self._failed >= FAILURES:
            self._failed = 0
            yield from self._look_for_noise(float(np.sqrt(np.mean(slopes**2))))
            if self.noise > 0.0:
                return
        yield from self._step(ways, slopes)

    def _measure_curvature(self, moves: list[FloatArray], values: Values, length: float) -> Blocks:
        """By differences to the other side; 0 where it is not positive."""
        opposite = [self._directions.within(self.x - move) for move in moves[:PAIRED]]
        others = yield from self._ask("difference", opposite)
        bends = [
            (v + w - 2 * self.value) / length**2
            for v, w in zip(values[:PAIRED], others, strict=True)
            if v is not None and w is not None
        ]
        self._curvature = max(float(np.mean(bends)), 0.0) if bends else 0.0

    def _look_for_noise(self, slope: float) -> Blocks:
        """Solve next to the center; what the slope does not explain is noise."""
        beside = self._directions.beside(self.x)
        (value,) = yield from self._ask("difference", [beside])
        if value is None:
            return
        explained = slope * float(np.linalg.norm(beside - self.x)) * float(np.sqrt(len(self.x)))
        found = abs(value - self.value)
        if found > 100.0 * explained + 1e-11 * abs(self.value):
            self.noise = found

    def _step(self, ways: FloatArray, slopes: FloatArray) -> Blocks:
        """Go down, as far as a parabola says."""
        size = float(np.linalg.norm(slopes))
        if size == 0.0:
            self.length = min(3.0 * self.length, self._directions.diameter)  # look further away
            return
        self._is_flat = False
        step = -slopes / self._curvature if self._curvature > 0.0 else -slopes / size * self._reach
        step *= min(1.0, self._reach / float(np.linalg.norm(step)))
        length, slope = float(np.linalg.norm(step)), float(step @ slopes)
        center, before = self.x, self.value
        move = self._directions.within(center + step @ ways) - center
        first, *_ = yield from self._along(center, move, MULTIPLES[: self._width])
        if first is not None:
            bend = 2 * (first - before - slope)
            best = float(np.clip(-slope / bend, 0.05, LONGEST)) if bend > 0.0 else LONGEST
            if self._width == 1 and abs(best - 1.0) > 0.25:
                yield from self._along(center, move, (best,))
            self._learn_curvature(bend / length**2)
        gone = float(np.linalg.norm(self.x - center))
        if gone > 0.0:
            length *= gone / float(np.linalg.norm(move))
            self._reach = max(0.5 * self._reach, 3.0 * length)
            self.length = 0.5 * (self.length + length / float(np.sqrt(len(slopes))))
            self._failed = 0
        else:
            self._reach, self.length = 0.5 * self._reach, 0.5 * self.length
            self._failed += 1

    def _learn_curvature(self, found: float) -> None:
        known = self._curvature
        if found <= 0.0:
            self._curvature = 0.5 * known
        elif known <= 0.0:
            self._curvature = found
        else:
            self._curvature = known * float(np.clip(found / known, 0.25, 4.0)) ** 0.5

    def _try_the_way(self) -> Blocks:
        """Go on the way of the last cycle."""
        center, value = self.x, self.value
        back = min(self._per_cycle or len(self._passed), len(self._passed))
        move = center - self._passed[-back]
        if move.any():
            yield from self._along(center, move, PATTERN[: self._width])
            if self._width == 1:
                yield from self._along(center, move, (1.5 if self.value < value else -0.25,))
        self._passed.append(self.x)
        if self._per_cycle:
            del self._passed[: -self._per_cycle - 1]

    def _along(self, center: FloatArray, move: FloatArray, multiples: tuple[float, ...]) -> Answers:
        """Losses along a line; the best becomes the center."""
        points = [self._directions.within(center + multiple * move) for multiple in multiples]
        values = yield from self._ask("step", points)
        for x, value in zip(points, values, strict=True):
            if value is not None and value < self.value:
                self.x, self.value = x, value
        return values

    def _ask(self, kind: str, points: list[FloatArray]) -> Answers:
        """Losses of points, in rounds as wide as may be."""
        values: Values = []
        for first in range(0, len(points), self._width):
            values += yield [Asked(kind, x) for x in points[first : first + self._width]]
        return values
