"""The order to pull the outer gradient back to phi, by reverse mode."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, final

from zo_bilevel.estimators.derivatives import (
    ReverseDifferentiable,
    needs_gradient,
    needs_solver,
    refuse_discrete,
)
from zo_bilevel.estimators.tangents import scaled_gradient
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.solve.derivative import Derivative, WithDerivative
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import UnsupportedProblemError


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Pull:
    """Order of the outer gradient pulled back to phi, by reverse mode.

    Args:
        through: "trajectory" (the steps as they were taken) or "fixed_point" (the last step
            repeated for ever).
        options: Passed on to the inner solver, by name.
    """

    solves = 1
    uses_outer = True
    hides_theta = False

    through: Literal["trajectory", "fixed_point"]
    options: tuple[tuple[str, Any], ...] = ()

    def key(self) -> bytes:
        """Kind and options."""
        return repr(self).encode()

    def bind(self, problem: Problem, x: FloatArray) -> Derivative:
        """Check that the inner solver can be pulled through.

        Raises:
            UnsupportedProblemError: Naming the solver or the parameter that has no derivative.
        """
        refuse_discrete(problem.space)
        if not isinstance(problem.inner, ReverseDifferentiable):
            message = needs_solver(problem, "a reverse estimator", "pull_trajectory")
            raise UnsupportedProblemError(message)
        return _BoundPull(problem.space, x, self)


@final
@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _BoundPull:
    space: Space
    x: FloatArray
    order: Pull

    def __call__(
        self,
        inner: Any,  # noqa: ANN401 - any inner solver
        outer: Problem | None,
        phi: dict[str, Any],
        seed: int,
    ) -> WithDerivative:
        if outer is None:
            raise UnsupportedProblemError(needs_gradient("a reverse estimator"))

        def cotangent(theta: Any) -> FloatArray:  # noqa: ANN401 - the user's structure
            flat, layout = flatten_theta(theta)
            bound = outer.bind(flat, layout, self.x)
            if not bound.is_vector:
                raise UnsupportedProblemError(needs_gradient("a reverse estimator"))
            return bound.gradient(flat, self.x)[0]

        whole = self.order.through == "trajectory"
        pull = inner.pull_trajectory if whole else inner.pull_fixed_point
        theta, named = pull(phi, cotangent, seed=seed, **dict(self.order.options))
        return WithDerivative(theta, scaled_gradient(self.space, self.x, named))
