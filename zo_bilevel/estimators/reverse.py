"""Estimators by reverse mode: back through the loop (RGU), its end (TRGU), or a fixed point.

Sources: arXiv 2406.14095, section 2.2; truncation: Shaban et al. (2019), "Truncated
Back-propagation for Bilevel Optimization", arXiv 1810.10667.

With `theta = step(theta, phi)` at the end, `dtheta/dphi = (I - A)^-1 B`, where `A` and `B` are the
step's derivatives. The implicit estimators differ in how they solve that linear system: not at all
(Hessian-free), by a series (Lorraine, Vicol, Duvenaud 2020, "Optimizing Millions of
Hyperparameters by Implicit Differentiation", arXiv 1911.02590), by conjugate gradients (Pedregosa
2016, "Hyperparameter optimization with approximate gradient", arXiv 1602.02355) or by GMRES.
All are biased as far as the loop has not converged.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np

from zo_bilevel.estimators.base import SketchPlan
from zo_bilevel.estimators.derivatives import FixedPointSolver
from zo_bilevel.estimators.orders import Pull
from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError, UnsupportedProblemError


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
        """`pulled + df/dx`, and a standard error of zero."""
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


@final
@dataclass(frozen=True, slots=True)
class ReverseUnroll(ReverseEstimator):
    """RGU: the exact hypergradient of the unrolled loop.

    Args:
        memory: "all" keeps every step: fastest, memory O(T). "sqrt" keeps sqrt(T) states and runs
            the steps between them once more, memory O(sqrt(T)). A number of bytes keeps as much
            as fits, and runs steps again as seldom as that allows.

    Raises:
        InputError: If memory is none of these.

    Example:
        >>> ReverseUnroll(memory="sqrt")
        ReverseUnroll(memory='sqrt')
    """

    memory: Literal["all", "sqrt"] | int = "all"

    def __post_init__(self) -> None:
        is_bytes = isinstance(self.memory, int) and not isinstance(self.memory, bool)
        if self.memory not in ("all", "sqrt") and not (is_bytes and int(self.memory) > 0):
            raise InputError(
                f"memory must be 'all', 'sqrt' or a number of bytes > 0, got {self.memory!r}"
            )

    @property
    def order(self) -> Pull:
        """Back through all of it."""
        return Pull("trajectory", (("memory", self.memory),))


@final
@dataclass(frozen=True, slots=True)
class TruncatedUnroll(ReverseEstimator):
    """TRGU: back through the last k steps only; biased, memory O(k).

    Args:
        num_steps: k, >= 1. With all T steps it equals `ReverseUnroll`.

    Raises:
        InputError: If `num_steps < 1`.

    Example:
        >>> TruncatedUnroll(5).num_steps
        5
    """

    num_steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_steps", whole_number("num_steps", self.num_steps, least=1))

    @property
    def order(self) -> Pull:
        """Back through its end."""
        return Pull("trajectory", (("last_steps", self.num_steps),))


@dataclass(frozen=True, slots=True)
class _FixedPoint(ReverseEstimator):
    solver: ClassVar[FixedPointSolver]

    terms: int | Literal["auto"]
    tolerance: float

    def __post_init__(self) -> None:
        if self.terms != "auto":
            terms = whole_number("terms, if not 'auto',", self.terms, least=1)
            object.__setattr__(self, "terms", terms)
        finite_number("tolerance", self.tolerance, ">= 0")

    @property
    def order(self) -> Pull:
        """Products at the end of the loop."""
        return _order(self.solver, self.terms, self.tolerance)


@final
@dataclass(frozen=True, slots=True)
class Neumann(_FixedPoint):
    """By a Neumann series `sum_k A^k B` of the loop's last step, for steps that contract.

    With a tolerance it warns where that is not reached, and of a loop that has not converged;
    without, where more than half of the right-hand side is left: with a rate that has decayed,
    many terms add up to little.

    Args:
        terms: Terms of the series at the most, >= 1.
        tolerance: The series ends when a term is smaller than this times the first; >= 0.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> Neumann(10).terms
        10
    """

    solver = "neumann"

    terms: int = 20
    tolerance: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class ConjugateGradient(_FixedPoint):
    """By conjugate gradients, for plain gradient descent that ends at a minimum.

    Warns where the tolerance is not reached, and of a loop that has not converged.

    Args:
        terms: Products at the most, >= 1, or "auto": 100, and where these do not reach the
            tolerance as many more as theta has numbers, up to 512, for a direct solve.
        tolerance: Residual at which to stop, relative to the outer gradient; >= 0.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> ConjugateGradient(tolerance=1e-8).terms
        'auto'
    """

    solver = "conjugate_gradient"

    terms: int | Literal["auto"] = "auto"
    tolerance: float = 1e-6


@final
@dataclass(frozen=True, slots=True)
class Implicit(_FixedPoint):
    """By GMRES, for any inner solver that ends at a fixed point or an optimum.

    Of a loop the last step is used, whose rate must not have decayed to zero. Warns where the
    tolerance is not reached, and of a loop that has not converged.

    Args:
        terms: Products at the most, >= 1, each keeps one more vector of theta's size; or "auto":
            100, and where these do not reach the tolerance as many more as theta has numbers, up to
            512, for a direct solve.
        tolerance: Residual at which to stop, relative to the outer gradient; >= 0.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> Implicit().tolerance
        1e-08
    """

    solver = "gmres"

    terms: int | Literal["auto"] = "auto"
    tolerance: float = 1e-8


@final
@dataclass(frozen=True, slots=True)
class HessianFree(ReverseEstimator):
    """First term of the Neumann series: cheapest, most biased, memory of one step.

    Example:
        >>> HessianFree()
        HessianFree()
    """

    @property
    def order(self) -> Pull:
        """One product at the end of the loop."""
        return _order("neumann", 1, 0.0)


def _order(solver: FixedPointSolver, terms: int | Literal["auto"], tolerance: float) -> Pull:
    options = (("solver", solver), ("terms", terms), ("tolerance", tolerance))
    return Pull("fixed_point", options)
