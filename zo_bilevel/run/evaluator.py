"""From points to evaluations: decode, seed, dispatch, judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, NoReturn, Protocol, final

import numpy as np

from zo_bilevel.estimators.derivatives import outer_part
from zo_bilevel.problem.experiments import EXPERIMENT
from zo_bilevel.problem.objectives.functions import NUMERICAL_ERRORS
from zo_bilevel.problem.objectives.robust_error import RobustError
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.problem import BoundProblem, Problem
from zo_bilevel.problem.theta import UNMEASURED, ThetaLayout
from zo_bilevel.run.experiment_parts import ExperimentParts
from zo_bilevel.run.warm_starts import WarmStarts, takes_warm
from zo_bilevel.solve.dispatch.base import Dispatcher, KillsLate, Solve
from zo_bilevel.solve.evaluation import Evaluation, Job, Outcome, Point, Status
from zo_bilevel.solve.streams import solve_seed
from zo_bilevel.store.recorder import Recorder
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import (
    InnerSolverError,
    InputError,
    WrongShapeError,
    ZoBilevelError,
    described,
)

FREE = "known"
"""In the place of the worker of an answer that costs nothing."""
CLOCK_DIFFERENCE = 1.0
"""Seconds by which a dispatcher may end a round before the run's time is over."""


class KnowsAnswers(Protocol):
    """Solves made before the run."""

    def find(self, phi: Mapping[str, Any]) -> Outcome | None:
        """The answer to exactly these values; `None` where it is not known."""
        ...


