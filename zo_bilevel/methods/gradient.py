"""Gradient descent on the estimated hypergradient, with any torch optimizer."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

import numpy as np

from zo_bilevel.estimators.base import GradientEstimator, SketchPlan
from zo_bilevel.estimators.fg2u_zo import FG2UZO
from zo_bilevel.estimators.sketch import Sketch
from zo_bilevel.estimators.sparse_zo import RefutedPatternError, SparseZO
from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.methods.shared.starts import find_start
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError

if TYPE_CHECKING:
    import torch

MAX_LOST_SKETCHES = 10


@final
class GradientMethod(Method):
    """Descent with a torch optimizer: one hypergradient, one step, in scaled coordinates.

    A step to a point without a finite hypergradient (failed solves, NaN) is halved until there is
    one; the descent goes on from there. With noisy solves the last point competes with the one of
    the lowest loss.

    Args:
        estimator: Estimates the hypergradients; default `FG2UZO()`.
        optimizer: A `torch.optim` class that steps by a gradient alone, as all but LBFGS do;
            default Adam.
        scheduler: Makes a learning-rate scheduler from the optimizer, stepped after each step.
        accumulate: Rounds whose hypergradients are averaged before a step, >= 1: more
            directions a step, or more inner seeds, in the memory of one round.
        **optimizer_options: Passed to the optimizer; `lr` defaults to 0.1 scaled units.

    Raises:
        InputError: If the estimator is none, `accumulate < 1`, or the optimizer refuses its
            options or needs a closure.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, SquaredError, minimize
        >>> problem = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"] ** 2, SquaredError(4.0))
        >>> result = minimize(problem, GradientMethod(lr=0.2), max_solves=100)
        >>> abs(result.phi["a"] - 2.0) < 0.1
        True

    Source:
        arXiv 2406.14095, Algorithm 1; the projection on the bounds follows each step.
    """

    def __init__(
        self,
        estimator: GradientEstimator | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        *,
        scheduler: Callable[[Any], Any] | None = None,
        accumulate: int = 1,
        **optimizer_options: Any,  # noqa: ANN401 - passed through to torch
    ) -> None:
        self.estimator: GradientEstimator = FG2UZO() if estimator is None else estimator
        if not isinstance(self.estimator, GradientEstimator) or isinstance(estimator, type):
            raise InputError(f"estimator must make sketches, got {estimator!r}")
        self.accumulate = whole_number("accumulate", accumulate, least=1)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.options = {"lr": 0.1, **optimizer_options}
        if optimizer_options or optimizer is not None:
            self._make_optimizer(np.zeros(1))

    @property
    def name(self) -> str:
        """The estimator and the optimizer: `zo-adam`, `fg2u-sgd`."""
        kind = type(self.estimator).__name__.lower()
        prefix = "zo" if kind == "fg2uzo" else kind
        return f"{prefix}-{getattr(self.optimizer, '__name__', 'adam').lower()}"

    def _make_optimizer(self, start: Any) -> tuple[Any, Any]:  # noqa: ANN401 - torch objects
        import torch

        position = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        factory = torch.optim.Adam if self.optimizer is None else self.optimizer
        try:
            made = factory([position], **self.options)
        except (TypeError, ValueError) as error:
            raise InputError(f"optimizer refuses its options {self.options}: {error}") from error
        closure = inspect.signature(made.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise InputError(
                f"optimizer must step by a gradient alone, {type(made).__name__} asks for the loss "
                "at points of its own; take another, or Scipy('L-BFGS-B')"
            )
        return position, made

    def rounds(self, search: Search) -> Rounds:
        """One sketch a round."""
        descent = self._begin(search)
        bound, lost, step = None, 0, 0
        gathered: list[FloatArray] = []
        estimator = self.estimator
        while lost < MAX_LOST_SKETCHES:
            plan = estimator.plan(search.space, descent.x, search.rng(step), (step,))
            evaluations = yield plan.points
            step += 1
            bound = _bound(search, evaluations) if bound is None else bound
            before, estimator = estimator, _fitted(estimator, evaluations[0], bound)
            if estimator is not before:
                continue  # once more, with a radius that is seen
            gradient, estimator = self._gradient(estimator, plan, evaluations, bound)
            if gradient is None:
                lost += 1
                if step == 1:
                    search, descent = yield from self._elsewhere(search, evaluations[0])
                if descent.step_back():
                    gathered.clear()
                continue
            lost = 0
            descent.keep()
            search.notes.recommended = plan.x
            if search.watch is not None:
                search.watch(gradient)
            gathered.append(gradient)
            if len(gathered) == self.accumulate:
                descent.step(np.mean(gathered, axis=0))
                gathered.clear()
        return f"{MAX_LOST_SKETCHES} sketches in a row failed"

    def _gradient(
        self,
        estimator: GradientEstimator,
        plan: SketchPlan,
        evaluations: list[Evaluation],
        bound: BoundProblem | None,
    ) -> tuple[FloatArray | None, GradientEstimator]:
        """The hypergradient, `None` when too many solves failed, and what estimates the next."""
        if bound is None:
            return None, estimator
        try:
            estimate = estimator.sketch(plan, evaluations, bound)
        except RefutedPatternError:
            return None, self.estimator  # which looks for it again
        except InnerSolverError:
            return None, estimator
        if isinstance(estimator, SparseZO) and isinstance(estimate, Sketch):
            precision = float(np.finfo(bound.layout.dtype).eps)
            estimator = estimator.seen_in(estimate.JV, estimate.theta, plan.step, precision)
        if estimate.num_directions == 0:
            return None, estimator
        with np.errstate(invalid="ignore", over="ignore"):  # looked at right below
            gradient = estimate.hypergradient(bound)[0]
        return (gradient if np.isfinite(gradient).all() else None), estimator

    def _elsewhere(self, search: Search, first: Evaluation) -> RoundsThen[tuple[Search, _Descent]]:
        """Where to begin if the start itself is not solved."""
        search, start = yield from find_start(search, first)
        return search, self._begin(dataclasses.replace(search, start=start.point.x))

    def _begin(self, search: Search) -> _Descent:
        position, optimizer = self._make_optimizer(search.start)
        scheduler = None if self.scheduler is None else self.scheduler(optimizer)
        return _Descent(search, position, optimizer, scheduler)


def _bound(search: Search, evaluations: list[Evaluation]) -> BoundProblem | None:
    solved = next((e for e in evaluations if e.ok), None)
    return None if solved is None else search.bind(solved)


def _fitted(
    estimator: GradientEstimator, base: Evaluation, bound: BoundProblem | None
) -> GradientEstimator:
    """With a radius for the precision of theta, once that is known."""
    if isinstance(estimator, FG2UZO) and base.ok and bound is not None:
        return estimator.fitted(bound.layout.dtype)
    return estimator


@final
class _Descent:
    """Where a descent stands."""

    def __init__(self, search: Search, position: Any, optimizer: Any, scheduler: Any) -> None:  # noqa: ANN401 - torch objects
        self._space = search.space
        self._position = position
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._good: FloatArray | None = None

    @property
    def x(self) -> FloatArray:
        """Scaled point, shape `(N,)`."""
        return np.asarray(self._position.detach().numpy().copy())

    def keep(self) -> None:
        """Remember this point as one where the inner solver works."""
        self._good = self.x

    def step_back(self) -> bool:
        """Halve the way back to the last point that worked; whether there was any way."""
        import torch

        if self._good is None or np.array_equal(self._good, self.x):
            return False
        with torch.no_grad():
            self._position.copy_(torch.from_numpy((self._good + self.x) / 2))
        return True

    def step(self, gradient: FloatArray) -> None:
        """One step of the optimizer, then back inside the bounds."""
        import torch

        self._position.grad = torch.from_numpy(gradient)
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        with torch.no_grad():
            self._position.clamp_(
                torch.from_numpy(self._space.lower), torch.from_numpy(self._space.upper)
            )
