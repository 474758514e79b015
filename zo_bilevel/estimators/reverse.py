"""What reverse estimators share: one point, one gradient pulled back to phi."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from zo_bilevel.estimators.base import SketchPlan
from zo_bilevel.estimators.pull import Pull
from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, UnsupportedProblemError


@final
@dataclass(frozen=True, eq=False, slots=True)
class PulledGradient:
    """A hypergradient by reverse mode: exact for its own approximation, so without error bars.

    Args:
        x: The point, scaled, shape `(N,)`.
        theta: Inner solution there, shape `(m,)`.
        pulled: `df/dtheta` pulled back, scaled, shape `(N,)`.
    """

    num_directions = 1
    dropped = 0

    x: FloatArray
    theta: FloatArray
    pulled: FloatArray

    def hypergradient(self, bound: BoundProblem) -> tuple[FloatArray, FloatArray]:
        """`pulled + df/dx`, and a standard error of zero.

        Returns:
            Gradient and standard error per scaled unit, both `(N,)`.
        """
        gradient = self.pulled + bound.gradient(self.theta, self.x)[1]
        return gradient, np.zeros_like(gradient)


class ReverseEstimator(ABC):
    """An estimator that is an order to pull the outer gradient back from one solve."""

    __slots__ = ()

    @property
    @abstractmethod
    def order(self) -> Pull:
        """What to pull through."""

    @final
    def plan(
        self,
        space: Space,
        x: FloatArray,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is random
        stream: tuple[int, ...],
    ) -> SketchPlan:
        """One solve that gives its gradient; no directions."""
        none = np.zeros((space.size, 0))
        return SketchPlan([Point(x, stream, "sketch", self.order)], x, none, none, 0.0)

    @final
    def sketch(
        self,
        plan: SketchPlan,
        evaluations: Sequence[Evaluation],
        bound: BoundProblem,  # noqa: ARG002 - the worker used it
    ) -> PulledGradient:
        """The gradient of that solve.

        Raises:
            InnerSolverError: If the solve failed.
            UnsupportedProblemError: If the dispatcher ignored the order.
        """
        if not evaluations or not evaluations[0].ok or evaluations[0].theta is None:
            raise InnerSolverError("the base solve failed")
        if evaluations[0].derivative is None:
            raise UnsupportedProblemError(
                "the dispatcher gave back no derivative; use Serial or Joblib with reverse "
                "estimators"
            )
        return PulledGradient(plan.x, evaluations[0].theta, evaluations[0].derivative.ravel())
