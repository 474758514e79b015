"""Implicit hypergradients: the end of the inner loop taken as a fixed point.

With `theta = step(theta, phi)` at the end, `dtheta/dphi = (I - A)^-1 B`, where `A` and `B` are the
step's derivatives. The estimators differ in how they solve that linear system: not at all
(Hessian-free), by a series (Lorraine, Vicol, Duvenaud 2020, "Optimizing Millions of
Hyperparameters by Implicit Differentiation", arXiv 1911.02590), by conjugate gradients (Pedregosa
2016, "Hyperparameter optimization with approximate gradient", arXiv 1602.02355) or by GMRES.
All are biased as far as the loop has not converged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from zo_bilevel.estimators.derivatives import FixedPointSolver
from zo_bilevel.estimators.pull import Pull
from zo_bilevel.estimators.reverse import ReverseEstimator
from zo_bilevel.support.arguments import finite_number, whole_number


@dataclass(frozen=True, slots=True)
class _FixedPoint(ReverseEstimator):
    solver: ClassVar[FixedPointSolver]

    terms: int
    tolerance: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", whole_number("terms", self.terms, least=1))
        finite_number("tolerance", self.tolerance, ">= 0")

    @property
    def order(self) -> Pull:
        """Products at the end of the loop."""
        return _order(self.solver, self.terms, self.tolerance)


@final
@dataclass(frozen=True, slots=True)
class Neumann(_FixedPoint):
    """By a Neumann series `sum_k A^k B`, for steps that contract.

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

    Args:
        terms: Products at the most, >= 1.
        tolerance: Residual at which to stop, relative to the outer gradient; >= 0.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> ConjugateGradient(tolerance=1e-8).terms
        100
    """

    solver = "conjugate_gradient"

    terms: int = 100
    tolerance: float = 1e-6


@final
@dataclass(frozen=True, slots=True)
class Implicit(_FixedPoint):
    """By GMRES, for any inner solver that ends at a fixed point or an optimum.

    Args:
        terms: Products at the most, >= 1; each keeps one more vector of theta's size.
        tolerance: Residual at which to stop, relative to the outer gradient; >= 0.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> Implicit().tolerance
        1e-08
    """

    solver = "gmres"

    terms: int = 100
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


def _order(solver: FixedPointSolver, terms: int, tolerance: float) -> Pull:
    options = (("solver", solver), ("terms", terms), ("tolerance", tolerance))
    return Pull("fixed_point", options)
