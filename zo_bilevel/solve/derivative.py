"""What a point may ask for beside theta: exact derivatives, of an inner solver that has them."""

from typing import Any, Protocol, TypeAlias, final

from zo_bilevel.problem.problem import Problem
from zo_bilevel.support.arrays import FloatArray

Solver: TypeAlias = Any
"""The user's, with whatever derivatives it has."""


@final
class WithDerivative:
    """An inner solution with its derivatives, from a job that asked for them.

    Args:
        theta: The inner solution, as the inner solver returns it.
        derivative: Shape `(m, c)` along c directions, `(c,)` where it is contracted with the outer
            gradient, or `(N,)`, the outer gradient pulled back.
    """

    __slots__ = ("derivative", "theta")

    def __init__(self, theta: Any, derivative: FloatArray) -> None:  # noqa: ANN401 - user's value
        self.theta = theta
        self.derivative = derivative


class Derivative(Protocol):
    """A derivative bound to a problem and a point; picklable when the problem is."""

    def __call__(
        self, inner: Solver, outer: Problem | None, phi: dict[str, Any], seed: int
    ) -> WithDerivative:
        """Run the inner solver and differentiate it; `outer` is the problem without its solver."""
        ...


class DerivativeOrder(Protocol):
    """What a point asks for."""

    @property
    def solves(self) -> int:
        """What it counts for in a budget, beside the solve itself."""
        ...

    @property
    def uses_outer(self) -> bool:
        """Whether the answer depends on the outer objective."""
        ...

    @property
    def hides_theta(self) -> bool:
        """Whether the answer is a derivative alone: theta is that of the point before it."""
        ...

    def key(self) -> bytes:
        """Tells it apart from every other order, for the store."""
        ...

    def bind(self, problem: Problem, x: FloatArray) -> Derivative:
        """Turn it into a job's derivative."""
        ...
