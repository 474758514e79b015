"""Where to begin again when a local search ends above zero: the best of a space-filling round."""

from typing import TYPE_CHECKING, TypeAlias, final

import numpy as np

from zo_bilevel.methods.gauss_newton.outer_model import OuterModel
from zo_bilevel.support.arrays import FloatArray

if TYPE_CHECKING:
    from scipy.stats import qmc

Start: TypeAlias = tuple[FloatArray, FloatArray]

MOST_PARAMETERS = 16
"""With more, a space-filling round finds nothing."""
MOST_RESTARTS = 8
POINTS_A_ROUND = 8
"""Least points of a space-filling round."""
LEAST_DISTANCE = 0.5
"""A start this close to where a search ended leads there again, in scaled units."""
UNEXPLAINED_SHARE = 1e-2
"""Share left of what there was to explain that is no reason to look elsewhere."""


@final
class Restarts:
    """Sobol points not yet used as a start, best first."""

    def __init__(self, lower: FloatArray, upper: FloatArray, seed: int, width: int) -> None:
        self._lower, self._upper, self._width = lower, upper, width
        self._seed = seed
        self._sobol: qmc.Sobol | None = None
        self._possible = lower.size <= MOST_PARAMETERS
        self._waiting: list[tuple[float, FloatArray, FloatArray]] = []
        self._used = 0
        self._ends: list[FloatArray] = []

    def remember(self, point: FloatArray) -> None:
        """A local search ended here: do not begin again close by."""
        self._ends.append(point)

    def worth_it(self, unexplained: float) -> bool:
        """Whether to look elsewhere after a local search that left this share unexplained."""
        return unexplained > UNEXPLAINED_SHARE and self._possible and self._used < MOST_RESTARTS

    def round(self) -> list[FloatArray]:
        """A space-filling round every other time, or when no good start is waiting; else none."""
        self._used += 1
        if self._used % 2 == 1 or self._best_waiting() is None:
            return list(self._draw(max(POINTS_A_ROUND, self._width)))
        return []

    def learn(
        self, outer: OuterModel, points: list[FloatArray], thetas: list[FloatArray | None]
    ) -> None:
        """Keep the points of a round that solved as starts."""
        for point, theta in zip(points, thetas, strict=True):
            if theta is not None:
                self._waiting.append((outer.loss(theta, point), point, theta))

    def next_start(self) -> Start | None:
        """The best point not yet used and its modelled vector; `None` when there is none."""
        chosen = self._best_waiting()
        if chosen is None:
            return None
        self._waiting = [start for start in self._waiting if start is not chosen]
        return chosen[1], chosen[2]

    def _draw(self, count: int) -> FloatArray:
        if self._sobol is None:
            from scipy.stats import qmc  # slow to import, seldom needed

            rng = np.random.default_rng(self._seed)
            self._sobol = qmc.Sobol(self._lower.size, scramble=True, rng=rng)
        return np.asarray(self._lower + (self._upper - self._lower) * self._sobol.random(count))

    def _best_waiting(self) -> tuple[float, FloatArray, FloatArray] | None:
        far = [
            start
            for start in self._waiting
            if all(np.abs(start[1] - end).max() > LEAST_DISTANCE for end in self._ends)
        ]
        return min(far, key=lambda start: start[0]) if far else None
