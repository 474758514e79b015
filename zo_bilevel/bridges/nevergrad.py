"""Our methods in a loop that was written for Nevergrad: ask, tell, provide_recommendation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn, final

from zo_bilevel.bridges.nevergrad_space import initial_of, space_of, value_of
from zo_bilevel.dispatch.serial import Serial
from zo_bilevel.errors import InputError
from zo_bilevel.evaluation import Evaluation, Outcome, Point, flatten_theta
from zo_bilevel.evaluator import Evaluator
from zo_bilevel.methods.base import Method
from zo_bilevel.problem import Problem


def _never_called(phi: dict[str, Any]) -> NoReturn:  # noqa: ARG001 - the signature of a solver
    raise InputError("the loop that asks must solve and tell")


@final
class AskTell:
    """Stands in for a Nevergrad optimizer.

    Args:
        parametrization: Of Nevergrad, every parameter with bounds; see `space_of`.
        budget: Solves, >= 1, for methods that plan ahead.
        num_workers: Candidates that may be asked for before one is told, >= 1.
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
        >>> abs(optimizer.provide_recommendation().value - 1) < 0.1
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
        self._method = method
        self._state = method.start(
            self.problem,
            seed,
            initial=initial_of(parametrization),
            round_width=num_workers,
            max_solves=budget,
        )
        self._evaluator = Evaluator(self.problem, Serial(), seed)
        self._best: Evaluation | None = None
        self._surplus: set[str] = set()
        self._begin_round()

    def _begin_round(self) -> None:
        self._waiting = list(enumerate(self._method.ask(self._state)))
        self._places: dict[str, tuple[int, Point]] = {}
        self._told: dict[int, Outcome] = {}
        self._points = [point for _, point in self._waiting]

    @property
    def stop_reason(self) -> str:
        """Why the method wants no further solve; empty while it does."""
        return self._state.stop_reason

    def ask(self) -> Any:  # noqa: ANN401 - a Nevergrad parameter
        """The next candidate, with `.value`, `.args` and `.kwargs`.

        Once the method has stopped, which `stop_reason` tells, it is the recommendation again and
        again, so that a loop over a fixed budget runs to its end; what is told then is not used.

        Raises:
            InputError: If the method waits for what was asked before.
        """
        if self.stop_reason:
            candidate = self.provide_recommendation()
            self._surplus.add(candidate.uid)
            self.num_ask += 1
            return candidate
        if not self._waiting:
            raise InputError(
                f"tell first: the method waits for {len(self._points) - len(self._told)} of the "
                f"{len(self._points)} candidates of this round"
            )
        place, point = self._waiting.pop(0)
        value = value_of(self.parametrization, self.space.decode(point.x))
        candidate = self.parametrization.spawn_child(new_value=value)
        self._places[candidate.uid] = (place, point)
        self.num_ask += 1
        return candidate

    def tell(self, candidate: Any, loss: Any) -> None:  # noqa: ANN401
        """What a candidate gave.

        Args:
            candidate: From `ask`.
            loss: Its loss, or with an outer objective its inner solution. NaN, infinity and
                `None` are failed solves.

        Raises:
            InputError: If the candidate is not one that is waited for.
            InnerSolverError: If the very first one is unusable.
        """
        outcome = _outcome(loss)
        if candidate.uid in self._surplus:
            self._surplus.remove(candidate.uid)
            self.num_tell += 1
            return
        if candidate.uid not in self._places:
            raise InputError("tell takes a candidate of ask that was not told before")
        place, _ = self._places.pop(candidate.uid)
        self._told[place] = outcome
        self.num_tell += 1
        if len(self._told) == len(self._points):
            self._end_round()

    def _end_round(self) -> None:
        points, told = self._points, self._told
        found = [self._evaluator.judge(point, told[k]) for k, point in enumerate(points)]
        for evaluation in found:
            if evaluation.ok and (self._best is None or evaluation.loss < self._best.loss):
                self._best = evaluation
        self._state = self._method.tell(self._state, found)
        self._begin_round()

    def provide_recommendation(self) -> Any:  # noqa: ANN401 - a Nevergrad parameter
        """The best point so far, or what a noisy search recommends.

        Raises:
            InputError: If no round has been told yet.
        """
        if self._best is None:
            raise InputError("nothing to recommend: no round has been told")
        x, notes = self._best.point.x, self._state.notes
        if notes.noisy and notes.recommended is not None:
            x = notes.recommended
        value = value_of(self.parametrization, self.space.decode(x))
        return self.parametrization.spawn_child(new_value=value)

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
