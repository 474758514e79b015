"""Hessian-free and Neumann hypergradients: the end of the loop taken as a fixed point.

With `theta = step(theta, phi)` at the end, `dtheta/dphi = (I - A)^-1 B = sum_k A^k B`. The
Neumann series keeps some terms (Lorraine, Vicol, Duvenaud 2020, "Optimizing Millions of
Hyperparameters by Implicit Differentiation", arXiv 1911.02590); the Hessian-free estimate keeps
the first: the inverse Hessian is replaced by the inner learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from zo_bilevel.estimators.base import Plan
from zo_bilevel.estimators.derivatives import Pull
from zo_bilevel.estimators.pulled import PulledGradient, pulled_gradient, pulled_plan
from zo_bilevel.problem.problem import BoundProblem
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError


@final
@dataclass(frozen=True, slots=True)
class Neumann:
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

    def plan(
        self,
        space: Space,
        x: FloatArray,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is random
        stream: tuple[int, ...],
    ) -> Plan:
        """One solve, and a series of products at its end."""
        return pulled_plan(Pull("fixed_point", self.terms), space, x, stream)

    def sketch(
        self,
        plan: Plan,
        evaluations: Sequence[Evaluation],
        bound: BoundProblem,  # noqa: ARG002 - the worker used it
    ) -> PulledGradient:
        """The gradient of that solve."""
        return pulled_gradient(plan, evaluations)


@final
@dataclass(frozen=True, slots=True)
class HessianFree:
    """First term of the Neumann series: cheapest, most biased, memory of one step.

    Example:
        >>> HessianFree()
        HessianFree()
    """

    def plan(
        self,
        space: Space,
        x: FloatArray,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is random
        stream: tuple[int, ...],
    ) -> Plan:
        """One solve, and one product at its end."""
        return pulled_plan(Pull("fixed_point", 1), space, x, stream)

    def sketch(
        self,
        plan: Plan,
        evaluations: Sequence[Evaluation],
        bound: BoundProblem,  # noqa: ARG002 - the worker used it
    ) -> PulledGradient:
        """The gradient of that solve."""
        return pulled_gradient(plan, evaluations)
