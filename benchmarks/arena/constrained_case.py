"""A function of a few numbers under inequalities, as a problem of the constrained benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

import zo_bilevel as zb
from benchmarks.arena.case import Half, half_of

Numbers: TypeAlias = Sequence[float]


@dataclass(frozen=True)
class ConstrainedProblem:
    """Minimise a function of a few numbers under inequalities.

    Args:
        name: Unique; decides the half.
        loss: What is minimised.
        constraints: At most 0 where they hold.
        lower: Smallest values.
        upper: Largest values.
        start: Where a search begins.
        smallest: The lowest known value that keeps the constraints.
    """

    name: str
    loss: Callable[[Numbers], float]
    constraints: Callable[[Numbers], Sequence[float]]
    lower: Numbers
    upper: Numbers
    start: Numbers
    smallest: float

    @property
    def half(self) -> Half:
        """Whether methods may be tuned on it."""
        return half_of(self.name)

    def starts(self, seed: int) -> dict[str, float]:
        """The published start, for seed 0; else one drawn from the box around it."""
        low, high, start = map(np.asarray, (self.lower, self.upper, self.start))
        if seed:
            share = np.random.default_rng(seed).uniform(-0.25, 0.25, start.size)
            start = np.clip(start + share * (high - low), low, high)
        return {f"x{k}": float(value) for k, value in enumerate(start)}

    def problem(self, *, cheap: bool) -> zb.Problem:
        """As a problem whose constraints are known before a solve, or only after it."""
        bounds = zip(self.lower, self.upper, strict=True)
        space = zb.Space({f"x{k}": zb.Real(a, b) for k, (a, b) in enumerate(bounds)})
        if cheap:
            before = Before(self.constraints)
            return zb.Problem(space, Solver(self, cheap=True), constraints=[before], name=self.name)
        after = zb.Output("limits <= 0")
        solver = Solver(self, cheap=False)
        return zb.Problem(space, solver, loss_of, constraints=[after], name=self.name)


@dataclass(frozen=True)
class Before:
    """Constraints as a function of named values."""

    constraints: Callable[[Numbers], Sequence[float]]

    def __call__(self, phi: dict[str, Any]) -> list[float]:
        """At most 0 where they hold."""
        return list(self.constraints(list(phi.values())))


@dataclass(frozen=True)
class Solver:
    """The inner solver: the loss, and the constraints where these are not known before."""

    case: ConstrainedProblem
    cheap: bool

    def __call__(self, phi: dict[str, Any]) -> Any:
        """Solve once."""
        x = list(phi.values())
        loss = float(self.case.loss(x))
        return loss if self.cheap else {"loss": loss, "limits": self.case.constraints(x)}


def loss_of(theta: Any, phi: Any) -> float:
    """The outer objective."""
    return float(theta["loss"])
