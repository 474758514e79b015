"""Constraints for methods that know of none: no solve where one is broken, a penalty after it."""

import dataclasses
import math
from typing import final

from zo_bilevel.methods.state import Rounds
from zo_bilevel.problem.constraints import FeasibleSet
from zo_bilevel.solve.evaluation import Evaluation, Point

PENALTY_LOSSES = 100.0
"""For a violation of one scale, in sizes of the first loss: it replaces the loss, so that feasible
points are better than others, and of these those that break constraints less (Deb, 2000)."""
MOST_REFUSED = 10_000
"""Points in a row that constraints forbid after which a method is stopped."""


def penalized(rounds: Rounds, feasible: FeasibleSet) -> Rounds:
    """The rounds of a method, whose points outside are not solved but count as rejected.

    Yields:
        Those of its points that keep what is known before a solve.

    Returns:
        The method's reason, or that it asked for points outside only.
    """
    rule = _Penalty(feasible)
    try:
        points = next(rounds)
        while True:
            inside = [rule.allows(point) for point in points]
            if rule.gives_up:
                rounds.close()
                return rule.reason
            asked = [point for point, kept in zip(points, inside, strict=True) if kept]
            solved = iter((yield asked) if asked else [])
            points = rounds.send(
                [
                    rule.told(next(solved)) if kept else rule.rejected(point)
                    for point, kept in zip(points, inside, strict=True)
                ]
            )
    except StopIteration as stop:
        return str(stop.value)


def penalized_arrivals(arrivals: Rounds, feasible: FeasibleSet) -> Rounds:
    """The same for a method told each answer as it arrives: rejected ones arrive at once."""
    rule = _Penalty(feasible)
    try:
        points = next(arrivals)
        while True:
            asked: list[Point] = []
            outside: list[Point] = []
            while points or outside:
                for point in points:
                    (asked if rule.allows(point) else outside).append(point)
                if rule.gives_up:
                    arrivals.close()
                    return rule.reason
                points = arrivals.send([rule.rejected(outside.pop(0))]) if outside else []
            points = arrivals.send([rule.told(found) for found in (yield asked)])
    except StopIteration as stop:
        return str(stop.value)


@final
class _Penalty:
    """What a method is told of points that break constraints."""

    def __init__(self, feasible: FeasibleSet) -> None:
        self._feasible, self._refused = feasible, 0
        self._unit = self._ceiling = 0.0

    def allows(self, point: Point) -> bool:
        """Whether a solve may be spent there."""
        kept = self._feasible.allows(point.x)
        self._refused = 0 if kept else self._refused + 1
        return kept

    @property
    def gives_up(self) -> bool:
        return self._refused > MOST_REFUSED

    @property
    def reason(self) -> str:
        return f"constraints forbid the last {self._refused} points that it asked for"

    def told(self, found: Evaluation) -> Evaluation:
        """A solve, its loss replaced where it breaks a constraint."""
        if found.ok and not self._unit:
            self._unit = abs(found.loss) or 1.0
            self._ceiling = found.loss + self._unit
        if not found.ok or found.is_feasible:
            return found
        loss = self._ceiling + PENALTY_LOSSES * self._unit * found.violation
        return dataclasses.replace(found, loss=loss)

    def rejected(self, point: Point) -> Evaluation:
        """A point outside, unsolved."""
        violation = float(self._feasible.before(point.x).max())
        why = "constraints forbid the point"
        return Evaluation(point, "rejected", None, math.inf, error=why, violation=violation)
