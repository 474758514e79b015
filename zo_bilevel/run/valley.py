"""One side of a profile: along the valley to where the limit is met."""

from collections.abc import Generator
from typing import NamedTuple, TypeAlias, final

import numpy as np

from zo_bilevel.problem.problem import Problem
from zo_bilevel.run.confidence import interval_text
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.tables import number

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
LONGEST_JUMP = 0.4
"""Of tau, in limits, across which a straight line tells where the limit is met."""
NEAR_LIMIT = 0.01
"""Of a row to the limit, in limits, from which on it is the end."""


class Row(NamedTuple):
    """A value of the parameter, scaled and not, and tau there."""

    x: float
    value: float
    tau: float


@final
class Valley:
    """One side of a profile."""

    def __init__(
        self,
        problem: Problem,
        place: int,
        x: FloatArray,
        residuals: FloatArray,
        slopes: FloatArray,
        variance: float,
        limit: float,
        sign: float,
    ) -> None:
        self.space, self.place = problem.space, place
        self.x, self.residuals, self.slopes = x, residuals, slopes.copy()
        self.start = float(residuals @ residuals)
        self.variance = max(variance, np.finfo(float).tiny)
        self.limit, self.sign = limit, sign
        self.others = np.arange(x.size) != place
        value = float(self.space.values(x)[place])
        self.rows, self.beyond = [Row(float(x[place]), value, 0.0)], list[Row]()
        self.lowest = self.start, value

    def follow(self) -> Side:
        """Step by step past the limit, to a bound or a failure; then refine where it was met."""
        length = np.inf
        while abs(self.rows[-1].tau) < self.limit and not self.is_met:
            start = self.x, self.residuals, self.slopes.copy()
            step = self._step(length)
            if not np.any(step):
                return
            answer = yield self.x + step
            if answer is None:
                return
            self._move(step, answer)
            yield from self._let_others_follow()
            row = self._row()
            if abs(row.tau) < self.limit:
                self.rows.append(row)
            else:
                self.beyond.append(row)
                self.x, self.residuals, self.slopes = start
            length = self._length_between()

    @property
    def is_met(self) -> bool:
        """Whether a straight line between the rows on both sides of the limit tells the end."""
        if not self.beyond:
            return False
        inside, outside = abs(self.rows[-1].tau), abs(self.beyond[-1].tau)
        is_near = min(self.limit - inside, outside - self.limit) < NEAR_LIMIT * self.limit
        return is_near or outside - inside < LONGEST_JUMP * self.limit

    def _length_between(self) -> float:
        """Of the next step, scaled: tau mostly bends upwards, so at least half of what is left."""
        if not self.beyond:
            return np.inf
        inside, outside = self.rows[-1], self.beyond[-1]
        share = (self.limit - abs(inside.tau)) / (abs(outside.tau) - abs(inside.tau))
        return float(min(max(share, 0.5), 0.9) * abs(outside.x - inside.x))

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

    def _step(self, most: float) -> FloatArray:
        """Along the valley, as far as one part of the way to the limit."""
        column, rest = self.slopes[:, self.place], self.slopes[:, self.others]
        follow = -np.linalg.lstsq(rest, column, rcond=None)[0] if rest.size else np.zeros(0)
        bend = float(np.linalg.norm(column + rest @ follow))
        reach = self.space.upper[self.place] - self.space.lower[self.place]
        part = self.limit / NUM_STEPS_TO_END * np.sqrt(self.variance) / max(bend, 1e-300)
        end = (self.space.lower if self.sign < 0 else self.space.upper)[self.place]
        length = min(part, 0.25 * reach) if np.isinf(most) else most
        length = min(length, abs(end - self.x[self.place]))
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
        where = float(self.space.values(self.x + step)[self.place])
        self.lowest = min(self.lowest, (float(answer @ answer), where))

    def _move(self, step: FloatArray, answer: FloatArray) -> None:
        self._learn(step, answer)
        self.x, self.residuals = self.x + step, answer

    def _row(self) -> Row:
        deviance = max(float(self.residuals @ self.residuals) - self.start, 0.0) / self.variance
        value = float(self.space.values(self.x)[self.place])
        return Row(float(self.x[self.place]), value, self.sign * float(np.sqrt(deviance)))  # (1)

    def end(self) -> float:
        """Where |tau| meets the limit; infinite if it does not, and outside where that is open."""
        if not self.beyond:
            return self.sign * np.inf
        inside, outside = self.rows[-1], self.beyond[-1]
        if not self.is_met:
            return outside.value
        share = (self.limit - abs(inside.tau)) / (abs(outside.tau) - abs(inside.tau))
        return inside.value + (outside.value - inside.value) * share

    def note(self, name: str) -> str:
        """What has to be said of the end, if anything."""
        side, last = "lower" if self.sign < 0 else "upper", self.rows[-1]
        if self.beyond:
            low, high = sorted((last.value, self.beyond[-1].value))
            between = interval_text(low, high)
            return "" if self.is_met else f"the {side} end lies in {between}: max_solves spent"
        bound = (self.space.lower if self.sign < 0 else self.space.upper)[self.place]
        if last.x == bound:
            return f"no {side} end: {name} met its bound"
        return f"no {side} end: max_solves spent, or a solve failed, at {number(last.value, 5)}"
