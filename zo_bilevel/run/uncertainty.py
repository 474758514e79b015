"""How sure the parameters of a least-squares fit are: the derivatives of theta at the answer.

They are those that the method knew when it stopped, where it was sure of them, or differences.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zo_bilevel.methods.gauss_newton.output_rounding import OutputRounding
from zo_bilevel.methods.state import Slopes
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.parameters import Choice, Integer
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import UNMEASURED_VALUE
from zo_bilevel.run.confidence import Uncertainty
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.run.fit import Fit, linearised
from zo_bilevel.run.reporting import LOG
from zo_bilevel.run.result import Result
from zo_bilevel.solve.dispatch.base import Dispatcher
from zo_bilevel.solve.dispatch.distributed import default_dispatcher
from zo_bilevel.solve.evaluation import Point
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError, UnsupportedProblemError

LARGEST_STEP = 0.1
"""However coarse the answers are, relative."""
FORWARD_STEP = 2.0**-25
"""Relative step of a difference in double precision, about the root of the rounding error."""


def uncertainty(
    problem: Problem,
    at: Result | Mapping[str, Any],
    *,
    relative_step: float | None = None,
    dispatcher: Dispatcher | None = None,
    seed: int = 0,
) -> Uncertainty:
    """Standard errors, correlations and intervals of fitted parameters, mostly for no solve.

    A result of Gauss-Newton, the default for vectors, brings the derivatives along that the method
    knew at the end; where it is sure of them (`zo_bilevel.run.fit`) nothing is solved. Else a
    forward difference along each parameter takes N + 1 solves, which may run at once; the logger
    "zo_bilevel" is told before. The model is taken to be linear in the neighbourhood that the data
    leave open. `sigma=` and `covariance=` of the data are taken as given (`absolute_sigma` of
    curve_fit); `weights=` are relative: the factor is estimated from the residuals (eq. 1 of
    `zo_bilevel.run.fit`; `scale_covar` of lmfit), as it is without any.

    Args:
        problem: A problem whose outer objective is `SquaredError`.
        at: The answer: a result, or parameters by name. Means nothing away from a minimum.
        relative_step: Step of the differences, relative to the size of a parameter (to its range
            where that is larger than a thousand times the parameter). Default the root of the
            relative error of answers: of their floating type, of the digits that they show, or of
            noise, which is seen when `at` is a result. Set it for noisy solvers otherwise. Where it
            is set, differences are taken in any case.
        dispatcher: Runs the solves; default `Serial()`.
        seed: Seed of the solves: all of them get the same one.

    Returns:
        Covariance and what follows from it.

    Raises:
        InputError: If an argument breaks its rule, or there are neither sigma nor more data than
            parameters.
        UnsupportedProblemError: If the objective is no squared error, or a parameter is an integer
            or a choice.
        InnerSolverError: If one of the solves failed.

    Example:
        >>> import zo_bilevel as zb
        >>> t = np.arange(6.0)
        >>> line = zb.Problem(zb.Space(a=zb.Real(-9, 9), b=zb.Real(-9, 9)),
        ...                   lambda phi: phi["a"] + phi["b"] * t,
        ...                   zb.SquaredError([1.1, 1.9, 3.2, 3.8, 5.1, 5.9]))
        >>> found = zb.uncertainty(line, zb.minimize(line, max_solves=20))
        >>> round(float(found.standard_error["b"]), 5)
        0.0398
    """
    checked_fit(problem, relative_step)
    problem = placed_like(problem, at)
    evaluator = Evaluator(problem, default_dispatcher() if dispatcher is None else dispatcher, seed)
    fit, solves = fit_at(evaluator, at, relative_step)
    return fit.uncertainty(solves)


def placed_like(problem: Problem, at: Result | Mapping[str, Any]) -> Problem:
    """The problem in the coordinates of a run, or around the answer where these are not known.

    Raises:
        InputError: If the answer lacks a parameter.
    """
    if not isinstance(at, Result):
        missing = [block.name for block in problem.space.blocks if block.name not in at]
        if missing and not any(name in at for name in problem.space.tied):
            raise InputError(f"at must give every parameter, got none for {', '.join(missing)}")
        return problem.placed_around(at)
    if at.space is None or at.space.names != problem.space.names:
        return problem.placed_around(at.phi)
    placements = at.space.placements if at.space.is_placed else {}
    return dataclasses.replace(problem, space=problem.space.placed(placements))


def fit_at(
    evaluator: Evaluator, at: Result | Mapping[str, Any], relative_step: float | None = None
) -> tuple[Fit, int]:
    """The answer linearised, by what the run knew or else by differences, and what it cost.

    Raises:
        InnerSolverError: If a solve failed.
    """
    problem = evaluator.problem
    space, outer = problem.space, problem.outer
    assert isinstance(outer, SquaredError)  # noqa: S101 - checked before
    if isinstance(at, Result) and at.slopes is not None and relative_step is None:
        theta = problem.flat(at.theta)
        fit = linearised(space, outer, at.slopes, at.slopes.x, theta)
        if fit is not None and _is_at(space, at.slopes.x, at.phi) and fit.is_sure:
            return fit, 0
    x = space.encode(at.phi if isinstance(at, Result) else at)
    LOG.info("the derivatives at the answer need %d solves", 1 + x.size)
    theta, jacobian = jacobian_at(evaluator, x, at, relative_step)
    slopes = Slopes(x, jacobian * space.rates(x), np.zeros((x.size, x.size)))
    return Fit(space, outer, slopes, theta), 1 + x.size


def _is_at(space: Space, x: FloatArray, phi: Mapping[str, Any]) -> bool:
    """Whether a scaled point is the one of that name in this space, whose bounds may be others."""
    if x.shape != (space.size,):
        return False
    there = space.decode(x)
    return list(there) == list(phi) and all(np.array_equal(there[n], phi[n]) for n in there)


def checked_fit(problem: Problem, relative_step: float | None) -> SquaredError:
    """The objective of a problem whose parameters can have errors.

    Raises:
        InputError: If an argument breaks its rule, or there are neither sigma nor more data than
            parameters.
        UnsupportedProblemError: If the objective is no squared error, or a parameter is discrete.
    """
    if not isinstance(problem, Problem):
        raise InputError(f"problem must be a zb.Problem, got {type(problem).__name__}")
    if not isinstance(problem.outer, SquaredError):
        raise UnsupportedProblemError(
            "uncertainty needs outer=zb.SquaredError(...), the likelihood of measurements, "
            f"got {type(problem.outer).__name__}"
        )
    for name, parameter in problem.space.parameters.items():
        if isinstance(parameter, Integer | Choice):
            raise UnsupportedProblemError(
                f"uncertainty needs parameters that vary continuously, got {name}={parameter!r}: "
                "give it the problem with space.fixed({...})"
            )
    if relative_step is not None and not 0 < relative_step < 1:
        raise InputError(f"relative_step must lie in (0, 1), got {relative_step}")
    num_data = int(np.count_nonzero(problem.outer.weights))
    if num_data <= problem.space.size and not problem.outer.is_absolute:
        raise InputError(
            "uncertainty needs sigma= of the data, or more data than parameters, "
            f"got {num_data} data of weight > 0 and {problem.space.size} parameters"
        )
    return problem.outer


def jacobian_at(
    evaluator: Evaluator,
    x: FloatArray,
    at: Result | Mapping[str, Any],
    relative_step: float | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Theta at x, `(m,)`, and its derivative per unit of phi, `(m, N)`, by forward differences.

    The step is the root of the relative error of answers, where the two errors of a difference
    balance: of the floating type, or of the digits that answers show, or of noise, where a result
    holds another answer of the same point. Parameters that the solver is given with few digits
    move by the root of what those leave out.

    Raises:
        InnerSolverError: If a solve failed.
    """
    (base,) = evaluator.evaluate([Point(x, role="sketch")])
    if not base.ok or base.theta is None or base.layout is None:
        raise InnerSolverError(f"the solve at the answer failed: {base.error}")
    step = relative_step
    if step is None:
        answers = [base.theta]
        if isinstance(at, Result):
            answers.append(evaluator.problem.flat(at.theta))
        step = min(max(FORWARD_STEP, math.sqrt(_relative_error(answers))), LARGEST_STEP)
    sizes = step * _sizes(evaluator.problem, x)
    if relative_step is None:
        sizes = np.maximum(sizes, np.sqrt(evaluator.problem.input_rounding(x)))
    moves = np.diag(_inward(evaluator.problem, x, sizes))
    solved = evaluator.evaluate([Point(x + move, role="sketch") for move in moves])
    failed = [evaluation.error for evaluation in solved if not evaluation.ok]
    if failed:
        raise InnerSolverError(f"{len(failed)} of {x.size} solves beside it failed: {failed[0]}")
    values = evaluator.problem.space.values
    columns = [
        (evaluation.theta - base.theta) / (values(evaluation.point.x) - values(x))[place]
        for place, evaluation in enumerate(solved)
        if evaluation.theta is not None
    ]
    return base.theta, np.stack(columns, axis=1)


