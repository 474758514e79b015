"""What a local search asks for in one round, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from zo_bilevel.support.arrays import FloatArray


@final
@dataclass(slots=True)
class StepPlan:
    """One round: trial steps, the main one first, then differences around `base`.

    Args:
        steps: Trial steps in coordinates of the basis, each of shape `(b,)`.
        probes: Displacements from the base, each of shape `(N,)`.
        points: What is solved: the trial points, then `base + probe` for every probe. A plan
            without steps and probes asks for points alone: a repeat, or a restart.
        base: Where differences are taken, `None` for the center.
        repeat: Whether the one point tells noise from steepness.
        center: Center of the affine model, shape `(N,)`.
        theta: Its value there, shape `(m,)`.
        units: For probes along new directions, by place: the unit vector, orthogonal to the basis.
        size: Directions in the basis when the plan was made.
        unclipped: Whether no bound changed any trial point.
    """

    steps: list[FloatArray] = field(default_factory=list)
    probes: list[FloatArray] = field(default_factory=list)
    points: list[FloatArray] = field(default_factory=list)
    base: FloatArray | None = None
    repeat: bool = False
    center: FloatArray | None = None
    theta: FloatArray | None = None
    units: dict[int, FloatArray] = field(default_factory=dict)
    size: int = 0
    unclipped: bool = False


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """What one difference found.

    Args:
        displacement: From the plan's base, shape `(N,)`.
        value: Inner solution there or, with `is_change`, how it changes along the displacement;
            shape `(m,)`.
        is_change: Whether the value is a change.
        noise_share: Variance of the value, in variances of one solve.
    """

    displacement: FloatArray
    value: FloatArray
    is_change: bool
    noise_share: float


@final
@dataclass(frozen=True, slots=True)
class Answers:
    """What became of a plan; `None` stands for a failure.

    Args:
        trials: Inner solutions of the points that are no differences, in order.
        findings: One for every probe, in order.
    """

    trials: list[FloatArray | None]
    findings: list[Finding | None] = field(default_factory=list)
