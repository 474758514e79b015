"""The solves behind a layer: every row of a batch is the middle of a space of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np

from zo_bilevel.estimators.base import GradientEstimate, GradientEstimator, SketchPlan
from zo_bilevel.estimators.derivatives import ForwardDifferentiable
from zo_bilevel.estimators.pull import Pull
from zo_bilevel.problem.objectives.base import OuterContext
from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.problem import BoundProblem, Problem
from zo_bilevel.problem.space import HALF_RANGE, Space
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.solve.dispatch.base import Dispatcher, Solve, takes_seed
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Evaluation, Job, Outcome, Point, solve_seed
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError


@final
class LayerRounds:
    """Solves around the rows of a batch.

    Args:
        inner: The user's solver of an array.
        name: Key under which it wants the array, or `None` for the bare array.
        size: Length of the array, N.
        scale: Unit of the estimator's radius.
        seed: Seed of directions and solves.
        dispatcher: Runs the solves; `None` is `Serial()`.
    """

    def __init__(
        self,
        inner: Callable[..., Any],
        name: str | None,
        size: int,
        scale: float,
        seed: int,
        dispatcher: Dispatcher | None,
    ) -> None:
        has_jvp = isinstance(inner, ForwardDifferentiable)
        kind = _DifferentiableArraySolver if has_jvp else _ArraySolver
        reach = HALF_RANGE * scale
        space = Space(phi=Real(-reach, reach, shape=(size,)))
        self.problem = Problem(space, kind(inner, name), _no_outer)
        self.scale = scale
        self.seed = seed
        self.dispatcher: Dispatcher = Serial() if dispatcher is None else dispatcher
        self.layout: ThetaLayout | None = None

    def check(self, estimator: GradientEstimator) -> None:
        """Refuse an estimator that makes no sketch, and a solver that it cannot use."""
        if not isinstance(estimator, GradientEstimator) or isinstance(estimator, type):
            raise InputError(f"estimator must make sketches, got {estimator!r}")
        for point in self._plan(estimator, 0, 0).points[:1]:
            if isinstance(point.derivative, Pull):
                raise InputError(
                    f"{estimator} needs the outer gradient before it runs and cannot be used in a "
                    "layer; use FG2U or FG2UZO"
                )
            if point.derivative is not None:
                point.derivative.bind(self.problem, point.x)

    def _plan(self, estimator: GradientEstimator, call: int, row: int) -> SketchPlan:
        space = self.problem.space
        sequence = np.random.SeedSequence(self.seed, spawn_key=(1 << 20, call, row))
        rng = np.random.default_rng(sequence)
        return estimator.plan(space, np.zeros(space.size), rng, (call, row))

    def plain(self, rows: FloatArray, call: int) -> tuple[FloatArray, ThetaLayout]:
        """One solve a row."""
        zero = np.zeros(self.problem.space.size)
        rounds = [[Point(zero, (call, row), "start")] for row in range(len(rows))]
        return self._based(self._solved(rows, rounds))

    def differentiated(
        self, rows: FloatArray, call: int, estimator: GradientEstimator
    ) -> tuple[FloatArray, ThetaLayout, list[GradientEstimate]]:
        """Every row's sketch, all solves in one round."""
        plans = [self._plan(estimator, call, row) for row in range(len(rows))]
        solved = self._solved(rows, [plan.points for plan in plans])
        theta, layout = self._based(solved)
        bound = self._bound(layout, np.zeros(layout.size))
        estimates = [
            estimator.sketch(plan, evaluations, bound)
            for plan, evaluations in zip(plans, solved, strict=True)
        ]
        for row, estimate in enumerate(estimates):
            if estimate.num_directions == 0:
                raise InnerSolverError(
                    f"all directions at row {row} failed; the first one: {solved[row][-1].error}"
                )
        return theta, layout, estimates

    def pull(
        self, estimate: GradientEstimate, layout: ThetaLayout, cotangent: FloatArray
    ) -> FloatArray:
        """Gradient in phi, `(N,)`, of a gradient in theta, `(m,)`."""
        return estimate.hypergradient(self._bound(layout, cotangent))[0] / self.scale

    def _bound(self, layout: ThetaLayout, cotangent: FloatArray) -> BoundProblem:
        space = self.problem.space
        return BoundProblem(space, _Cotangent(cotangent), OuterContext(space, layout), False)

    def _solved(
        self, rows: FloatArray, rounds: Sequence[Sequence[Point]]
    ) -> list[list[Evaluation]]:
        solve = Solve(self.problem.inner)
        asked = [(row, point) for row, points in enumerate(rounds) for point in points]
        jobs = [
            Job(
                index,
                {"phi": rows[row] + self.scale * point.x},
                solve_seed(self.seed, point.stream),
                None if point.derivative is None else point.derivative.bind(self.problem, point.x),
            )
            for index, (row, point) in enumerate(asked)
        ]
        found = dict(self.dispatcher.run(solve, jobs))
        solved: list[list[Evaluation]] = [[] for _ in rounds]
        for index, (row, point) in enumerate(asked):
            solved[row].append(self._evaluation(point, found[index]))
        return solved

    def _evaluation(self, point: Point, outcome: Outcome) -> Evaluation:
        status, error, layout = outcome.status, outcome.error, outcome.layout
        if status == "ok" and layout is not None:
            self.layout = layout if self.layout is None else self.layout
            if (layout.names, layout.shapes) != (self.layout.names, self.layout.shapes):
                status = "wrong_shape"
                error = f"inner returned {layout.describe()}, but {self.layout.describe()} before"
        return Evaluation(
            point,
            status,
            outcome.theta if status == "ok" else None,
            0.0,
            error=error,
            layout=layout,
            derivative=outcome.derivative,
        )

    def _based(self, solved: list[list[Evaluation]]) -> tuple[FloatArray, ThetaLayout]:
        values = []
        for row, evaluations in enumerate(solved):
            base = evaluations[0]
            if base.theta is None or self.layout is None:
                raise InnerSolverError(f"the solve at row {row} failed: {base.error}")
            values.append(base.theta)
        if self.layout is None:
            raise InputError("phi must have at least one row, got an empty batch")
        return np.stack(values), self.layout