def _relative_error(answers: Sequence[FloatArray]) -> float:
    """Of the answers of one point: what rounding and noise leave open, over their size."""
    is_there = answers[0] != UNMEASURED_VALUE
    answers = [theta[is_there] for theta in answers if theta.shape == is_there.shape]
    theta = answers[0]
    rounding = OutputRounding()
    rounding.see(theta)
    error = rounding.noise
    size = float(np.sqrt(np.mean(theta**2)))
    if np.array_equal(theta.astype(np.float32), theta):
        error = max(error, float(np.finfo(np.float32).eps) * size)
    if len(answers) > 1:
        error = max(error, float(np.sqrt(np.mean((answers[1] - theta) ** 2) / 2)))
    return error / size if size else 0.0


def _sizes(problem: Problem, x: FloatArray) -> FloatArray:
    """What a step is relative to, scaled: the parameter's value, or a part of its range."""
    values = np.abs(problem.space.values(x))
    rates = np.abs(problem.space.rates(x))
    width = problem.space.upper - problem.space.lower
    sizes: FloatArray = np.maximum(values / np.maximum(rates, 1e-300), 1e-3 * width)
    return sizes


def _inward(problem: Problem, x: FloatArray, steps: FloatArray) -> FloatArray:
    """The steps, turned round where they would leave the bounds."""
    return np.where(x + steps <= problem.space.upper, steps, -steps)
