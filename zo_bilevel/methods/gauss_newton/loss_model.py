"""What a step is expected to add to the loss: a quadratic, and the objective it stands for."""

from dataclasses import dataclass
from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.outer_model import OuterModel
from zo_bilevel.methods.gauss_newton.taylor_prior import Observations
from zo_bilevel.support.arrays import FloatArray

SAME_CHANGE = 0.1
"""Share of the change along a step by which a quadratic may be wrong about the objective."""
DAMPING = 1e-6
"""Of squared slopes, in their sum over all directions."""


@final
@dataclass(frozen=True, slots=True)
class ModelObjective:
    """The objective of the model of theta around a center, kinks and all.

    Args:
        outer: The objective.
        center: Shape `(N,)`.
        basis: Orthonormal directions, shape `(N, b)`.
        theta: Modelled vector at the center, shape `(m,)`.
        loss: There.
        observations: What the model is made of.
        weights: Of the observations, shape `(p, m)`.
        length: Of the prior.
    """

    outer: OuterModel
    center: FloatArray
    basis: FloatArray
    theta: FloatArray
    loss: float
    observations: Observations
    weights: FloatArray
    length: float

    def change(self, step: FloatArray) -> tuple[float, FloatArray]:
        """What a step, `(b,)`, adds to the loss, and its gradient, `(b,)`."""
        known = self.observations.covariance_with(step, self.length)
        theta = self.theta + known @ self.weights
        jacobian = self.weights.T @ self.observations.slopes_with(step, self.length)
        value, in_theta, in_x = self.outer.value_and_gradient(
            theta, self.center + self.basis @ step
        )
        return value - self.loss, jacobian.T @ in_theta + self.basis.T @ in_x

    @property
    def inverse_squares(self) -> FloatArray:
        """Inverse of the Jacobian's squares, a little damped: a Hessian's shape, `(b, b)`."""
        jacobian = self.weights.T @ self.observations.slopes
        squares = jacobian.T @ jacobian
        squares = squares / max(float(np.trace(squares)), 1e-300)
        return np.asarray(np.linalg.inv(squares + DAMPING * np.eye(len(squares))))


@final
@dataclass(frozen=True, slots=True)
class Quadratic:
    """gradient . s + s . hessian s / 2, and what doubt about the slopes adds to the Hessian.

    Args:
        gradient: Shape `(b,)`.
        hessian: Shape `(b, b)`.
        doubt: Shape `(b, b)`.
        ignorance: What the doubt about a direction would be if nothing were known of it.
        objective: What it stands for; `None` where it is exactly that, or smooth enough.
    """

    gradient: FloatArray
    hessian: FloatArray
    doubt: FloatArray
    ignorance: float
    objective: ModelObjective | None = None

    @property
    def is_finite(self) -> bool:
        """Whether all of it is."""
        parts = self.gradient.sum() + self.hessian.sum() + self.doubt.sum() + self.ignorance
        return bool(np.isfinite(parts))

    def change(self, step: FloatArray, *, doubt: bool = False) -> float:
        """Of the loss, along a step."""
        if self.objective is None:
            return self._change(step, self.hessian + self.doubt if doubt else self.hessian)
        extra = 0.5 * float(step @ self.doubt @ step) if doubt else 0.0
        return self.objective.change(step)[0] + extra

    def _change(self, step: FloatArray, matrix: FloatArray) -> float:
        return float(step @ (self.gradient + 0.5 * (matrix @ step)))

    def kinked(self, step: FloatArray) -> ModelObjective | None:
        """The objective where along this step the quadratic is wrong about it."""
        if self.objective is None:
            return None
        own = self._change(step, self.hessian)
        is_right = abs(self.objective.change(step)[0] - own) <= SAME_CHANGE * abs(own)
        return None if is_right else self.objective
