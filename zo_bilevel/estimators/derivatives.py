"""Exact derivatives of an inner solver that has them, asked for like any other solve.

A point may carry an order; on its way to a worker the order is bound to the problem and becomes
a job's derivative (`orders.py`). So directions are split over workers, time limits hold and
failures are values, as for plain solves.

Tangents of the scaled vector are tangents of named values by `phi = from + unit * (x + 3)` for a
real, `exp` of it for a `Log`: `dphi = rate * dx`. A tied parameter moves with those that it
follows; a fixed one has no tangent.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import UnsupportedProblemError

Cotangent: TypeAlias = Callable[[Any], FloatArray]
"""From an inner solution, as the solver returns it, to the outer gradient in it, flat `(m,)`."""


FixedPointSolver: TypeAlias = Literal["neumann", "conjugate_gradient", "gmres"]


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
        self,
        phi: dict[str, Any],
        cotangent: Cotangent,
        *,
        seed: int,
        last_steps: int | None = None,
        memory: int | str = "all",
    ) -> tuple[Any, dict[str, FloatArray]]:
        """Back through the last steps (`None`: all, and the initial state)."""
        ...

    def pull_fixed_point(
        self,
        phi: dict[str, Any],
        cotangent: Cotangent,
        *,
        seed: int,
        terms: int | Literal["auto"] = 1,
        tolerance: float = 0.0,
        solver: FixedPointSolver = "neumann",
    ) -> tuple[Any, dict[str, FloatArray]]:
        """Through the last step taken as a fixed-point map, by a linear system."""
        ...


def outer_part(problem: Problem) -> Problem | None:
    """The problem without its inner solver, as derivatives need it beside a solver that has them.

    Returns:
        `None` where the inner solver has no derivative.
    """
    if not isinstance(problem.inner, ForwardDifferentiable | ReverseDifferentiable):
        return None
    return dataclasses.replace(problem, inner=_no_solver, is_scalar=False)


def _no_solver(phi: dict[str, Any]) -> None:
    """Stands in for a solver that is at the worker already."""


def needs_gradient(who: str) -> str:
    """What to say of an outer objective without derivatives."""
    return (
        f"{who} needs an outer objective whose derivative is known: SquaredError, CrossEntropy "
        "or a torch function of theta, not in steps; use FG2UZO for any other function"
    )


def require_gradient(who: str, is_vector: bool) -> None:
    """Refuse an outer objective without derivatives; `UnsupportedProblemError` if it has none."""
    if not is_vector:
        raise UnsupportedProblemError(needs_gradient(who))


def needs_solver(problem: Problem, who: str, method: str) -> str:
    """What to say of an inner solver without that derivative."""
    return (
        f"{who} needs a differentiable inner solver, one with a method {method}() such as "
        f"adapters.torch_unroll.TorchUnroll, got {type(problem.inner).__name__}; "
        "use FG2UZO for a black box"
    )


def refuse_discrete(space: Space) -> None:
    """Refuse a space with a parameter that has no derivative, naming it."""
    for name, parameter in space.parameters.items():
        if type(parameter).__name__ in ("Integer", "Choice"):
            raise UnsupportedProblemError(
                f"parameter {name!r} is a {type(parameter).__name__} and has no derivative; "
                "use FG2UZO"
            )


def named_tangents(space: Space, x: FloatArray, directions: Any) -> dict[str, Any]:  # noqa: ANN401
    """Turn scaled directions into tangents of the named values.

    Returns:
        Per name, but for fixed ones, an array or tensor of shape `(c, *shape)`, in the user's
        units.

    Example:
        >>> from zo_bilevel.problem.dependent import Tied
        >>> from zo_bilevel.problem.parameters import Real
        >>> space = Space(a=Real(0, 6), b=Tied("a ** 2"))
        >>> {n: t.tolist() for n, t in named_tangents(space, np.zeros(1), np.ones((1, 1))).items()}
        {'a': [1.0], 'b': [6.0]}
    """

    def like_directions(values: FloatArray) -> Any:  # noqa: ANN401 - array or tensor
        if isinstance(directions, np.ndarray):
            return values
        import torch

        return torch.from_numpy(values).to(directions.device)

    scaled = (like_directions(space.rates(x)[:, None]) * directions).T
    tangents = {
        block.name: scaled[:, block.section].reshape(-1, *block.parameter.shape)
        for block in space.blocks
    }
    for name, rates in tie_rates(space, x).items():
        moved = (like_directions(rates) @ directions).T
        tangents[name] = moved.reshape(-1, *space.shapes[name])
    return tangents


def tie_rates(space: Space, x: FloatArray) -> dict[str, FloatArray]:
    """Derivatives of the tied parameters in the scaled vector, each of shape `(count, N)`."""
    if not space.tied:
        return {}
    import torch

    def tied(x_now: Any) -> dict[str, Any]:  # noqa: ANN401 - tensors
        values = space.decode_torch(x_now, x)
        return {name: values[name].reshape(-1) for name in space.tied}

    rates = torch.func.jacrev(tied)(torch.tensor(x))
    return {name: rate.numpy() for name, rate in rates.items()}


def scaled_gradient(space: Space, x: FloatArray, named: Mapping[str, FloatArray]) -> FloatArray:
    """Turn a gradient by name into one in the scaled vector: shape `(N,)`."""
    gradient = np.concatenate([np.ravel(named[block.name]) for block in space.blocks])
    gradient = gradient * space.rates(x)
    for name, rates in tie_rates(space, x).items():
        gradient += np.ravel(named[name]) @ rates
    return gradient
