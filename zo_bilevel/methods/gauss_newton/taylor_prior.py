"""What is expected of an inner solution before it is solved: a smooth function, as a series.

Around a center, every component of theta is a draw from the same Gaussian process, of covariance

    k(s, t) = s.t + (s.t)^2 / (2 l^2) + (s.t)^3 / (6 l^4)                                    (1)

times one scale: random slopes, curvatures and third derivatives that become as important as the
slopes at a distance `l`, the length. What (1) leaves out counts as an error of each observation,
the next term of the series, so that what was solved far away is believed less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.support.arrays import FloatArray

LEAST_ERROR = 1e-11
"""Variance of an observation, in variances of a slope: keeps the covariance positive definite."""


@final
@dataclass(frozen=True, slots=True)
class Observations:
    """Values and derivatives of theta around a center, as changes per unit length.

    Args:
        places: From the center to where each was observed, shape `(p, b)`.
        ways: Direction of each derivative, shape `(p, b)`; zero for values.
        is_derivative: Which are derivatives, shape `(p,)`.
        norms: What each change was divided by: 1 for derivatives, about the distance for values.
        errors: Variance of each row from noise, in variances of one solve, shape `(p,)`.
    """

    places: FloatArray
    ways: FloatArray
    is_derivative: NDArray[np.bool_]
    norms: FloatArray
    errors: FloatArray

    @property
    def slopes(self) -> FloatArray:
        """Covariance of each row with the slopes at the center, shape `(p, b)`."""
        return np.where(self.is_derivative[:, None], self.ways, self.places / self.norms[:, None])

    def covariance(self, length: float, noise: float) -> FloatArray:
        """Covariance of the rows, `(p, p)`, in variances of a slope.

        Args:
            length: `l` of (1), scaled.
            noise: Variance of a component of one solve, in those variances.
        """
        places, derivative = self.places, self.is_derivative
        inverse = length**-2.0
        product = places @ places.T
        first = 1.0 + product * inverse * (1.0 + product * (0.5 * inverse))
        matrix: FloatArray = product * (1.0 + product * inverse * (0.5 + product * (inverse / 6.0)))
        if derivative.any():
            along = self.ways @ places.T
            second = inverse * (1.0 + product * inverse)
            mixed = first * along
            both = first * (self.ways @ self.ways.T) + second * along * along.T
            matrix = np.where(derivative[:, None], mixed, np.where(derivative, mixed.T, matrix))
            matrix = np.where(derivative[:, None] & derivative, both, matrix)
        matrix /= np.outer(self.norms, self.norms)
        relative = (np.einsum("ij,ij->i", places, places) * inverse) ** 3
        power = np.where(derivative, relative / 6.0, relative / 24.0)
        diagonal = np.arange(len(matrix))
        matrix[diagonal, diagonal] += power + LEAST_ERROR + noise * self.errors
        if noise > 0.0:  # the center's own noise is in every change from it
            shares = self.center_shares
            matrix += noise * np.outer(shares, shares)
        return matrix

    @property
    def center_shares(self) -> FloatArray:
        """How much of the center's noise is in each row, shape `(p,)`."""
        return np.where(self.is_derivative, 0.0, 1.0 / self.norms)

    def second_order(self, weights: FloatArray, length: float) -> FloatArray:
        """Second derivative at the center of `sum_i weights_i k(s_i, .)`, shape `(b, b)`.

        Args:
            weights: Shape `(p,)`.
            length: `l` of (1).
        """
        values = np.where(self.is_derivative, 0.0, weights / self.norms)
        matrix: FloatArray = (self.places.T * values) @ self.places
        half = (self.ways.T * weights) @ self.places
        found: FloatArray = np.asarray(matrix + half + half.T) / length**2
        return found

    def covariance_with(self, step: FloatArray, length: float) -> FloatArray:
        """Covariance of the rows with the change from the center to a step, shape `(p,)`."""
        inverse = length**-2.0
        product = self.places @ step
        value = product * (1.0 + product * inverse * (0.5 + product * (inverse / 6.0)))
        slope = (self.ways @ step) * (1.0 + product * inverse * (1.0 + product * (0.5 * inverse)))
        found: FloatArray = np.where(self.is_derivative, slope, value) / self.norms
        return found
