"""The profile likelihood of one parameter: how far it can go before the data object.

One parameter is moved step by step away from the answer, the others follow along the valley. With S
the weighted sum of squares, minimised over the others at each value b of the parameter (Bates and
Watts, Nonlinear Regression Analysis, 1988, section 6.1):

    tau(b) = sign(b - b0) sqrt((S(b) - S0) / s^2)                                        (1)

and the interval ends where |tau| = t(p - n), Student's t. The Jacobian is that of the answer, kept
up to date by Broyden's rank-one secants from the solves on the way, so that following the valley
costs one or two solves a step.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
from scipy.special import stdtrit

from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.residuals import Residuals
from zo_bilevel.run.confidence import flat_names
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.run.result import Result
from zo_bilevel.run.uncertainty import checked_fit, fit_at, placed_like
from zo_bilevel.solve.dispatch.base import Dispatcher
from zo_bilevel.solve.dispatch.distributed import default_dispatcher
from zo_bilevel.solve.evaluation import Point
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, UnsupportedProblemError, unknown_name_message
from zo_bilevel.support.tables import Grid, number

Side: TypeAlias = Generator[FloatArray, FloatArray | None, None]
"""Yields scaled points, is sent weighted residuals (`None` for a failed solve)."""
NUM_STEPS_TO_END = 4
"""Into which the way to the end of the interval is cut, were the model linear."""
MIN_PROMISE = 0.01
"""A correction is solved when it promises to lower S by this many residual variances."""
WORTHY_SHARE = 0.5
"""Of its promise that a correction must keep for another one to follow."""
MOST_CORRECTIONS = 2
"""Solves that let the other parameters follow, at one value of the profiled one."""


@final
@dataclass(frozen=True, slots=True)
class Profile:
    """The profile of one parameter.

    Args:
        name: Of the parameter.
        values: At which the others were fitted, rising, in the parameter's unit.
        tau: Signed root of the deviance there (eq. 1); a straight line where the model is linear.
        interval: Where the confidence interval ends; infinite where it runs into a bound, or
            further than the solves allowed.
        level: Of the interval.
        smallest: Lowest weighted sum of squares seen, over that at the answer; below 1 the answer
            was no minimum.
        solves: What it cost.
    """

    name: str
    values: FloatArray
    tau: FloatArray
    interval: tuple[float, float]
    level: float
    smallest: float
    solves: int

    def __str__(self) -> str:
        low, high = (number(end, 5) for end in self.interval)
        rows = tuple((number(v, 6), number(t)) for v, t in zip(self.values, self.tau, strict=True))
        title = f"{self.name}: {100 * self.level:g} % interval {low}..{high}, {self.solves} solves"
        lower = f"the answer is no minimum: {self.smallest:.4g} of its sum of squares was met"
        return Grid(title, (self.name, "tau"), rows, (lower,) * (self.smallest < 1.0)).text()


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
    x, place, freedom = fit.slopes.x, names.index(name), fit.freedom
    parts = Residuals(problem.space, objective)
    residuals = parts.at(fit.theta, x)
    known = np.where(objective.weights[:, None] > 0, fit.slopes.jacobian, 0.0)
    slopes = parts.slopes(known, x, np.eye(x.size))
    limit = float(stdtrit(freedom, 0.5 + level / 2))
    valleys = [
        _Valley(problem, place, x, residuals, slopes, freedom, limit, sign) for sign in (-1.0, 1.0)
    ]
    sides = [valley.follow() for valley in valleys]
    asked = {k: next(side) for k, side in enumerate(sides)}
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
    return _profile_of(name, level, valleys, solves)


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


@final
class _Valley:
    """One side of a profile."""

    def __init__(
        self,
        problem: Problem,
        place: int,
        x: FloatArray,
        residuals: FloatArray,
        slopes: FloatArray,
        freedom: float,
        limit: float,
        sign: float,
    ) -> None:
        self.space, self.place = problem.space, place
        self.x, self.residuals, self.slopes = x, residuals, slopes.copy()
        self.start = float(residuals @ residuals)
        variance = self.start / freedom if np.isfinite(freedom) else 1.0
        self.variance = max(variance, np.finfo(float).tiny)
        self.limit, self.sign = limit, sign
        self.others = np.arange(x.size) != place
        self.values = [float(self.space.values(x)[place])]
        self.taus = [0.0]
        self.lowest = self.start

    def follow(self) -> Side:
        """Step by step until the data object, a bound is met, or solves fail."""
        while abs(self.taus[-1]) < self.limit:
            step = self._step()
            if not np.any(step):
                return
            answer = yield self.x + step
            if answer is None:
                return
            self._move(step, answer)
            yield from self._let_others_follow()
            self._note()

    def _let_others_follow(self) -> Side:
        for _ in range(MOST_CORRECTIONS):
            correction, promise = self._correction()
            if promise < MIN_PROMISE * self.variance:
                return
            answer = yield self.x + correction
            if answer is None:
                return
            self._learn(correction, answer)
            gain = float(self.residuals @ self.residuals - answer @ answer)
            if gain > 0:
                self.x, self.residuals = self.x + correction, answer
            if gain < WORTHY_SHARE * promise:
                return  # what is left is rounding or noise of the answers

    def _step(self) -> FloatArray:
        """Along the valley, as far as one part of the way to the limit."""
        column, rest = self.slopes[:, self.place], self.slopes[:, self.others]
        follow = -np.linalg.lstsq(rest, column, rcond=None)[0] if rest.size else np.zeros(0)
        bend = float(np.linalg.norm(column + rest @ follow))
        reach = self.space.upper[self.place] - self.space.lower[self.place]
        length = min(
            self.limit / NUM_STEPS_TO_END * np.sqrt(self.variance) / max(bend, 1e-300), 0.25 * reach
        )
        step = np.zeros_like(self.x)
        step[self.place], step[self.others] = 1.0, follow
        wanted = np.clip(self.x + self.sign * length * step, self.space.lower, self.space.upper)
        moved: FloatArray = wanted - self.x
        return moved if moved[self.place] else np.zeros_like(moved)

    def _correction(self) -> tuple[FloatArray, float]:
        """The Gauss-Newton step of the others, and by how much it promises to lower S."""
        rest = self.slopes[:, self.others]
        step = np.zeros_like(self.x)
        if not rest.size:
            return step, 0.0
        step[self.others] = -np.linalg.lstsq(rest, self.residuals, rcond=None)[0]
        step = np.clip(self.x + step, self.space.lower, self.space.upper) - self.x
        after = self.residuals + self.slopes @ step
        return step, float(self.residuals @ self.residuals - after @ after)

    def _learn(self, step: FloatArray, answer: FloatArray) -> None:
        """Broyden's update: the slopes now explain what this step changed."""
        surprise = answer - self.residuals - self.slopes @ step
        self.slopes += np.outer(surprise, step) / float(step @ step)
        self.lowest = min(self.lowest, float(answer @ answer))

    def _move(self, step: FloatArray, answer: FloatArray) -> None:
        self._learn(step, answer)
        self.x, self.residuals = self.x + step, answer

    def _note(self) -> None:
        deviance = max(float(self.residuals @ self.residuals) - self.start, 0.0) / self.variance
        self.values.append(float(self.space.values(self.x)[self.place]))
        self.taus.append(self.sign * float(np.sqrt(deviance)))  # (1)

    def end(self) -> float:
        """Where |tau| meets the limit, between the last two values; infinite if it does not."""
        if abs(self.taus[-1]) < self.limit:
            return self.sign * np.inf
        (before, after), (low, high) = np.abs(self.taus[-2:]), self.values[-2:]
        return float(low + (high - low) * (self.limit - before) / (after - before))


def _profile_of(name: str, level: float, valleys: list[_Valley], solves: int) -> Profile:
    below, above = valleys
    return Profile(
        name=name,
        values=np.array([*below.values[:0:-1], *above.values]),
        tau=np.array([*below.taus[:0:-1], *above.taus]),
        interval=(below.end(), above.end()),
        level=level,
        smallest=min(v.lowest for v in valleys) / max(below.start, np.finfo(float).tiny),
        solves=solves,
    )
