"""A method may only ask for solves: an inner solver that it calls itself is not counted.

The methods of a comparison see the problem with an inner solver that refuses to be called. It
cannot stop a method that brought the inner solver along by another way.
"""

import dataclasses
from typing import Any, NoReturn, final

from zo_bilevel.estimators.derivatives import ForwardDifferentiable, ReverseDifferentiable
from zo_bilevel.problem.problem import Problem
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.support.errors import ZoBilevelError


class UncountedSolveError(ZoBilevelError, RuntimeError):
    """A method called the inner solver itself, beside its budget."""


@final
class UncallableSolver:
    """Looks like an inner solver, counts attempts to call it and refuses them."""

    def __init__(self, inner: Any) -> None:  # noqa: ANN401 - any inner solver
        self._inner = inner
        self.attempts = 0
        self.takes_seed = takes_seed(inner)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the inner solver has
        if name in ("_inner", "attempts", "takes_seed"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def _refuse(self) -> NoReturn:
        self.attempts += 1
        raise UncountedSolveError(
            "a method must ask for its solves, this one called the inner solver itself"
        )

    def __call__(self, *_: Any, **__: Any) -> NoReturn:  # noqa: ANN401
        """Refuse with `UncountedSolveError`."""
        self._refuse()

    def solve_batch(self, *_: Any, **__: Any) -> NoReturn:  # noqa: ANN401
        """Refuse with `UncountedSolveError`."""
        self._refuse()


def guarded(problem: Problem) -> tuple[Problem, UncallableSolver | None]:
    """The problem as the methods of a comparison see it.

    Returns:
        The problem with an inner solver that refuses to be called, and that solver. Solvers with
        derivatives of their own are handed over as they are: methods look at their kind.
    """
    if isinstance(problem.inner, ForwardDifferentiable | ReverseDifferentiable):
        return problem, None
    untouchable = UncallableSolver(problem.inner)
    return dataclasses.replace(problem, inner=untouchable), untouchable
