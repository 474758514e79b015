"""A least-change quadratic model of a scalar function.

The model interpolates m points. A new value changes it by the smallest amount, in the norm
`|change of Hessian|^2 + |change of gradient|^2 / GRADIENT_WEIGHT`, that makes it fit: kernel
regression of the model's error with `k(u, v) = GRADIENT_WEIGHT u.v + (u.v)^2 / 2`. With many points
this is the least-Frobenius-change update of NEWUOA; with fewer points than directions it is the
minimum-norm model, so that a model exists from the first two values on.

Equation numbers: docs/methods/trust-region.md.

Source: Powell (2006), "The NEWUOA software for unconstrained optimization without derivatives".
"""

from typing import final

import numpy as np
from scipy.linalg import blas, lapack

from zo_bilevel.support.arrays import FloatArray

GRADIENT_WEIGHT = 100.0
INTERPOLATION_ERROR = 1e-11
PRECISION_LOST = 10**9


@final
class QuadraticModel:
    """Points relative to a base that the owner keeps, their values, the fitted quadratic.

    Arrays have room to spare, so that a point comes or goes without copying the others; the last
    point takes the place of one that is dropped.

    Attributes:
        blur: Variance of cubic terms at the distance `scale`, in units of the kernel.
        stale: Updates since the last fit from scratch.
        newest: Row of the point learnt last.
    """

    def __init__(self, value: float) -> None:
        self.count, self.size, self.blur = 1, 0, 0.0
        self.scale = 1.0
        self.stale = self.newest = 0
        self._rows: FloatArray = np.zeros((8, 4))
        self._values: FloatArray = np.full(8, value)
        self._weights: FloatArray = np.zeros(8)
        self._inverse: FloatArray = np.zeros((8, 8))
        self._inverse[0, 0] = 1.0
        self._constant = value
        self._gradient: FloatArray = np.zeros(0)
        self._explicit: FloatArray = np.zeros((0, 0))

    @property
    def rows(self) -> FloatArray:
        """Points, shape `(m, p)`."""
        return self._rows[: self.count, : self.size]

    @property
    def values(self) -> FloatArray:
        """Their losses, shape `(m,)`."""
        return self._values[: self.count]

    def grow(self) -> None:
        """One more direction; no known point has a component along it."""
        if self.size == self._rows.shape[1]:
            self._rows = _widened(self._rows, (len(self._rows), 2 * self.size))
        self.size += 1
        self._gradient = _widened(self._gradient, (self.size,))
        self._explicit = _widened(self._explicit, (self.size, self.size))

    def bend(self, curvature: float, direction: FloatArray) -> None:
        """Add curvature along a direction."""
        self._explicit += np.multiply.outer(curvature * direction, direction)

    def squared_distances(self, centre: FloatArray) -> FloatArray:
        """From every point to `centre`, shape `(m,)`."""
        away = self.rows - centre
        return np.asarray(np.einsum("ij,ij->i", away, away))

    # ---- the quadratic

    def product(self, vector: FloatArray) -> FloatArray:
        """The Hessian times a vector."""
        rows = self.rows
        curved = (self._weights[: self.count] * (rows @ vector)) @ rows
        return np.asarray(self._explicit @ vector + curved)

    def hessian(self) -> FloatArray:
        """The Hessian, shape `(p, p)`."""
        rows = self.rows
        return np.asarray(self._explicit + (rows.T * self._weights[: self.count]) @ rows)

    def gradient_at(self, point: FloatArray) -> FloatArray:
        """The gradient at a point, shape `(p,)`."""
        return np.asarray(self._gradient + self.product(point))

    def value_at(self, point: FloatArray) -> float:
        """The model's value at a point."""
        return float(self._constant + point @ (self._gradient + 0.5 * self.product(point)))

    def values_at(self, points: FloatArray) -> FloatArray:
        """The model's values at points of shape `(count, p)`."""
        inner = points @ self.rows.T
        curved = np.einsum("ij,ij->i", points @ self._explicit, points)
        curved = curved + (inner * inner) @ self._weights[: self.count]
        return np.asarray(self._constant + points @ self._gradient + 0.5 * curved)

    # ---- what is known where

    def _cross(self, point: FloatArray) -> tuple[FloatArray, float]:
        """Kernel of a point with all rows, and with itself."""
        inner = self.rows @ point / self.scale**2
        own = float(point @ point) / self.scale**2  # (eq. 2)
        cross = inner * (GRADIENT_WEIGHT + 0.5 * inner)
        return np.asarray(cross), own * (GRADIENT_WEIGHT + 0.5 * own)

    def variance_at(self, point: FloatArray) -> float:
        """How little is known at a point, in units of the kernel."""
        cross, own = self._cross(point)
        inverse = self._inverse[: self.count, : self.count]
        return max(own - float(cross @ (inverse @ cross)), INTERPOLATION_ERROR * own)

    def redundancy(self, centre: FloatArray, radius: float) -> FloatArray:
        """How little each point is needed: well predicted by the others, or far away."""
        rows = self.rows
        square = self.squared_distances(centre) / radius**2
        own = np.einsum("ij,ij->i", rows, rows) / self.scale**2
        diagonal = self._inverse.diagonal()[: self.count]
        known = diagonal * own * (GRADIENT_WEIGHT + 0.5 * own)
        return np.asarray(known * np.maximum(1.0, square) ** 2)  # (eq. 3)

    def lagrange(self, index: int, centre: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The Lagrange quadratic of a point: gradient at `centre`, curvature weights of rows."""
        rows = self.rows
        coefficients = self._inverse[: self.count, index]
        weights = coefficients / self.scale**4
        gradient = GRADIENT_WEIGHT / self.scale**2 * (coefficients @ rows)
        return gradient + (weights * (rows @ centre)) @ rows, weights

    # ---- learning

    def append(self, point: FloatArray, value: float) -> None:
        """Remember a value; the next `rebuild` fits it."""
        if self.count == len(self._rows):
            room = 2 * self.count
            self._rows = _widened(self._rows, (room, self._rows.shape[1]))
            self._values = _widened(self._values, (room,))
            self._weights = _widened(self._weights, (room,))
            self._inverse = _widened(self._inverse, (room, room))
        self.newest = self.count
        self.count += 1
        self.stale += 1
        self._rows[self.newest, : self.size] = point
        self._values[self.newest], self._weights[self.newest] = value, 0.0

    def add(self, point: FloatArray, value: float) -> None:
        """Remember a value and fit it, in O(m^2)."""
        error = value - self.value_at(point)
        cross, own = self._cross(point)
        own += INTERPOLATION_ERROR * own or 1.0
        solved = self._inverse[: self.count, : self.count] @ cross
        variance = max(own - float(cross @ solved), INTERPOLATION_ERROR * own)
        self.append(point, value)
        coefficients = np.zeros(len(self._rows))
        coefficients[: self.newest], coefficients[self.newest] = -solved, 1.0
        self._update_inverse(1.0 / variance, coefficients)
        self._correct(coefficients[: self.count] * (error / variance))
        left = abs(value - self.value_at(point))
        allowed = (1e-3 + 2 * INTERPOLATION_ERROR * own / variance) * abs(error) + 1e-13 * abs(
            value
        )
        if not left <= allowed:
            self.stale = PRECISION_LOST  # the inverse has lost its precision

    def _update_inverse(self, factor: float, column: FloatArray) -> None:
        """Add `factor * column column'`, in place."""
        blas.dger(factor, column, column, a=self._inverse.T, overwrite_a=True)

    def _correct(self, coefficients: FloatArray) -> None:
        slope = GRADIENT_WEIGHT / self.scale**2 * (coefficients @ self.rows)
        self._gradient = self._gradient + slope
        self._weights[: self.count] += coefficients / self.scale**4

    def drop(self, index: int) -> None:
        """Forget a point; what it taught stays in the model."""
        last = self.count - 1
        inverse = self._inverse
        column = inverse[:, index].copy()
        if column[index] != 0.0:
            self._update_inverse(-1.0 / column[index], column)
        self.bend(float(self._weights[index]), self._rows[index, : self.size])
        for array in (self._rows, self._values, self._weights):
            array[index] = array[last]
            array[last] = 0.0
        diagonal = inverse[last, last]
        inverse[index] = inverse[last]
        inverse[:, index] = inverse[:, last]
        inverse[index, index] = diagonal
        inverse[last] = inverse[:, last] = 0.0
        if self.newest == last:
            self.newest = index
        self.count = last
        self.stale += 1

    def rebuild(
        self,
        shift: FloatArray,
        scale: float,
        transform: FloatArray | None = None,
        *,
        invert: bool = True,
    ) -> None:
        """Move the base by `shift`, then map rows by `transform`; fit every value again.

        Args:
            shift: Shape `(p,)`.
            scale: New unit of length of the kernel, > 0.
            transform: Shape `(p, p)`.
            invert: Whether geometry will be asked about.
        """
        full = self.hessian()
        bent = full @ shift
        self._constant += float(shift @ (self._gradient + 0.5 * bent))
        self._gradient = self._gradient + bent
        rows = self.rows
        rows -= shift
        if transform is not None:
            back = np.linalg.inv(transform)
            rows[:] = rows @ transform.T
            self._gradient, full = back.T @ self._gradient, back.T @ full @ back
        self._explicit, self.scale, self.stale = full, scale, 0
        self._weights[:] = 0.0
        self._refit(invert)

    def _refit(self, invert: bool) -> None:
        rows, scale = self.rows, self.scale
        inner = rows @ rows.T
        self._constant = float(self._values[inner.diagonal().argmin()])
        inner *= 1.0 / scale**2
        cubic = self.blur * inner.diagonal() ** 3
        gram = 0.5 * inner
        gram += GRADIENT_WEIGHT
        gram *= inner
        own = gram.diagonal().copy()
        extra = np.where(own > 0, INTERPOLATION_ERROR * own, 1.0)
        gram.ravel()[:: len(own) + 1] += cubic
        gram.ravel()[:: len(own) + 1] += extra
        factor, failed = lapack.dpotrf(gram, lower=1, clean=0)
        if failed:  # points that coincide to rounding
            gram.ravel()[:: len(own) + 1] += 1e-7 * own + 1e-300
            factor, failed = lapack.dpotrf(gram, lower=1, clean=0)
        bent = np.einsum("ij,ij->i", rows @ self._explicit, rows)
        errors = self.values - self._constant - rows @ self._gradient - 0.5 * bent
        coefficients = lapack.dpotrs(factor, errors, lower=1)[0]
        # undo the nugget
        coefficients += lapack.dpotrs(factor, extra * coefficients, lower=1)[0]
        self._correct(coefficients)
        self._inverse[:] = 0.0
        if invert:
            lower = np.tril(lapack.dpotri(factor, lower=1)[0])
            inverse = self._inverse[: self.count, : self.count]
            inverse[:] = lower + lower.T
            np.fill_diagonal(inverse, lower.diagonal())


def _widened(array: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """The array in the corner of a larger one of zeros."""
    wide = np.zeros(shape)
    wide[tuple(slice(0, length) for length in array.shape)] = array
    return wide
