"""Races: many candidates at a cheap level, the better ones at the next, the best at the full one.

Source: Jamieson, Talwalkar (2016), "Non-stochastic best arm identification"; Li et al. (2018),
"Hyperband": brackets that begin at different levels guard against cheap levels that mislead.
"""

from __future__ import annotations

import numpy as np

from zo_bilevel.methods.base import Rounds, Search
from zo_bilevel.methods.fidelity.levels import at_level, fidelity_of, full_price
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray

FACTOR = 3
"""One in so many goes on to a level that is so many times as high (Hyperband's default)."""
MOST_RUNGS = 4
"""Levels above the cheapest; more would need races of hundreds."""
SHARE_NEAR_BEST = 0.5
"""Of the candidates, drawn beside the best point; the others anywhere."""
STEP_NEAR_BEST = 0.5
"""Standard deviation of such a draw, scaled: a twelfth of the range."""
MOST_DRAWS = 50
"""In a row that give nothing new, after which every setting counts as tried."""


def race(search: Search, first: Evaluation) -> Rounds:
    """Race after race, until the budget is spent.

    Raises:
        InputError: If the solver's levels have no price.
    """
    fidelity = fidelity_of(search)
    levels = fidelity.levels(FACTOR)[-MOST_RUNGS - 1 :]
    levels = (fidelity.cheap, *levels[1:])
    (cheap,) = yield [at_level(first.point, fidelity.cheap, fidelity)]
    if cheap.ok:
        full_price(fidelity, cheap, first)
    best, bracket = first, 0
    seen = {_setting(search.space, first.point.x)}
    while True:
        lowest = bracket % (len(levels) - 1)
        count = FACTOR ** (len(levels) - 1 - lowest)
        field = _candidates(search, best.point.x, count, seen, bracket)
        if not field:
            return "every setting that could be drawn was tried at the full level"
        for rung, level in enumerate(levels[lowest:]):
            points = [search.point(x) for x in field[: max(1, count // FACTOR**rung)]]
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
