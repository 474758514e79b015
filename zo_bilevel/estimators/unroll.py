"""Reverse unrolling (RGU), exact but with memory that grows with the steps, and truncated (TRGU).

Source: arXiv 2406.14095, section 2.2; truncation as in Shaban et al. (2019), "Truncated
Back-propagation for Bilevel Optimization", arXiv 1810.10667.
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
class ReverseUnroll:
    """RGU: the exact hypergradient of the unrolled loop, memory O(steps).

    Example:
        >>> ReverseUnroll()
        ReverseUnroll()
    """

    def plan(
        self,
        space: Space,
        x: FloatArray,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is random
        stream: tuple[int, ...],
    ) -> Plan:
        """One solve, and back through all of it."""
        return pulled_plan(Pull("trajectory", None), space, x, stream)

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
class TruncatedUnroll:
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
        if not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise InputError(f"num_steps must be a whole number >= 1, got {self.num_steps!r}")

    def plan(
        self,
        space: Space,
        x: FloatArray,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is random
        stream: tuple[int, ...],
    ) -> Plan:
        """One solve, and back through its end."""
        return pulled_plan(Pull("trajectory", self.num_steps), space, x, stream)

    def sketch(
        self,
        plan: Plan,
        evaluations: Sequence[Evaluation],
        bound: BoundProblem,  # noqa: ARG002 - the worker used it
    ) -> PulledGradient:
        """The gradient of that solve."""
        return pulled_gradient(plan, evaluations)
