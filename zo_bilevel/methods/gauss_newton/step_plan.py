"""What a local search asks for in one round, and what it is told."""

from dataclasses import dataclass, field
from typing import final

from zo_bilevel.estimators.differences import Change, Differences
from zo_bilevel.support.arrays import FloatArray


@final
@dataclass(slots=True)
class StepPlan:
    """One round: points to solve, then differences.

    Args:
        points: Solved as they are, each of shape `(N,)`.
        role: What they are for, for the history.
        base: Where differences are taken, shape `(N,)`: the center, or the first of the points.
        probes: Displacements from the base, each of shape `(N,)`.
        differences: What the probes became as solves, once they were asked for.
    """

    points: list[FloatArray] = field(default_factory=list)
    role: str = "trial"
    base: FloatArray | None = None
    probes: list[FloatArray] = field(default_factory=list)
    differences: Differences | None = None


@final
@dataclass(frozen=True, slots=True)
class Answers:
    """What became of a plan; `None` stands for a failure.

    Args:
        thetas: Modelled vectors at the points, in order.
        changes: Along the probes, in order.
        nearby: Every solve of a difference that came back: its point `(N,)` and modelled vector.
    """

    thetas: list[FloatArray | None]
    changes: list[Change | None] = field(default_factory=list)
    nearby: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)
