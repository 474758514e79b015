"""The outer objective as Gauss-Newton sees it: value, slope and convex curvature of what is modelled.

What is modelled is the inner solution, or, when the outer objective depends on phi beside theta,
the inner solution with the scaled parameters appended: their derivative is known exactly, and the
affine model keeps it exact.
"""

from __future__ import annotations

from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.evaluation import Evaluation
from zo_bilevel.objectives.squared_error import SquaredError
from zo_bilevel.problem import BoundProblem

FloatArray: TypeAlias = NDArray[np.float64]


@final
class OuterModel:
    """A locally convex function of the modelled vector.

    Args:
        bound: The problem, vector-valued.
        evaluation: A first solve: tells whether the objective depends on phi explicitly.
    """

    def __init__(self, bound: BoundProblem, evaluation: Evaluation) -> None:
        self.bound = bound
        theta, x = evaluation.theta, evaluation.point.x
        if theta is None:
            raise ValueError("the first solve must be ok")
        self._size = theta.size
        self._nowhere = np.zeros(x.size)
        self._target: FloatArray | None = None
        self.constant_hessian: float | None = None
        self.is_explicit = False
        if isinstance(bound.outer, SquaredError):
            if np.ptp(bound.outer.weights) == 0.0:
                self._target = bound.outer.target
                self.constant_hessian = 2.0 * float(bound.outer.weights[0]) / theta.size
        else:
            self.is_explicit = bool(np.any(bound.gradient(theta, x)[1]))

    def observe(self, evaluation: Evaluation) -> FloatArray | None:
        """The modelled vector of a solve, or `None` when it failed."""
        if evaluation.theta is None:
            return None
        if self.is_explicit:
            return np.concatenate([evaluation.theta, evaluation.point.x])
        return evaluation.theta

    def tangents(self, derivative: FloatArray, directions: FloatArray) -> FloatArray:
        """Derivatives of the modelled vector from those of theta, `(m, c)`, along `(N, c)`."""
        return np.vstack([derivative, directions]) if self.is_explicit else derivative

    def _split(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        if self.is_explicit:
            return values[: self._size], values[self._size :]
        if values.ndim == 1:
            return values, self._nowhere
        return values, np.zeros((self._nowhere.size, values.shape[1]))

    def loss(self, values: FloatArray) -> float:
        """The value; infinity where it is not finite."""
        if self._target is not None and self.constant_hessian is not None:
            difference = values - self._target
            return 0.5 * self.constant_hessian * float(difference @ difference)
        value = self.bound.value(*self._split(values))
        return value if np.isfinite(value) else np.inf

    def gradient(self, values: FloatArray) -> FloatArray:
        """Its derivative, of the length of the modelled vector."""
        if self._target is not None and self.constant_hessian is not None:
            return self.constant_hessian * (values - self._target)
        in_theta, in_x = self.bound.gradient(*self._split(values))
        return np.concatenate([in_theta, in_x]) if self.is_explicit else in_theta

    def hessian_product(self, values: FloatArray, block: FloatArray) -> FloatArray:
        """Its Hessian times the columns of a block, `(m, b)`."""
        theta, x = self._split(values)
        theta_block, x_block = self._split(block)
        in_theta, in_x = self.bound.hessian_product(theta, x, theta_block, x_block)
        return np.vstack([in_theta, in_x]) if self.is_explicit else in_theta
