"""Descent for many parameters without structure: one block of directions after the other.

A block costs one difference a direction. Its slopes over the mean curvature are a step, and the
step shows the curvature. As the next block begins where this one ended, a cycle through all
directions does far more than a gradient of the same cost. Every few blocks the way of the last
cycle is tried again. It has no model, so a solve costs next to nothing.

Source: block coordinate descent: Nesterov (2012), "Efficiency of coordinate descent methods on
huge-scale optimization problems"; pattern moves: Hooke, Jeeves (1961), "Direct search solution of
numerical and statistical problems".
"""

from collections.abc import Iterator
from typing import NamedTuple, final

import numpy as np

from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.block_directions import BlockDirections
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart, Losses
from zo_bilevel.support.arrays import FloatArray

DIFFERENCE_SHARE = 0.1
"""Length of a difference, in units of a typical step along one direction."""
MOST_PAIRED = 8
"""Directions measured on both sides while the curvature is not known."""
PATTERN_PERIOD = 4
"""Blocks after which the way of the last cycle is tried again."""
CONVERGED_WAY = 1e-7
"""A cycle that moved less has converged, once steps are as short; scaled units."""
FAILURES_BEFORE_PROBE = 2
"""Blocks in a row without gain after which it looks for noise."""
STEP_MULTIPLES = (1.0, 2.0, 0.5, 4.0, 0.25, 1.5, 0.75, 3.0, 0.1, 6.0)
"""Of a step, tried at once in wide rounds."""
PATTERN_MULTIPLES = (0.5, 1.5, 1.0, 3.0)
"""The same of the way of a cycle."""
LONGEST_MULTIPLE = 4.0
"""Most that a line search goes on, in steps."""


class _Line(NamedTuple):
    """A way to go.

    Args:
        center: Where it begins.
        before: The loss there.
        move: As far as is thought best.
        multiples: Of the move, tried at once in wide rounds.
        slope: Of the loss, over the whole move; 0 for the way of a cycle.
    """

    center: FloatArray
    before: float
    move: FloatArray
    multiples: tuple[float, ...]
    slope: float = 0.0


