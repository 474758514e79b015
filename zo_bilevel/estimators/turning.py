"""Probes that failed are made the other way: which fail depends on the direction."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from zo_bilevel.estimators.base import GradientEstimator, SketchPlan
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
    turned = [estimator.turned(p, found, space) for p, found in zip(plans, solved, strict=True)]
    rounds = [[plan.points[k] for k in places] for plan, places in turned]
    if any(rounds):
        for (_, places), mine, again in zip(turned, solved, solve(rounds), strict=True):
            for k, evaluation in zip(places, again, strict=True):
                mine[k] = evaluation
    return [plan for plan, _ in turned], sum(map(len, rounds))
