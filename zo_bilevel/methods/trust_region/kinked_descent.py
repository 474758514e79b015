"""A descent over kinks of a loss that is only seen: the corner where planes meet.

At a kink no quadratic foresees a step, so a trust region shrinks to nothing where it stands. Here
the loss is the highest of planes, each from the differences of N + 1 solves. They are taken a
little beside the point that they tell of: on a kink, where the lowest point of planes always lies,
each difference would be of another side, and the plane of neither.
"""

from typing import final

import numpy as np

from zo_bilevel.methods.shared.planes import Plane, lowest_point
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart
from zo_bilevel.support.arrays import FloatArray

PLANES_PER_DIRECTION, SPARE_PLANES = 4, 8
"""The newest planes, of which the model is made."""
BESIDE_SHARE = 1e-3
"""How far beside its point a plane is taken, in lengths of the step there, or of the reach."""
DIFFERENCE_SHARE = 1e-2
"""Length of a difference, in shares of that."""
SHORTEST, LONGEST = 1e-9, 1e-6
"""Differences, in scaled units."""
ROUNDING = 1e-16
CLEAR = 1e4
"""A difference is so many roundings of the loss, at the steepest slope seen."""
FORESEEN, GOOD, POOR = 0.9, 0.5, 0.1
"""Gain in shares of what the planes promised: no new plane is needed above the first; the reach
grows above the second, and shrinks below the third."""
SHRINK = 0.7
LOOKS_CLOSER = 0.1
"""Of the reach, where planes promise nothing."""
SMALLEST_REACH = 1e-9
LEAST_PROMISE = 1e-14
"""Share of the loss below which a promise is lost in its digits."""


@final
class KinkedDescent:
    """One local search.

    Attributes:
        x: The best point, shape `(N,)`.
        value: Its loss.
        reach: How far planes are trusted.
    """

    def __init__(
        self,
        part: ContinuousPart,
        start: FloatArray,
        value: float,
        rng: np.random.Generator,
        reach: float,
    ) -> None:
        self.x, self.value, self.reach = start, value, reach
        self._part, self._rng = part, rng
        self._planes: list[Plane] = []

    def rounds(self) -> RoundsThen[None]:
        """Rounds until planes promise nothing within the smallest reach."""
        yield from self._see(self.x, self.reach)
        while self.reach > self._smallest_reach and self._planes:
            moved, promise = self._lowest()
            if not promise > LEAST_PROMISE * abs(self.value):
                yield from self._see(self.x, self.reach)
                self.reach *= LOOKS_CLOSER
                continue
            length = float(np.abs(moved - self.x).max())
            (loss,) = yield from self._part.ask([moved], "trial")
            gain = -np.inf if loss is None else self.value - loss
            self.take(moved, loss)
            if loss is not None and gain < FORESEEN * promise:
                yield from self._see(moved, length)
            if gain > GOOD * promise:
                self.reach = max(self.reach, 2.0 * length)
            elif gain < POOR * promise:
                self.reach *= SHRINK

    @property
    def _smallest_reach(self) -> float:
        return max(SMALLEST_REACH, self._shortest)

    @property
    def _shortest(self) -> float:
        """Difference that rounding leaves clear."""
        steepest = max((float(np.abs(plane.slope).max()) for plane in self._planes), default=0.0)
        if steepest == 0.0:
            return SHORTEST
        return max(SHORTEST, CLEAR * ROUNDING * abs(self.value) / steepest)

    def _lowest(self) -> tuple[FloatArray, float]:
        newest = self._planes[-PLANES_PER_DIRECTION * self.x.size - SPARE_PLANES :]
        return lowest_point(newest, self.x, self.value, self.reach, self._part.box)

    def _see(self, place: FloatArray, length: float) -> RoundsThen[None]:
        """Take up the plane beside a point."""
        low, high = self._part.box
        beside = max(BESIDE_SHARE * length, self._shortest)
        way = self._rng.standard_normal(place.size)
        start = np.clip(place + beside / float(np.linalg.norm(way)) * way, low, high)
        step = max(min(DIFFERENCE_SHARE * beside, LONGEST), self._shortest)
        steps = np.where(start + step <= high, step, -step)
        points = [start, *(start + np.diag(steps))]
        value, *others = yield from self._part.ask(points, "sketch")
        self.take(start, value)
        solved = [other for other in others if other is not None]
        if value is not None and len(solved) == len(others):
            self._planes.append(Plane(start, value, (np.array(solved) - value) / steps))

    def take(self, x: FloatArray, loss: float | None) -> None:
        """Go on from a point where that is lower; `None` is a failed solve."""
        if loss is not None and loss < self.value:
            self.x, self.value = x, loss
