"""Orders of derivatives: along directions by forward mode, or pulled back to phi by reverse mode.

Contracted with `df/dtheta` where they are computed, the derivatives of one direction are one
number: neither memory nor what travels between processes grows with theta (arXiv 2406.14095,
Algorithm 1).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, final

import numpy as np

from zo_bilevel.estimators.derivatives import (
    ForwardDifferentiable,
    ReverseDifferentiable,
    named_tangents,
    needs_gradient,
    needs_solver,
    refuse_discrete,
    scaled_gradient,
)
from zo_bilevel.estimators.direction_block import DirectionBlock
from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.solve.derivative import Derivative, Solver, WithDerivative
from zo_bilevel.solve.dispatch.base import WithCost
from zo_bilevel.solve.dispatch.batched import free_memory, is_out_of_memory
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import UnsupportedProblemError


@final
@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Push:
    """Order of derivatives along directions, by forward mode.

    Args:
        directions: Shape `(N, c)`, scaled, or the seed that draws them.
        answer: "tangents" (of theta, whole), "slopes" (of the outer objective, one number a
            direction, beside theta) or "slopes alone" (theta is known from a point that shares x
            and stream).
    """

    directions: FloatArray | DirectionBlock
    answer: Literal["tangents", "slopes", "slopes alone"] = "tangents"

    @property
    def solves(self) -> int:
        """One a direction: the finite difference that it replaces costs one."""
        if isinstance(self.directions, DirectionBlock):
            return self.directions.count
        return int(self.directions.shape[1])

    @property
    def uses_outer(self) -> bool:
        """Whether the answer depends on the outer objective."""
        return self.answer != "tangents"

    @property
    def hides_theta(self) -> bool:
        """Whether theta is left where it is."""
        return self.answer == "slopes alone"

    def key(self) -> bytes:
        """The directions, or their seed, and what is asked for."""
        if isinstance(self.directions, DirectionBlock):
            drawn = repr(self.directions).encode()
        else:
            drawn = np.ascontiguousarray(self.directions, dtype="<f8").tobytes()
        return drawn if self.answer == "tangents" else self.answer.encode() + drawn

    def bind(self, problem: Problem, x: FloatArray) -> Derivative:
        """Check that the inner solver can be pushed through.

        Raises:
            UnsupportedProblemError: Naming the solver or the parameter that has no derivative.
        """
        refuse_discrete(problem.space)
        if not isinstance(problem.inner, ForwardDifferentiable):
            raise UnsupportedProblemError(needs_solver(problem, "FG2U", "jvp"))
        return _BoundPush(problem.space, x, self)


@final
@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _BoundPush:
    space: Space
    x: FloatArray
    order: Push

    def __call__(
        self, inner: Solver, outer: Problem | None, phi: dict[str, Any], seed: int
    ) -> WithDerivative:
        directions = self.order.directions
        if isinstance(directions, DirectionBlock):
            directions = directions.draw(self.space, getattr(inner, "device", "cpu"))[0]
        else:  # laid out alike in every process: what is computed depends on it in the last bit
            directions = np.ascontiguousarray(directions)

        def push(part: Any) -> tuple[Any, Any]:  # noqa: ANN401 - array or tensor
            answer: tuple[Any, Any] = inner.jvp(
                phi, named_tangents(self.space, self.x, part), seed=seed
            )
            return answer

        chunks = fitting(push, directions)
        if self.order.answer == "tangents" or outer is None:
            return _whole(chunks)
        return self._contracted(chunks, outer)

    def _contracted(self, chunks: Iterator[tuple[Any, Any, Any]], outer: Problem) -> WithDerivative:
        """`<df/dtheta, y_k> + <df/dx, v_k>` for every direction (arXiv 2406.14095, eq. 8)."""
        bound: BoundProblem | None = None
        theta, slopes = None, []
        parts: tuple[FloatArray, FloatArray] = (np.zeros(0), np.zeros(0))
        for part, found, pushed in chunks:
            if bound is None:
                theta = found
                flat, layout = flatten_theta(found.theta if isinstance(found, WithCost) else found)
                bound = outer.bind(flat, layout, self.x)
                if not bound.is_vector:  # the sketch refuses it, where the user can see that
                    return WithDerivative(theta, np.zeros(self.order.solves))
                parts = bound.gradient(flat, self.x)
            slopes.append(contracted(_parts(pushed), parts[0]) + contracted([part.T], parts[1]))
        answer = 0.0 if self.order.hides_theta else theta
        return WithDerivative(answer, np.concatenate(slopes))


def fitting(
    push: Callable[[Any], tuple[Any, Any]],
    directions: Any,  # noqa: ANN401 - array or tensor
) -> Iterator[tuple[Any, Any, Any]]:
    """Push directions, all at once if memory allows, in halves if it does not.

    Raises:
        Exception: Whatever `push` raises beside running out of memory, and that for one direction.
    """
    left = [directions]
    while left:
        part = left.pop()
        try:
            theta, pushed = push(part)
        except Exception as error:
            if not is_out_of_memory(error) or part.shape[1] == 1:
                raise
            half, theta = part.shape[1] // 2, None
        if theta is None:  # the failed attempt's traceback, which holds its tensors, is gone
            free_memory(str(getattr(part, "device", "cpu")))
            left += [part[:, half:], part[:, :half]]
            continue
        yield part, theta, pushed


def contracted(parts: list[Any], gradient: FloatArray) -> FloatArray:
    """`parts . gradient` for every row, in double precision, a row at a time.

    Args:
        parts: Arrays or tensors of shape `(c, ...)`, in the order of the flat gradient.
        gradient: Shape `(m,)`.

    Returns:
        Shape `(c,)`, on the host.

    Example:
        >>> contracted([np.eye(2), np.ones((2, 1))], np.array([3.0, 4.0, 5.0]))
        array([8., 9.])
    """
    totals: Any = 0.0
    start = 0
    for part in parts:
        rows = part.reshape(part.shape[0], -1)
        weights: Any = gradient[start : start + rows.shape[1]]
        start += rows.shape[1]
        if hasattr(rows, "detach"):
            import torch

            # torch's own memory is aligned alike in every process: dot products depend on it
            weights = torch.tensor(weights, device=rows.device)
            totals = totals + torch.stack([row.double() @ weights for row in rows.detach()])
        else:
            totals = totals + np.array(
                [np.asarray(row, dtype=np.float64) @ weights for row in rows]
            )
    return np.asarray(totals.cpu().numpy() if hasattr(totals, "cpu") else totals)


def _whole(chunks: Iterator[tuple[Any, Any, Any]]) -> WithDerivative:
    """Theta and its tangents `(m, c)` in double precision on the host."""
    found: Any = None
    rows = []
    for _, theta, pushed in chunks:
        found = theta if found is None else found
        flat = [flatten_theta(part)[0].reshape(part.shape[0], -1) for part in _parts(pushed)]
        rows.append(np.concatenate(flat, axis=1))
    # in the memory order that a store gives it back in: sums of products depend on it
    return WithDerivative(found, np.ascontiguousarray(np.concatenate(rows).T))


def _parts(theta: Any) -> list[Any]:  # noqa: ANN401 - the user's structure
    if isinstance(theta, WithCost):
        theta = theta.theta
    return list(theta.values()) if isinstance(theta, Mapping) else [theta]


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
        """Check that the inner solver can be pulled through."""
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
        self, inner: Solver, outer: Problem | None, phi: dict[str, Any], seed: int
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
