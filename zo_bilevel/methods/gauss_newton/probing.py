"""How the differences of a plan are measured: forward, central, or by exact derivatives.

A plan asks how the inner solution changes from `base` to `base + d`, for several displacements d.
Forward, that is one solve each. Central, it is two, `base + d` and `base - d`: half their
difference has no second-order error. With exact derivatives it is one solve of `base` with all d
as tangents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias, final

import numpy as np

from zo_bilevel.estimators.fg2u import FG2U
from zo_bilevel.estimators.fg2u_zo import FG2UZO
from zo_bilevel.estimators.push import Push
from zo_bilevel.methods.base import Search
from zo_bilevel.methods.gauss_newton.outer_model import OuterModel
from zo_bilevel.methods.gauss_newton.step_plan import Answers, Finding, StepPlan
from zo_bilevel.methods.shared.discontinuity import DiscontinuityDetector, DiscontinuityError
from zo_bilevel.methods.shared.exploration import candidate_directions
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray

Values: TypeAlias = Sequence[FloatArray | None]


@final
class Probing:
    """Turns a plan into points and their evaluations into the plan's answers.

    Args:
        estimator: Says how to difference.
        search: Problem, seed, round width.
        model: What is modelled of a solve.
        first: The solved start.
        detector: Ends the search when answers jump.

    Attributes:
        best: Lowest loss so far.
        start: Continuous coordinates of the start, and the modelled vector there.
    """

    def __init__(
        self,
        estimator: FG2UZO | FG2U,
        search: Search,
        model: OuterModel,
        first: Evaluation,
        detector: DiscontinuityDetector | None = None,
    ) -> None:
        self.search, self.model, self.best = search, model, first
        self._detector = detector
        self._whole, self._free = first.point.x, ~search.space.discrete
        theta = model.observe(first)
        assert theta is not None  # noqa: S101 - the start is ok
        self.start = self._whole[self._free], theta
        self.lower = search.space.lower[self._free]
        self.upper = search.space.upper[self._free]
        self.width = search.round_width
        self._is_exact = isinstance(estimator, FG2U)
        self._is_central = isinstance(estimator, FG2UZO) and estimator.difference == "central"

    def directions(self) -> Iterator[FloatArray]:
        """Directions to explore, the most promising first."""
        return (direction[self._free] for direction in candidate_directions(self.search.space))

    def recommend(self, center: FloatArray) -> None:
        """Tell the loop that solves are noisy, and which point to report."""
        self.search.notes.noisy = True
        self.search.notes.recommended = self._embed(center)

    def points(self, plan: StepPlan) -> list[Point]:
        """The solves of the plan; those that are no differences first."""
        if plan.probes and self._is_exact:
            count = len(plan.points) - len(plan.probes)
            order = Push(self._spread(plan))
            points = [self._point(point, "trial") for point in plan.points[:count]]
            return [*points, self._point(_base(plan), "sketch", order)]
        points = [self._point(point, _role(plan, i)) for i, point in enumerate(plan.points)]
        if self._is_central:
            mirrors = (self._mirror(plan, probe) for probe in plan.probes)
            points += [self._point(mirror, "sketch") for mirror in mirrors]
        return points

    def answers(self, plan: StepPlan, evaluations: Sequence[Evaluation]) -> Answers:
        """What the plan wanted to know, `None` for what failed.

        Raises:
            DiscontinuityError: When a detector sees a jump.
        """
        self.best = min((e for e in (self.best, *evaluations) if e.ok), key=lambda e: e.loss)
        if self._detector is not None and self._detector.sees_jump(evaluations):
            raise DiscontinuityError(self.best)
        seen = [self._usable(evaluation) for evaluation in evaluations]
        count = len(plan.points) - len(plan.probes)
        trials, probes = seen[:count], seen[count:]
        if not plan.probes:
            return Answers(trials)
        if self._is_exact:
            return Answers(trials, self._exact(plan, evaluations[-1]))
        if self._is_central:
            half = len(plan.probes)
            return Answers(trials, self._central(plan, trials, probes[:half], probes[half:]))
        return Answers(trials, _forward(plan, trials, probes))

    def _embed(self, part: FloatArray) -> FloatArray:
        full = self._whole.copy()
        full[self._free] = part
        return full

    def _point(self, part: FloatArray, role: str, order: Push | None = None) -> Point:
        return self.search.point(self._embed(part), role, order)

    def _usable(self, evaluation: Evaluation) -> FloatArray | None:
        return self.model.observe(evaluation) if evaluation.ok else None

    def _exact(self, plan: StepPlan, evaluation: Evaluation) -> list[Finding | None]:
        if not evaluation.ok or evaluation.derivative is None:
            return [None] * len(plan.probes)
        columns = self.model.tangents(evaluation.derivative, self._spread(plan))
        return [
            Finding(probe, column, is_change=True, noise_share=0.0)
            for probe, column in zip(plan.probes, columns.T, strict=True)
        ]

    def _central(
        self, plan: StepPlan, trials: Values, forward: Values, backward: Values
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

    def _spread(self, plan: StepPlan) -> FloatArray:
        """The displacements as columns of the whole scaled vector, `(N, c)`."""
        spread = np.zeros((self._free.size, len(plan.probes)))
        spread[self._free] = np.column_stack(plan.probes)
        return spread

    def _mirror(self, plan: StepPlan, probe: FloatArray) -> FloatArray:
        return np.clip(_base(plan) - probe, self.lower, self.upper)


def _forward(plan: StepPlan, trials: Values, probes: Values) -> list[Finding | None]:
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


def _base(plan: StepPlan) -> FloatArray:
    base = plan.center if plan.base is None else plan.base
    if base is None:
        raise ValueError("a plan with probes has a center")
    return base


def _role(plan: StepPlan, place: int) -> str:
    if place < len(plan.steps):
        return "trial"
    return "sketch" if plan.probes or plan.repeat else "restart"
