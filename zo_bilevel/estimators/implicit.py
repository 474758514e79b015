"""Hessian-free and Neumann hypergradients: the end of the loop taken as a fixed point.

With `theta = step(theta, phi)` at the end, `dtheta/dphi = (I - A)^-1 B = sum_k A^k B`. The
Neumann series keeps some terms (Lorraine, Vicol, Duvenaud 2020, "Optimizing Millions of
Hyperparameters by Implicit Differentiation", arXiv 1911.02590); the Hessian-free estimate keeps
the first: the inverse Hessian is replaced by the inner learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from zo_bilevel.estimators.derivatives import Pull
from zo_bilevel.estimators.reverse import ReverseEstimator
from zo_bilevel.support.errors import InputError


@final
@dataclass(frozen=True, slots=True)
class Neumann(ReverseEstimator):
    """Implicit hypergradient by a truncated Neumann series; biased unless converged.

    Args:
        terms: Terms of the series, >= 1.

    Raises:
        InputError: If `terms < 1`.

    Example:
        >>> Neumann(10).terms
        10
    """

    terms: int = 20

    def __post_init__(self) -> None:
        if not isinstance(self.terms, int) or self.terms < 1:
            raise InputError(f"terms must be a whole number >= 1, got {self.terms!r}")

    @property
    def order(self) -> Pull:
        """A series of products at the end of the loop."""
        return Pull("fixed_point", self.terms)


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
        return Pull("fixed_point", 1)
