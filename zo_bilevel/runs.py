"""One method on one problem with one seed: what it found, and how its best point came about."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

from zo_bilevel.evaluation import Point
from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.result import Record, Result
from zo_bilevel.space import Space
from zo_bilevel.tables import number, percent

RelativeError: TypeAlias = Callable[[Mapping[str, Any]], float]
RunStatus: TypeAlias = Literal["finished", "refused", "failed", "interrupted"]
"""`refused`: the method cannot work on this problem, or its package is not there;
`failed`: it raised, or not one solve succeeded; `interrupted`: by Ctrl-C."""
Axis: TypeAlias = Literal["solves", "rounds", "seconds"]


@final
@dataclass(frozen=True, slots=True)
class Improvement:
    """A solve that was better than all before it.

    Args:
        solve: Solves so far, this one included, from 1.
        round: Rounds so far, from 1.
        seconds: Since the start of the run.
        loss: Its loss, the lowest so far.
        relative_error: Of its meta-parameters, where the truth is known.
        values: Its meta-parameters that are single values; fields are too long to keep.
    """

    solve: int
    round: int
    seconds: float
    loss: float
    relative_error: float | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True)
class Target:
    """What counts as solved.

    A method does not see the relative error; it is that of the point of lowest loss so far.

    Args:
        quantity: What is looked at.
        level: It must be at or below this.
    """

    quantity: Literal["loss", "relative error"]
    level: float

    def is_reached(self, step: Improvement) -> bool:
        """Whether an improvement is good enough."""
        value = step.loss if self.quantity == "loss" else step.relative_error
        return value is not None and value <= self.level

    def __str__(self) -> str:
        if self.quantity == "loss":
            return f"loss {number(self.level)}"
        return f"error {percent(self.level)}"


@final
@dataclass(frozen=True, slots=True)
class Run:
    """One row of a comparison.

    Args:
        method: Label of the method in the comparison.
        seed: Seed of the run.
        status: How the run ended.
        loss: Lowest loss; infinity when there is none.
        solves: Solves spent, failed ones included.
        rounds: Rounds they were asked in.
        seconds: Wall-clock seconds.
        cost: Money spent.
        stop_reason: Why the run stopped, in words.
        failures: Solves by status, those that are not ok.
        error: Why the method refused or failed, in words; else empty.
        phi: Best meta-parameters by name.
        relative_error: Of `phi`, where the truth is known.
        improvements: The best point so far as a step function, in order.
    """

    method: str
    seed: int
    status: RunStatus = "finished"
    loss: float = math.inf
    solves: int = 0
    rounds: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    stop_reason: str = ""
    failures: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    phi: Mapping[str, Any] = field(default_factory=dict)
    relative_error: float | None = None
    improvements: tuple[Improvement, ...] = field(default=(), repr=False)

    def solves_to(self, target: Target) -> float:
        """Solves until the target was reached; infinity when it never was."""
        step = self.first_at(target)
        return math.inf if step is None else float(step.solve)

    def rounds_to(self, target: Target) -> float:
        """Rounds until the target was reached; infinity when it never was."""
        step = self.first_at(target)
        return math.inf if step is None else float(step.round)

    def first_at(self, target: Target) -> Improvement | None:
        """The improvement that reached the target, if any did."""
        return next((step for step in self.improvements if target.is_reached(step)), None)

    def curve(self, by: Axis = "solves") -> tuple[list[float], list[float]]:
        """The best loss so far as a step function.

        Args:
            by: What the steps are counted in.

        Returns:
            Positions where the loss drops, and the losses from there on; the last position is
            where the run ended.
        """
        at = {"solves": "solve", "rounds": "round", "seconds": "seconds"}[by]
        positions = [float(getattr(step, at)) for step in self.improvements]
        losses = [step.loss for step in self.improvements]
        if losses:
            positions.append(max(float(getattr(self, by)), positions[-1]))
            losses.append(losses[-1])
        return positions, losses


@final
class Traced(Method):
    """A method under observation: the same points, and the improvements kept.

    Use one for one run, with `observe` as the run's callback.

    Args:
        method: The method that searches.
        label: What it is called in the comparison; a store tells runs apart by it.
        relative_error: From meta-parameters to their error, where the truth is known.
    """

    def __init__(
        self, method: Method, label: str, relative_error: RelativeError | None = None
    ) -> None:
        self.method = method
        self.label = label
        self.relative_error = relative_error
        self.improvements: list[Improvement] = []
        self.last: Record | None = None
        self.failures: dict[str, int] = {}
        self._space: Space | None = None
        self._asked: deque[Point] = deque()

    @property
    def name(self) -> str:
        """The method's label."""
        return self.label

    def rounds(self, search: Search) -> Rounds:
        """The method's own rounds.

        Args:
            search: Handed on.

        Yields:
            The method's points.

        Returns:
            The method's reason to stop.
        """
        self._space = search.space
        inner = self.method.rounds(search)
        try:
            points = next(inner)
            while True:
                self._asked = deque(points)
                points = inner.send((yield points))
        except StopIteration as stop:
            return str(stop.value)
        finally:
            inner.close()

    def observe(self, record: Record) -> None:
        """Take note of one solve.

        Args:
            record: In the order of the points asked for.
        """
        self.last = record
        is_asked = bool(self._asked) and self._asked[0].role == record.role
        point = self._asked.popleft() if is_asked else None
        if record.status != "ok":
            self.failures[record.status] = self.failures.get(record.status, 0) + 1
            return
        if self._space is None or point is None:
            return  # the loop's own solve, which judges the final point afresh
        if self.improvements and record.loss >= self.best_loss:
            return
        phi = self._space.decode(point.x)
        single = {n: v for n, v in phi.items() if not self._space.parameters[n].shape}
        error = None if self.relative_error is None else float(self.relative_error(phi))
        self.improvements.append(
            Improvement(record.solve, record.round, record.seconds, record.loss, error, single)
        )

    @property
    def best_loss(self) -> float:
        """Lowest loss so far; infinity when there is none."""
        return self.improvements[-1].loss if self.improvements else math.inf

    def finished(self, result: Result) -> Run:
        """The row of a run that gave a result.

        Args:
            result: What the run gave.
        """
        error = None if self.relative_error is None else float(self.relative_error(result.phi))
        return Run(
            method=self.label,
            seed=result.seed,
            status="interrupted" if result.stop_reason == "interrupted" else "finished",
            loss=result.loss,
            solves=result.solves,
            rounds=result.rounds,
            seconds=result.seconds,
            cost=result.cost,
            stop_reason=result.stop_reason,
            failures=dict(result.failures),
            phi=result.phi,
            relative_error=error,
            improvements=tuple(self.improvements),
        )

    def ended(self, seed: int, status: RunStatus, error: str) -> Run:
        """The row of a run that gave no result; what it had found until then is kept.

        Args:
            seed: Seed of the run.
            status: How it ended.
            error: Why, in words.
        """
        last, best = self.last, self.improvements[-1] if self.improvements else None
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
            phi=best.values if best else {},
            relative_error=best.relative_error if best else None,
            improvements=tuple(self.improvements),
        )
