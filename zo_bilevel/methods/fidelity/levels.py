"""Points below the full level, and what they must cost."""

from __future__ import annotations

import dataclasses

from zo_bilevel.methods.base import Search
from zo_bilevel.problem.fidelity import Fidelity
from zo_bilevel.solve.evaluation import CHEAP_ROLE, Evaluation, Point
from zo_bilevel.support.errors import InputError


def fidelity_of(search: Search) -> Fidelity:
    """The fidelity of a problem that has one."""
    assert search.problem.fidelity is not None  # noqa: S101 - the caller has asked
    return search.problem.fidelity


def at_level(point: Point, level: float, fidelity: Fidelity) -> Point:
    """The same point at another level."""
    if level >= fidelity.full:
        return point
    return dataclasses.replace(point, level=level, role=CHEAP_ROLE)


def full_price(fidelity: Fidelity, cheap: Evaluation, full: Evaluation) -> float:
    """What a full solve costs; where that one was known, as much more as its level is higher.

    A solver whose levels have no price is refused: nothing could be saved by them.

    Raises:
        InputError: If a price is missing, or the cheap level costs more.
    """
    if full.is_known and cheap.cost > 0.0:
        return cheap.cost * fidelity.full / fidelity.cheap
    if min(cheap.cost, full.cost) <= 0.0:
        raise InputError(
            f"fidelity {fidelity.name!r} needs the price of each solve: return "
            f"zb.WithCost(theta, cost), got a cost of {cheap.cost:g} at {fidelity.cheap} and of "
            f"{full.cost:g} at {fidelity.full}"
        )
    if cheap.cost >= full.cost:
        raise InputError(
            f"fidelity {fidelity.name!r} must cost less at {fidelity.cheap} than at "
            f"{fidelity.full}, got {cheap.cost:g} and {full.cost:g}"
        )
    return full.cost
