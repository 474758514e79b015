"""Where to begin again when a local search ends above zero: the best of a space-filling round."""

from collections.abc import Generator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from zo_bilevel.methods.outer_model import OuterModel

Array = NDArray[np.float64]
MOST_PARAMETERS = 16
MOST_RESTARTS = 8


class Restarts:
    """Sobol points not yet used as a start, best first."""

    def __init__(self, lower: Array, upper: Array, seed: int, width: int) -> None:
        """Nothing is evaluated before the first restart."""
        self._lower, self._upper, self._width = lower, upper, width
        self._seed = seed
        self._sobol: qmc.Sobol | None = None
        self._possible = lower.size <= MOST_PARAMETERS
        self._waiting: list[tuple[float, Array, Array]] = []
        self._used = 0
        self._ends: list[Array] = []

    @property
    def cheap(self) -> bool:
        """Whether few restarts were made so far."""
        return self._possible and self._used < 4

    def remember(self, point: Array) -> None:
        """A local search ended here: do not begin again close by."""
        self._ends.append(point)

    def _fresh(self) -> tuple[float, Array, Array] | None:
        far = [w for w in self._waiting if all(np.abs(w[1] - end).max() > 0.5 for end in self._ends)]
        return min(far, key=lambda item: item[0]) if far else None

    def worth_it(self, loss: float, theta: Array) -> bool:
        """Whether to look elsewhere after a local search that ended at this loss."""
        unexplained = loss > 1e-16 * (float(np.var(theta)) + 1e-300)
        return unexplained and self._possible and self._used < MOST_RESTARTS

    def next_start(self, outer: OuterModel) -> Generator[list[Array], Sequence[Array | None], tuple[Array, Array | None]]:
        """Evaluate a space-filling round and hand out its best point."""
        if self._sobol is None:
            self._sobol = qmc.Sobol(self._lower.size, scramble=True, rng=np.random.default_rng(self._seed))
        self._used += 1
        if self._used % 2 == 1 or self._fresh() is None:
            points = self._lower + (self._upper - self._lower) * self._sobol.random(max(8, self._width))
            thetas = yield list(points)
            for point, theta in zip(points, thetas, strict=True):
                if theta is not None and np.isfinite(theta).all():
                    self._waiting.append((outer.loss(theta), point, theta))
        chosen = self._fresh()
        if chosen is None:
            return self._lower, None
        self._waiting = [w for w in self._waiting if w is not chosen]
        return chosen[1], chosen[2]