@final
class BlockDescent:
    """One local search; ends at noise, which it has no answer to.

    Args:
        part: The coordinates.
        start: A solved point, shape `(N,)`.
        value: Its loss.
        directions: In blocks.
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
        part: ContinuousPart,
        start: FloatArray,
        value: float,
        directions: BlockDirections,
        *,
        length: float = 1.0,
        cycles: int = 0,
    ) -> None:
        self.x, self.value, self.length = start, value, length
        self.noise, self.converged = 0.0, False
        self._part, self._directions, self._cycles = part, directions, cycles
        self._curvature = 0.0
        self._reach = length * float(np.sqrt(directions.block))
        self._failed = FAILURES_BEFORE_PROBE  # the first block looks for noise
        self._is_flat = True  # no slope seen in this cycle
        self._cycle, self._begun, self._before = directions.cycles, start, value
        self._passed = [start]
        self._per_cycle = self._blocks = 0
        self._step_length = 0.0

    def rounds(self) -> RoundsThen[None]:
        """Rounds until a whole cycle gains nothing, there is noise, or the cycles are done."""
        ask, width = self._part.ask, self._part.width
        while (units := self._next_units()) is not None:
            length = DIFFERENCE_SHARE * self.length
            moves = self._directions.moves(self.x, units, length)
            values = yield from ask([self.x + move for move in moves], "sketch")
            if self._curvature <= 0.0:
                opposite = [self._directions.within(self.x - move) for move in moves[:MOST_PAIRED]]
                others = yield from ask(opposite, "sketch")
                self._measure_curvature(values, others, length)
            ways, slopes = self._slopes(moves, values, length)
            if self._failed >= FAILURES_BEFORE_PROBE and len(slopes):
                self._failed = 0
                beside = self._directions.beside(self.x)
                (value,) = yield from ask([beside], "sketch")
                if self._is_noise(beside, value, slopes):
                    return
            for line in self._lines(ways, slopes):
                points = self._along(line, line.multiples[:width])
                values = yield from ask(points, "trial")
                self._keep_best(points, values)
                again = self._along(line, self._second_look(line, values[0]))
                self._keep_best(again, (yield from ask(again, "trial")))

    def _next_units(self) -> list[FloatArray] | None:
        """The directions of the next block; `None` when the search has ended."""
        units = self._directions.next_block(self.x, self._directions.block)
        if self._directions.cycles > self._cycle:
            self._cycle += 1
            self._per_cycle = self._per_cycle or len(self._passed)
            way = float(np.linalg.norm(self.x - self._begun))
            gained = float(self.value < self._before)
            self._part.judge_step(self._begun, self.x, self._before, self.value, gained)
            is_short = self._is_flat or self.length < CONVERGED_WAY
            self.converged = way < CONVERGED_WAY and is_short
            self._is_flat, self._begun, self._before = True, self.x, self.value
            if self.converged or 0 < self._cycles <= self._cycle:
                return None
        return units

    def _measure_curvature(self, values: Losses, others: Losses, length: float) -> None:
        """By differences to both sides; 0 where it is not positive."""
        bends = [
            (v + w - 2 * self.value) / length**2
            for v, w in zip(values[:MOST_PAIRED], others, strict=True)
            if v is not None and w is not None
        ]
        self._curvature = max(float(np.mean(bends)), 0.0) if bends else 0.0

    def _slopes(
        self, moves: list[FloatArray], values: Losses, length: float
    ) -> tuple[FloatArray, FloatArray]:
        """Directions that solved, and the slope along each."""
        rises = [(m, v - self.value) for m, v in zip(moves, values, strict=True) if v is not None]
        if not rises:
            self.length *= 0.5  # nothing solves around here: look closer
        bend = 0.5 * self._curvature * length**2
        slopes = np.array([(rise - bend) / length for _, rise in rises])
        return np.array([move for move, _ in rises]) / length, slopes

    def _is_noise(self, beside: FloatArray, value: float | None, slopes: FloatArray) -> bool:
        """Whether a solve next to the center differs by more than the slope explains."""
        if value is None:
            return False
        slope = float(np.sqrt(np.mean(slopes**2)))
        explained = slope * float(np.linalg.norm(beside - self.x)) * float(np.sqrt(len(self.x)))
        found = abs(value - self.value)
        if found > 100.0 * explained + 1e-11 * abs(self.value):
            self.noise = found
        return self.noise > 0.0

    def _lines(self, ways: FloatArray, slopes: FloatArray) -> Iterator[_Line]:
        """Down the slopes; after every few blocks on the way of the last cycle."""
        size = float(np.linalg.norm(slopes))
        if size > 0.0:
            self._is_flat = False
            step = -slopes / size * self._reach
            if self._curvature > 0.0:
                step = -slopes / self._curvature
            step *= min(1.0, self._reach / float(np.linalg.norm(step)))
            move = self._directions.within(self.x + step @ ways) - self.x
            self._step_length = float(np.linalg.norm(step))
            line = _Line(self.x, self.value, move, STEP_MULTIPLES, float(step @ slopes))
            yield line
            self._judge(line, float(np.sqrt(len(slopes))))
        elif len(slopes):
            self.length = min(3.0 * self.length, self._directions.diameter)  # look further away
        self._blocks += 1
        if self._blocks % PATTERN_PERIOD == 0:
            back = min(self._per_cycle or len(self._passed), len(self._passed))
            move = self.x - self._passed[-back]
            if move.any():
                yield _Line(self.x, self.value, move, PATTERN_MULTIPLES)
            self._passed.append(self.x)
            if self._per_cycle:
                del self._passed[: -self._per_cycle - 1]

    def _second_look(self, line: _Line, first: float | None) -> tuple[float, ...]:
        """Where on the line to look next, in rounds of one; learns the curvature."""
        if line.slope == 0.0:
            best = 1.5 if self.value < line.before else -0.25
        elif first is None:
            return ()
        else:
            bend = 2 * (first - line.before - line.slope)
            best = -line.slope / bend if bend > 0.0 else LONGEST_MULTIPLE
            best = float(np.clip(best, 0.05, LONGEST_MULTIPLE))
            self._learn_curvature(bend / self._step_length**2)
        return (best,) if self._part.width == 1 and abs(best - 1.0) > 0.25 else ()

    def _judge(self, line: _Line, spread: float) -> None:
        """Steps and differences of the next block, by how far this one went."""
        gone = float(np.linalg.norm(self.x - line.center))
        if gone > 0.0:
            length = self._step_length * gone / float(np.linalg.norm(line.move))
            self._reach = max(0.5 * self._reach, 3.0 * length)
            self.length = 0.5 * (self.length + length / spread)
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

    def _along(self, line: _Line, multiples: tuple[float, ...]) -> list[FloatArray]:
        return [self._directions.within(line.center + share * line.move) for share in multiples]

    def _keep_best(self, points: list[FloatArray], values: Losses) -> None:
        for x, value in zip(points, values, strict=True):
            if value is not None and value < self.value:
                self.x, self.value = x, value
