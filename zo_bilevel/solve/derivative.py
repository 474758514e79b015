"""What a point may ask for beside theta: exact derivatives, of an inner solver that has them."""

from __future__ import annotations

from typing import Any, Protocol, final

from zo_bilevel.problem.problem import Problem
from zo_bilevel.support.arrays import FloatArray


@final
class WithDerivative:
    """An inner solution with its derivatives, from a job that asked for them.

    Args:
        theta: The inner solution, as the inner solver returns it.
        derivative: Shape `(m, c)` along c directions, or `(N,)`, the outer gradient pulled back.
    """

    __slots__ = ("derivative", "theta")

    def __init__(self, theta: Any, derivative: FloatArray) -> None:  # noqa: ANN401 - user's value
        self.theta = theta
        self.derivative = derivative


class Derivative(Protocol):
    """A derivative bound to a problem and a point; picklable when the problem is."""

    def __call__(self, inner: Any, phi: dict[str, Any], seed: int) -> WithDerivative:  # noqa: ANN401
        """Run the inner solver and differentiate it."""
        ...


class DerivativeOrder(Protocol):
    """What a point asks for."""

    @property
    def solves(self) -> int:
        """What it counts for in a budget, beside the solve itself."""
        ...

    def key(self) -> bytes:
        """Tells it apart from every other order, for the store."""
        ...

    def bind(self, problem: Problem, x: FloatArray) -> Derivative:
        """Turn it into a job's derivative."""
        ...
