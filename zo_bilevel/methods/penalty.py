"""Constraints for methods that know of none: no solve where one is broken, a penalty after it."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from zo_bilevel.problem.constraints import FeasibleSet
from zo_bilevel.solve.evaluation import Evaluation, Point

if TYPE_CHECKING:
    from zo_bilevel.methods.base import Rounds

PENALTY = 100.0
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
    refused, unit, ceiling = 0, 0.0, 0.0
    try:
        points = next(rounds)
        while True:
            inside = [feasible.allows(point.x) for point in points]
            asked = [point for point, kept in zip(points, inside, strict=True) if kept]
            refused = 0 if asked else refused + len(points)
            if refused > MOST_REFUSED:
                rounds.close()
                return f"constraints forbid the last {refused} points that it asked for"
            solved = iter((yield asked) if asked else [])
            told = []
            for point, kept in zip(points, inside, strict=True):
                found = next(solved) if kept else _rejected(point, feasible)
                if found.ok and not unit:
                    unit = abs(found.loss) or 1.0
                    ceiling = found.loss + unit
                if found.ok and not found.is_feasible:
                    loss = ceiling + PENALTY * unit * found.violation
                    found = dataclasses.replace(found, loss=loss)
                told.append(found)
            points = rounds.send(told)
    except StopIteration as stop:
        return str(stop.value)


def _rejected(point: Point, feasible: FeasibleSet) -> Evaluation:
    violation = float(feasible.before(point.x).max())
    why = "constraints forbid the point"
    return Evaluation(point, "rejected", None, math.inf, error=why, violation=violation)