@final
class Evaluator:
    """Turns points into evaluations: decode, seed, dispatch, bind, in the order of the round.

    Args:
        problem: The problem.
        dispatcher: Runs the solves.
        seed: Seed of the run.
        recorder: Remembers every solve; `None` for no store.
        seconds_left: Of the run. When none are left the rest of the round is given up; solves that
            run are killed where the dispatcher can.
        spent_before: Told the seconds that stored solves of this run took when they were made.
        decode: From a point to named values; default the space's own.
    """

    def __init__(
        self,
        problem: Problem,
        dispatcher: Dispatcher,
        seed: int,
        recorder: Recorder | None = None,
        seconds_left: Callable[[], float] = lambda: math.inf,
        spent_before: Callable[[float], None] = lambda _: None,
        *,
        decode: Callable[[Point], dict[str, Any]] | None = None,
    ) -> None:
        if isinstance(dispatcher, type) or not isinstance(dispatcher, Dispatcher):
            raise InputError(f"dispatcher must be one such as zb.Serial(), got {dispatcher!r}")
        self.problem = problem
        self.dispatcher = dispatcher
        self.seed = whole_number("seed", seed, least=0)
        self.recorder = recorder
        self.seconds_left = seconds_left
        self.spent_before = spent_before
        self.step = 0
        self.solve = Solve(
            problem.inner, outer_part(problem), problem.name, problem.version, problem.unmeasured
        )
        self.bound: BoundProblem | None = None
        self.stopped: Outcome | None = None
        self._base: Evaluation | None = None
        self.parts = ExperimentParts(problem)
        self._decode = decode
        self.known: KnowsAnswers | None = None
        self.warm_starts: WarmStarts | None = None

    def warm_up(self) -> None:
        """From now on a solver that takes `warm` gets the answer of the nearest solved point."""
        self.warm_starts = WarmStarts() if takes_warm(self.problem.inner) else None

    def nearest(self, point: Point) -> Any:  # noqa: ANN401 - the user's structure
        """The answer that a solve begins from, of those told by now; `None` for none."""
        return None if self.warm_starts is None else self.warm_starts.nearest(point.x)

    def remember(self, evaluations: Iterable[Evaluation]) -> None:
        """Let later solves begin from these."""
        for evaluation in evaluations:
            if self.warm_starts is not None:
                self.warm_starts.tell(evaluation)

    def job(self, place: int, point: Point, warm: Any = None) -> Job:  # noqa: ANN401
        """One point of a round as a dispatcher sees it."""
        order = point.derivative
        bound = None if order is None else order.bind(self.problem, point.x)
        phi = self.decoded(point)
        if point.part is not None:
            phi[EXPERIMENT] = point.part[0]
        return Job(place, phi, self.seed_of(point), bound, warm)

    def decoded(self, point: Point) -> dict[str, Any]:
        """Named values of a point."""
        if self._decode is not None:
            return self._decode(point)
        phi, fidelity = self.problem.space.decode(point.x), self.problem.fidelity
        if fidelity is not None:
            phi[fidelity.name] = fidelity.full if point.level is None else point.level
        return phi

    def seed_of(self, point: Point) -> int:
        """Seed of a point's solve; 0 for an inner solver that takes none."""
        return solve_seed(self.seed, point.stream) if self.solve.with_seed else 0

    def outcomes(self, places: Mapping[int, Point]) -> dict[int, Outcome]:
        """Run one round; stored solves are not run again, new ones are stored as they finish.

        Returns:
            Outcomes by place; all places, unless time ran out or a solve ended the run.

        Raises:
            InputError: If the dispatcher's answers are missing, doubled or unknown.
        """
        found = self.known_answers(places)
        rest = {place: point for place, point in places.items() if place not in found}
        return found | (self.parts.joined(self._answers(self.parts.split(rest))) if rest else {})

    def know(self, solves: KnowsAnswers | None, evaluations: Sequence[Evaluation]) -> None:
        """Let solves made before the run stand in for its own."""
        self.known = solves
        for first in evaluations[:1]:
            if first.theta is not None and first.layout is not None:
                self.bound = self.problem.bind(first.theta, first.layout, first.point.x)

    def known_answers(self, places: Mapping[int, Point]) -> dict[int, Outcome]:
        """Answers of those points that were solved before the run.

        Args:
            places: Points by any number.
        """
        if self.known is None:
            return {}
        found = {
            place: self.known.find(self.decoded(point))
            for place, point in places.items()
            if point.derivative is None
        }
        return {place: outcome for place, outcome in found.items() if outcome is not None}

    def _answers(self, places: Mapping[int, Point]) -> dict[int, Outcome]:
        found = self._stored(places)
        pending = [
            self.job(place, point, self.nearest(point))
            for place, point in places.items()
            if place not in found
        ]
        if not pending:
            return found
        # closing the round kills what is still running when the store or the user stops it
        open_jobs = {job.index for job in pending}
        with closing(as_generator(self._dispatched(pending))) as answers:
            for index, outcome in answers:
                if index not in open_jobs:
                    raise self._answered_wrongly(f"job {index} was answered twice or never asked")
                open_jobs.remove(index)
                if outcome.status == "stopped":
                    self.stopped = outcome
                    break
                if self.recorder is not None:
                    point = places[index]
                    self.recorder.add(self.step, index, point, self.seed_of(point), outcome)
                found[index] = outcome
                if self.seconds_left() <= 0:
                    break
        if open_jobs and self.stopped is None and self.seconds_left() > CLOCK_DIFFERENCE:
            raise self._answered_wrongly(f"job {min(open_jobs)} was not answered")
        return found

    def _answered_wrongly(self, how: str) -> InputError:
        kind = type(self.dispatcher).__name__
        return InputError(f"dispatcher {kind} must answer every job of a round once, but {how}")

    def _stored(self, places: Mapping[int, Point]) -> dict[int, Outcome]:
        found: dict[int, Outcome] = {}
        if self.recorder is not None:
            for place, point in places.items():
                stored = self.recorder.find(self.step, place, point, self.seed_of(point))
                if stored is not None:
                    found[place] = stored
            self._note_time_before()
        return found

    def _note_time_before(self) -> None:
        """Count what the stored solves of this run took, at once where they ran at once."""
        before = [] if self.recorder is None else self.recorder.paid_before
        if before:
            workers = max(int(getattr(self.dispatcher, "num_workers", 1)), 1)
            self.spent_before(max(max(before), sum(before) / workers))
            before.clear()

    def _dispatched(self, jobs: Sequence[Job]) -> Iterable[tuple[int, Outcome]]:
        left = self.seconds_left()
        if left < math.inf and isinstance(self.dispatcher, KillsLate):
            return self.dispatcher.run_within(self.solve, jobs, left)
        return self.dispatcher.run(self.solve, jobs)

    def evaluate(self, points: Sequence[Point]) -> list[Evaluation]:
        """Run one round and judge it.

        Returns:
            Evaluations in the order of the points; fewer when time ran out.

        Raises:
            InputError: If the outer objective or the user's rule can never work.
            InnerSolverError: If the inner solution can never fit the outer objective, or a solve
                failed for a reason that would fail every further one.
        """
        evaluations = self.evaluate_part(points)
        if self.stopped is not None:
            raise InnerSolverError(self.stopped.error)
        return evaluations

    def evaluate_part(self, points: Sequence[Point], first: int = 0) -> list[Evaluation]:
        """Run one round, or a part of it, and judge it.

        Args:
            points: Independent points.
            first: Place of the first of them in its round; above 0 the round goes on.

        Returns:
            Evaluations in the order of the points; fewer when time ran out or a solve ended the
            run: `stopped` is then its outcome.

        Raises:
            InputError: If the outer objective or the user's rule can never work.
            InnerSolverError: If the inner solution can never fit the outer objective.
        """
        self.step += first == 0
        places = dict(enumerate(points, first))
        found = self.outcomes(places)
        evaluations = {place: self.judge(places[place], found[place]) for place in sorted(found)}
        self.remember(evaluations.values())
        judged = self.parts.judged(evaluations)
        if self.recorder is not None:
            self.recorder.judged(judged)
        return list(evaluations.values())

    def judge(self, point: Point, outcome: Outcome) -> Evaluation:
        """Check one outcome against the structure of theta and compute its loss."""
        if point.derivative is not None and point.derivative.hides_theta:
            return _with_theta_of(self._base, point, outcome)
        status, error, loss, violation = outcome.status, outcome.error, math.inf, 0.0
        theta, layout, derivative = outcome.theta, outcome.layout, outcome.derivative
        if status == "ok" and theta is not None and layout is not None:
            wanted = self._part_names()
            order = layout.order_of(wanted)
            if order is not None:
                theta, layout = theta[order], layout.reordered(wanted)
                if derivative is not None and derivative.ndim == 2:
                    derivative = derivative[order]
            must_work = self.bound is None
            status, fault, loss = self._verdict(point, theta, layout)
            error = fault or outcome.error
            if status == "ok" and self.problem.feasible:
                status, error, violation = self._violation(point, theta, layout, must_work)
        if status != "ok":
            theta, layout, derivative, loss = None, None, None, math.inf
            error = f"{error} (at {_few(self.decoded(point))})"
        is_known = outcome.worker == FREE
        facts = (outcome.seconds, outcome.cost, error, layout, derivative, violation, is_known)
        self._base = Evaluation(point, status, theta, loss, *facts)
        return self._base

    def _part_names(self) -> tuple[str, ...]:
        """The order of a dict's parts: the target's, or the one that came first."""
        if self.bound is not None:
            return self.bound.layout.names
        outer = self.problem.outer
        return outer.layout.names if isinstance(outer, SquaredError | RobustError) else ()

    def _verdict(
        self, point: Point, theta: FloatArray, layout: ThetaLayout
    ) -> tuple[Status, str, float]:
        """Status, reason and loss of a finite inner solution.

        What the user's functions raise ends the run as long as they never worked, unless it is of
        the numbers: such a solve has failed.
        """
        if fault := self._misfit(layout) or self._lacks_data(theta):
            return *fault, math.inf
        must_work = self.bound is None
        refusal = self.problem.refusal(theta, layout, point.x, must_work=must_work)
        if refusal:
            return "rejected", refusal, math.inf
        try:
            bound = self.bound or self.problem.bind(theta, layout, point.x)
            loss = bound.value(theta, point.x)
            if must_work and isinstance(bound.outer, SquaredError | RobustError):
                bound.outer.check_scale(theta)
        except WrongShapeError as error:
            return "wrong_shape", str(error), math.inf
        except Exception as error:  # noqa: BLE001 - the user's function may raise anything
            if must_work and not isinstance(error, NUMERICAL_ERRORS):
                _refuse(error)
            return "failed", f"the outer objective raised {described(error)}", math.inf
        if not math.isfinite(loss):
            return "invalid", f"the outer objective is {loss}", math.inf
        self.bound = bound
        return "ok", "", loss

    def _lacks_data(self, theta: FloatArray) -> tuple[Status, str] | None:
        """A fault where theta is NaN and the target is not."""
        places = theta == UNMEASURED
        if not places.any():
            return None
        allowed = None if self.problem.unmeasured is None else self.problem.unmeasured.is_missing
        if allowed is not None and allowed.size == places.size:
            places = places & ~allowed
        if not places.any():
            return None
        return "invalid", "the inner solution is NaN where the target has a value"

    def _violation(
        self, point: Point, theta: FloatArray, layout: ThetaLayout, must_work: bool
    ) -> tuple[Status, str, float]:
        """Status, reason and violation of constraints; a rule that never worked ends the run."""
        try:
            violation = self.problem.feasible.violation(theta, layout, point.x)
        except Exception as error:
            if must_work and not isinstance(error, NUMERICAL_ERRORS):
                raise
            return "failed", f"a constraint raised {described(error)}", 0.0
        if not math.isfinite(violation):
            return "invalid", f"a constraint is {violation}", 0.0
        return "ok", "", violation

    def _misfit(self, layout: ThetaLayout) -> tuple[Status, str] | None:
        """A fault where an inner solution is not of the structure expected."""
        fault = self._other_structure(layout)
        return ("wrong_shape", fault) if fault else None

    def _other_structure(self, layout: ThetaLayout) -> str:
        wanted, given = self.problem.expected_length, layout.describe()
        if wanted is not None and layout.size != wanted:
            return f"the inner solver returned {given}, expected_length is {wanted}"
        if self.bound is None:
            return ""
        known = self.bound.layout
        if layout.shapes != known.shapes or layout.names != known.names:
            return f"the inner solver returned {given}, but {known.describe()} before"
        conflict = layout.label_conflict(known)
        return f"the inner solution is labelled otherwise than before: {conflict}" * bool(conflict)


