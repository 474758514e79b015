"""Probes that failed are made the other way: which fail depends on the direction."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from zo_bilevel.estimators.base import GradientEstimator, SketchPlan
from zo_bilevel.estimators.differences import Differences
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.evaluation import Evaluation, Point

Solve: TypeAlias = Callable[[list[list[Point]]], Iterable[Sequence[Evaluation]]]
"""Solves the points of each plan."""


@runtime_checkable
class Turning(Protocol):
    """An estimator that can probe the other way, as `FG2UZO` does."""

    def turned(
        self, plan: SketchPlan, evaluations: Sequence[Evaluation], space: Space
    ) -> tuple[SketchPlan, list[int]]:
        """The plan to solve instead, and where in it the solves are that are new."""
        ...


def turned(
    plan: SketchPlan, evaluations: Sequence[Evaluation], space: Space
) -> tuple[SketchPlan, list[int]]:
    """`Turning.turned` of forward differences; nothing where the base failed."""
    failed = [k for k, one in enumerate(evaluations) if k > 0 and not one.ok]
    if not evaluations[0].ok or not failed:
        return plan, []
    signs = np.ones(plan.V.shape[1])
    signs[np.array(failed) - 1] = -1.0
    V, U = plan.V * signs, plan.U * signs
    probes = Differences("forward", plan.x, plan.step * V, space).points(plan.points[0].stream)
    return SketchPlan([plan.points[0], *probes], plan.x, V, U, plan.step), failed


def turn_failed(
    estimator: GradientEstimator,
    plans: list[SketchPlan],
    solved: list[list[Evaluation]],
    space: Space,
    solve: Solve,
) -> tuple[list[SketchPlan], int]:
    """Probe the other way where a probe failed; its solve takes the failed one's place in `solved`.

    Returns:
        The plans as they were solved, and how many solves that took.
    """
    if not isinstance(estimator, Turning):
        return plans, 0
    again = [estimator.turned(p, found, space) for p, found in zip(plans, solved, strict=True)]
    rounds = [[plan.points[k] for k in places] for plan, places in again]
    if any(rounds):
        for (_, places), mine, found in zip(again, solved, solve(rounds), strict=True):
            for k, evaluation in zip(places, found, strict=True):
                mine[k] = evaluation
    return [plan for plan, _ in again], sum(map(len, rounds))
