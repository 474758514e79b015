"""Block descent under noise, for more parameters than a regression can model.

Differences are central and as long as the noise wants them. Slopes are shrunk towards zero by what
noise alone would show, so that steps are small where nothing is known and the search stands still
rather than walk at random. The mean curvature is filtered from all blocks.

Source: shrinking: James, Stein (1961), "Estimation with quadratic loss".
"""

from typing import NamedTuple, final

import numpy as np

from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.block_directions import BLOCK_SIZE, BlockDirections
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart, Losses
from zo_bilevel.support.arrays import FloatArray

UNPAIRED_SOLVES = 2
"""Solves of a block that are not of a pair: the center, and one point again."""
FURTHEST_MOVE = 1.5
"""No coordinate moves further in a difference; scaled units."""
LEAST_DIFFERENCE = 0.1
"""Least length of a difference, in units of a typical step along one direction."""
KEPT_WEIGHT = 0.9
"""Weight of what earlier blocks say about noise and the size of slopes."""
CURVATURE_DRIFT = 0.05
"""Share by which the mean curvature changes from block to block."""
CLEAR_RISE = 4.0
"""A center is left again when its loss is higher by so many deviations."""


class _Good(NamedTuple):
    """A center, the mean loss of the pairs around it, and their length."""

    x: FloatArray
    middle: float
    length: float


@final
class NoisyDescent:
    """One local search; goes on as long as it is asked.

    Attributes:
        recommended: The center, shape `(N,)`.
        level: Its loss, estimated from all pairs around it.
        noise: As learnt from solves next to each other.
    """

    def __init__(
        self,
        part: ContinuousPart,
        start: FloatArray,
        value: float,
        noise: float,
        directions: BlockDirections,
    ) -> None:
        self.recommended, self.level, self.noise = start, value, noise
        self._part, self._directions = part, directions
        width = part.width
        slots = width * -(-(BLOCK_SIZE + UNPAIRED_SOLVES) // width)
        self._pairs = (slots - UNPAIRED_SOLVES) // 2
        self._length, self._reach = 1.0, float(np.sqrt(self._pairs))
        self._curvature, self._doubt = 0.0, np.inf
        self._signal = self._seen = 0.0
        self._good: _Good | None = None

    def rounds(self) -> RoundsThen[None]:
        """Rounds without end."""
        while True:
            directions, x = self._directions, self.recommended
            units = directions.next_block(x, self._pairs)
            length = self._choose_length(units)
            widest = np.max(np.abs(units), axis=1)
            held = np.minimum(1.0, FURTHEST_MOVE / (length * widest))
            units = [share * unit for share, unit in zip(held, units, strict=True)]
            moves = directions.moves(x, units, length)
            points = [x + sign * move for move in moves for sign in (1.0, -1.0)]
            asked = [directions.beside(x), directions.beside(points[0])]
            asked += [directions.within(point) for point in points]
            self._learn(moves, length, (yield from self._part.ask(asked, "trial")))
            self._part.recommend_smoothed(self.recommended, self.level, self)

    def _learn(self, moves: list[FloatArray], length: float, values: Losses) -> None:
        """From a block: the center, one point again, then pairs."""
        base, again, plus, minus = values[0], values[1], values[2::2], values[3::2]
        if again is not None and plus[0] is not None:
            squared = 0.5 * (again - plus[0]) ** 2
            self.noise = float(np.sqrt(KEPT_WEIGHT * self.noise**2 + (1 - KEPT_WEIGHT) * squared))
        pairs = [
            (move, v, w)
            for move, v, w in zip(moves, plus, minus, strict=True)
            if v is not None and w is not None
        ]
        if pairs:
            ways = np.array([move for move, _, _ in pairs]) / length
            slopes = np.array([(v - w) / (2 * length) for _, v, w in pairs])
            middle = float(np.mean([0.5 * (v + w) for _, v, w in pairs]))
            if self._judge(base, middle, length, len(pairs)):
                self._step(ways, slopes, length)

    def _choose_length(self, units: list[FloatArray]) -> float:
        """So long that noise and what is not known of the curvature disturb a slope alike."""
        room = FURTHEST_MOVE / float(np.median(np.max(np.abs(units), axis=1)))
        surely = self._curvature - 2.0 * self._doubt
        wanted = np.sqrt(10.0 * self.noise / surely) if surely > 0.0 else room
        return float(min(max(wanted, LEAST_DIFFERENCE * self._length), room))

    def _judge(self, base: float | None, middle: float, length: float, count: int) -> bool:
        """Learn the curvature and the level; go back from a center that is worse."""
        doubt = self.noise / float(np.sqrt(2.0 * count))
        if base is not None:
            of_found = 2 * float(np.hypot(self.noise, doubt)) / length**2
            self._learn_curvature(2 * (middle - base) / length**2, of_found)
        bend = 0.5 * max(self._curvature, 0.0)
        self.level = middle - bend * length**2
        best = np.inf if self._good is None else self._good.middle - bend * self._good.length**2
        if self._good is not None and self.level > best + CLEAR_RISE * doubt:
            self.recommended, self.level = self._good.x, best
            self._reach *= 0.5
            return False
        if self.level < best + doubt:
            self._good = _Good(self.recommended, middle, length)
        return True

    def _learn_curvature(self, found: float, doubt: float) -> None:
        """A Kalman filter of one number."""
        if self._doubt == np.inf:
            self._curvature, self._doubt = found, doubt
            return
        variance = self._doubt**2 + (CURVATURE_DRIFT * self._curvature) ** 2
        trust = variance / (variance + doubt**2) if variance > 0.0 else 0.0
        self._curvature += trust * (found - self._curvature)
        self._doubt = float(np.sqrt(variance * (1.0 - trust)))

    def _step(self, ways: FloatArray, slopes: FloatArray, length: float) -> None:
        """Along the shrunk slopes, over what the curvature is at most."""
        chance = self.noise**2 / (2 * length**2)
        count = len(slopes)
        self._signal = KEPT_WEIGHT * self._signal + float(slopes @ slopes) - count * chance
        self._seen = KEPT_WEIGHT * self._seen + count
        scale = self._signal / self._seen - chance * float(np.sqrt(2.0 / self._seen))
        steepest = max(self._curvature, 0.0) + 2.0 * self._doubt
        if scale <= 0.0 or not 0.0 < steepest < np.inf:
            return
        step = -slopes * scale / (scale + chance) / steepest
        size = float(np.linalg.norm(step))
        step *= min(1.0, self._reach / size)
        self.recommended = self._directions.within(self.recommended + step @ ways)
        self._reach = max(self._reach, 2 * min(size, self._reach))
        self._length = 0.8 * self._length + 0.2 * size / float(np.sqrt(count))
