"""Which directions are differenced next, and how far along them the bounds allow to go."""

import math
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TypeAlias, final

import numpy as np

from zo_bilevel.methods.shared.exploration import orthogonal_part
from zo_bilevel.support.arrays import FloatArray

Directions: TypeAlias = Callable[[], Iterator[FloatArray]]

SPANNED_SHARE = 1e-8
"""A candidate of which no more than this share lies outside the basis is left out."""
SHORTEST_SHARE = 0.1
"""Share of the radius that bounds must leave for a difference."""

MIN_COSINE_SAME = 0.99
"""Cosine of two directions that are the same one."""
MOST_REMEMBERED = 16
"""Failed directions remembered."""


@final
class Explorer:
    """The queue of directions not yet explored.

    Args:
        lower: Lower bounds, shape `(N,)`, scaled.
        upper: Upper bounds.
        directions: Makes the candidates, the most promising first.
        variance: Prior variance along a direction; `None` where nothing is known of it.
        straight: Where a step from a point leads.
    """

    def __init__(
        self,
        lower: FloatArray,
        upper: FloatArray,
        directions: Directions,
        variance: Callable[[FloatArray], float] | None = None,
        straight: Callable[[FloatArray, FloatArray], FloatArray] = np.add,
    ) -> None:
        self.lower, self.upper = lower, upper
        self._directions, self._variance, self._straight = directions, variance, straight
        self.restart()

    def restart(self) -> None:
        """Begin with the first candidate again."""
        self._candidates: Iterator[FloatArray] = self._directions()
        self._waiting: list[FloatArray] = []
        self.left = True
        self._retries = 2 * self.lower.size
        self._failed: list[FloatArray] = []

    def next_variance(self) -> float:
        """Prior variance along the next direction; infinite where nothing is known of it."""
        if self._variance is None:
            return math.inf
        if not self._waiting and (candidate := next(self._candidates, None)) is not None:
            self._waiting = [candidate]
        return self._variance(self._waiting[0]) if self._waiting else 0.0

    def retry(self, displacement: FloatArray) -> None:
        """Queue the direction of a failed difference again, a limited number of times.

        It comes next, the other way round; last when it has just failed that way too.
        """
        if self._retries == 0:
            return
        self._retries -= 1
        unit = displacement / -math.sqrt(displacement @ displacement)
        if any(abs(float(unit @ other)) > MIN_COSINE_SAME for other in self._failed):
            self._candidates = chain(self._candidates, [unit])
        else:
            self._waiting.insert(0, unit)
        self._failed = [*self._failed[-MOST_REMEMBERED:], unit]
        self.left = True

    def clip(self, point: FloatArray) -> FloatArray:
        """The nearest point within the bounds."""
        return np.asarray(np.minimum(np.maximum(point, self.lower), self.upper))

    def reached(self, origin: FloatArray, way: FloatArray) -> FloatArray:
        """Where a step leads, within the bounds."""
        return self.clip(self._straight(origin, way))

    def inside(self, unit: FloatArray, origin: FloatArray, radius: float) -> FloatArray | None:
        """The longer of `+-radius * unit` that the bounds leave; `None` for next to nothing."""
        forward = self.clip(origin + radius * unit) - origin
        length = math.sqrt(forward @ forward)
        if length < 0.99 * radius:
            backward = self.clip(origin - radius * unit) - origin
            other = math.sqrt(backward @ backward)
            if other > 1.01 * length:
                forward, length = backward, other
        return forward if length > SHORTEST_SHARE * radius else None

    def fresh(
        self, count: int, basis: FloatArray, origin: FloatArray, radius: float
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Up to `count` new directions and displacements along them.

        Returns:
            Pairs of a unit vector orthogonal to the basis and to each other, and a displacement.
        """
        found: list[tuple[FloatArray, FloatArray]] = []
        room = len(origin) - basis.shape[1]
        if room == 0:
            self.left = False
        while len(found) < min(count, room) and self.left:
            candidate = self._waiting.pop(0) if self._waiting else next(self._candidates, None)
            if candidate is None:
                self.left = False
                break
            unit = orthogonal_part(candidate, basis)
            if found:
                unit = orthogonal_part(unit, np.column_stack([known for known, _ in found]))
            length = math.sqrt(unit @ unit)
            if length < SPANNED_SHARE * math.sqrt(candidate @ candidate):
                continue
            unit = unit / length
            displacement = self.inside(unit, origin, radius)
            if displacement is not None:
                found.append((unit, displacement))
        return found
