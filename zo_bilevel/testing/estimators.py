"""What every estimator must keep: exact in the mean, honest about errors, able to lose solves."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from zo_bilevel.estimators.base import GradientEstimator, SketchPlan
from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError
from zo_bilevel.testing.conformance import require

BLOCK_DRAWS = 50
SEEN_ERROR = 0.1
"""Of the gradient: an error in scale that must be told from chance."""
SURE_DEVIATIONS = 4.5
"""Standard errors that are no chance."""
HONEST_FACTOR = 1.5
"""Factor within which a squared standard error must be that of the estimates."""


def check_estimator(estimator: GradientEstimator, draws: int = 4000) -> None:
    """Check an estimator: exact in the mean, honest about its error, and able to lose solves.

    Around one point of a linear solver, N losses have the N unit vectors as their gradients. The
    mean of the N estimates is the identity; its trace hardly varies, so that few draws tell a
    factor of 0.9 or 1.1 from one. Standard errors must be the spread over draws, to a quarter;
    where some are NaN they must only not be larger. A lost base solve raises, a lost probe is
    dropped.

    Args:
        estimator: The estimator.
        draws: Sketches of each loss at most; no more than tell a factor of 1.1 are drawn.

    Raises:
        AssertionError: Naming the rule that is broken.

    Example:
        >>> from zo_bilevel import FG2UZO
        >>> check_estimator(FG2UZO(2))
    """
    for size, most in ((2, BLOCK_DRAWS), (3, draws)):
        trial = _Trial(estimator, size)
        estimates, errors = trial.block(0)
        while len(estimates) < most and _resolution(estimates) > SEEN_ERROR / (
            SURE_DEVIATIONS + 2.0
        ):
            more, their_errors = trial.block(len(estimates))
            estimates = np.concatenate((estimates, more))
            errors = np.concatenate((errors, their_errors))
        _check_mean(estimates)
        _check_errors(estimates, errors)
        trial.check_failures()
    few = f"{draws} draws are too few: a factor of {1 + SEEN_ERROR} would not be seen"
    require(_resolution(estimates) < SEEN_ERROR / SURE_DEVIATIONS, few)


class _Trial:
    """An estimator at one point of a linear solver, for losses with unit vectors as gradients."""

    def __init__(self, estimator: GradientEstimator, size: int) -> None:
        self.estimator, self.x = estimator, np.array([0.5, -0.2, 0.1])[:size]
        matrix = np.random.default_rng(0).normal(size=(2 * size, size))
        residuals = size * matrix @ np.linalg.inv(matrix.T @ matrix)
        space = Space(a=Real(-3.0, 3.0, (size,)))
        self.problems = [
            Problem(space, lambda phi: matrix @ phi["a"], SquaredError(matrix @ self.x - residual))
            for residual in residuals.T
        ]

    def block(self, first: int) -> tuple[FloatArray, FloatArray]:
        """Estimates and their standard errors of some draws, both `(BLOCK, N, N)`."""
        found = [self._draw(seed) for seed in range(first, first + BLOCK_DRAWS)]
        return np.array([pair[0] for pair in found]), np.array([pair[1] for pair in found])

    def _draw(self, seed: int) -> tuple[FloatArray, FloatArray]:
        rows = []
        for problem in self.problems:
            plan, evaluations, bound = self._solved(problem, seed)
            rows.append(self.estimator.sketch(plan, evaluations, bound).hypergradient(bound))
        return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])

    def _solved(
        self, problem: Problem, seed: int
    ) -> tuple[SketchPlan, Sequence[Evaluation], BoundProblem]:
        plan = self.estimator.plan(problem.space, self.x, np.random.default_rng(seed), (0,))
        inside = all((np.abs(point.x) <= 3.0).all() for point in plan.points)
        require(inside, "probes respect bounds")
        evaluator = Evaluator(problem, Serial(), 0)
        evaluations = evaluator.evaluate(plan.points)
        if evaluator.bound is None:
            raise AssertionError("the base solve binds the problem")
        return plan, evaluations, evaluator.bound

    def check_failures(self) -> None:
        """Lose the base solve, then the last probe."""
        plan, evaluations, bound = self._solved(self.problems[0], 0)
        lost = [
            dataclasses.replace(evaluation, status="failed", theta=None, layout=None, loss=np.inf)
            for evaluation in evaluations
        ]
        try:
            self.estimator.sketch(plan, [lost[0], *evaluations[1:]], bound)
        except InnerSolverError:
            pass
        else:
            raise AssertionError("without its base solve a sketch must raise InnerSolverError")
        if len(plan.points) == 1 + plan.V.shape[1]:
            sketch = self.estimator.sketch(plan, [*evaluations[:-1], lost[-1]], bound)
            require(
                sketch.dropped == 1,
                f"a lost probe must be counted as dropped, got {sketch.dropped}",
            )


def _scales(estimates: FloatArray) -> FloatArray:
    """Of each draw: one in the mean, whatever the directions."""
    scales: FloatArray = np.trace(estimates, axis1=1, axis2=2) / estimates.shape[1]
    return scales


def _error_of(values: FloatArray) -> FloatArray:
    """Standard error of the mean over draws."""
    error: FloatArray = np.std(values, axis=0, ddof=1) / np.sqrt(len(values))
    return error


def _resolution(estimates: FloatArray) -> float:
    """Standard error of the mean scale, relative to that scale where it is above one."""
    scales = _scales(estimates)
    return float(_error_of(scales)) / max(abs(float(scales.mean())), 1.0)


def _check_mean(estimates: FloatArray) -> None:
    identity, scales = np.eye(estimates.shape[1]), _scales(estimates)
    error = float(_error_of(scales)) + 1e-6
    off = abs(float(scales.mean()) - 1.0)
    scale = f"the mean must be the hypergradient, got {scales.mean():.4g} +- {error:.2g} times it"
    require(off < SURE_DEVIATIONS * error, scale)
    far = np.abs(estimates.mean(axis=0) - identity) / (_error_of(estimates) + 1e-6)
    require(
        bool((far < SURE_DEVIATIONS).all()),
        f"the mean must be the hypergradient, but a component is {far.max():.1f} errors away",
    )


def _check_errors(estimates: FloatArray, errors: FloatArray) -> None:
    """Compare squared errors with the spread; what is NaN in places may only be too large."""
    told = np.isfinite(errors)
    if not told.any():
        return
    squares = np.square(estimates - estimates.mean(axis=0)) * len(estimates) / (len(estimates) - 1)
    claimed = np.where(told, errors, 0.0) ** 2
    said = (
        "the standard error must be the spread of the estimates, got "
        f"{np.sqrt(claimed.mean()):.4g} where they spread by {np.sqrt(squares.mean()):.4g}"
    )
    large = f"{said}; is `correction` that of the directions?"
    require(not _is_above(claimed, HONEST_FACTOR * squares), large)
    require(not told.all() or not _is_above(squares, HONEST_FACTOR * claimed), said)


def _is_above(first: FloatArray, second: FloatArray) -> bool:
    """Whether the mean of the first is above that of the second by more than chance."""
    excess = (first - second).sum(axis=(1, 2))
    return bool(excess.mean() > SURE_DEVIATIONS * _error_of(excess) + 1e-6)
