"""The hypergradient at one point, with its standard error."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np

from zo_bilevel.estimators.base import GradientEstimate, GradientEstimator, SketchPlan
from zo_bilevel.estimators.fg2u import SlopeSketch
from zo_bilevel.estimators.fg2u_zo import FG2UZO
from zo_bilevel.estimators.orders import Push
from zo_bilevel.estimators.sketch import Hypergradient, Observed, Sketch
from zo_bilevel.estimators.turning import turn_failed
from zo_bilevel.problem.parameters import Choice, Integer
from zo_bilevel.problem.problem import Problem
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.derivative import DerivativeOrder
from zo_bilevel.solve.dispatch.base import Dispatcher
from zo_bilevel.solve.dispatch.distributed import default_dispatcher
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.solve.streams import METHOD_KEY, generator
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError, UnsupportedProblemError

NUM_REPEATS = 5
"""Sketches of a solver whose answers vary: from their spread comes the standard error."""
NEGLIGIBLE_SHARE = 1e-5
"""Share of what a difference changes, or of theta where derivatives are exact, below which what
two solves of one point differ by is rounding: that much the differences themselves are wrong."""


def hypergradient(
    problem: Problem,
    phi: Mapping[str, Any] | None = None,
    *,
    estimator: GradientEstimator | None = None,
    seed: int = 0,
    dispatcher: Dispatcher | None = None,
) -> Hypergradient:
    """Estimate `dh/dphi`, the derivative of the outer objective through the inner solver.

    One more solve of the point, and one with another seed where the solver takes one, tell whether
    answers vary; exact derivatives are repeated too, `FG2U`'s along one direction. (A `TorchUnroll`
    that draws no random numbers is run once more, without a derivative.) If any vary,
    five sketches with directions and seeds of their own are averaged, and the standard error is
    that of their mean: it holds the noise of the solver and the choice of directions. If not, it
    holds the choice of directions alone, and is 0 where whole frames leave no choice; the error of
    the differences themselves, of the order of the radius, is in neither. A forward difference
    that fails is solved the other way; directions that fail both ways are counted in `dropped`.
    Where answers turn out to be float32, an automatic radius is fitted to that and the sketch made
    again, and the standard error holds their rounding.

    Args:
        problem: The problem.
        phi: Where, by name; missing names take the middle of their range.
        estimator: Any estimator; default `FG2UZO()`.
        seed: Seed of directions and solves.
        dispatcher: Runs the solves; default `Serial()`, or `Distributed()` on the ranks of an
            initialised `torch.distributed` group.

    Returns:
        A dict of arrays in the user's units; `.standard_error` holds the same names, and
        `.interval()` gives confidence intervals.

    Raises:
        InputError: If `phi` breaks a rule.
        InnerSolverError: If the base solve or every direction failed.
        UnsupportedProblemError: If a parameter is an integer or a choice.

    Example:
        >>> from zo_bilevel import Real, Space, SquaredError
        >>> problem = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"], SquaredError(1.0))
        >>> round(float(hypergradient(problem, {"a": 3.0})["a"]), 3)
        4.0
    """
    estimator = FG2UZO() if estimator is None else estimator
    if isinstance(estimator, type) or not isinstance(estimator, GradientEstimator):
        raise InputError(f"estimator must be one such as zb.FG2UZO(), got {estimator!r}")
    if not isinstance(problem, Problem):
        raise InputError(f"problem must be a zb.Problem, got {type(problem).__name__}")
    for name, parameter in problem.space.parameters.items():
        if isinstance(parameter, Integer | Choice):
            raise UnsupportedProblemError(
                f"a hypergradient needs parameters that vary continuously, got {name}={parameter!r}"
            )
    dispatcher = default_dispatcher() if dispatcher is None else dispatcher
    problem = problem.placed_around(phi)
    evaluator = Evaluator(problem, dispatcher, seed)
    sketches = _Sketches(estimator, evaluator)
    x = problem.space.encode(phi)
    drawn = [sketches.draw(x, 0)]
    while sketches.is_noisy and sketches.count < NUM_REPEATS:
        try:
            drawn.append(sketches.draw(x, sketches.count))
        except InnerSolverError:  # a noisy solver may fail where it has not before
            continue
    if unseen := sum(one.num_unseen for one in drawn):
        directions = sum(one.sketch.num_directions for one in drawn)
        warnings.warn(
            f"{unseen} of {directions} differences are exactly 0: the "
            "parameters have no effect there, or a step of the radius is lost in a tolerance or in "
            "rounding inside the solver; give a larger radius, or solve more accurately",
            RuntimeWarning,
            stacklevel=2,
        )
    gradient, error, *regression = _mean(drawn) if sketches.is_noisy else drawn[0].told
    named = problem.space.named_gradient
    return Hypergradient(
        named(x, gradient),
        named(x, error),
        float(np.mean([one.loss for one in drawn])),
        sketches.solves,
        sum(one.sketch.dropped for one in drawn),
        sum(one.sketch.num_directions for one in drawn),
        sketches.count if sketches.is_noisy else 1,
        tuple(named(x, part) for part in regression),
    )


@final
@dataclasses.dataclass(frozen=True, slots=True)
class _Drawn:
    """One sketch, and its hypergradient in the user's units, times the rates at the point asked.

    `regression`: centres and errors of its intervals; empty where they are the gradient's.
    """

    sketch: GradientEstimate
    gradient: FloatArray
    error: FloatArray
    loss: float
    regression: tuple[FloatArray, ...]

    @property
    def told(self) -> tuple[FloatArray, ...]:
        return self.gradient, self.error, *self.regression

    @property
    def num_unseen(self) -> int:
        return int(self.sketch.is_unseen.sum()) if isinstance(self.sketch, Sketch) else 0


@final
class _Sketches:
    """Sketches at one point, each with directions and a stream of its own."""

    def __init__(self, estimator: GradientEstimator, evaluator: Evaluator) -> None:
        self._estimator, self._evaluator = estimator, evaluator
        self.count = self.solves = 0
        self.is_noisy = self._has_own_noise = False

    def draw(self, x: FloatArray, number: int) -> _Drawn:
        """Solve one; the first also tells whether answers vary."""
        evaluator, self.count = self._evaluator, number + 1
        rng = generator(evaluator.seed, METHOD_KEY, number)
        space = evaluator.problem.space
        plan = self._estimator.plan(space, x, rng, (number,))
        # seeds other than those of further sketches would do as well: only the first looks
        first = plan.points[0].derivative
        looks = not number and self._may_vary(first, x)
        order = _repeated(first, space.size, rng) if looks else None
        others = [number, NUM_REPEATS] if looks else [number]
        points = [*plan.points, *(Point(plan.x, (stream,), "sketch", order) for stream in others)]
        self.solves += sum(point.solves for point in points)
        evaluations = evaluator.evaluate(points)
        if not evaluations[0].ok or evaluator.bound is None:
            raise InnerSolverError(f"the solve at phi failed: {evaluations[0].error}")
        if isinstance(self._estimator, FG2UZO):
            dtype, before = evaluator.bound.layout.dtype, self._estimator
            self._estimator = before.fitted(dtype)
            if self._estimator is not before:
                return self.draw(x, number)
        size = len(plan.points)
        again = evaluations[size:]
        solved = evaluations[:size]
        (plan,), turned = turn_failed(
            self._estimator, [plan], [solved], space, lambda rounds: map(evaluator.evaluate, rounds)
        )
        self.solves += turned
        sketch = self._estimator.sketch(plan, solved, evaluator.bound)
        if number == 0:
            differ = [self._differ(evaluations[0], other, plan, sketch) for other in again]
            self._has_own_noise = differ[0]
            self.is_noisy = any(differ) or (order is not None and _derivatives_differ(again))
        if self._has_own_noise and isinstance(sketch, Sketch) and again[0].ok:
            # the noise of the base would meet itself: that of the differences is none of its slope
            view = Observed(evaluator.bound)
            sketch = dataclasses.replace(sketch, theta=view.observe(again[0]))
        gradient, error = sketch.hypergradient(evaluator.bound)
        units = space.rates(x) / space.rates(plan.x)  # a base near a bound has moved inside
        parts: tuple[FloatArray, ...] = ()
        if isinstance(sketch, Sketch | SlopeSketch):
            parts = sketch.regression(evaluator.bound)
        regression = tuple(part * units for part in parts)
        return _Drawn(sketch, gradient * units, error * units, evaluations[0].loss, regression)

    def _may_vary(self, order: DerivativeOrder | None, x: FloatArray) -> bool:
        """Whether one more plain solve of the base does not tell if answers or slopes vary."""
        problem = self._evaluator.problem
        draws: Callable[[Any], bool] | None = getattr(problem.inner, "draws", None)
        if draws is not None:
            return draws(problem.space.decode(x))
        return self._evaluator.solve.with_seed or order is not None

    def _differ(
        self, base: Evaluation, again: Evaluation, plan: SketchPlan, sketch: GradientEstimate
    ) -> bool:
        """Whether two solves of the base differ by more than would change the hypergradient."""
        bound = self._evaluator.bound
        if not again.ok or bound is None:
            return True
        view = Observed(bound)
        theta = view.observe(base)
        scale = np.abs(theta)
        if isinstance(sketch, Sketch) and not sketch.is_exact:
            scale = np.abs(plan.step * sketch.JV)
        most = NEGLIGIBLE_SHARE * float(scale.max(initial=0.0))
        return float(np.abs(view.observe(again) - theta).max(initial=0.0)) > most


def _repeated(
    order: DerivativeOrder | None, size: int, rng: np.random.Generator
) -> DerivativeOrder | None:
    """What is asked for again to see whether derivatives vary: of many directions a mixture."""
    if isinstance(order, Push):
        return dataclasses.replace(order, directions=rng.standard_normal((size, 1)))
    return order


def _derivatives_differ(again: list[Evaluation]) -> bool:
    """Whether two derivatives at one point do: answers that are alike do not tell."""
    found = [one.derivative for one in again if one.derivative is not None]
    if len(found) < len(again):
        return True
    most = NEGLIGIBLE_SHARE * float(np.abs(found).max(initial=0.0))
    return float(np.ptp(found, axis=0).max(initial=0.0)) > most


def _mean(drawn: list[_Drawn]) -> tuple[FloatArray, FloatArray]:
    """Of independent hypergradients, and its standard error; NaN where none was ever seen."""
    gradients = np.array([one.gradient for one in drawn])
    if len(drawn) == 1:
        return gradients[0], np.full_like(gradients[0], np.nan)
    error = gradients.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    return gradients.mean(axis=0), np.where((gradients == 0.0).all(axis=0), np.nan, error)
