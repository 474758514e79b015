"""Levels of fidelity: what points below the full one must cost, and races from level to level.

Many candidates at a cheap level, the better ones at the next, the best at the full one.

Source: Jamieson, Talwalkar (2016), "Non-stochastic best arm identification"; Li et al. (2018),
"Hyperband": brackets that begin at different levels guard against cheap levels that mislead.
"""

import dataclasses

import numpy as np

from zo_bilevel.methods.base import Rounds, Search
from zo_bilevel.problem.fidelity import Fidelity
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.evaluation import CHEAP_ROLE, Evaluation, Point
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

RUNG_FACTOR = 3
"""One in so many goes on to a level that is so many times as high (Hyperband's default)."""
MOST_RUNGS = 4
"""Levels above the cheapest; more would need races of hundreds."""
SHARE_NEAR_BEST = 0.5
"""Of the candidates, drawn beside the best point; the others anywhere."""
STEP_NEAR_BEST = 0.5
"""Standard deviation of such a draw, scaled: a twelfth of the range."""
MOST_DRAWS = 50
"""In a row that give nothing new, after which every setting counts as tried."""


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


def race(search: Search, first: Evaluation) -> Rounds:
    """Race after race, until the budget is spent."""
    fidelity = fidelity_of(search)
    levels = fidelity.levels(RUNG_FACTOR)[-MOST_RUNGS - 1 :]
    levels = (fidelity.cheap, *levels[1:])
    (cheap,) = yield [at_level(first.point, fidelity.cheap, fidelity)]
    if cheap.ok:
        full_price(fidelity, cheap, first)
    best, bracket = first, 0
    seen = {_setting(search.space, first.point.x)}
    while True:
        lowest = bracket % (len(levels) - 1)
        count = RUNG_FACTOR ** (len(levels) - 1 - lowest)
        field = _candidates(search, best.point.x, count, seen, bracket)
        if not field:
            return "every setting that could be drawn was tried at the full level"
        for rung, level in enumerate(levels[lowest:]):
            points = [search.point(x) for x in field[: max(1, count // RUNG_FACTOR**rung)]]
            if not points:
                break
            solved = yield [at_level(point, level, fidelity) for point in points]
            usable = sorted((e for e in solved if e.ok), key=lambda e: e.loss)
            field = [evaluation.point.x for evaluation in usable]
            done = solved if level >= fidelity.full else [e for e in solved if not e.ok]
            seen |= {_setting(search.space, evaluation.point.x) for evaluation in done}
            if level >= fidelity.full:
                best = min([best, *usable], key=lambda e: e.loss)
        bracket += 1


def _candidates(
    search: Search, best: FloatArray, count: int, seen: set[bytes], bracket: int
) -> list[FloatArray]:
    """New settings: some beside the best one, the others anywhere."""
    space, rng = search.space, search.rng(5, bracket)
    found: dict[bytes, FloatArray] = {}
    idle = 0
    while len(found) < count and idle < MOST_DRAWS:
        is_near = len(found) < SHARE_NEAR_BEST * count and bracket > 0
        x = _near(space, best, rng) if is_near else rng.uniform(*space.likely)
        setting = _setting(space, x)
        is_new = setting not in seen and setting not in found
        idle = 0 if is_new else idle + 1
        if is_new:
            found[setting] = x
    return list(found.values())


def _near(space: Space, best: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Reals moved a little, and on average one integer or choice drawn anew."""
    anew = rng.uniform(*space.likely)
    moved = np.clip(
        best + STEP_NEAR_BEST * rng.standard_normal(space.size), space.lower, space.upper
    )
    x: FloatArray = np.where(space.discrete, best, moved)
    blocks = [block for block in space.blocks if space.discrete[block.start]]
    for block in blocks:
        if rng.random() < 1.0 / len(blocks):
            x[block.start : block.stop] = anew[block.start : block.stop]
    return x


def _setting(space: Space, x: FloatArray) -> bytes:
    """What tells two points apart that the solver can tell apart."""
    return space.encode(space.decode(x)).tobytes()
