"""The outer objective as Gauss-Newton sees it.

What is modelled is the inner solution, scaled by the square roots of the weights when the
objective is a weighted squared error, so that all components count the same. With a covariance or
priors it is the vector of all residuals in standard deviations, so that the priors count exactly.
"""

from typing import final

import numpy as np
from scipy.linalg.lapack import dpotrf

from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.objectives.base import ThetaObjective
from zo_bilevel.problem.objectives.cross_entropy import CrossEntropy
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.prior_term import Residuals
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray

SIGN_PERIODS = (1, 2, 3)
"""Of the vectors of signs along which a curvature is estimated."""
DROWNED_RISE = 1e-10
"""Share of a loss that its rounding drowns."""


@final
class OuterModel:
    """A function of the modelled vector and the continuous coordinates.

    Attributes:
        is_quadratic: Whether the loss is `constant / 2 |theta - target|^2`.
        is_smooth: Whether it is known to have no kinks.
        target: That target, shape `(m,)`; empty where there is none.
    """

    def __init__(self, bound: BoundProblem, first: Evaluation) -> None:
        theta, self._whole = first.theta, first.point.x
        if theta is None:
            raise ValueError("the first solve must be ok")
        self.bound = bound
        self._free = ~bound.space.discrete
        self._is_all_free = bool(self._free.all())
        self._scale: FloatArray | None = None
        self.target = self._level = np.zeros(0)
        self.constant = 0.0
        self.resolution = float(np.finfo(bound.layout.dtype).eps)
        self.is_quadratic = isinstance(bound.outer, SquaredError)
        self.is_smooth = isinstance(bound.outer, ThetaObjective)
        self._is_convex = isinstance(bound.outer, SquaredError | CrossEntropy)
        self._is_explicit = bound.prior is not None or (
            not self._is_convex and _depends_on_phi(bound, theta, self._whole)
        )
        self._residuals: Residuals | None = None
        if isinstance(bound.outer, SquaredError):
            self._set_quadratic(bound.outer)

    def _set_quadratic(self, outer: SquaredError) -> None:
        residuals = Residuals(self.bound.space, outer)
        if not residuals.is_plain:
            self._residuals = residuals
            self.target = self._residuals.target
            self.constant = 2.0 / self._residuals.count
            self._level = np.zeros(self.target.size)
            whitened = outer.whiten(np.ones_like(outer.target))
            self._level[: whitened.size] = whitened
            return
        weights, self.target = outer.weights, outer.target
        self.constant = 2.0 * float(weights[0]) / weights.size
        self._level = np.ones(weights.size)
        if np.ptp(weights) > 0.0:
            self._scale = np.sqrt(weights / weights.mean())
            self.target, self._level = self._scale * outer.target, self._scale
            self.constant = 2.0 * float(weights.mean()) / weights.size

    def embed(self, point: FloatArray) -> FloatArray:
        """The whole scaled vector of a point of the continuous coordinates, or of their block."""
        if self._is_all_free:
            return point
        whole = (
            self._whole.copy() if point.ndim == 1 else np.zeros((self._free.size, point.shape[1]))
        )
        whole[self._free] = point
        return whole

    def observe(self, evaluation: Evaluation) -> FloatArray | None:
        """The modelled vector of a solve, or `None` when it failed."""
        if not evaluation.ok or evaluation.theta is None:
            return None
        if self._residuals is not None:
            return self._residuals.modelled(evaluation.theta, evaluation.point.x)
        return evaluation.theta if self._scale is None else self._scale * evaluation.theta

    def tangents(self, derivative: FloatArray, directions: FloatArray, x: FloatArray) -> FloatArray:
        """Derivatives of the modelled vector from those of theta, `(m, c)`."""
        if self._residuals is not None:
            return self._residuals.slopes(derivative, x, directions)
        return derivative if self._scale is None else self._scale[:, None] * derivative

    def of_theta(self, derivative: FloatArray) -> FloatArray:
        """Derivatives of theta from those of the modelled vector; NaN where it has no weight."""
        if self._residuals is not None:
            return self._residuals.of_theta(derivative)
        if self._scale is None:
            return derivative
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(derivative / self._scale[:, None])

    def loss(self, theta: FloatArray, point: FloatArray) -> float:
        """The value; infinity where it is not finite."""
        if self.is_quadratic:
            difference = theta - self.target
            value = 0.5 * self.constant * float(difference @ difference)
        else:
            value = self.bound.value(theta, self.embed(point))
        return value if np.isfinite(value) else np.inf

    def spread(self, theta: FloatArray) -> float:
        """By how much the modelled vector may be expected to change: its spread, or its misfit."""
        spread = float(np.std(theta))
        if not self.is_quadratic:
            return spread
        misfit = theta - self.target
        return max(spread, float(np.sqrt(misfit @ misfit / misfit.size)))

    def unexplained(self, loss: float, first: float) -> float:
        """Share of what is to be explained that is left: of the data's variance, or of the loss."""
        if not self.is_quadratic:
            return loss / first if first > 0.0 else 0.0
        level = self._level
        mean = float(level @ self.target) / max(float(level @ level), 1e-300)
        spread = self.target - mean * level
        variance = 0.5 * self.constant * float(spread @ spread)
        return loss / max(min(variance, first) if variance > 0.0 else first, 1e-300)

    def gradient(self, theta: FloatArray, point: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Its derivatives in the modelled vector, `(m,)`, and in the coordinates, `(N,)`."""
        if self.is_quadratic:
            return self.constant * (theta - self.target), np.zeros(point.size)
        in_theta, in_x = self.bound.gradient(theta, self.embed(point))
        return in_theta, in_x[self._free]

    def value_and_gradient(
        self, theta: FloatArray, point: FloatArray
    ) -> tuple[float, FloatArray, FloatArray]:
        """`loss`, and both parts of `gradient`."""
        value, (in_theta, in_x) = self.bound.value_and_gradient(theta, self.embed(point))
        return value if np.isfinite(value) else np.inf, in_theta, in_x[self._free]

    def curvature(
        self, theta: FloatArray, point: FloatArray, jacobian: FloatArray, basis: FloatArray
    ) -> FloatArray:
        """Its Hessian along directions, `(b, b)`, without negative eigenvalues.

        Args:
            theta: Modelled vector.
            point: Shape `(N,)`.
            jacobian: How the modelled vector changes along the directions, `(m, b)`.
            basis: The directions, `(N, b)`.
        """
        if self.is_quadratic:
            return self.constant * (jacobian.T @ jacobian)
        x = self.embed(point)
        in_theta, in_x = self.bound.hessian_product(theta, x, jacobian, self.embed(basis))
        between = jacobian.T @ in_theta
        if self._is_explicit:
            between = between + basis.T @ in_x[self._free]
        between = 0.5 * (between + between.T)
        if not self._is_convex:
            between = between + self._concave_part(theta, x, jacobian)
            between = nearest_convex(between)
        return between

    def _concave_part(self, theta: FloatArray, x: FloatArray, jacobian: FloatArray) -> FloatArray:
        """What takes a concave transform of a convex objective back to that objective.

        Of `t(f)` the Hessian is `t' H + t'' g g'`: the second term, negative for logarithms and
        roots, is known by a curvature along the gradient below that of other directions.
        """
        slope = self.bound.gradient(theta, x)[0]
        length = float(np.linalg.norm(slope))
        if length == 0.0:
            return np.zeros((jacobian.shape[1],) * 2)
        unit = slope / length
        along = float(unit @ self._product(theta, x, unit))
        other = (self._trace(theta, x) - along) / max(theta.size - 1, 1)
        if along >= 0.0 or other <= 0.0:
            return np.zeros((jacobian.shape[1],) * 2)
        turned = jacobian.T @ unit
        return np.asarray((other - along) * np.outer(turned, turned), dtype=np.float64)

    def bend(self, theta: FloatArray, point: FloatArray, reach: float) -> float:
        """Trace of its Hessian in the modelled vector, estimated by vectors of signs; >= 0.

        Args:
            theta: Modelled vector.
            point: Shape `(N,)`.
            reach: Change of each component over which kinks count as curvature.
        """
        if self.is_quadratic:
            return self.constant * theta.size
        if not self.is_smooth:
            here, sides = self.loss(theta, point), np.arange(theta.size)
            rises = [
                0.5 * (self.loss(theta + signs, point) + self.loss(theta - signs, point)) - here
                for period in SIGN_PERIODS
                for signs in [np.where(sides // period % 2, reach, -reach)]
            ]
            rise = float(np.mean(rises))
            if DROWNED_RISE * abs(here) < rise < np.inf:
                return 2.0 * rise / reach**2
        return max(self._trace(theta, self.embed(point)), 0.0)

    def _trace(self, theta: FloatArray, x: FloatArray) -> float:
        signs = np.where(np.arange(theta.size) % 2, 1.0, -1.0)
        return float(signs @ self._product(theta, x, signs))

    def _product(self, theta: FloatArray, x: FloatArray, vector: FloatArray) -> FloatArray:
        nowhere = np.zeros((x.size, 1))
        product: FloatArray = self.bound.hessian_product(theta, x, vector[:, None], nowhere)[0][
            :, 0
        ]
        return product


def nearest_convex(hessian: FloatArray) -> FloatArray:
    """A symmetric matrix with its negative eigenvalues set to zero; `hessian`: shape `(b, b)`."""
    shift = 1e-12 * float(np.abs(hessian.diagonal()).max(initial=0.0))
    _, failed = dpotrf(hessian + shift * np.eye(len(hessian)))
    if not failed:
        return hessian
    values, vectors = np.linalg.eigh(hessian)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def _depends_on_phi(bound: BoundProblem, theta: FloatArray, x: FloatArray) -> bool:
    """Whether the objective has a derivative in phi itself, at the start or beside it.

    A penalty may well be flat at the start, so other points are looked at too.
    """
    space = bound.space
    signs = np.where(np.arange(x.size) % 2, 1.0, -1.0)
    places = (x, x + 0.37 * signs, x - 0.73)
    inside = (np.clip(place, space.lower, space.upper) for place in places)
    return any(bool(np.any(bound.gradient(theta, place)[1])) for place in inside)
