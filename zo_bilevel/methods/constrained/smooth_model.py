"""A smooth model of several numbers at once, through the nearest of the points solved."""

from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.taylor_prior import Observations, solved
from zo_bilevel.support.arrays import FloatArray

FIRST_LENGTH, SHORTEST_LENGTH, LONGEST_LENGTH = 10.0, 0.05, 1e3
LENGTH_FACTOR = 2.0
FEWEST_ROWS, ROWS_PER_DIRECTION, MOST_ROWS = 10, 3, 120
"""The nearest points are used: as many as a quadratic has numbers, within these limits."""


@final
class SmoothModel:
    """The likeliest smooth functions through the points nearest to a center.

    Every number is a draw from the Taylor prior of `taylor_prior`, each in its own unit, all of
    one length, the likeliest.

    Args:
        points: Solved, shape `(p, n)`.
        values: There, shape `(p, q)`.
        center: Which of them is the center.
        length: Where the search for the likeliest length begins, scaled.

    Attributes:
        length: The likeliest.
    """

    def __init__(self, points: FloatArray, values: FloatArray, center: int, length: float) -> None:
        self._values = values[center]
        places = points - points[center]
        norms = np.sqrt(np.einsum("ij,ij->i", places, places))
        size = points.shape[1]
        fewest = FEWEST_ROWS + ROWS_PER_DIRECTION * size
        count = max(fewest, min((size + 1) * (size + 2) // 2, MOST_ROWS))
        order = np.argsort(norms, kind="stable")
        order = order[norms[order] > 0.0][:count]
        places, norms = places[order], norms[order]
        none = np.zeros_like(places)
        self._rows = Observations(places, none, np.zeros(len(norms), bool), norms, none[:, 0])
        changes = (values[order] - self._values) / norms[:, None]
        units = np.sqrt(np.mean(changes**2, axis=0))
        units[units == 0.0] = 1.0
        products = (changes / units) @ (changes / units).T
        lengths = np.clip(
            length * LENGTH_FACTOR ** np.arange(-1.0, 2.0), SHORTEST_LENGTH, LONGEST_LENGTH
        )
        tried = [self._rows.likelihood(products, 1, each, 0.0) for each in lengths.tolist()]
        best = min(tried, key=lambda found: found.score)
        self.length, self._weights = best.length, solved(best.factor, changes)

    def values(self, step: FloatArray) -> FloatArray:
        """At center + step, shape `(q,)`."""
        changes = self._rows.covariance_with(step, self.length) @ self._weights
        return np.asarray(self._values + changes)

    def slopes(self, step: FloatArray) -> FloatArray:
        """Derivatives at center + step, shape `(q, n)`."""
        places, inverse = self._rows.places, self.length**-2.0
        product = places @ step
        factor = 1.0 + product * inverse * (1.0 + 0.5 * product * inverse)
        return np.asarray(self._weights.T @ (places * (factor / self._rows.norms)[:, None]))
