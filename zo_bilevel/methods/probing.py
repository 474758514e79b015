"""How the differences of a plan are measured: forward, central, or by exact derivatives.

A plan asks what the inner solution is at `base + d` for several displacements d. Forward, that is
one solve each. Central, it is two, `base + d` and `base - d`: half their difference has no second-
order error. With exact derivatives it is one solve of `base` with all d as tangents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.derivatives import Push
from zo_bilevel.estimators.fg2u import FG2U
from zo_bilevel.estimators.fg2u_zo import FG2UZO
from zo_bilevel.evaluation import Evaluation, Point
from zo_bilevel.methods.local_search import Plan
from zo_bilevel.methods.outer_model import OuterModel
from zo_bilevel.space import Space

FloatArray: TypeAlias = NDArray[np.float64]
Embed: TypeAlias = Callable[[FloatArray], FloatArray]


@final
class Probing:
    """Turns a plan into points and their evaluations into the plan's answers.

    Args:
        estimator: Says how to difference.
        space: For the bounds.
        model: What is modelled of a solve.
        embed: From the continuous coordinates to the whole scaled vector.
    """

    def __init__(
        self, estimator: FG2UZO | FG2U, space: Space, model: OuterModel, embed: Embed
    ) -> None:
        self.space, self.model, self.embed = space, model, embed
        self.is_exact = isinstance(estimator, FG2U)
        self.is_central = isinstance(estimator, FG2UZO) and estimator.difference == "central"

    def points(self, plan: Plan) -> list[Point]:
        """The solves of the plan; trial steps first."""
        count = len(plan.steps)
        points = [Point(self.embed(p), role=_role(plan, i)) for i, p in enumerate(plan.points)]
        if not plan.probes or not (self.is_exact or self.is_central):
            return points
        base = self._base(plan)
        if self.is_exact:
            return [*points[:count], Point(base, role="sketch", derivative=Push(self._spread(plan)))]
        for probe in points[count:]:
            points.append(Point(self._mirror(base, probe.x), role="sketch"))
        return points

    def answers(self, plan: Plan, evaluations: Sequence[Evaluation]) -> list[FloatArray | None]:
        """What the plan wanted to know, `None` for what failed."""
        count = len(plan.steps)
        seen = [self.model.observe(e) if e.ok else None for e in evaluations]
        if not plan.probes or not (self.is_exact or self.is_central):
            return seen
        origin = seen[0] if plan.base is not None and seen else plan.theta
        if origin is None:
            return [*seen[:count], *(None for _ in plan.probes)]
        if self.is_exact:
            derivative = evaluations[-1].derivative if evaluations[-1].ok else None
            if derivative is None:
                return [*seen[:count], *(None for _ in plan.probes)]
            columns = self.model.tangents(derivative, self._spread(plan))
            return [*seen[:count], *(origin + column for column in columns.T)]
        forward = seen[count : count + len(plan.probes)]
        backward = seen[count + len(plan.probes) :]
        halves = [
            None if f is None or b is None else origin + 0.5 * (f - b)
            for f, b in zip(forward, backward, strict=True)
        ]
        return [*seen[:count], *halves]

    def _base(self, plan: Plan) -> FloatArray:
        base = plan.center if plan.base is None else plan.base
        if base is None:
            raise ValueError("a plan with probes has a center")
        return self.embed(base)

    def _spread(self, plan: Plan) -> FloatArray:
        """The displacements as columns of the whole scaled vector, `(N, c)`."""
        zero = self.embed(np.zeros_like(plan.probes[0]))
        return np.column_stack([self.embed(probe) - zero for probe in plan.probes])

    def _mirror(self, base: FloatArray, probe: FloatArray) -> FloatArray:
        return np.clip(2.0 * base - probe, self.space.lower, self.space.upper)


def _role(plan: Plan, place: int) -> str:
    if place < len(plan.steps):
        return "trial"
    return "sketch" if plan.probes or plan.repeat else "restart"
