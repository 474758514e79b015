"""The outer objective as Gauss-Newton sees it: value, slope and curvature of what is modelled.

What is modelled is the inner solution; scaled by the square roots of the weights, when the
objective is a weighted squared error, so that all components count the same; with the scaled
parameters appended, when the objective depends on phi beside theta: their derivative is known
exactly, and the affine model keeps it exact.
"""

from __future__ import annotations

from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.output_rounding import OutputRounding
from zo_bilevel.problem.objectives.cross_entropy import CrossEntropy
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.problem import BoundProblem
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray

ROUNDING = 0.3
"""Standard deviation of rounding, in units of the type's resolution."""


@final
class OuterModel:
    """A function of the modelled vector.

    Args:
        bound: The problem, vector-valued.
        evaluation: A first solve: tells whether the objective depends on phi explicitly.
        radius: Length of a difference, scaled, or `None` to choose it from the noise.

    Attributes:
        is_quadratic: Whether the loss is `constant / 2 |values - target|^2`.
        is_convex: Whether the Hessian is known to have no negative eigenvalue.
        is_explicit: Whether the scaled parameters are part of the modelled vector.
        grain: How coarsely answers are rounded.
    """

    def __init__(
        self, bound: BoundProblem, evaluation: Evaluation, radius: float | None = None
    ) -> None:
        self.bound = bound
        self.radius = radius
        theta, x = evaluation.theta, evaluation.point.x
        if theta is None:
            raise ValueError("the first solve must be ok")
        self._size = theta.size
        self._nowhere = np.zeros(x.size)
        self._scale: FloatArray | None = None
        self._target = np.zeros(0)
        self.constant = 0.0
        self.is_explicit = False
        self.grain = OutputRounding()
        self._resolution = float(np.finfo(bound.layout.dtype).eps)
        self.is_quadratic = isinstance(bound.outer, SquaredError)
        self.is_convex = isinstance(bound.outer, SquaredError | CrossEntropy)
        if isinstance(bound.outer, SquaredError):
            self._set_quadratic(bound.outer)
        elif not isinstance(bound.outer, CrossEntropy):
            self.is_explicit = _depends_on_phi(bound, theta, x)

    def _set_quadratic(self, outer: SquaredError) -> None:
        weights, self._target = outer.weights, outer.target
        self.constant = 2.0 * float(weights[0]) / weights.size
        if np.ptp(weights) > 0.0:
            self._scale = np.sqrt(weights / weights.mean())
            self._target = self._scale * outer.target
            self.constant = 2.0 * float(weights.mean()) / weights.size

    def observe(self, evaluation: Evaluation) -> FloatArray | None:
        """The modelled vector of a solve, or `None` when it failed."""
        if evaluation.theta is None:
            return None
        self.grain.see(evaluation.theta)
        if self._scale is not None:
            scaled: FloatArray = self._scale * evaluation.theta
            return scaled
        if not self.is_explicit:
            return evaluation.theta
        joined: FloatArray = np.concatenate([evaluation.theta, evaluation.point.x])
        return joined

    def rounding(self, values: FloatArray) -> float:
        """Error of rounding of one component: of the type of theta, or what is seen of it."""
        size = float(np.sqrt(np.mean(values**2)))
        return max(ROUNDING * self._resolution * size, self.grain.noise)

    def inner(self, values: FloatArray) -> FloatArray:
        """The part of a modelled vector that the inner solver answered."""
        return values[: self._size]

    def tangents(self, derivative: FloatArray, directions: FloatArray) -> FloatArray:
        """Derivatives of the modelled vector from those of theta, `(m, c)`, along `(N, c)`."""
        if self._scale is not None:
            scaled: FloatArray = self._scale[:, None] * derivative
            return scaled
        return np.vstack([derivative, directions]) if self.is_explicit else derivative

    def _split(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        if self.is_explicit:
            return values[: self._size], values[self._size :]
        if values.ndim == 1:
            return values, self._nowhere
        return values, np.zeros((self._nowhere.size, values.shape[1]))

    def loss(self, values: FloatArray) -> float:
        """The value; infinity where it is not finite."""
        if self.is_quadratic:
            difference = values - self._target
            return 0.5 * self.constant * float(difference @ difference)
        value = self.bound.value(*self._split(values))
        return value if np.isfinite(value) else np.inf

    def scale(self, values: FloatArray) -> float:
        """By how much the modelled vector may be expected to change: its spread, or its misfit."""
        spread = float(np.std(values))
        if not self.is_quadratic:
            return spread
        misfit = values - self._target
        return max(spread, float(np.sqrt(misfit @ misfit / misfit.size)))

    def gradient(self, values: FloatArray) -> FloatArray:
        """Its derivative, of the length of the modelled vector."""
        if self.is_quadratic:
            return self.constant * (values - self._target)
        in_theta, in_x = self.bound.gradient(*self._split(values))
        return np.concatenate([in_theta, in_x]) if self.is_explicit else in_theta

    def bend(self, values: FloatArray, tangent: FloatArray) -> FloatArray:
        """Its Hessian times one vector, shape `(m,)`."""
        if self.is_quadratic:
            return self.constant * tangent
        return self._product(values, tangent[:, None])[:, 0]

    def curvature(self, values: FloatArray, jacobian: FloatArray) -> FloatArray:
        """Its Hessian between the columns of a Jacobian, `(b, b)` from `(m, b)`; symmetric."""
        if self.is_quadratic:
            return self.constant * (jacobian.T @ jacobian)
        between = jacobian.T @ self._product(values, jacobian)
        return 0.5 * (between + between.T)

    def trace(self, values: FloatArray) -> float:
        """Trace of its Hessian in theta, estimated by one vector of signs; 0 or more."""
        if self.is_quadratic:
            return self.constant * self._size
        signs = np.where(np.arange(values.size) % 2, 1.0, -1.0)
        signs[self._size :] = 0.0
        return max(float(signs @ self.bend(values, signs)), 0.0)

    def _product(self, values: FloatArray, block: FloatArray) -> FloatArray:
        theta, x = self._split(values)
        theta_block, x_block = self._split(block)
        in_theta, in_x = self.bound.hessian_product(theta, x, theta_block, x_block)
        return np.vstack([in_theta, in_x]) if self.is_explicit else in_theta


def _depends_on_phi(bound: BoundProblem, theta: FloatArray, x: FloatArray) -> bool:
    """Whether the objective has a derivative in phi itself, at the start or beside it.

    A penalty may well be flat at the start, so other points are looked at too.
    """
    space = bound.space
    signs = np.where(np.arange(x.size) % 2, 1.0, -1.0)
    places = (x, x + 0.37 * signs, x - 0.73)
    inside = (np.clip(place, space.lower, space.upper) for place in places)
    return any(bool(np.any(bound.gradient(theta, place)[1])) for place in inside)
