"""How the differences of a plan are measured: forward, central, or by exact derivatives.

A plan asks how the inner solution changes from `base` to `base + d`, for several displacements d.
Forward, that is one solve each. Central, it is two, `base + d` and `base - d`: half their
difference has no second-order error. With exact derivatives it is one solve of `base` with all d
as tangents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.estimators.derivatives import Push
from zo_bilevel.estimators.fg2u import FG2U
from zo_bilevel.estimators.fg2u_zo import FG2UZO
from zo_bilevel.methods.gauss_newton.outer_model import OuterModel
from zo_bilevel.methods.gauss_newton.step_plan import Answers, Finding, Plan
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray

Embed: TypeAlias = Callable[[FloatArray], FloatArray]
Values: TypeAlias = Sequence[FloatArray | None]


@final
class Probing:
    """Turns a plan into points and their evaluations into the plan's answers.

    Args:
        estimator: Says how to difference.
        space: For the bounds.
        model: What is modelled of a solve.
        embed: From the continuous coordinates to the whole scaled vector.
        free: Which coordinates of the scaled vector are continuous, shape `(N,)`.
    """

    def __init__(
        self,
        estimator: FG2UZO | FG2U,
        space: Space,
        model: OuterModel,
        embed: Embed,
        free: NDArray[np.bool_],
    ) -> None:
        self.model, self.embed, self.free = model, embed, free
        self.lower, self.upper = space.lower[free], space.upper[free]
        self.is_exact = isinstance(estimator, FG2U)
        self.is_central = isinstance(estimator, FG2UZO) and estimator.difference == "central"

    def points(self, plan: Plan) -> list[Point]:
        """The solves of the plan; those that are no differences first."""
        if plan.probes and self.is_exact:
            count = len(plan.points) - len(plan.probes)
            order = Push(self._spread(plan))
            points = [Point(self.embed(point), role="trial") for point in plan.points[:count]]
            return [*points, Point(self.embed(_base(plan)), role="sketch", derivative=order)]
        points = [Point(self.embed(p), role=_role(plan, i)) for i, p in enumerate(plan.points)]
        if self.is_central:
            mirrors = (self._mirror(plan, probe) for probe in plan.probes)
            points += [Point(self.embed(mirror), role="sketch") for mirror in mirrors]
        return points

    def answers(self, plan: Plan, evaluations: Sequence[Evaluation]) -> Answers:
        """What the plan wanted to know, `None` for what failed."""
        seen = [self._usable(evaluation) for evaluation in evaluations]
        count = len(plan.points) - len(plan.probes)
        trials, probes = seen[:count], seen[count:]
        if not plan.probes:
            return Answers(trials)
        if self.is_exact:
            return Answers(trials, self._exact(plan, evaluations[-1]))
        if self.is_central:
            half = len(plan.probes)
            return Answers(trials, self._central(plan, trials, probes[:half], probes[half:]))
        return Answers(trials, _forward(plan, trials, probes))

    def _usable(self, evaluation: Evaluation) -> FloatArray | None:
        return self.model.observe(evaluation) if evaluation.ok else None

    def _exact(self, plan: Plan, evaluation: Evaluation) -> list[Finding | None]:
        if not evaluation.ok or evaluation.derivative is None:
            return [None] * len(plan.probes)
        columns = self.model.tangents(evaluation.derivative, self._spread(plan))
        return [
            Finding(probe, column, is_change=True, noise_share=0.0)
            for probe, column in zip(plan.probes, columns.T, strict=True)
        ]

    def _central(
        self, plan: Plan, trials: Values, forward: Values, backward: Values
    ) -> list[Finding | None]:
        """Half the difference of a pair; where one of it failed, the difference to the base."""
        origin = trials[0] if plan.base is not None else plan.theta
        findings: list[Finding | None] = []
        for probe, ahead, behind in zip(plan.probes, forward, backward, strict=True):
            back = self._mirror(plan, probe) - _base(plan)
            if ahead is not None and behind is not None:
                change, way = 0.5 * (ahead - behind), 0.5 * (probe - back)
                findings.append(Finding(way, change, is_change=True, noise_share=0.5))
            elif origin is not None and ahead is not None:
                findings.append(Finding(probe, ahead - origin, is_change=True, noise_share=2.0))
            elif origin is not None and behind is not None and np.any(back):
                findings.append(Finding(back, behind - origin, is_change=True, noise_share=2.0))
            else:
                findings.append(None)
        return findings

    def _spread(self, plan: Plan) -> FloatArray:
        """The displacements as columns of the whole scaled vector, `(N, c)`."""
        spread = np.zeros((self.free.size, len(plan.probes)))
        spread[self.free] = np.column_stack(plan.probes)
        return spread

    def _mirror(self, plan: Plan, probe: FloatArray) -> FloatArray:
        return np.clip(_base(plan) - probe, self.lower, self.upper)


def _forward(plan: Plan, trials: Values, probes: Values) -> list[Finding | None]:
    """Differences to the base; when it failed, to the first probe around it that did not."""
    if plan.base is None:
        return [
            None if theta is None else Finding(probe, theta, is_change=False, noise_share=1.0)
            for probe, theta in zip(plan.probes, probes, strict=True)
        ]
    origin, start = trials[0], np.zeros_like(plan.probes[0])
    skipped = -1
    if origin is None:
        skipped = next((i for i, theta in enumerate(probes) if theta is not None), -1)
        if skipped < 0:
            return [None] * len(probes)
        origin, start = probes[skipped], plan.probes[skipped]
    findings: list[Finding | None] = []
    for place, (probe, theta) in enumerate(zip(plan.probes, probes, strict=True)):
        if theta is None or origin is None or place == skipped:
            findings.append(None)
        else:
            change = Finding(probe - start, theta - origin, is_change=True, noise_share=2.0)
            findings.append(change)
    return findings


def _base(plan: Plan) -> FloatArray:
    base = plan.center if plan.base is None else plan.base
    if base is None:
        raise ValueError("a plan with probes has a center")
    return base


def _role(plan: Plan, place: int) -> str:
    if place < len(plan.steps):
        return "trial"
    return "sketch" if plan.probes or plan.repeat else "restart"
