"""How sure the parameters of a least-squares fit are, from the derivatives of theta at the answer.

With residuals r, weights w, p values observed and n free parameters (Bates and Watts, Nonlinear
Regression Analysis, 1988, section 2.2):

    s^2 = sum(w r^2) / (p - n)                    residual variance                       (1)
    C   = s^2 (J' W J)^-1                          covariance of the parameters            (2)
    b_k +- t(p - n) sqrt(C_kk)                     interval of one of them                 (3)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zo_bilevel.methods.gauss_newton.output_rounding import OutputRounding
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.parameters import Choice, Integer
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.run.confidence import Uncertainty, describe_direction, flat_names
from zo_bilevel.run.evaluator import Evaluator
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
SINGULAR_SHARE = 1e-7
"""Directions less stiff than this share of the stiffest are lost in the error of differences."""
OPEN_COMPONENT = 1e-3
"""A parameter with a larger part in a direction that the data leave open is not determined."""


def uncertainty(
    problem: Problem,
    at: Result | Mapping[str, Any],
    *,
    relative_step: float | None = None,
    dispatcher: Dispatcher | None = None,
    seed: int = 0,
) -> Uncertainty:
    """Standard errors, correlations and intervals of fitted parameters, for N + 1 solves.

    The solves are those of a forward difference along each parameter; they may run at once. The
    model is linear in the neighbourhood that the data leave open, and the residuals are independent
    with a variance that the weights give up to one factor, which is estimated (eq. 1).

    Args:
        problem: A problem whose outer objective is `SquaredError`.
        at: The answer: a result, or parameters by name. Means nothing away from a minimum.
        relative_step: Step of the differences, relative to the size of a parameter (to its range
            where that is larger than a thousand times the parameter). Default the root of the
            relative error of answers: of their floating type, of the digits that they show, or of
            noise, which is seen when `at` is a result. Set it for noisy solvers otherwise.
        dispatcher: Runs the solves; default `Serial()`.
        seed: Seed of the solves: all of them get the same one.

    Returns:
        Covariance and what follows from it.

    Raises:
        InputError: If an argument breaks its rule, or there are no more data than parameters.
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
    objective = checked_fit(problem, relative_step)
    x = problem.space.encode(at.phi if isinstance(at, Result) else at)
    evaluator = Evaluator(problem, default_dispatcher() if dispatcher is None else dispatcher, seed)
    theta, jacobian = jacobian_at(evaluator, x, at, relative_step)
    return linear_uncertainty(problem.space, x, objective, theta, jacobian)


def linear_uncertainty(
    space: Space, x: FloatArray, objective: SquaredError, theta: FloatArray, jacobian: FloatArray
) -> Uncertainty:
    """The uncertainty that a Jacobian gives, at no solve (eqs. 1 and 2).

    Args:
        space: The parameters.
        x: The answer, scaled, shape `(N,)`.
        objective: Target and weights.
        theta: Inner solution there, shape `(m,)`.
        jacobian: Its derivative per unit of phi, shape `(m, N)`.
    """
    roots = np.sqrt(objective.weights)
    residuals = roots * (theta - objective.target)
    freedom = int(np.count_nonzero(roots)) - x.size
    variance = float(residuals @ residuals) / freedom  # (1)
    # per scaled unit, so that "sloppy" means: sloppy over the range that was allowed
    rates = space.rates(x)
    _, stiffness, rows = np.linalg.svd((roots[:, None] * jacobian) * rates, full_matrices=False)
    spreads = np.divide(
        np.sqrt(variance), stiffness, out=np.full_like(stiffness, np.inf), where=stiffness > 0
    )
    is_open = (stiffness <= SINGULAR_SHARE * stiffness[0]) | (
        spreads > space.upper[0] - space.lower[0]
    )
    factor = rates[:, None] * rows.T
    known = np.where(is_open, 0.0, spreads)
    covariance = (factor * known) @ (factor * known).T  # (2)
    touched = np.any(np.abs(rows[is_open]) > OPEN_COMPONENT, axis=0)
    covariance[touched, :], covariance[:, touched] = np.nan, np.nan
    covariance[touched, touched] = np.inf
    names, values = flat_names(space), space.values(x)
    unmeasured = np.flatnonzero(roots == 0)
    at_bound = (values <= space.values(space.lower)) | (values >= space.values(space.upper))
    return Uncertainty(
        names=names,
        values=values,
        covariance=covariance,
        degrees_of_freedom=freedom,
        residual_deviation=float(np.sqrt(variance)),
        stiffness=stiffness,
        directions=rows.T,
        undetermined=tuple(
            describe_direction(factor[:, k], values, names) for k in np.flatnonzero(is_open)
        ),
        on_bound=tuple(names[k] for k in np.flatnonzero(at_bound)),
        solves=1 + x.size,
        space=space,
        unmeasured=jacobian[unmeasured],
        places=unmeasured,
    )


def checked_fit(problem: Problem, relative_step: float | None) -> SquaredError:
    """The objective of a problem whose parameters can have errors.

    Raises:
        InputError: If an argument breaks its rule, or there are no more data than parameters.
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
                f"uncertainty needs parameters that vary continuously, got {name}={parameter!r}"
            )
    if relative_step is not None and not 0 < relative_step < 1:
        raise InputError(f"relative_step must lie in (0, 1), got {relative_step}")
    num_data = int(np.count_nonzero(problem.outer.weights))
    if num_data <= problem.space.size:
        raise InputError(
            "uncertainty needs more data than parameters, "
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
    holds another answer of the same point.

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
            answers.append(flatten_theta(at.theta)[0])
        step = min(max(FORWARD_STEP, math.sqrt(_relative_error(answers))), LARGEST_STEP)
    moves = np.diag(_inward(evaluator.problem, x, step * _sizes(evaluator.problem, x)))
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
    theta = answers[0]
    rounding = OutputRounding()
    rounding.see(theta)
    error = rounding.noise
    size = float(np.sqrt(np.mean(theta**2)))
    if np.array_equal(theta.astype(np.float32), theta):
        error = max(error, float(np.finfo(np.float32).eps) * size)
    if len(answers) > 1 and answers[1].shape == theta.shape:
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
