"""The affine model of the inner solution: theta(x + Q s) ~ a + J s, and how far to believe it.

Every solve, whether a difference or a trial step, is one observation of the same affine function.
A Kalman filter weighs them: `spread` is the covariance (the same for every component of theta) of
the columns [a, J]; moving makes columns stale (drift), observing sharpens them again. With no noise
and no drift an observation is a secant (Broyden) update that only moves the columns in doubt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.linalg.blas import dger

from zo_bilevel.support.arrays import FloatArray

FIRST_CURVATURE = 0.09
"""Squared relative change of a column per unit moved, before anything is known."""
LEAST_CURVATURE, MOST_CURVATURE = 1e-6, 1e6
MOST_NOISY_CURVATURE = 4.0
"""The same under noise, from which curvature cannot be told well."""
CAPACITY = 8
"""Directions that there is room for at first; doubled when needed."""


@final
@dataclass(frozen=True, slots=True)
class Update:
    """A rank-one change of the columns: `columns += outer(error, gain)`.

    Args:
        error: Shape `(m,)`.
        gain: Of the value at the center, then of every direction; shape `(b + 1,)`.
        cross: `columns.T @ error` before the change, shape `(b + 1,)`.
    """

    error: FloatArray
    gain: FloatArray
    cross: FloatArray


@final
class AffineModel:
    """theta(center + basis @ s) ~ columns @ [1, s], columns known up to the covariance `spread`.

    Args:
        center: Shape `(N,)`.
        theta: Value there, shape `(m,)`.
        variance: Of one component of that value.
    """

    def __init__(self, center: FloatArray, theta: FloatArray, variance: float = 0.0) -> None:
        self.center = center
        self.size = 0
        self.curvature = FIRST_CURVATURE
        room = min(CAPACITY, center.size)
        self._basis = np.empty((center.size, room), order="F")
        self._columns = np.empty((theta.size, room + 1), order="F")
        self._columns[:, 0] = theta
        self._spread = np.zeros((room + 1, room + 1))
        self._spread[0, 0] = variance
        self._norms = np.zeros(room + 1)

    @property
    def basis(self) -> FloatArray:
        """Orthonormal directions, shape `(N, b)`."""
        return self._basis[:, : self.size]

    @property
    def columns(self) -> FloatArray:
        """The value at the center, then its derivatives; shape `(m, b + 1)`."""
        return self._columns[:, : self.size + 1]

    @property
    def theta(self) -> FloatArray:
        """The value at the center, shape `(m,)`."""
        return self._columns[:, 0]

    @property
    def jacobian(self) -> FloatArray:
        """The derivative of theta along every basis direction, shape `(m, b)`."""
        return self._columns[:, 1 : self.size + 1]

    @property
    def spread(self) -> FloatArray:
        """Covariance of the columns, the same for each component; shape `(b + 1, b + 1)`."""
        return self._spread[: self.size + 1, : self.size + 1]

    @property
    def powers(self) -> FloatArray:
        """Mean square of every column of the Jacobian, shape `(b,)`."""
        return self._norms[1 : self.size + 1] / len(self._columns)

    def add_direction(self, direction: FloatArray, variance: float) -> None:
        """Append a unit vector orthogonal to the basis, its column unknown (0 +- variance)."""
        b = self.size
        if b == self._basis.shape[1]:
            self._grow()
        self._basis[:, b] = direction
        self._columns[:, b + 1] = 0.0
        self._spread[b + 1, : b + 2] = 0.0
        self._spread[: b + 2, b + 1] = 0.0
        self._spread[b + 1, b + 1] = variance
        self._norms[b + 1] = 0.0
        self.size = b + 1

    def _grow(self) -> None:
        b, room = self.size, min(2 * self.size, self.center.size)
        basis, columns = self._basis, self._columns
        self._basis = np.empty((len(basis), room), order="F")
        self._basis[:, :b] = basis
        self._columns = np.empty((len(columns), room + 1), order="F")
        self._columns[:, : b + 1] = columns
        spread, self._spread = self._spread, np.zeros((room + 1, room + 1))
        self._spread[: b + 1, : b + 1] = spread
        self._norms = np.pad(self._norms, (0, room - b))

    def value(self, weights: FloatArray) -> FloatArray:
        """What `columns @ weights` is; with `[1, s]` theta at center + basis @ s.

        Args:
            weights: Shape `(b + 1,)`.
        """
        used = weights.nonzero()[0]
        if used.size > 2:
            product: FloatArray = self.columns @ weights
            return product
        total = np.zeros(len(self._columns))
        for index in used:
            total += weights[index] * self._columns[:, index]
        return total

    def uncertainty(self, weights: FloatArray) -> float:
        """Variance per component of columns @ weights."""
        return float(weights @ self.spread @ weights)

    def bend(self, step: FloatArray) -> float:
        """Variance per component expected from curvature along the step."""
        return float(self.curvature * (step @ step) * (self.powers * step @ step))

    def doubt(self) -> None:
        """Forget how well the columns are known, keep their values."""
        index = np.arange(1, self.size + 1)
        self._spread[index, index] += self.powers

    def drift(self, distance_squared: float) -> None:
        """Columns measured elsewhere, or about to be left, become less certain."""
        index = np.arange(1, self.size + 1)
        self._spread[index, index] += self.curvature * distance_squared * self.powers

    def observe(
        self, weights: FloatArray, value: FloatArray, variance: float, known: FloatArray
    ) -> Update | None:
        """Learn that columns @ weights is a value, up to a variance.

        Args:
            weights: `[1, s]`: a solve at center + basis @ s; `[0, s]`: a difference along it.
            value: Shape `(m,)`.
            variance: Per component.
            known: `columns @ weights` so far, shape `(m,)`.

        Returns:
            What changed, or `None` when nothing could be learnt.
        """
        spread = self.spread
        direction = spread @ weights
        total = float(weights @ direction) + variance
        if total <= 0.0:
            return None
        gain = direction / total
        error = value - known
        columns = self.columns
        update = Update(error, gain, columns.T @ error)
        used = gain.nonzero()[0]
        if used.size == 1:
            columns[:, used[0]] += gain[used[0]] * error
        else:
            dger(1.0, error, gain, a=columns, overwrite_x=0, overwrite_y=0, overwrite_a=1)
        norms = self._norms[: self.size + 1]
        norms += gain * (2.0 * update.cross + float(error @ error) * gain)
        np.maximum(norms, 0.0, out=norms)
        spread -= direction[:, None] * gain
        diagonal = spread.diagonal()
        if diagonal.min() < 0.0:
            np.fill_diagonal(spread, np.maximum(diagonal, 0.0))
        return update

    def move(self, step: FloatArray, point: FloatArray, theta: FloatArray, exact: bool) -> None:
        """Make center + basis @ step the center.

        Args:
            step: Shape `(b,)`.
            point: The new center, shape `(N,)`.
            theta: The value there, shape `(m,)`.
            exact: Whether that value is beyond doubt.
        """
        self.center = point
        self._columns[:, 0] = theta
        spread = self.spread
        if exact:
            spread[0] = 0.0
            spread[:, 0] = 0.0
            return
        spread[0] += step @ spread[1:]
        spread[:, 0] += spread[:, 1:] @ step

    def renew_norms(self) -> None:
        """Compute the columns' mean squares afresh, free of accumulated rounding."""
        columns = self.columns
        self._norms[: self.size + 1] = np.einsum("ij,ij->j", columns, columns)

    def learn_curvature(
        self, surprise: float, step: FloatArray, known: float, noise_variance: float
    ) -> None:
        """Update the squared relative curvature from how wrong a prediction was.

        Args:
            surprise: Mean square of the error.
            step: Of that prediction.
            known: Variance that the columns' uncertainty explains.
            noise_variance: Variance that noise explains.
        """
        if noise_variance > 0.0 and surprise < 1.5 * (known + noise_variance):
            return
        scale = float((step @ step) * (self.powers * step @ step)) + 1e-300
        bend = max(surprise - known - noise_variance, 0.1 * surprise)
        most = MOST_CURVATURE if noise_variance == 0.0 else MOST_NOISY_CURVATURE
        guess = np.sqrt(self.curvature * (bend / scale + 1e-12))
        self.curvature = float(min(max(guess, LEAST_CURVATURE), most))
