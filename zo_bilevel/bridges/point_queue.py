"""A method turned inside out: points one by one, answers in any order, for loops of others."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, final

import numpy as np

from zo_bilevel.methods.base import Method
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import BestSoFar, Evaluation, Outcome, Point
from zo_bilevel.solve.streams import LOOP_KEY, generator
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

SMALLEST_STEP = 1e-3
"""Of a surplus point from the best one, in scaled units; the largest is 1, of a range of 6."""


def _never_called(phi: dict[str, Any]) -> NoReturn:  # noqa: ARG001 - the signature of a solver
    raise InputError("the loop that asks must solve and tell")


@final
@dataclass(frozen=True, slots=True)
class _Asked:
    """A point that is out: its number, and its place in the round; a surplus point has none."""

    number: int
    place: int | None
    point: Point


@final
class PointQueue:
    """Hands out the points of a method's rounds, and surplus ones when a round is out.

    Surplus points are random ones near the best: they can be recommended, but the method is not
    told of them. The first point is judged first, whatever the order of answers.

    Args:
        space: The parameters.
        method: How to search; default `DefaultMethod()`.
        outer: With an outer objective, answers are inner solutions instead of losses.
        seed: Seed of the search.
        initial: Start by name.
        round_width: Points that may be out at once.
        max_solves: How many will be, for methods that plan ahead, or `None`.

    Attributes:
        num_asked: Points handed out.
        num_told: Answers taken.
    """

    def __init__(
        self,
        space: Space,
        method: Method | None,
        outer: Any,  # noqa: ANN401 - as in Problem
        *,
        seed: int,
        initial: Mapping[str, Any] | None,
        round_width: int,
        max_solves: int | None,
    ) -> None:
        if method is None:
            from zo_bilevel.methods.default import DefaultMethod

            method = DefaultMethod()
        self.space = space
        self.problem = Problem(space, _never_called, outer, "ask-tell")
        self.num_asked = self.num_told = 0
        self._method, self._seed = method, seed
        self._state = method.start(
            self.problem, seed, initial=initial, round_width=round_width, max_solves=max_solves
        )
        self._evaluator = Evaluator(self.problem, Serial(), seed)
        self._best = BestSoFar()
        self._out: dict[int, _Asked] = {}
        self._unjudged: list[tuple[_Asked, Outcome]] = []
        self._is_first_told = False
        self._begin_round()

    def _begin_round(self) -> None:
        self._points = self._method.ask(self._state)
        self._waiting = list(enumerate(self._points))
        self._told: dict[int, Evaluation] = {}

    @property
    def stop_reason(self) -> str:
        """Why the method wants no further solve; empty while it does."""
        return self._state.stop_reason

    @property
    def num_out(self) -> int:
        """Points that wait for their answer."""
        return len(self._out)

    @property
    def num_waiting(self) -> int:
        """Points of the method's round that are not handed out yet."""
        return len(self._waiting)

    @property
    def recommended(self) -> FloatArray | None:
        """The best point, or what a noisy search recommends; `None` before any is known."""
        notes = self._state.notes
        is_better = notes.noisy and notes.recommended is not None
        return notes.recommended if is_better else self._best.x

    def ask(self) -> tuple[int, FloatArray]:
        """The number of the next point, and the point."""
        place, point = self._waiting.pop(0) if self._waiting else (None, self._surplus())
        number = self.num_asked
        self._out[number] = _Asked(number, place, point)
        self.num_asked += 1
        return number, point.x

    def _surplus(self) -> Point:
        """The recommendation of a method that has stopped, else a random point near the best."""
        best = self.recommended
        if self.stop_reason and best is not None:
            return Point(best, role="surplus")
        rng = generator(self._seed, LOOP_KEY, self.num_asked)
        lower, upper = self.space.lower, self.space.upper
        if best is None:
            return Point(rng.uniform(lower, upper), role="surplus")
        step = SMALLEST_STEP ** rng.uniform() * rng.standard_normal(self.space.size)
        return Point(np.clip(best + step, lower, upper), role="surplus")

    def tell(self, number: int, answer: Any) -> None:  # noqa: ANN401 - a loss or inner solution
        """What a point gave.

        Args:
            number: From `ask`.
            answer: Its loss, or with an outer objective its inner solution. NaN, infinity and
                `None` are failed solves.

        Raises:
            KeyError: If the number is not one that is waited for.
            InnerSolverError: If the first one asked for is unusable.
        """
        outcome = outcome_of(answer)
        asked = self._out.pop(number)
        self.num_told += 1
        self._unjudged.append((asked, outcome))
        self._is_first_told = self._is_first_told or asked.number == 0
        if not self._is_first_told:
            return
        answers = sorted(self._unjudged, key=lambda one: one[0].number)
        self._unjudged = []
        for one in answers:
            self._judge(*one)

    def _judge(self, asked: _Asked, outcome: Outcome) -> None:
        evaluation = self._evaluator.judge(asked.point, outcome)
        self._best.see(evaluation, asked.number)
        if asked.place is None:
            return
        self._told[asked.place] = evaluation
        if len(self._told) == len(self._points):
            found = [self._told[place] for place in range(len(self._points))]
            self._state = self._method.tell(self._state, found)
            self._begin_round()


def outcome_of(told: Any) -> Outcome:  # noqa: ANN401 - a loss or an inner solution
    """An answer as our loop would have it from a dispatcher; `InputError` if it is neither."""
    if told is None:
        return Outcome("failed", error="told None")
    try:
        theta, layout = flatten_theta(told)
    except TypeError as error:
        raise InputError(f"tell takes a number or an inner solution: {error}") from error
    if not all(map(math.isfinite, theta)):
        return Outcome("invalid", error="told a value that is not finite")
    return Outcome("ok", theta, layout)
