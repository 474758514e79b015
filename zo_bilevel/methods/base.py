"""The method protocol: asks for rounds of points, is told evaluations, says why it stops.

A method is written as a coroutine, `rounds(search)`, that yields a round of points and receives
their evaluations in the same order. `start`, `ask` and `tell` are the same for all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.methods.penalty import penalized, penalized_arrivals
from zo_bilevel.methods.state import Notes, State
from zo_bilevel.methods.state import Rounds as Rounds
from zo_bilevel.methods.stopping import StopRules
from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.derivative import DerivativeOrder
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.solve.streams import METHOD_KEY, generator
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, UnsupportedProblemError

Arrivals: TypeAlias = Rounds
"""Yields points to start now, receives the one evaluation that arrives next, and so on."""


@final
@dataclass(frozen=True, slots=True)
class Search:
    """What a method starts from.

    Args:
        problem: The problem.
        start: Scaled start, shape `(N,)`.
        seed: Seed of the run.
        round_width: Solves that may run at once at no extra time; part of the run's identity,
            never taken from the dispatcher, so that numbers do not depend on the machine.
        watch: Told each hypergradient by methods that have one, shape `(N,)`, scaled.
        max_solves: How many solves the run may spend, for methods that plan ahead, or `None`
            when that is not known. A hint: the loop alone enforces budgets.
        max_cost: What it may cost, likewise.
        notes: What the method tells the loop.
        stream: Random numbers of its solves: another one when only that lets the start solve.
        rules: When the run ends before its budget is spent.
        is_asynchronous: Whether answers arrive one by one.
        known: Solves made before the run, all ok, for methods that can learn from them.
    """

    problem: Problem
    start: FloatArray
    seed: int = 0
    round_width: int = 1
    watch: Callable[[FloatArray], None] | None = None
    max_solves: int | None = None
    max_cost: float | None = None
    notes: Notes = field(default_factory=Notes)
    stream: tuple[int, ...] = (0,)
    rules: StopRules = field(default_factory=StopRules)
    is_asynchronous: bool = False
    known: Sequence[Evaluation] = ()

    @property
    def space(self) -> Space:
        """The problem's space."""
        return self.problem.space

    def rng(self, *key: int) -> np.random.Generator:
        """Random numbers of the method's own, apart from those of the solves.

        Args:
            *key: Which stream, for instance the step.
        """
        return generator(self.seed, METHOD_KEY, *key)

    def point(
        self, x: FloatArray, role: str = "trial", derivative: DerivativeOrder | None = None
    ) -> Point:
        """One solve, on the search's stream."""
        return Point(x, self.stream, role, derivative)

    def judge_step(
        self, x: FloatArray, moved_to: FloatArray, before: float, after: float, agreement: float
    ) -> None:
        """End the run where its rules say that nothing more is wanted than a step gained.

        Args:
            x: Where the step began, shape `(N,)`.
            moved_to: Where it led.
            before: Loss there.
            after: Loss here.
            agreement: Actual over predicted gain.
        """
        if self.rules.ftol is None and self.rules.xtol is None:
            return
        phi, moved = (self._values(place) for place in (x, moved_to))
        reason = self.rules.after_step(before, after, agreement, phi, moved - phi)
        self.notes.finished = self.notes.finished or reason

    def _values(self, x: FloatArray) -> FloatArray:
        return np.concatenate([np.ravel(value) for value in self.space.decode(x).values()])

    def bind(self, evaluation: Evaluation) -> BoundProblem:
        """The problem as numbers, from any solve that is ok."""
        if evaluation.theta is None or evaluation.layout is None:
            raise InputError("only a solve that is ok can fix the structure of theta")
        return self.problem.bind(evaluation.theta, evaluation.layout, evaluation.point.x)


