"""The sketch: what the inner solver does along a few directions, and what follows from it.

`(theta, V, JV)` at one point `x`. Its hypergradient and its Gauss-Newton model cost no further
solve (arXiv 2406.14095, section 3.1 and eq. 16, with theta differenced in place of h).
"""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.estimators.slope_regression import SlopeRegression
from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError


@final
class Observed:
    """What a method may see of a solve: the inner solution, or only the loss."""

    def __init__(self, bound: BoundProblem) -> None:
        self.bound = bound

    def observe(self, evaluation: Evaluation) -> FloatArray:
        """Of a solve that is ok, shape `(m,)`; `(1,)` for a scalar problem."""
        if self.bound.is_vector and evaluation.theta is not None:
            return evaluation.theta
        return np.array([evaluation.loss])

    def tangents(
        self,
        derivative: FloatArray,
        directions: FloatArray,  # noqa: ARG002
        x: FloatArray,  # noqa: ARG002
    ) -> FloatArray:
        """The derivatives of theta as they are."""
        return derivative


@final
@dataclass(frozen=True, slots=True)
class Sketch:
    """Directional derivatives of the inner solution at one point.

    Args:
        x: The point, scaled, shape `(N,)`.
        theta: What was observed there, shape `(m,)`.
        V: Directions, shape `(N, b)`.
        JV: Derivative of theta along each direction, shape `(m, b)`.
        U: Duals with `E[u v'] = I`, shape `(N, b)`.
        correction: Factor on the squared standard error of independent draws.
        dropped: Directions lost to failed solves.
        is_exact: Whether JV is exact, and not differences.
        rounding: Of theta, relative, over the radius: what numbers of JV are off by, over those of
            theta. 0 where it does not count.
    """

    x: FloatArray
    theta: FloatArray
    V: FloatArray
    JV: FloatArray
    U: FloatArray
    correction: float = 1.0
    dropped: int = 0
    is_exact: bool = False
    rounding: float = 0.0

    @property
    def num_directions(self) -> int:
        """Directions that came back, b."""
        return int(self.V.shape[1])

    def slopes(self, bound: BoundProblem) -> FloatArray:
        """Derivative of the loss along each direction, explicit dependence on phi included.

        `w_k = <df/dtheta, JV_k> + <df/dx, v_k>`
        """
        if not bound.is_vector:
            return np.asarray(self.JV[0].copy())
        theta_part, x_part = bound.gradient(self.theta, self.x)
        return np.asarray(theta_part @ self.JV + x_part @ self.V)

    def hypergradient(self, bound: BoundProblem) -> tuple[FloatArray, FloatArray]:
        """Unbiased estimate of the hypergradient and its standard error.

        `g = (1/b) sum_k w_k u_k`

        Returns:
            Estimate and standard error per scaled unit, both `(N,)`. The standard error is that of
            the choice of directions, and of rounding where theta has less than double precision:
            one sketch cannot tell the noise of a solver, which `zb.hypergradient` measures. NaN
            where it cannot be told: with a single direction, unless that one is exact, for
            coordinates of which no direction was drawn, or that changed nothing, and for losses
            alone of a theta in less than double precision.

        Raises:
            InnerSolverError: If no direction came back.
        """
        count = self.num_directions
        if count == 0:
            raise InnerSolverError("no direction of the sketch came back: all its solves failed")
        terms = self.U * self.slopes(bound)
        gradient: FloatArray = terms.mean(axis=1)
        error = np.full_like(gradient, np.nan)
        if self.correction == 0.0:
            error[:] = 0.0
        elif count > 1:
            error = np.sqrt(terms.var(axis=1, ddof=1) / count * self.correction)
        if self.rounding:
            weights = bound.gradient(self.theta, self.x)[0] if bound.is_vector else np.nan
            slope = self.rounding * np.linalg.norm(weights * self.theta)
            error = np.hypot(error, slope * np.linalg.norm(self.U, axis=1) / count)
        drawn = self.U != 0.0
        error[(drawn & self.is_unseen).any(axis=1) | ~drawn.any(axis=1)] = np.nan
        return gradient, error

    def regression(self, bound: BoundProblem) -> tuple[FloatArray, ...]:
        """Centres and standard errors of confidence intervals, both `(N,)`.

        Returns:
            Nothing where the mean and its error serve: for whole frames, a single direction,
            and directions whose duals are others.
        """
        if self.correction == 0.0 or self.num_directions < 2 or not np.array_equal(self.U, self.V):
            return ()
        found = SlopeRegression(self.x.size, in_frames=self.correction != 1.0)
        found.add(self.V, self.slopes(bound))
        centre, error = found.result()
        error[((self.V != 0.0) & self.is_unseen).any(axis=1)] = np.nan
        return centre, error

    @property
    def is_unseen(self) -> NDArray[np.bool_]:
        """Directions along which not one number changed, shape `(b,)`.

        A difference of exactly zero is no derivative of zero: the step may be lost in a tolerance
        or in rounding inside the solver. Exact derivatives are what they are.
        """
        if self.is_exact:
            return np.zeros(self.num_directions, dtype=bool)
        unseen: NDArray[np.bool_] = ~np.any(self.JV != 0.0, axis=0)
        return unseen

    def model(self, bound: BoundProblem) -> tuple[FloatArray, FloatArray]:
        """Gradient and generalised Gauss-Newton Hessian in the span of the directions.

        `H = [JV; V]' (hessian f) [JV; V]`

        Returns:
            Gradient `(b,)` and Hessian `(b, b)` in the coefficients of V.
        """
        in_theta, in_x = bound.hessian_product(self.theta, self.x, self.JV, self.V)
        hessian: FloatArray = self.JV.T @ in_theta + self.V.T @ in_x
        return self.slopes(bound), 0.5 * (hessian + hessian.T)