def _refuse(error: Exception) -> NoReturn:
    if isinstance(error, ZoBilevelError):
        raise error
    raise InputError(f"the outer objective raised {described(error)}") from error


def _with_theta_of(base: Evaluation | None, point: Point, outcome: Outcome) -> Evaluation:
    """What a point adds whose theta is that of the point before it."""
    facts = (outcome.seconds, outcome.cost)
    shared = base is not None and base.point.stream == point.stream
    if base is None or not shared or not np.array_equal(base.point.x, point.x):
        error = "the solve that it belongs to is missing"  # time ran out before
        return Evaluation(point, "failed", None, math.inf, *facts, error)
    if not base.ok:
        return Evaluation(point, base.status, None, math.inf, *facts, base.error)
    if outcome.status != "ok":
        return Evaluation(point, outcome.status, None, math.inf, *facts, outcome.error)
    derivative = outcome.derivative
    seconds, cost, theirs = outcome.seconds, outcome.cost, (derivative, base.violation)
    return Evaluation(point, "ok", base.theta, base.loss, seconds, cost, "", base.layout, *theirs)


def as_generator(
    answers: Iterable[tuple[int, Outcome]],
) -> Generator[tuple[int, Outcome], None, None]:
    """The answers of a dispatcher as something that can be closed."""
    yield from answers


def _few(phi: Mapping[str, Any]) -> str:
    shown = []
    for name, value in phi.items():
        numbers = np.asarray(value).ravel()
        more = ", ...]" if numbers.size > 3 else "]"
        shown.append(f"{name}={str(numbers[:3].tolist())[:-1]}{more}")
    return ", ".join(shown[:4]) + (", ..." if len(shown) > 4 else "")
