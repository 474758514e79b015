"""The loop without rounds: a method is told each answer as it arrives, and asked for the next.

The order of arrival depends on the machine, so it is recorded: solve by solve in the store, which
a resumed run then follows. Everything else is as in the loop of rounds.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TypeAlias, final

from zo_bilevel.methods.base import Method
from zo_bilevel.methods.state import State
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.run.final_point import FinalPoint
from zo_bilevel.run.ledger import Ledger
from zo_bilevel.run.reporting import Callback
from zo_bilevel.solve.dispatch.base import Asynchronous, Dispatcher, Stream
from zo_bilevel.solve.evaluation import Evaluation, Outcome, Point, check_asked
from zo_bilevel.support.errors import InputError

_Arrival: TypeAlias = tuple[int | None, Outcome | None]


def check_asynchronous(dispatcher: Dispatcher, asynchronous: object) -> None:
    """Refuse a dispatcher of whole rounds, where none are wanted; `InputError` naming it."""
    if not isinstance(asynchronous, bool):
        raise InputError(f"asynchronous must be True or False, got {asynchronous!r}")
    if asynchronous and not isinstance(dispatcher, Asynchronous):
        raise InputError(
            f"dispatcher {type(dispatcher).__name__} runs whole rounds: asynchronous must be False"
        )


def asynchronous_loop(
    method: Method,
    state: State,
    evaluator: Evaluator,
    ledger: Ledger,
    stop_reason: Callable[[], str],
    report: Callback,
    final_point: FinalPoint,
) -> str:
    """Keep solves running until the method, a limit or a rule ends the run."""
    dispatcher = evaluator.dispatcher
    assert isinstance(dispatcher, Asynchronous)  # noqa: S101 - checked before the run
    with closing(dispatcher.stream(evaluator.solve)) as stream:
        running = _Running(evaluator, stream)
        waiting: list[Point] = []
        while True:
            if state.notes.finished:
                return state.notes.finished
            points = method.ask(state)
            check_asked(points, evaluator.problem.space.size)
            waiting += points
            final_point.keep_back(state.notes)
            running.start(waiting, ledger)
            if not running.points:
                return ledger.spent_reason() if waiting else _reason(method, state)
            evaluation = running.next()
            if evaluation is None:  # time ran out, or a solve ended the run
                return ledger.spent_reason() if evaluator.stopped else ledger.out_of_time()
            ledger.rounds += 1
            try:
                ledger.charge_all([evaluation], report)
            except StopIteration as stop:
                return str(stop) or "stopped by the callback"
            if reason := stop_reason():
                return reason
            state = method.tell(state, [evaluation])


def _reason(method: Method, state: State) -> str:
    if not state.is_over:
        raise InputError(f"{method.name} must ask for a point when none of its solves runs")
    return state.stop_reason or "the method stopped and gave no reason"


@final
class _Running:
    """The solves that have started and not arrived, by the number of their start.

    Each has one job, or as many as there are experiments; it arrives with the last of them.
    """

    def __init__(self, evaluator: Evaluator, stream: Stream) -> None:
        self._evaluator, self._stream = evaluator, stream
        self._points: dict[int, Point] = {}
        self._warm: dict[int, Any] = {}
        self._known: dict[int, Outcome] = {}
        self._jobs: dict[int, Point] = {}
        self._arrived: dict[int, dict[int, Outcome]] = {}
        self._unsent: list[int] = []
        self._sent: set[int] = set()
        self._started = 0
        self._is_cut = False

    @property
    def points(self) -> list[Point]:
        return list(self._points.values())

    def start(self, waiting: list[Point], ledger: Ledger) -> None:
        """Start as many of the points that wait as the budget allows beside those that run."""
        room = max(ledger.affordable([*self.points, *waiting]) - len(self._points), 0)
        for point in waiting[:room]:
            place = self._started
            self._points[place] = point
            self._known |= self._evaluator.known_answers({place: point})
            if place not in self._known:
                self._warm[place] = self._evaluator.nearest(point)
                jobs = self._evaluator.parts.split({place: point})
                self._jobs |= jobs
                self._unsent += jobs
            self._started += 1
        del waiting[:room]
        self._is_cut = bool(waiting)

    def next(self) -> Evaluation | None:
        """The next to arrive; none when time ran out or a solve ended the run."""
        evaluator = self._evaluator
        if self._known:
            place = min(self._known)
            outcome = self._known.pop(place)
        elif (found := self._arrival()) is not None:
            place, outcome = found
            del self._warm[place]
        else:
            return None
        evaluation = evaluator.judge(self._points.pop(place), outcome)
        evaluator.remember([evaluation])
        judged = evaluator.parts.judged({place: evaluation})
        if evaluator.recorder is not None:
            evaluator.recorder.judged(judged)
        return evaluation

    def _arrival(self) -> tuple[int, Outcome] | None:
        """Wait until all jobs of a solve are there."""
        evaluator = self._evaluator
        while True:
            evaluator.step += 1
            if self._is_cut and self._is_beyond_record():
                return None
            job, outcome = self._stored()
            if outcome is None:
                if job is None:
                    evaluator.go_on()
                job, outcome = self._solved(self._unsent if job is None else [job])
            if job is None or outcome is None:
                return None
            del self._jobs[job]
            place = job // evaluator.parts.count
            found = self._arrived.setdefault(place, {})
            found[job] = outcome
            if len(found) == evaluator.parts.count:
                return place, evaluator.parts.joined(self._arrived.pop(place))[place]

    def _is_beyond_record(self) -> bool:
        """Whether a longer run has on record an answer that this budget does not ask for."""
        recorder = self._evaluator.recorder
        job = None if recorder is None else recorder.arrival_on_record(self._evaluator.step)
        return job is not None and job >= self._started * self._evaluator.parts.count

    def _stored(self) -> _Arrival:
        evaluator = self._evaluator
        if evaluator.recorder is None:
            return None, None
        asked = {job: (point, evaluator.seed_of(point)) for job, point in self._jobs.items()}
        found = evaluator.recorder.next_arrival(evaluator.step, asked) or (None, None)
        evaluator.spent_before(sum(evaluator.recorder.paid_before) / len(asked))
        evaluator.recorder.paid_before.clear()
        if found[1] is not None and found[0] in self._unsent:
            self._unsent.remove(found[0])
        return found

    def _solved(self, wanted: Sequence[int]) -> _Arrival:
        """Start what is wanted and has not started; wait for whatever ends next."""
        evaluator = self._evaluator
        if evaluator.seconds_left() <= 0:
            return None, None
        for job in [job for job in self._unsent if job in wanted]:
            warm = self._warm[job // evaluator.parts.count]
            self._stream.submit(evaluator.job(job, self._jobs[job], warm))
            self._unsent.remove(job)
            self._sent.add(job)
        while (left := evaluator.seconds_left()) > 0 and (answer := self._stream.next(left)):
            job, outcome = answer
            if job not in self._sent:
                kind = type(evaluator.dispatcher).__name__
                raise InputError(f"dispatcher {kind} answered job {job} twice or unasked")
            self._sent.remove(job)
            if job not in self._jobs:
                continue  # the store had it meanwhile
            if outcome.status == "stopped":
                evaluator.stopped = outcome
                break
            if evaluator.recorder is not None:
                point = self._jobs[job]
                seed = evaluator.seed_of(point)
                evaluator.recorder.add(evaluator.step, job, point, seed, outcome)
            return answer
        return None, None
