"""A quadratic regression over the latest solves of a population, in the population's coordinates.

It sees through ripples that a model of the nearest points follows. Its minimum is worth a solve,
and the order in which it puts the next generation tells whether the loss is smooth at that scale.

Source: the two uses of a model: Hansen (2019), "A global surrogate assisted CMA-ES",
doi 10.1145/3321707.3321842.
"""

from itertools import combinations
from typing import final

import numpy as np

from zo_bilevel.methods.trust_region.region_search import LARGEST_LOSS
from zo_bilevel.methods.trust_region.trust_step import ball_step
from zo_bilevel.support.arrays import FloatArray

MOST_POINTS, POINTS_PER_COEFFICIENT = 250, 3
"""The latest solves that count."""
FARTHEST = 3.0
"""Solves further out, in deviations of the population, do not count."""
NOISE = 0.3
"""Variance of the errors at the mean, in units of the variance of the losses; it grows outwards."""
REACH = 0.5
"""Longest way from the mean to the minimum, in deviations of the population."""


@final
class PopulationModel:
    """The regression.

    Args:
        size: Parameters.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        coefficients = (size + 1) * (size + 2) // 2
        self._most = min(POINTS_PER_COEFFICIENT * coefficients, MOST_POINTS)
        self._points: list[FloatArray] = []
        self._losses: list[float] = []
        self._slope: FloatArray = np.zeros(size)
        self._hessian: FloatArray = np.zeros((size, size))
        self.is_fitted = False

    def add(self, points: FloatArray, losses: FloatArray) -> None:
        """Take in solves, those that failed among them."""
        solved = np.abs(losses) < LARGEST_LOSS  # the square of others overflows
        self._points = [*self._points, *points[solved]][-self._most :]
        self._losses = [*self._losses, *losses[solved].tolist()][-self._most :]

    def fit(self, mean: FloatArray, whitening: FloatArray) -> None:
        """Ridge regression with the kernel `(1 + y . z / N)^2`.

        Args:
            mean: Of the population.
            whitening: From moves to its coordinates, of deviation 1, shape `(N, N)`.
        """
        self.is_fitted = len(self._points) >= 2 * self._size
        if not self.is_fitted:
            return
        size, losses = self._size, np.array(self._losses)
        rows = (np.array(self._points) - mean) @ whitening.T
        squares = np.sum(rows**2, axis=1) / size
        near = squares < FARTHEST**2
        rows, squares, losses = rows[near], squares[near], losses[near]
        self.is_fitted = len(losses) > size + 2 and bool(losses.max() > losses.min())
        if not self.is_fitted:
            return
        kernel = (1.0 + rows @ rows.T / size) ** 2
        kernel += np.diag(NOISE * (1.0 + squares))
        weights = np.linalg.solve(kernel, (losses - losses.mean()) / losses.std())
        self._slope = 2.0 / size * (weights @ rows)
        self._hessian = 2.0 / size**2 * (rows.T * weights) @ rows

    def minimum(self) -> FloatArray:
        """Where the regression is lowest within reach, in the population's coordinates."""
        hessian = self._hessian
        radius = REACH * float(np.sqrt(self._size))
        return ball_step(self._slope, lambda move: hessian @ move, radius, hessian)

    def agreement(self, rows: FloatArray, losses: FloatArray) -> float:
        """How far the regression puts solves in their right order (Kendall's tau).

        Args:
            rows: Solves that it was not fitted to, in the population's coordinates.
            losses: Of these.
        """
        foreseen = rows @ self._slope + 0.5 * np.sum((rows @ self._hessian) * rows, axis=1)
        pairs = np.array(list(combinations(np.flatnonzero(np.isfinite(losses)), 2)))
        if len(pairs) == 0:
            return 0.0
        first, second = pairs.T
        orders = [np.sign(values[first] - values[second]) for values in (foreseen, losses)]
        return float(np.mean(orders[0] * orders[1]))
