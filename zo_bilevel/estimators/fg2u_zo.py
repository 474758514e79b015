"""(FG)2U-ZO: forward gradients with finite-difference directional derivatives.

Shen et al. (2024), "Memory-Efficient Gradient Unrolling for Large-Scale Bi-level Optimization",
arXiv 2406.14095, eq. 16. The inner solution is differenced, not the loss; the outer objective's
exact derivatives do the rest.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from zo_bilevel.estimators.base import SketchPlan
from zo_bilevel.estimators.differences import Differences
from zo_bilevel.estimators.directions import (
    Family,
    check_family,
    direction_count,
    draw_directions,
    frame_correction,
)
from zo_bilevel.estimators.sketch import Observed, Sketch
from zo_bilevel.estimators.turning import turned
from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.space import HALF_RANGE, Space
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arguments import finite_number, one_of, whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError

FORWARD_RADIUS = 1e-5
CENTRAL_RADIUS = 1e-4
"""Radii in scaled units for solvers accurate to about 1e-10 and 1e-12 of their scale: real
simulators stop iterating long before the last bit, so the textbook eps**(1/2) and eps**(1/3)
would measure their tolerances."""
CHOICE_RADIUS = 1.0
ROUNDED_RESOLUTIONS = 100.0
"""A change of less than so many times the resolution is off by a percent or more."""


@final
@dataclass(frozen=True, slots=True)
class FG2UZO:
    """Zeroth-order forward-gradient estimator.

    Args:
        num_directions: Directions b a sketch, >= 1, or "auto": `ceil(2 + 2 log2(N))`, at most N.
            Of more than N orthogonal or coordinate ones, as many as make whole frames: with N = 3
            and b = 4 or 5 it is 3, which are exact.
        directions: "orthogonal", "rademacher", "gaussian", "coordinate" or "prior".
        difference: "forward" (b + 1 solves) or "central" (2b + 1 solves, error O(radius^2)). Near a
            bound the base moves inside until all probes fit, and the error is O(radius) for both.
        radius: Smoothing radius mu > 0 in scaled units (a sixth of a parameter's range), or
            "auto": 1e-5, central 1e-4; for answers in float32, once they are seen to be that,
            3e-4, central 5e-3. Integers are probed at least one unit away, choices by their scores.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> FG2UZO(16, difference="central").num_directions
        16
    """

    num_directions: int | Literal["auto"] = "auto"
    directions: Family = "orthogonal"
    difference: Literal["forward", "central"] = "forward"
    radius: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.num_directions != "auto":
            count = whole_number("num_directions, if not 'auto',", self.num_directions, least=1)
            object.__setattr__(self, "num_directions", count)
        check_family(self.directions)
        one_of("difference", self.difference, ("forward", "central"))
        if self.radius != "auto":
            object.__setattr__(self, "radius", finite_number("radius", self.radius, "> 0"))

    def direction_count(self, size: int) -> int:
        """Directions a sketch has in N = `size` dimensions."""
        return direction_count(self.num_directions, self.directions, size)

    def step(self) -> float:
        """The smoothing radius, in scaled units."""
        if self.radius == "auto":
            return FORWARD_RADIUS if self.difference == "forward" else CENTRAL_RADIUS
        return float(self.radius)

    def fitted(self, dtype: str) -> FG2UZO:
        """The same with a radius for answers of that floating type, unless one was given."""
        if self.radius != "auto" or dtype == "float64":
            return self
        order = 2 if self.difference == "forward" else 3
        return dataclasses.replace(self, radius=float(np.finfo(dtype).eps) ** (1 / order))

    def plan(
        self, space: Space, x: FloatArray, rng: np.random.Generator, stream: tuple[int, ...]
    ) -> SketchPlan:
        """Choose directions around `x`.

        Near a bound the base point moves inside so far that every probe fits: by the radius times
        the largest entry of a direction.

        Returns:
            The base point and one probe (forward) or two (central) a direction.
        """
        V, U = draw_directions(self.directions, self.direction_count(space.size), space.prior, rng)
        step = self.step()
        stretch = coordinate_stretch(space, step)
        V, U = V * stretch[:, None], U / stretch[:, None]
        reach = np.minimum(step * np.abs(V).max(axis=1), HALF_RANGE)
        base = np.clip(x, space.lower + reach, space.upper - reach)
        probes = Differences(self.difference, base, step * V, space).points(stream)
        return SketchPlan([Point(base, stream, "sketch"), *probes], base, V, U, step)

    def sketch(
        self, plan: SketchPlan, evaluations: Sequence[Evaluation], bound: BoundProblem
    ) -> Sketch:
        """Difference the inner solutions, as far as they came back.

        Returns:
            The sketch over the directions that came back; of a central difference one side is
            enough, at the price of an error of first order in the radius.

        Raises:
            InnerSolverError: If the base solve failed.
        """
        if not evaluations or not evaluations[0].ok:
            raise InnerSolverError("the base solve of the sketch failed")
        view = Observed(bound)
        base = view.observe(evaluations[0])
        differences = Differences(self.difference, plan.x, plan.step * plan.V, bound.space)
        changes = differences.changes(evaluations[1:], base, view)
        kept = [k for k, change in enumerate(changes) if change is not None]
        columns = [
            change.derivative(way)
            for way, change in zip(plan.V.T, changes, strict=True)
            if change is not None
        ]
        JV = np.column_stack(columns) if columns else np.zeros((base.size, 0))
        rounding = relative_rounding(JV * plan.step, base, bound.layout.dtype, plan.step)
        count, drawn, U = len(kept), plan.V.shape[1], plan.U[:, kept]
        if self.directions == "coordinate":  # a loss says nothing of other axes, nor of its twins
            asked, found = ((part**2).sum(axis=1, keepdims=True) for part in (plan.U, U))
            U, count = U * (count / drawn) * (asked / np.where(found > 0.0, found, 1.0)), drawn
        correction = frame_correction(self.directions, count, plan.x.size)
        dropped = drawn - len(kept)
        return Sketch(plan.x, base, plan.V[:, kept], JV, U, correction, dropped, rounding=rounding)

    def turned(
        self, plan: SketchPlan, evaluations: Sequence[Evaluation], space: Space
    ) -> tuple[SketchPlan, list[int]]:
        """Forward differences that failed, the other way: which fail depends on the direction.

        Args:
            plan: What was asked.
            evaluations: The solves in the order of the plan.
            space: For the bounds.

        Returns:
            The plan to solve instead, and where in it the solves are that are new; none of central
            differences, which have looked both ways.
        """
        return (plan, []) if self.difference == "central" else turned(plan, evaluations, space)


def relative_rounding(
    differences: FloatArray, base: FloatArray, dtype: str, radius: float
) -> float:
    """`Sketch.rounding` of low precision, with a warning where differences are much of it.

    Args:
        differences: Of the inner solution, over the radius, `(m, b)`.
        base: Inner solution, `(m,)`.
        dtype: Its floating type.
        radius: As told.
    """
    if dtype == "float64":
        return 0.0
    precision = float(np.finfo(dtype).eps)
    resolution = precision * float(np.max(np.abs(base), initial=0.0))
    largest = float(np.max(np.abs(differences), initial=0.0))
    if largest < ROUNDED_RESOLUTIONS * resolution:
        warnings.warn(
            f"the inner solution is {dtype} and changes by {largest:.1e} over the radius "
            f"{radius:g}, where {resolution:.1e} is its resolution: directional derivatives are "
            f"off by {resolution / largest if largest else 1.0:.0%} or more; give a larger radius, "
            f"such as {max(precision**0.5, 10 * radius):.0e}, or solve in float64",
            RuntimeWarning,
            stacklevel=3,
        )
    return 0.5 * precision / radius


def coordinate_stretch(space: Space, step: float) -> FloatArray:
    """How much farther than `step` each coordinate is probed: integers and choices are coarse.

    Returns:
        Shape `(N,)`, >= 1: one for continuous coordinates, one whole unit for integers, one
        scaled unit of score for choices.
    """
    reach = np.full(space.size, step)
    reach[space.is_integer] = np.maximum(step, 1.0 / space.unit[space.is_integer])
    reach[space.is_choice] = max(step, CHOICE_RADIUS)
    return np.asarray(reach / step)