class Method(ABC):
    """An estimator and an outer update rule, or a baseline behind the same seam."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in tables and on the command line."""

    @property
    def constraints(self) -> str:
        """How the method keeps constraints, in words; empty when it cannot.

        "penalized": it knows of none, and `kept_rounds` turns away points outside.
        """
        return ""

    @property
    def violation(self) -> str:
        """Which rule of a comparison the method broke, in words; empty when it broke none."""
        return ""

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages of others that do its work, by the names that Python imports."""
        return ()

    @property
    def has_steps(self) -> bool:
        """Whether the method keeps the rules `ftol`, `xtol` and `restarts=False`."""
        return False

    @abstractmethod
    def rounds(self, search: Search) -> Rounds:
        """The whole search as a coroutine.

        Args:
            search: Problem, start, seed, round width.

        Yields:
            Rounds of points, each within the bounds.

        Returns:
            Why the method stops, in words.
        """

    def arrivals(self, search: Search) -> Arrivals:  # noqa: ARG002 - of those that can
        """The same search, told each answer as it arrives, so that no solve waits for another.

        Args:
            search: Problem, start, seed, and how many solves run at once: `round_width`.

        Yields:
            Points to start now; none to wait for the next arrival of those that run.

        Returns:
            Why the method stops, in words.

        Raises:
            UnsupportedProblemError: If the method needs whole rounds.
        """
        raise UnsupportedProblemError(f"{self.name} needs whole rounds: asynchronous must be False")

    @final
    def kept_rounds(self, search: Search) -> Rounds:
        """The search, with a penalty where the method itself knows of no constraints.

        Raises:
            UnsupportedProblemError: If the method can keep none, or needs whole rounds.
        """
        feasible = search.problem.feasible
        if feasible and not self.constraints:
            raise UnsupportedProblemError(f"{self.name} cannot keep constraints")
        is_penalized = feasible and self.constraints == "penalized"
        if search.is_asynchronous:
            arrivals = self.arrivals(search)
            return penalized_arrivals(arrivals, feasible) if is_penalized else arrivals
        rounds = self.rounds(search)
        return penalized(rounds, feasible) if is_penalized else rounds

    @final
    def start(
        self,
        problem: Problem,
        seed: int = 0,
        *,
        initial: Mapping[str, Any] | None = None,
        round_width: int = 1,
        max_solves: int | None = None,
        max_cost: float | None = None,
        rules: StopRules | None = None,
        asynchronous: bool = False,
        known: Sequence[Evaluation] = (),
    ) -> State:
        """Begin a search.

        Args:
            problem: The problem.
            seed: Seed of the run, >= 0.
            initial: Start by name; missing names take the middle of their range.
            round_width: Solves that may run at once, >= 1.
            max_solves: How many solves will be spent, >= 1, for methods that plan ahead.
            max_cost: What they may cost, likewise.
            rules: When the run ends before that.
            asynchronous: Whether it will be told answers one by one, as they arrive.
            known: Solves made before, all ok.

        Returns:
            The first state.

        Raises:
            InputError: If the initial point, round width or budget breaks a rule.
            UnsupportedProblemError: If the method cannot work on this problem, or cannot keep a
                rule.
        """
        rules = StopRules() if rules is None else rules
        self._check_rules(rules, problem)
        seed = whole_number("seed", seed, least=0)
        round_width = whole_number("round_width", round_width, least=1)
        if max_solves is not None:
            max_solves = whole_number("max_solves", max_solves, least=1)
        start = problem.start_at(initial)
        search = Search(
            problem,
            start,
            seed,
            round_width,
            max_solves=max_solves,
            max_cost=max_cost,
            rules=rules,
            is_asynchronous=asynchronous,
            known=known,
        )
        return State(self.kept_rounds(search), search.notes, is_asynchronous=asynchronous)

    def _check_rules(self, rules: StopRules, problem: Problem) -> None:
        given = " and ".join(rules.of_steps)
        if given and not self.has_steps:
            raise UnsupportedProblemError(
                f"{given} must be left out with {self.name}: only default, gauss-newton and "
                "trust-region tell their steps; patience ends any method"
            )
        if given and problem.space.discrete.any():
            raise UnsupportedProblemError(
                f"{given} must be left out where parameters are integers or choices, whose steps "
                "do not become small; patience ends any search"
            )

    @final
    def ask(self, state: State) -> list[Point]:
        """The round the method wants solved; empty when it has stopped."""
        return state.points

    @final
    def tell(self, state: State, evaluations: Sequence[Evaluation]) -> State:
        """Move on with the evaluations of that round, in its order.

        Raises:
            InputError: If there are not as many evaluations as points.
        """
        state.tell(evaluations)
        return state
