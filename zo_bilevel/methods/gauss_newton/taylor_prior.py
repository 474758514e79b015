"""What is expected of an inner solution, a smooth function, and what was observed of it.

Around a center, every component of theta is a draw from the same Gaussian process, of covariance

    k(s, t) = s.t + (s.t)^2 / (2 l^2) + (s.t)^3 / (6 l^4)                                    (1)

times one scale: random slopes, curvatures and third derivatives that become as important as the
slopes at a distance `l`, the length. What (1) leaves out counts as an error of each observation,
the next term of the series, so that what was solved far away is believed less.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotrs

from zo_bilevel.support.arrays import FloatArray

LEAST_ERROR = 1e-11
"""Variance of an observation, in variances of a slope: keeps the covariance positive definite."""


class RowTable(NamedTuple):
    """Where each row was observed, `(rows, b)`, and how.

    Args:
        places: Of values and derivatives, `(rows, b)`.
        ways: Of derivatives, `(rows, b)`; zero for values.
        is_derivative: Which are derivatives, `(rows,)`.
        errors: Variance of each from noise, in variances of one solve, `(rows,)`.
    """

    places: FloatArray
    ways: FloatArray
    is_derivative: NDArray[np.bool_]
    errors: FloatArray


@final
class ObservedRows:
    """Rows in the coordinates of a basis that grows: shorter ones end in zeros.

    Attributes:
        values: Theta at a point, or its derivative there, each of shape `(m,)`.
    """

    def __init__(self) -> None:
        self.values: list[FloatArray] = []
        none = np.zeros((0, 0))
        self._table = RowTable(none, none, np.zeros(0, dtype=bool), np.zeros(0))
        self._new: list[tuple[FloatArray, FloatArray | None, float]] = []

    def add(
        self, place: FloatArray, way: FloatArray | None, values: FloatArray, error: float
    ) -> None:
        """Take in theta at a place, `(b,)`, or its derivative along a way, `(b,)`."""
        self.values.append(values)
        self._new.append((place, way, error))

    def copy(self) -> ObservedRows:
        """The same rows, to be added to."""
        other = copy.copy(self)
        other.values, other._new = list(self.values), list(self._new)
        return other

    def table(self, size: int) -> RowTable:
        """All but the values, in so many coordinates: not to be written to."""
        known, width = self._table.places.shape
        if self._new or width < size:
            places, ways = np.zeros((2, len(self.values), size))
            places[:known, :width], ways[:known, :width] = self._table.places, self._table.ways
            for row, (place, way, _) in enumerate(self._new, known):
                places[row, : place.size] = place
                if way is not None:
                    ways[row, : way.size] = way
            kinds = [way is not None for _, way, _ in self._new]
            is_derivative = np.append(self._table.is_derivative, np.array(kinds, dtype=bool))
            errors = np.append(self._table.errors, [error for *_, error in self._new])
            self._table, self._new = RowTable(places, ways, is_derivative, errors), []
        return self._table


class Likelihood(NamedTuple):
    """Of rows at one length.

    Args:
        score: Minus twice its logarithm.
        length: That of (1).
        scale: Variance of a slope that makes the score least.
        factor: Lower Cholesky factor of the rows' covariance, `(p, p)`.
    """

    score: float
    length: float
    scale: float
    factor: FloatArray


def solved(factor: FloatArray, right: FloatArray) -> FloatArray:
    """`right`, of shape `(p,)` or `(p, k)`, solved by the lower Cholesky factor `(p, p)`."""
    return np.asarray(dpotrs(factor, right, lower=1)[0])


@final
@dataclass(frozen=True)
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
    _smooth: dict[float, tuple[FloatArray, FloatArray]] = field(default_factory=dict, init=False)

    @cached_property
    def slopes(self) -> FloatArray:
        """Covariance of each row with the slopes at the center, shape `(p, b)`."""
        return np.where(self.is_derivative[:, None], self.ways, self.places / self.norms[:, None])

    @cached_property
    def _products(self) -> tuple[FloatArray, ...]:
        """What every length shares: products of places and ways, norms, and squared distances."""
        places, ways = self.places, self.ways
        along = ways @ places.T
        squares: FloatArray = np.einsum("ij,ij->i", places, places)
        return (
            places @ places.T,
            along,
            along.T,
            ways @ ways.T,
            self.norms[:, None] * self.norms,
            squares,
        )

    def covariance(self, length: float, noise: float) -> FloatArray:
        """Covariance of the rows, `(p, p)`, in variances of a slope.

        Args:
            length: `l` of (1), scaled.
            noise: Variance of a component of one solve, in those variances.
        """
        if length not in self._smooth:
            self._smooth[length] = self._without_noise(length)
        smooth, error = self._smooth[length]
        matrix = smooth.copy()
        matrix.ravel()[:: len(matrix) + 1] += error + noise * self.errors
        if noise > 0.0:  # the center's own noise is in every change from it
            matrix += noise * self._shared
        return matrix

    def _without_noise(self, length: float) -> tuple[FloatArray, FloatArray]:
        """The covariance of (1), and what it leaves out of each row's variance."""
        derivative = self.is_derivative
        product, along, across, ways, norms, squares = self._products
        inverse = length**-2.0
        scaled = product * inverse
        matrix: FloatArray = product * (1.0 + scaled * (0.5 + product * (inverse / 6.0)))
        if derivative.any():
            first = 1.0 + scaled * (1.0 + product * (0.5 * inverse))
            second = inverse * (1.0 + scaled)
            mixed = first * along
            both = first * ways + second * along * across
            of_values = np.where(derivative, mixed.T, matrix)
            matrix = np.where(derivative[:, None], np.where(derivative, both, mixed), of_values)
        matrix /= norms
        relative = (squares * inverse) ** 3
        power = np.where(derivative, relative / 6.0, relative / 24.0)
        return matrix, power + LEAST_ERROR

    @cached_property
    def _shared(self) -> FloatArray:
        shares = self.center_shares
        return shares[:, None] * shares

    @cached_property
    def center_shares(self) -> FloatArray:
        """How much of the center's noise is in each row, shape `(p,)`."""
        return np.where(self.is_derivative, 0.0, 1.0 / self.norms)

    def second_order(self, weights: FloatArray, length: float) -> FloatArray:
        """Second derivative at the center of `sum_i weights_i k(s_i, .)`, shape `(b, b)`."""
        values = np.where(self.is_derivative, 0.0, weights / self.norms)
        matrix: FloatArray = (self.places.T * values) @ self.places
        half = (self.ways.T * weights) @ self.places
        return np.asarray((matrix + half + half.T) / length**2)

    def covariance_with(self, step: FloatArray, length: float) -> FloatArray:
        """Covariance of the rows with the change from the center to a step, shape `(p,)`."""
        inverse = length**-2.0
        product = self.places @ step
        value = product * (1.0 + product * inverse * (0.5 + product * (inverse / 6.0)))
        slope = (self.ways @ step) * (1.0 + product * inverse * (1.0 + product * (0.5 * inverse)))
        return np.asarray(np.where(self.is_derivative, slope, value) / self.norms)

    def slopes_with(self, step: FloatArray, length: float) -> FloatArray:
        """Covariance of the rows with the slopes at a step, shape `(p, b)`."""
        inverse = length**-2.0
        product = self.places @ step
        first = 1.0 + product * inverse * (1.0 + product * (0.5 * inverse))
        values = first[:, None] * self.places
        second = (self.ways @ step) * inverse * (1.0 + product * inverse)
        slopes = first[:, None] * self.ways + second[:, None] * self.places
        return np.where(self.is_derivative[:, None], slopes, values) / self.norms[:, None]

    def likelihood(
        self, products: FloatArray, outputs: int, length: float, noise: float
    ) -> Likelihood:
        """Of rows whose products, summed over so many outputs, are given, `(p, p)`."""
        matrix = self.covariance(length, noise)
        factor, failed = dpotrf(matrix, lower=1)
        if failed:
            matrix.ravel()[:: len(matrix) + 1] += 1e-9 * np.trace(matrix) / len(matrix)
            factor, failed = dpotrf(matrix, lower=1)
            if failed:
                return Likelihood(np.inf, length, np.nan, np.diag(np.sqrt(matrix.diagonal())))
        scale = float(solved(factor, products).trace()) / (outputs * len(matrix)) + 1e-300
        logarithm = 2.0 * float(np.log(factor.diagonal()).sum())
        score = outputs * (logarithm + len(matrix) * math.log(scale))
        return Likelihood(score, length, scale, factor)
