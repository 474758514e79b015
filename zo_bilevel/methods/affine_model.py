"""The affine model of the inner solver: theta(x + Q s) ~ a + J s, and how far to believe it.

Every solve, whether a difference or a trial step, is one observation of the same affine function.
A Kalman filter weighs them: `spread` is the covariance (the same for every component of theta) of
the columns [a, J]; moving makes columns stale (drift), observing sharpens them again. With no noise
and no drift an observation is a secant (Broyden) update that only moves the columns in doubt.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class AffineModel:
    """theta(center + basis @ s) ~ columns @ [1, s], columns known up to the covariance `spread`."""

    def __init__(self, center: Array, theta: Array, noise_variance: float = 0.0) -> None:
        """Start from one solve at `center`."""
        self.center = center
        self._basis = np.empty((center.size, 8), order="F")
        self._columns = np.empty((theta.size, 9), order="F")
        self._columns[:, 0] = theta
        self.size = 0
        self.spread = np.full((1, 1), noise_variance)
        self.curvature = 0.09  # squared relative change of a column per unit moved
        self._gram: Array | None = None
        self._observations = 0

    @property
    def basis(self) -> Array:
        """Orthonormal directions (num_parameters, size)."""
        return self._basis[:, : self.size]

    @property
    def theta(self) -> Array:
        """The value at the center."""
        return self._columns[:, 0]

    @property
    def jacobian(self) -> Array:
        """The derivative of theta along every basis direction."""
        return self._columns[:, 1 : self.size + 1]

    @property
    def powers(self) -> Array:
        """Mean square of every column of the Jacobian."""
        return np.diag(self.gram()) / self.theta.size

    def gram(self) -> Array:
        """jacobian.T @ jacobian, kept up to date by rank-one updates."""
        if self._gram is None:
            columns = self._columns[:, : self.size + 1]
            self._gram = columns.T @ columns
        return self._gram[1:, 1:]

    def add_direction(self, direction: Array, variance: float) -> None:
        """Append a unit vector orthogonal to the basis, its column unknown (0 +- variance)."""
        b = self.size
        if b == self._basis.shape[1]:
            self._basis = np.concatenate([self._basis, np.empty_like(self._basis)], axis=1)
            grown = np.empty((self._columns.shape[0], self._basis.shape[1] + 1), order="F")
            grown[:, : b + 1] = self._columns
            self._columns = grown
        self._basis[:, b] = direction
        self._columns[:, b + 1] = 0.0
        self.spread = np.pad(self.spread, ((0, 1), (0, 1)))
        self.spread[-1, -1] = variance
        if self._gram is not None:
            self._gram = np.pad(self._gram, ((0, 1), (0, 1)))
        self.size += 1

    def uncertainty(self, step: Array) -> float:
        """Variance per component of the predicted theta at center + basis @ step."""
        weights = np.concatenate([[1.0], step])
        return float(weights @ self.spread @ weights)

    def bend(self, step: Array) -> float:
        """Variance per component expected from curvature along the step."""
        return float(self.curvature * (step @ step) * (self.powers * step @ step))

    def predict(self, step: Array) -> Array:
        """theta at center + basis @ step."""
        return self.theta + self.jacobian @ step

    def doubt(self) -> None:
        """Forget how well the columns are known, keep their values."""
        index = np.arange(1, self.size + 1)
        self.spread[index, index] += self.powers

    def drift(self, distance_squared: float) -> None:
        """Columns measured elsewhere, or about to be left, become less certain."""
        index = np.arange(1, self.size + 1)
        self.spread[index, index] += self.curvature * distance_squared * self.powers

    def observe(self, weights: Array, theta: Array, variance: float) -> None:
        """Learn that columns @ weights is theta, up to `variance`.

        weights [1, s]: a solve at center + basis @ s; [0, s]: a difference along basis @ s.
        """
        columns = self._columns[:, : self.size + 1]
        direction = self.spread @ weights
        total = float(weights @ direction) + variance
        if total <= 0.0:
            return
        gain = direction / total
        error = theta - columns @ weights
        self._update_gram(columns, error, gain)
        columns += error[:, None] * gain
        self.spread -= np.outer(gain, direction)
        self._remove_rounding()

    def _remove_rounding(self) -> None:
        self.spread = 0.5 * (self.spread + self.spread.T)
        index = np.arange(self.size + 1)
        self.spread[index, index] = np.maximum(self.spread[index, index], 0.0)

    def _update_gram(self, columns: Array, error: Array, gain: Array) -> None:
        self._observations += 1
        if self._gram is None or self._observations % 64 == 0:
            self._gram = None
            return
        cross = np.outer(columns.T @ error, gain)
        self._gram = self._gram + cross + cross.T + float(error @ error) * np.outer(gain, gain)

    def move(self, step: Array, point: Array) -> None:
        """Make center + basis @ step the center."""
        self._columns[:, 0] += self.jacobian @ step
        self.center = point
        for matrix in (self.spread, self._gram):
            if matrix is not None:
                matrix[0] += step @ matrix[1:]
                matrix[:, 0] += matrix[:, 1:] @ step

    def learn_curvature(self, error_variance: float, step: Array, noise_variance: float) -> None:
        """Update the squared relative curvature from a surprise of that variance."""
        known = self.uncertainty(step)
        if noise_variance > 0.0 and error_variance < 1.5 * (known + noise_variance):
            return
        scale = float((step @ step) * (self.powers * step @ step)) + 1e-300
        bend = max(error_variance - known - noise_variance, 0.1 * error_variance)
        limit = 1e6 if noise_variance == 0.0 else 4.0
        self.curvature = float(np.clip(np.sqrt(self.curvature * (bend / scale + 1e-12)), 1e-6, limit))
