"""Our methods in a loop that was written for Nevergrad: ask, tell, recommend."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, final

import numpy as np

from zo_bilevel.bridges.nevergrad_space import initial_of, space_of, value_of
from zo_bilevel.methods.base import Method
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.best import BestSoFar
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Evaluation, Outcome, Point
from zo_bilevel.solve.streams import LOOP_KEY, generator
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

SMALLEST_STEP = 1e-3
"""Of a surplus candidate from the best one, in scaled units; the largest is 1, of a range of 6."""


def _never_called(phi: dict[str, Any]) -> NoReturn:  # noqa: ARG001 - the signature of a solver
    raise InputError("the loop that asks must solve and tell")


@final
@dataclass(frozen=True, slots=True)
class _Asked:
    """A candidate that is out: how many were asked for before, and its place in the round.

    A surplus candidate has no place: the method is not told of it.
    """

    number: int
    place: int | None
    point: Point


@final
class AskTell:
    """Stands in for a Nevergrad optimizer.

    It starts at the value that the parametrization has. A method asks in rounds and is told whole
    rounds. When a round is handed out and workers are free, they get surplus candidates: random
    ones near the best, which can be recommended but are not given to the method. A first round is
    often one candidate; later ones fill the workers of a loop that asks `num_workers` times, then
    tells them all. Workers that do not wait for each other get more surplus candidates.

    Args:
        parametrization: Of Nevergrad, every parameter with bounds; see `space_of`.
        budget: Solves, >= 1, for methods that plan ahead.
        num_workers: Candidates that may be out, asked for and not told, >= 1.
        method: How to search; default `DefaultMethod()`.
        outer: With an outer objective, `tell` takes inner solutions (vectors) instead of losses,
            and vector methods become possible.
        seed: Seed of the search.

    Raises:
        InputError: If an argument breaks a rule.
        MissingPackageError: If Nevergrad is not installed.

    Example:
        >>> import nevergrad as ng
        >>> optimizer = AskTell(ng.p.Scalar(lower=-3, upper=5), budget=30)
        >>> for _ in range(optimizer.budget):
        ...     candidate = optimizer.ask()
        ...     optimizer.tell(candidate, (candidate.value - 1) ** 2)
        >>> abs(optimizer.recommend().value - 1) < 0.1
        True
    """

    def __init__(
        self,
        parametrization: Any,  # noqa: ANN401 - of an optional package
        budget: int,
        num_workers: int = 1,
        *,
        method: Method | None = None,
        outer: Any = None,  # noqa: ANN401 - as in Problem
        seed: int = 0,
    ) -> None:
        if method is None:
            from zo_bilevel.methods.default import DefaultMethod

            method = DefaultMethod()
        self.parametrization, self.budget, self.num_workers = parametrization, budget, num_workers
        self.space = space_of(parametrization)
        self.problem = Problem(self.space, _never_called, outer, "ask-tell")
        self.num_ask = self.num_tell = 0
        self._method, self._seed = method, seed
        self._state = method.start(
            self.problem,
            seed,
            initial=initial_of(parametrization),
            round_width=num_workers,
            max_solves=budget,
        )
        self._evaluator = Evaluator(self.problem, Serial(), seed)
        self._best = BestSoFar()
        self._asked: dict[str, _Asked] = {}
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

    def ask(self) -> Any:  # noqa: ANN401 - a Nevergrad parameter
        """The next candidate, with `.value`, `.args` and `.kwargs`.

        Once the method has stopped, which `stop_reason` tells, it is the recommendation again and
        again, so that a loop over a fixed budget runs to its end.

        Raises:
            InputError: If `num_workers` candidates are out already.
        """
        out = len(self._asked)
        if out >= self.num_workers:
            raise InputError(
                f"tell first: {out} candidate{' waits' if out == 1 else 's wait'}, "
                f"num_workers is {self.num_workers}"
            )
        place, point = self._waiting.pop(0) if self._waiting else (None, self._surplus())
        candidate = self._candidate(point.x)
        self._asked[candidate.uid] = _Asked(self.num_ask, place, point)
        self.num_ask += 1
        return candidate

    def _candidate(self, x: FloatArray) -> Any:  # noqa: ANN401 - a Nevergrad parameter
        value = value_of(self.parametrization, self.space.decode(x))
        child = self.parametrization.spawn_child()
        child.value = value  # spawn_child(new_value=None) would draw one
        return child

    def _surplus(self) -> Point:
        """The recommendation of a method that has stopped, else a random point near the best."""
        best = self._recommended()
        if self.stop_reason and best is not None:
            return Point(best, role="surplus")
        rng = generator(self._seed, LOOP_KEY, self.num_ask)
        lower, upper = self.space.lower, self.space.upper
        if best is None:
            return Point(rng.uniform(lower, upper), role="surplus")
        step = SMALLEST_STEP ** rng.uniform() * rng.standard_normal(self.space.size)
        return Point(np.clip(best + step, lower, upper), role="surplus")

    def tell(self, candidate: Any, loss: Any) -> None:  # noqa: ANN401
        """What a candidate gave.

        Args:
            candidate: From `ask`.
            loss: Its loss, or with an outer objective its inner solution. NaN, infinity and
                `None` are failed solves.

        Raises:
            InputError: If the candidate is not one that is waited for.
            InnerSolverError: If the first one asked for is unusable.
        """
        outcome = _outcome(loss)
        if candidate.uid not in self._asked:
            raise InputError("tell takes a candidate of ask that was not told before")
        asked = self._asked.pop(candidate.uid)
        self.num_tell += 1
        self._unjudged.append((asked, outcome))
        self._is_first_told = self._is_first_told or asked.number == 0
        if not self._is_first_told:
            return  # the start is judged first, whatever the order of telling
        answers = sorted(self._unjudged, key=lambda answer: answer[0].number)
        self._unjudged = []
        for answer in answers:
            self._judge(*answer)

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

    def _recommended(self) -> FloatArray | None:
        notes = self._state.notes
        is_better = notes.noisy and notes.recommended is not None
        return notes.recommended if is_better else self._best.x

    def provide_recommendation(self) -> Any:  # noqa: ANN401 - a Nevergrad parameter
        """The best candidate so far, or what a noisy search recommends.

        Raises:
            InputError: If no usable loss was told yet.
        """
        x = self._recommended()
        if x is None:
            raise InputError("nothing to recommend: no usable loss was told")
        return self._candidate(x)

    def recommend(self) -> Any:  # noqa: ANN401 - a Nevergrad parameter
        """The same as `provide_recommendation`.

        Raises:
            InputError: If no usable loss was told yet.
        """
        return self.provide_recommendation()

    def minimize(self, function: Callable[..., Any]) -> Any:  # noqa: ANN401
        """Solve until the budget is spent, as `optimizer.minimize` of Nevergrad does.

        Args:
            function: Called with `*candidate.args, **candidate.kwargs`.

        Returns:
            The recommendation.
        """
        while self.num_tell < self.budget and not self.stop_reason:
            candidate = self.ask()
            self.tell(candidate, function(*candidate.args, **candidate.kwargs))
        return self.provide_recommendation()


def _outcome(told: Any) -> Outcome:  # noqa: ANN401 - a loss or an inner solution
    if told is None:
        return Outcome("failed", error="told None")
    try:
        theta, layout = flatten_theta(told)
    except TypeError as error:
        raise InputError(f"tell takes a number or an inner solution: {error}") from error
    if not all(map(math.isfinite, theta)):
        return Outcome("invalid", error="told a value that is not finite")
    return Outcome("ok", theta, layout)
