"""Several methods one after the other, each from where the last one stopped.

Source: arXiv 2406.14095, section 3.3: a cheap biased estimator first, then (FG)2U.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias, final

import numpy as np

from zo_bilevel.estimators.fg2u import FG2U
from zo_bilevel.estimators.fg2u_zo import FG2UZO, FORWARD_RADIUS
from zo_bilevel.estimators.orders import Push
from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.methods.gradient import GradientMethod
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.switches import (
    BiasSeen,
    Plateau,
    Progress,
    SignalToNoise,
    Switch,
    check_solves,
)
from zo_bilevel.solve.evaluation import BestSoFar, Evaluation, Point
from zo_bilevel.solve.streams import PHASE_KEY, solve_seed
from zo_bilevel.support.arguments import one_of
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

MAX_GRADIENTS = 100
"""Hypergradients kept for rules to look at."""
AUTO: tuple[Switch, ...] = (Plateau(), BiasSeen())


Limit: TypeAlias = "int | Switch | Literal['auto'] | None"


@final
class TwoPhase(Method):
    """Phases of any methods; the next one starts at the best or the last point of the one before.

    Args:
        phases: Pairs of a method and when it ends: a number of solves, a rule (`Plateau`,
            `BiasSeen`, `SignalToNoise`), "auto" (`Plateau()` or `BiasSeen()`, whichever is first),
            or `None` for the last phase, which takes what is left.
        start_from: "best" point so far by its loss, or "last" point of the phase, for losses too
            noisy to compare.

    Raises:
        InputError: If there is no phase, a limit breaks its rule, or a phase can never be reached.

    Example:
        >>> from zo_bilevel import FG2UZO, Problem, Real, Space, SquaredError, minimize
        >>> problem = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"] ** 2, SquaredError(4.0))
        >>> coarse, fine = GradientMethod(lr=0.5), GradientMethod(FG2UZO(1), lr=0.05)
        >>> result = minimize(problem, TwoPhase([(coarse, 20), (fine, None)]), max_solves=60)
        >>> result.method
        'zo-adam then zo-adam'
    """

    def __init__(
        self,
        phases: Sequence[tuple[Method, Limit]],
        *,
        start_from: Literal["best", "last"] = "best",
    ) -> None:
        if not phases:
            raise InputError("phases must hold at least one (method, budget), got none")
        one_of("start_from", start_from, ("best", "last"))
        self.phases = list(phases)
        self.start_from = start_from
        for place, (method, limit) in enumerate(self.phases):
            self._check(place, method, limit)

    def _check(self, place: int, method: Method, limit: Limit) -> None:
        if not isinstance(method, Method):
            raise InputError(f"phase {place} must be a Method, got {type(method).__name__}")
        if isinstance(limit, SignalToNoise | BiasSeen) and not isinstance(method, GradientMethod):
            raise InputError(
                f"phase {place}: {method.name} tells no hypergradient, so {type(limit).__name__} "
                "cannot end it; give a number of solves or a Plateau"
            )
        if isinstance(limit, str) and limit != "auto":
            raise InputError(f"phase {place} must end at a rule, 'auto' or solves, got {limit!r}")
        if limit is not None and not isinstance(limit, str | Switch):
            check_solves(limit)
        if limit is None and place < len(self.phases) - 1:
            raise InputError(f"phase {place} has no limit, so phase {place + 1} is never reached")

    @property
    def name(self) -> str:
        """The phases' names in order."""
        return " then ".join(method.name for method, _ in self.phases)

    @property
    def packages(self) -> tuple[str, ...]:
        """Those of the phases."""
        return tuple(name for method, _ in self.phases for name in method.packages)

    def rounds(self, search: Search) -> Rounds:
        """One phase after the other."""
        best = BestSoFar()
        start, reason = search.start, ""
        for place, (method, limit) in enumerate(self.phases):
            later = self.phases[place + 1][0] if place + 1 < len(self.phases) else None
            phase = _Phase(place, (method, limit), later, search, start)
            while points := phase.points:
                evaluations = yield points
                for evaluation in evaluations:
                    best.see(evaluation)
                phase.tell(evaluations)
                yield from phase.look(evaluations[0])
            reason = phase.reason
            start = phase.last
            if self.start_from == "best" and best.x is not None:
                start = best.x
        return reason


