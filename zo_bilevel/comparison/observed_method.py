"""A method under observation, for the row it gets in a comparison."""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.comparison.rescoring import Repeats
from zo_bilevel.comparison.uncallable_solver import UncallableSolver, guarded
from zo_bilevel.methods.base import Arrivals, Method, Rounds, Search
from zo_bilevel.methods.state import Notes
from zo_bilevel.problem.constraints import FEASIBLE_VIOLATION
from zo_bilevel.problem.space import Space
from zo_bilevel.run.lifecycle import run_of
from zo_bilevel.run.result import Record, Result
from zo_bilevel.run.runs import Improvement, Run, RunStatus
from zo_bilevel.solve.evaluation import Point
from zo_bilevel.support.arrays import FloatArray

RelativeError: TypeAlias = Callable[[Mapping[str, Any]], float]


@final
class ObservedMethod(Method):
    """A method under observation: the same points, and the improvements kept.

    Use one for one run, with `observe` as the run's callback.

    Args:
        method: The method that searches.
        label: What it is called in the comparison; a store tells runs apart by it.
        relative_error: From meta-parameters to their error, where the truth is known.
        repeats: Told every loss, to see whether the inner solver repeats itself.
    """

    def __init__(
        self,
        method: Method,
        label: str,
        relative_error: RelativeError | None = None,
        repeats: Repeats | None = None,
    ) -> None:
        self.method = method
        self.label = label
        self.relative_error = relative_error
        self.repeats = repeats
        self.improvements: list[Improvement] = []
        self.points: list[FloatArray] = []
        self.last: Record | None = None
        self.failures: dict[str, int] = {}
        self._space: Space | None = None
        self._notes = Notes()
        self._asked: deque[Point] = deque()
        self._untouchable: UncallableSolver | None = None

    @property
    def uncounted(self) -> int:
        """How often the method tried to call the inner solver itself."""
        return 0 if self._untouchable is None else self._untouchable.attempts

    @property
    def violation(self) -> str:
        """Which rule the method broke, in words; empty when it broke none."""
        count = self.uncounted
        return f"called the inner solver itself {count} times, beside its budget" if count else ""

    @property
    def name(self) -> str:
        """The method's label."""
        return self.label

    @property
    def constraints(self) -> str:
        """How the method keeps constraints."""
        return self.method.constraints

    @property
    def has_steps(self) -> bool:
        """Whether the method has."""
        return self.method.has_steps

    def rounds(self, search: Search) -> Rounds:
        """The method's own rounds."""
        return self._watched(search, self.method.rounds)

    def arrivals(self, search: Search) -> Arrivals:
        """The method's own search without rounds."""
        return self._watched(search, self.method.arrivals)

    def _watched(self, search: Search, coroutine: Callable[[Search], Rounds]) -> Rounds:
        self._space, self._notes = search.space, search.notes
        problem, self._untouchable = guarded(search.problem)
        inner = coroutine(dataclasses.replace(search, problem=problem))
        try:
            points = next(inner)
            while True:
                self._asked += points
                evaluations = yield points
                points = inner.send(evaluations)
        except StopIteration as stop:
            return str(stop.value)
        finally:
            inner.close()

    def observe(self, record: Record) -> None:
        """Take note of one solve; `record`: in the order of the points asked for."""
        self.last = record
        point = self._asked_for(record)
        if record.status != "ok":
            self.failures[record.status] = self.failures.get(record.status, 0) + 1
            return
        if self._space is None or point is None:
            return
        if self.repeats is not None:
            self.repeats.add(point.x, record.loss)
        if record.violation > FEASIBLE_VIOLATION or (
            self.improvements and record.loss >= self.best_loss
        ):
            return
        phi = self._space.decode(point.x)
        single = {n: v for n, v in phi.items() if not self._space.shapes[n]}
        error = None if self.relative_error is None else float(self.relative_error(phi))
        self.improvements.append(
            Improvement(record.solve, record.round, record.seconds, record.loss, error, single)
        )
        self.points.append(point.x)

    def _asked_for(self, record: Record) -> Point | None:
        """The point of a solve; none for the loop's own, which judges the final point afresh."""
        for place, point in enumerate(self._asked):
            phi = {} if self._space is None else self._space.decode(point.x)
            if point.role == record.role and all(
                np.array_equal(value, record.phi[name]) for name, value in phi.items()
            ):
                del self._asked[place]
                return point
        return None

    @property
    def best_loss(self) -> float:
        """Lowest loss so far; infinity when there is none."""
        return self.improvements[-1].loss if self.improvements else math.inf

    def finished(self, result: Result) -> Run:
        """The row of a run that gave a result."""
        error = None if self.relative_error is None else float(self.relative_error(result.phi))
        run = run_of(result, self, self.improvements, self._notes.broken)
        return dataclasses.replace(run, phi=result.phi, relative_error=error)

    def ended(self, seed: int, status: RunStatus, error: str) -> Run:
        """The row of a run that gave no result; what it had found until then is kept."""
        last, best = self.last, self.improvements[-1] if self.improvements else None
        phi = self._space.decode(self.points[-1]) if self._space and self.points else {}
        return Run(
            method=self.label,
            seed=seed,
            status=status,
            loss=self.best_loss,
            solves=last.solve if last else 0,
            rounds=last.round if last else 0,
            seconds=last.seconds if last else 0.0,
            cost=last.cost if last else 0.0,
            stop_reason=status,
            failures=dict(self.failures),
            error=error,
            phi=phi,
            relative_error=best.relative_error if best else None,
            improvements=tuple(self.improvements),
        )