class _ArraySolver:
    """Calls a solver of arrays with the one array of a dict."""

    def __init__(self, inner: Callable[..., Any], name: str | None) -> None:
        self.inner = inner
        self.key = name
        self.seeded = takes_seed(inner)

    def _as_wanted(self, phi: Mapping[str, Any]) -> Any:  # noqa: ANN401 - array or dict of it
        return phi["phi"] if self.key is None else {self.key: phi["phi"]}

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401
        wanted = self._as_wanted(phi)
        return self.inner(wanted, seed=seed) if self.seeded else self.inner(wanted)


@final
class _DifferentiableArraySolver(_ArraySolver):
    def jvp(self, phi: dict[str, Any], tangents: Mapping[str, Any], *, seed: int) -> Any:  # noqa: ANN401
        inner: Any = self.inner
        return inner.jvp(self._as_wanted(phi), self._as_wanted(tangents), seed=seed)


def _no_outer(theta: Any, phi: Any) -> float:  # noqa: ANN401, ARG001 - never called
    return 0.0


@final
class _Cotangent:
    """Stands for an outer objective whose gradient in theta is known already."""

    is_vector = True

    def __init__(self, cotangent: FloatArray) -> None:
        self.cotangent = cotangent

    def value(self, theta: FloatArray, x: FloatArray, context: OuterContext) -> float:  # noqa: ARG002
        """`<cotangent, theta>`."""
        return float(self.cotangent @ theta)

    def gradient(
        self,
        theta: FloatArray,  # noqa: ARG002
        x: FloatArray,
        context: OuterContext,  # noqa: ARG002
    ) -> tuple[FloatArray, FloatArray]:
        """The cotangent, and zero explicitly in x."""
        return self.cotangent, np.zeros(x.size)

    def hessian_product(
        self,
        theta: FloatArray,  # noqa: ARG002
        x: FloatArray,  # noqa: ARG002
        theta_tangents: FloatArray,
        x_tangents: FloatArray,
        context: OuterContext,  # noqa: ARG002
    ) -> tuple[FloatArray, FloatArray]:
        """Zero: linear in theta."""
        return np.zeros_like(theta_tangents), np.zeros_like(x_tangents)