@final
class _Phase:
    """A method's rounds up to a limit, on random streams of their own."""

    def __init__(
        self,
        place: int,
        phase: tuple[Method, Limit],
        later: Method | None,
        search: Search,
        start: FloatArray,
    ) -> None:
        method, limit = phase
        self.place, self.later, self.search = place, later, search
        self.budget = limit if isinstance(limit, int) else None
        self.rules = AUTO if limit == "auto" else (limit,) if isinstance(limit, Switch) else ()
        self.progress = Progress()
        seed = search.seed if place == 0 else solve_seed(search.seed, (PHASE_KEY, place))
        inner = dataclasses.replace(search, start=start, seed=seed, watch=self._watch)
        self.rounds = method.rounds(inner)
        self.solves = 0
        self.last = start
        self.reason = ""
        self.points: list[Point] = []
        self._asked(next(self.rounds, None))

    def _watch(self, gradient: FloatArray) -> None:
        self.progress.gradients.append(gradient)
        del self.progress.gradients[:-MAX_GRADIENTS]
        if self.search.watch is not None:
            self.search.watch(gradient)

    def _asked(self, points: list[Point] | None) -> None:
        if not points:
            self.points = []
            return
        self.last = points[0].x
        if self.is_over():
            return
        wanted = sum(point.solves for point in points)
        if self.budget is not None and self.solves + wanted > self.budget:
            if self.solves == 0 and self.place == 0:
                raise InputError(
                    f"phase 0 has a budget of {self.budget} solves, "
                    f"but its first round needs {wanted}"
                )
            # a round cut short would mislead its method: what is left goes to the next phase
            self._close(f"phase budget of {self.budget} solves: no room for another round")
            return
        self.points = [
            dataclasses.replace(point, stream=(self.place, *point.stream)) if self.place else point
            for point in points
        ]

    def tell(self, evaluations: list[Evaluation]) -> None:
        """Hand over a round."""
        self.solves += sum(evaluation.point.solves for evaluation in evaluations)
        self.progress.losses.append(evaluations[0].loss)
        self.progress.solves.append(self.solves)
        try:
            self._asked(self.rounds.send(evaluations))
        except StopIteration as stop:
            self.reason, self.points = str(stop.value), []

    def look(self, at: Evaluation) -> Rounds:
        """Measure the true slope along the last hypergradient, if a rule wants to know it."""
        rounds, seen = len(self.progress.losses), self.progress.gradients
        every = [rule.every for rule in self.rules if isinstance(rule, BiasSeen)]
        if not (every and self.points and seen and at.ok) or rounds % min(every):
            return ""
        direction = seen[-1]
        length = float(np.linalg.norm(direction))
        if length > 0:
            slope = yield from self._slope(at, direction / length)
            if slope is not None:
                self.progress.agreement[rounds] = slope / length
            self.is_over()
        return ""

    def _slope(self, at: Evaluation, unit: FloatArray) -> RoundsThen[float | None]:
        estimator = getattr(self.later, "estimator", None)
        stream, x = at.point.stream, at.point.x
        if isinstance(estimator, FG2U):
            point = Point(x, stream, "sketch", Push(unit[:, None], "slopes"))
        else:
            radius = estimator.step() if isinstance(estimator, FG2UZO) else FORWARD_RADIUS
            # towards the inside of the box: the step that the phase will take is the other way
            space = self.search.space
            point = Point(np.clip(x - radius * unit, space.lower, space.upper), stream, "sketch")
        (found,) = yield [point]
        self.solves += point.solves
        if not found.ok:
            return None
        if point.derivative is not None:
            return None if found.derivative is None else float(found.derivative[0])
        moved = float(np.linalg.norm(point.x - x))
        return (at.loss - found.loss) / moved if moved else None

    def is_over(self) -> bool:
        """Whether a rule ends the phase; if so it is closed, with the reason."""
        limits = [self.budget, *(rule.max_solves for rule in self.rules)]
        spent = [limit for limit in limits if limit is not None and self.solves >= limit]
        reasons = [f"phase budget of {limit} solves spent" for limit in spent]
        reasons += [rule.reason(self.progress) for rule in self.rules]
        reason = next(filter(None, reasons), "")
        if reason:
            self._close(reason)
        return bool(reason)

    def _close(self, reason: str) -> None:
        self.rounds.close()
        self.reason, self.points = reason, []
