"""Exact derivatives of an inner solver that has them, asked for like any other solve.

A point may carry an order; on its way to a worker the order is bound to the problem and becomes
a job's derivative. So directions are split over workers, time limits hold and failures are
values, as for plain solves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeAlias, final, runtime_checkable

import numpy as np

from zo_bilevel.estimators.directions import Family, draw_directions
from zo_bilevel.estimators.tangents import named_tangents, scaled_gradient
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.solve.derivative import Derivative, WithDerivative
from zo_bilevel.solve.dispatch.base import WithCost
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import UnsupportedProblemError

Cotangent: TypeAlias = Callable[[Any], FloatArray]
"""From an inner solution, as the solver returns it, to the outer gradient in it, flat `(m,)`."""


@runtime_checkable
class ForwardDifferentiable(Protocol):
    """An inner solver that pushes tangents of phi forward."""

    def jvp(
        self, phi: dict[str, Any], tangents: Mapping[str, FloatArray], *, seed: int
    ) -> tuple[Any, Any]:
        """The inner solution, and its derivative along c tangents.

        Args:
            phi: Named values.
            tangents: Per name an array of shape `(c, *shape)`, in the units of phi.
            seed: Seed of the solve.

        Returns:
            Theta, and the same structure with a first axis of length c.
        """
        ...


@runtime_checkable
class ReverseDifferentiable(Protocol):
    """An inner solver that pulls a gradient in theta back to phi."""

    def pull_trajectory(
        self, phi: dict[str, Any], cotangent: Cotangent, *, seed: int, last_steps: int | None
    ) -> tuple[Any, dict[str, FloatArray]]:
        """Back through the last steps (`None`: all, and the initial state)."""
        ...

    def pull_fixed_point(
        self, phi: dict[str, Any], cotangent: Cotangent, *, seed: int, terms: int
    ) -> tuple[Any, dict[str, FloatArray]]:
        """Through the last step taken as a fixed-point map, by a Neumann series."""
        ...


@final
@dataclasses.dataclass(frozen=True, slots=True)
class DirectionBlock:
    """Some directions, kept as the seed that draws them.

    Args:
        family: Their family.
        count: How many.
        key: Entropy of the generator.
    """

    family: Family
    count: int
    key: tuple[int, ...]

    def draw(self, space: Space) -> tuple[FloatArray, FloatArray]:
        """Directions and duals, both `(N, count)`; the same every time."""
        rng = np.random.default_rng(self.key)
        return draw_directions(self.family, self.count, space.prior, rng)


@final
@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Push:
    """Order of derivatives along directions, by forward mode.

    Args:
        directions: Shape `(N, c)`, scaled, or the seed that draws them.
    """

    directions: FloatArray | DirectionBlock

    @property
    def solves(self) -> int:
        """One a direction: the finite difference that it replaces costs one."""
        if isinstance(self.directions, DirectionBlock):
            return self.directions.count
        return int(self.directions.shape[1])

    def key(self) -> bytes:
        """The directions, or their seed."""
        if isinstance(self.directions, DirectionBlock):
            return repr(self.directions).encode()
        return np.ascontiguousarray(self.directions, dtype="<f8").tobytes()

    def bind(self, problem: Problem, x: FloatArray) -> Derivative:
        """Check that the inner solver can be pushed through.

        Raises:
            UnsupportedProblemError: Naming the solver or the parameter that has no derivative.
        """
        _refuse_discrete(problem.space)
        if not isinstance(problem.inner, ForwardDifferentiable):
            raise UnsupportedProblemError(_needs(problem, "FG2U", "jvp"))
        return _BoundPush(problem.space, x, self.directions)


@final
@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _BoundPush:
    space: Space
    x: FloatArray
    directions: FloatArray | DirectionBlock

    def __call__(self, inner: Any, phi: dict[str, Any], seed: int) -> WithDerivative:  # noqa: ANN401
        directions = self.directions
        if isinstance(directions, DirectionBlock):
            directions = directions.draw(self.space)[0]
        tangents = named_tangents(self.space, self.x, directions)
        theta, pushed = inner.jvp(phi, tangents, seed=seed)
        rows = [_rows(part, directions.shape[1]) for part in _parts(pushed)]
        # in the memory order that a store gives it back in: sums of products depend on it
        return WithDerivative(theta, np.ascontiguousarray(np.concatenate(rows, axis=1).T))


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Pull:
    """Order of the outer gradient pulled back to phi, by reverse mode.

    Args:
        through: "trajectory" (the steps as they were taken) or "fixed_point" (the last step
            repeated for ever).
        depth: Last steps or terms of the series; `None` for the whole trajectory.
    """

    through: Literal["trajectory", "fixed_point"]
    depth: int | None

    @property
    def solves(self) -> int:
        """One: a reverse sweep."""
        return 1

    def key(self) -> bytes:
        """Kind and depth."""
        return repr(self).encode()

    def bind(self, problem: Problem, x: FloatArray) -> Derivative:
        """Check that the inner solver can be pulled through.

        Raises:
            UnsupportedProblemError: Naming the solver or the parameter that has no derivative.
        """
        _refuse_discrete(problem.space)
        if not isinstance(problem.inner, ReverseDifferentiable):
            raise UnsupportedProblemError(_needs(problem, "a reverse estimator", "pull_trajectory"))
        # the solver itself is at the worker already
        outer_only = dataclasses.replace(problem, inner=_no_solver, is_scalar=False)
        return _BoundPull(outer_only, x, self)


@final
@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _BoundPull:
    problem: Problem
    x: FloatArray
    order: Pull

    def __call__(self, inner: Any, phi: dict[str, Any], seed: int) -> WithDerivative:  # noqa: ANN401
        if self.order.through == "trajectory":
            theta, named = inner.pull_trajectory(
                phi, self._cotangent, seed=seed, last_steps=self.order.depth
            )
        else:
            theta, named = inner.pull_fixed_point(
                phi, self._cotangent, seed=seed, terms=self.order.depth
            )
        return WithDerivative(theta, scaled_gradient(self.problem.space, self.x, named))

    def _cotangent(self, theta: Any) -> FloatArray:  # noqa: ANN401 - the user's structure
        flat, layout = flatten_theta(theta)
        bound = self.problem.bind(flat, layout, self.x)
        if not bound.is_vector:
            raise UnsupportedProblemError(_needs_gradient("a reverse estimator"))
        return bound.gradient(flat, self.x)[0]


def _needs_gradient(who: str) -> str:
    return (
        f"{who} needs an outer objective whose derivative is known: SquaredError, CrossEntropy "
        "or a torch function of theta; use FG2UZO for a plain Python function"
    )


def require_gradient(who: str, is_vector: bool) -> None:
    """Refuse an outer objective without derivatives.

    Args:
        who: The estimator, for the message.
        is_vector: Whether the objective has them.

    Raises:
        UnsupportedProblemError: If it has none.
    """
    if not is_vector:
        raise UnsupportedProblemError(_needs_gradient(who))


def _no_solver(phi: dict[str, Any]) -> None:
    """Stands in for a solver that is not sent along."""


def _needs(problem: Problem, who: str, method: str) -> str:
    return (
        f"{who} needs a differentiable inner solver, one with a method {method}() such as "
        f"adapters.torch_unroll.TorchUnroll, got {type(problem.inner).__name__}; "
        "use FG2UZO for a black box"
    )


def _refuse_discrete(space: Space) -> None:
    for name, parameter in space.parameters.items():
        if type(parameter).__name__ in ("Integer", "Choice"):
            raise UnsupportedProblemError(
                f"parameter {name!r} is a {type(parameter).__name__} and has no derivative; "
                "use FG2UZO"
            )


def _parts(theta: Any) -> list[Any]:  # noqa: ANN401 - the user's structure
    if isinstance(theta, WithCost):
        theta = theta.theta
    return list(theta.values()) if isinstance(theta, Mapping) else [theta]


def _rows(part: Any, count: int) -> FloatArray:  # noqa: ANN401 - array or tensor
    flat, _ = flatten_theta(part)
    return flat.reshape(count, -1)
