"""From points to evaluations: decode, seed, dispatch, judge."""

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Protocol, final

from zo_bilevel.estimators.derivatives import outer_part
from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.experiments import EXPERIMENT
from zo_bilevel.problem.problem import Problem
from zo_bilevel.run.experiment_parts import ExperimentParts
from zo_bilevel.run.outcome_judge import OutcomeJudge
from zo_bilevel.run.warm_starts import WarmStarts, takes_warm
from zo_bilevel.solve.dispatch.base import Dispatcher, KillsLate, OutlivesRuns, Solve
from zo_bilevel.solve.evaluation import Evaluation, Job, Outcome, Point
from zo_bilevel.solve.streams import solve_seed
from zo_bilevel.store.recorder import Recorder
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.errors import (
    InnerSolverError,
    InputError,
)

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
        go_on: Called before anything is solved that is not on the run's record.
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
        go_on: Callable[[], None] = lambda: None,
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
        self.go_on = go_on
        self.step = 0
        self.solve = Solve(
            problem.inner, outer_part(problem), problem.name, problem.version, problem.unmeasured
        )
        self.stopped: Outcome | None = None
        self._judge = OutcomeJudge(problem, self.decoded)
        self.parts = ExperimentParts(problem)
        self._decode = decode
        if recorder is not None and isinstance(dispatcher, OutlivesRuns):
            dispatcher.name_run(recorder.name)
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
        if not self._may_solve(pending):
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

    def _may_solve(self, jobs: Sequence[Job]) -> bool:
        """Whether there is anything to solve, and time for it."""
        record = () if self.recorder is None else self.recorder.on_record
        if any((self.step, job.index) not in record for job in jobs):
            self.go_on()
        return bool(jobs) and self.seconds_left() > 0

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

    @property
    def bound(self) -> BoundProblem | None:
        """The problem for the structure of theta, once that is known."""
        return self._judge.bound

    @bound.setter
    def bound(self, known: BoundProblem | None) -> None:
        self._judge.bound = known

    def judge(self, point: Point, outcome: Outcome) -> Evaluation:
        """Check one outcome against the structure of theta and compute its loss."""
        return self._judge.judge(point, outcome)


def as_generator(
    answers: Iterable[tuple[int, Outcome]],
) -> Generator[tuple[int, Outcome], None, None]:
    """The answers of a dispatcher as something that can be closed."""
    yield from answers
