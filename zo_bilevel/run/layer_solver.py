"""The solves behind a layer: every row of a batch is the middle of a space of its own."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np

from zo_bilevel.estimators.base import GradientEstimator, SketchPlan
from zo_bilevel.estimators.derivatives import ForwardDifferentiable
from zo_bilevel.estimators.fg2u import FG2U
from zo_bilevel.estimators.fg2u_zo import FG2UZO
from zo_bilevel.estimators.orders import Pull
from zo_bilevel.estimators.sketch import Sketch
from zo_bilevel.estimators.turning import turn_failed
from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.objectives.base import ThetaObjective
from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import HALF_RANGE, Space
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.dispatch.base import Dispatcher, takes_seed
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.solve.streams import METHOD_KEY, generator
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError


@final
@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class SolvedRows:
    """What a batch was solved to.

    Args:
        theta: Shape `(rows, m)`; zero where a row failed.
        JV: Derivatives along the directions of each row, shape `(rows, m, b)`; b = 0 without.
        U: Their duals, over the number of directions that came back and the scale, so that the
            Jacobian's estimate is `JV U'`; shape `(rows, N, b)`, zero where a row failed.
        errors: By row, why it failed.
    """

    theta: FloatArray
    JV: FloatArray
    U: FloatArray
    errors: dict[int, str]


@final
class LayerSolver:
    """Solves around the rows of a batch.

    Args:
        inner: The user's solver of an array.
        name: Key under which it wants the array, or `None` for the bare array.
        size: Length of the array, N.
        estimator: Makes the sketches; `None` for the one that suits the solver.
        scale: Unit of the estimator's radius.
        seed: Seed of directions and solves.
        dispatcher: Runs the solves; `None` is `Serial()`.

    Raises:
        InputError: If the estimator makes no sketch.
        UnsupportedProblemError: If it cannot use the solver.
    """

    def __init__(
        self,
        inner: Callable[..., Any],
        name: str | None,
        size: int,
        estimator: GradientEstimator | None,
        scale: float,
        seed: int,
        dispatcher: Dispatcher | None,
    ) -> None:
        has_jvp = isinstance(inner, ForwardDifferentiable)
        kind = _DifferentiableArraySolver if has_jvp else _ArraySolver
        reach = HALF_RANGE * scale
        space = Space(phi=Real(-reach, reach, shape=(size,)))
        self.problem = Problem(space, kind(inner, name), _no_outer)
        if estimator is None:
            estimator = FG2U() if has_jvp else FG2UZO()
        if isinstance(estimator, FG2U):  # the outer gradient comes later, with backward
            estimator = dataclasses.replace(estimator, keep_tangents=True)
        self.estimator = estimator
        self.scale, self.seed = scale, seed
        self.dispatcher: Dispatcher = Serial() if dispatcher is None else dispatcher
        self._bound: BoundProblem | None = None
        self._check()

    @property
    def layout(self) -> ThetaLayout | None:
        """Structure of theta; `None` before the first solve."""
        return None if self._bound is None else self._bound.layout

    def _check(self) -> None:
        if not isinstance(self.estimator, GradientEstimator) or isinstance(self.estimator, type):
            raise InputError(f"estimator must make sketches, got {self.estimator!r}")
        for point in self._plan((0,), 0).points[:1]:
            if isinstance(point.derivative, Pull):
                raise InputError(
                    f"{self.estimator} needs the outer gradient before it runs and cannot be used "
                    "in a layer; use FG2U or FG2UZO"
                )
            if point.derivative is not None:
                point.derivative.bind(self.problem, point.x)

    def _plan(self, key: tuple[int, ...], row: int) -> SketchPlan:
        space = self.problem.space
        rng = generator(self.seed, METHOD_KEY, *key, row)
        return self.estimator.plan(space, np.zeros(space.size), rng, (*key, row))

    def plain(self, rows: FloatArray, key: tuple[int, ...]) -> SolvedRows:
        """One solve a row."""
        zero = np.zeros(self.problem.space.size)
        solved = self._evaluated(
            rows, [[Point(zero, (*key, k), "start")] for k in range(len(rows))]
        )
        return self._gathered(solved, [None] * len(rows))

    def differentiated(self, rows: FloatArray, key: tuple[int, ...]) -> SolvedRows:
        """Every row's sketch, all solves in one round; arguments as for `plain`."""
        plans = [self._plan(key, row) for row in range(len(rows))]
        solved = self._evaluated(rows, [plan.points for plan in plans])
        if self._radius_was_for_another_precision():
            return self.differentiated(rows, key)
        space = self.problem.space
        plans, _ = turn_failed(
            self.estimator, plans, solved, space, lambda rounds: self._evaluated(rows, rounds)
        )
        bound = self._bound
        sketches = [
            self._sketch(plan, evaluations, bound) if evaluations[0].ok and bound else None
            for plan, evaluations in zip(plans, solved, strict=True)
        ]
        return self._gathered(solved, sketches)

    def _radius_was_for_another_precision(self) -> bool:
        """Fit an automatic radius to the precision of theta, once that is known."""
        layout, estimator = self.layout, self.estimator
        if not isinstance(estimator, FG2UZO):
            return False
        if layout is None:
            return False
        self.estimator = estimator.fitted(layout.dtype)
        return self.estimator is not estimator

    def _sketch(
        self, plan: SketchPlan, evaluations: Sequence[Evaluation], bound: BoundProblem
    ) -> Sketch:
        seen = BoundProblem(bound.space, _LinearOuter(), bound.context, False)
        sketch = self.estimator.sketch(plan, evaluations, seen)
        if not isinstance(sketch, Sketch):
            raise InputError(f"estimator must make sketches with JV and U, got {sketch!r}")
        return sketch

    def _evaluated(
        self, rows: FloatArray, rounds: Sequence[Sequence[Point]]
    ) -> list[list[Evaluation]]:
        def around_its_row(point: Point) -> dict[str, Any]:
            return {"phi": rows[point.stream[-1]] + self.scale * point.x}

        evaluator = Evaluator(self.problem, self.dispatcher, self.seed, decode=around_its_row)
        evaluator.bound = self._bound
        found = iter(evaluator.evaluate([point for points in rounds for point in points]))
        self._bound = evaluator.bound
        return [[next(found) for _ in points] for points in rounds]

    def _gathered(
        self, solved: list[list[Evaluation]], sketches: Sequence[Sketch | None]
    ) -> SolvedRows:
        size, m = self.problem.space.size, 0 if self.layout is None else self.layout.size
        b = max((s.num_directions for s in sketches if s is not None), default=0)
        theta, errors = np.zeros((len(solved), m)), {}
        JV, U = np.zeros((len(solved), m, b)), np.zeros((len(solved), size, b))
        for row, (evaluations, sketch) in enumerate(zip(solved, sketches, strict=True)):
            base = evaluations[0]
            if not base.ok or base.theta is None:
                errors[row] = f"the solve at row {row} failed: {base.error}"
                continue
            theta[row] = base.theta
            if sketch is None:
                continue
            count = sketch.num_directions
            if sketch.dropped:  # what is left would be another gradient
                asked = count + sketch.dropped
                why = [one.error for one in evaluations if not one.ok][-1]
                errors[row] = (
                    f"{sketch.dropped} of {asked} directions at row {row} failed, and so did the "
                    f"other way where there is one; the last: {why}"
                )
                theta[row] = 0.0
                continue
            JV[row, :, :count] = sketch.JV
            U[row, :, :count] = sketch.U / (count * self.scale)
        return SolvedRows(theta, JV, U, errors)


def first_error(found: SolvedRows) -> InnerSolverError:
    """The exception for the first row that failed."""
    row = min(found.errors)
    return InnerSolverError(found.errors[row])


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
class _LinearOuter(ThetaObjective):
    """Stands for an outer objective whose gradient in theta comes later."""

    def theta_value(self, theta: FloatArray) -> float:  # noqa: ARG002
        """Nothing yet."""
        return 0.0

    def theta_gradient(self, theta: FloatArray) -> FloatArray:
        """Nothing yet."""
        return np.zeros(theta.size)

    def theta_hessian_product(self, theta: FloatArray, tangents: FloatArray) -> FloatArray:  # noqa: ARG002
        """Zero: linear in theta."""
        return np.zeros_like(tangents)