class Hypergradient(dict[str, Any]):
    """Hypergradient by parameter name, in the user's units, with its standard error.

    Attributes:
        standard_error: Arrays of the same names and shapes; NaN where it cannot be told.
        num_directions: Directions that came back, b, in all.
        num_repeats: Sketches averaged: more than 1 where the solver was found noisy.
        loss: Loss at the point, their mean.
        solves: Solves spent.
        dropped: Directions lost to failed solves.
    """

    def __init__(
        self,
        values: dict[str, Any],
        standard_error: dict[str, Any],
        loss: float,
        solves: int,
        dropped: int,
        num_directions: int,
        num_repeats: int = 1,
        regression: tuple[dict[str, Any], ...] = (),
    ) -> None:
        super().__init__(values)
        self._centre, self._spread = regression or (values, standard_error)
        self.num_directions = num_directions
        self.num_repeats = num_repeats
        self.standard_error = standard_error
        self.loss = loss
        self.solves = solves
        self.dropped = dropped

    def interval(self, level: float = 0.95) -> dict[str, tuple[FloatArray, FloatArray]]:
        """Lower and upper ends of confidence intervals, by name.

        By Student's t, with one degree of freedom less than there are sketches where several were
        averaged, else than there are directions. Of one sketch they lie around the regression of
        its slopes on each coordinate alone, whose errors have no skew, and not around the values.
        Too narrow with fewer than 5 "rademacher" directions for components beside one that
        dominates. Not for "coordinate" directions, which say nothing of those they leave out.

        Args:
            level: Probability that an interval holds the true component, in (0, 1).

        Returns:
            Ends of the same shapes as the values. NaN with a single direction, unless the standard
            error is 0: along its one direction a problem of one parameter (N = 1) has no spread,
            and both ends are the value.

        Raises:
            InputError: If the level is no probability.

        Example:
            >>> slope = {"a": np.array(3.0)}
            >>> found = Hypergradient(slope, {"a": np.array(0.5)}, 1.0, 5, 0, num_directions=5)
            >>> [round(float(end), 2) for end in found.interval()["a"]]
            [1.61, 4.39]
        """
        if not 0 < finite_number("level", level) < 1:
            raise InputError(f"level must lie between 0 and 1, got {level}")
        from scipy.special import stdtrit

        draws = self.num_repeats if self.num_repeats > 1 else self.num_directions
        t = float(stdtrit(max(draws - 1, 1), 0.5 + level / 2))
        centre, spread = self._centre, self._spread
        return {k: (c - t * spread[k], c + t * spread[k]) for k, c in centre.items()}
