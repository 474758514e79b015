"""The profile likelihood of one parameter: how far it can go before the data object.

One parameter is moved step by step away from the answer, the others follow along the valley. With S
the weighted sum of squares, minimised over the others at each value b of the parameter (Bates and
Watts, Nonlinear Regression Analysis, 1988, section 6.1):

    tau(b) = sign(b - b0) sqrt((S(b) - S0) / s^2)                                        (1)

and the interval ends where |tau| = t(p - n), Student's t. The Jacobian is that of the answer, kept
up to date by Broyden's rank-one secants from the solves on the way, so that following the valley
costs one or two solves a step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from scipy.special import stdtrit

from zo_bilevel.problem.prior_term import Residuals
from zo_bilevel.problem.problem import Problem
from zo_bilevel.run.confidence import flat_names, interval_text
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.run.fit import ROUNDING_SHARE
from zo_bilevel.run.result import Result
from zo_bilevel.run.uncertainty import checked_fit, fit_at, placed_like
from zo_bilevel.run.valley import MIN_PROMISE, Valley
from zo_bilevel.solve.dispatch.base import Dispatcher
from zo_bilevel.solve.dispatch.distributed import default_dispatcher
from zo_bilevel.solve.evaluation import Point
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, UnsupportedProblemError, unknown_name_message
from zo_bilevel.support.tables import Grid, number


@final
@dataclass(frozen=True, slots=True)
class Profile:
    """The profile of one parameter.

    Args:
        name: Of the parameter.
        values: At which the others were fitted, rising, in the parameter's unit.
        tau: Signed root of the deviance there (eq. 1); a straight line where the model is linear.
        interval: Where the confidence interval ends; infinite where it runs into a bound, or
            further than the solves allowed. Where these leave the end open, the value beyond it.
        level: Of the interval.
        smallest: Lowest weighted sum of squares seen, over that at the answer; below 1 the answer
            was no minimum.
        solves: What it cost.
        notes: What has to be said of the ends and of the answer, in words.
    """

    name: str
    values: FloatArray
    tau: FloatArray
    interval: tuple[float, float]
    level: float
    smallest: float
    solves: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = tuple((number(v, 6), number(t)) for v, t in zip(self.values, self.tau, strict=True))
        ends = interval_text(*self.interval)
        title = f"{self.name}: {100 * self.level:g} % interval {ends}, {self.solves} solves"
        return Grid(title, (self.name, "tau"), rows, self.notes).text()


def profile(
    problem: Problem,
    at: Result | Mapping[str, Any],
    name: str,
    *,
    level: float = 0.95,
    max_solves: int = 15,
    dispatcher: Dispatcher | None = None,
    seed: int = 0,
) -> Profile:
    """Profile one parameter of a least-squares fit.

    Args:
        problem: A problem whose outer objective is `SquaredError`.
        at: The answer: a result, or parameters by name.
        name: The parameter; a number of an array as "field[3]".
        level: Of the confidence interval, in (0, 1).
        max_solves: Solves on each side, >= 1, beside the N + 1 of the Jacobian, where it is not
            known from the run.
        dispatcher: Runs the solves, of both sides at once; default `Serial()`.
        seed: Seed of the solves.

    Returns:
        The profile and its interval.

    Raises:
        InputError: If an argument breaks its rule, or there is no such parameter.
        UnsupportedProblemError: As in `uncertainty`, or if the problem has constraints.
        InnerSolverError: If a solve of the Jacobian failed.

    Example:
        >>> import zo_bilevel as zb
        >>> t = np.arange(6.0)
        >>> line = zb.Problem(zb.Space(a=zb.Real(-9, 9), b=zb.Real(-9, 9)),
        ...                   lambda phi: phi["a"] + phi["b"] * t,
        ...                   zb.SquaredError([1.1, 1.9, 3.2, 3.8, 5.1, 5.9]))
        >>> found = zb.profile(line, zb.minimize(line, max_solves=20), "b")
        >>> [round(end, 3) for end in found.interval]
        [0.867, 1.088]
    """
    objective = checked_fit(problem, None)
    names = flat_names(problem.space)
    _check(problem, name, level, max_solves)
    problem = placed_like(problem, at)
    evaluator = Evaluator(problem, default_dispatcher() if dispatcher is None else dispatcher, seed)
    fit, solves = fit_at(evaluator, at)
    x, place = fit.slopes.x, names.index(name)
    parts = Residuals(problem.space, objective)
    residuals = parts.at(fit.theta, x)
    known = np.where(objective.weights[:, None] > 0, fit.slopes.jacobian, 0.0)
    slopes = parts.slopes(known, x, np.eye(x.size))
    rounded = np.sum((parts.at(fit.theta * (1 + ROUNDING_SHARE), x) - residuals) ** 2)
    freedom = fit.freedom
    variance = max(float(residuals @ residuals), rounded) / freedom if np.isfinite(freedom) else 1.0
    limit = float(stdtrit(freedom, 0.5 + level / 2))
    valleys = [
        Valley(problem, place, x, residuals, slopes, variance, limit, sign) for sign in (-1.0, 1.0)
    ]
    sides = [valley.follow() for valley in valleys]
    first = {k: next(side, None) for k, side in enumerate(sides)}
    asked = {k: point for k, point in first.items() if point is not None}
    for _ in range(max_solves):
        if not asked:
            break
        solved = evaluator.evaluate([Point(point, role="trial") for point in asked.values()])
        solves += len(solved)
        answers = dict(zip(asked, solved, strict=True))
        asked = {}
        for k, found in answers.items():
            reply = None if found.theta is None else parts.at(found.theta, found.point.x)
            try:
                asked[k] = sides[k].send(reply)
            except StopIteration:
                continue
    return _profile_of(name, level, valleys, solves, fit.is_rounding)


def _check(problem: Problem, name: str, level: float, max_solves: int) -> None:
    names = flat_names(problem.space)
    if name not in names:
        raise InputError(unknown_name_message("parameter", name, names))
    if not 0 < level < 1:
        raise InputError(f"level must lie in (0, 1), got {level}")
    whole_number("max_solves", max_solves, least=1)
    if problem.feasible:
        raise UnsupportedProblemError(
            "profile does not keep constraints: give it the problem without them, and mind where "
            "they are active"
        )


def _profile_of(
    name: str, level: float, valleys: list[Valley], solves: int, is_rounding: bool
) -> Profile:
    below, above = valleys
    rows = [*below.beyond, *below.rows[:0:-1], *above.rows, *above.beyond[::-1]]
    lowest, where = min(v.lowest for v in valleys)
    notes = [valley.note(name) for valley in valleys]
    if is_rounding:
        notes.append("the residuals at the answer are rounding: the interval is that of rounding")
    elif below.start - lowest > MIN_PROMISE * below.variance:
        notes.append(
            f"the answer is no minimum: at {name}={number(where, 5)} the sum of squares is "
            f"{number((below.start - lowest) / below.variance)} variances of a measurement lower"
        )
    return Profile(
        name=name,
        values=np.array([row.value for row in rows]),
        tau=np.array([row.tau for row in rows]),
        interval=(below.end(), above.end()),
        level=level,
        smallest=lowest / max(below.start, np.finfo(float).tiny),
        solves=solves,
        notes=tuple(filter(None, notes)),
    )
