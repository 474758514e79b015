"""The estimator protocol: which solves make a sketch, and the sketch they make."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np

from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray


@final
@dataclass(frozen=True, slots=True)
class SketchPlan:
    """The solves of one sketch.

    Args:
        points: All of one stream; the first is the base point.
        x: The base point, moved inside the bounds far enough for every probe to fit.
        V: Directions, shape `(N, b)`.
        U: Their duals, shape `(N, b)`.
        step: Length along each direction.
    """

    points: list[Point]
    x: FloatArray
    V: FloatArray
    U: FloatArray
    step: float


class GradientEstimate(Protocol):
    """What an estimator makes of its solves: at least a hypergradient. A `Sketch` is one."""

    @property
    def num_directions(self) -> int:
        """Directions it rests on; 0 when all were lost."""
        ...

    @property
    def dropped(self) -> int:
        """Directions lost to failed solves."""
        ...

    def hypergradient(self, bound: BoundProblem) -> tuple[FloatArray, FloatArray]:
        """Estimate and standard error per scaled unit, both `(N,)`."""
        ...


@runtime_checkable
class GradientEstimator(Protocol):
    """Estimates hypergradients around a point, with or without a sketch."""

    def plan(
        self, space: Space, x: FloatArray, rng: np.random.Generator, stream: tuple[int, ...]
    ) -> SketchPlan:
        """Choose directions and the solves they need, all independent of each other.

        Args:
            space: The space of `x`.
            x: Scaled point, shape `(N,)`.
            rng: Source of the directions.
            stream: Random stream shared by all solves of the sketch.
        """
        ...

    def sketch(
        self, plan: SketchPlan, evaluations: Sequence[Evaluation], bound: BoundProblem
    ) -> GradientEstimate:
        """Reduce the solves, in the order of the plan; failed ones drop out."""
        ...
