"""Local searches one after the other: the start's, then those of restarts while loss is left."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias

from zo_bilevel.methods.gauss_newton.explorer import Directions, Explorer
from zo_bilevel.methods.gauss_newton.local_search import LocalSearch
from zo_bilevel.methods.gauss_newton.outer_model import OuterModel
from zo_bilevel.methods.gauss_newton.restarts import Restarts, Start
from zo_bilevel.methods.gauss_newton.step_plan import Answers, Plan
from zo_bilevel.support.arrays import FloatArray

Bounds: TypeAlias = tuple[FloatArray, FloatArray]


def descents(
    outer: OuterModel,
    start: Start,
    bounds: Bounds,
    directions: Directions,
    *,
    seed: int,
    width: int,
    may_restart: bool,
) -> Generator[Plan, Answers, FloatArray]:
    """Ask for rounds until nothing is left to gain.

    Args:
        outer: The outer objective of the modelled vector.
        start: Where to begin, shape `(N,)`, and the modelled vector there.
        bounds: Lower and upper.
        directions: Makes the directions to explore, the most promising first.
        seed: Of the restarts.
        width: How many solves may run at once at no extra cost.
        may_restart: Whether to look elsewhere when loss is left.

    Yields:
        Plans; receives their answers.

    Returns:
        The best center found.
    """
    restarts = Restarts(*bounds, seed, width)
    best: LocalSearch | None = None
    following: Start | None = start
    while following is not None:
        search = LocalSearch(outer, *following, Explorer(*bounds, directions), width)
        yield from search.run(may_give_up=may_restart and restarts.cheap)
        restarts.remember(search.center)
        best = search if best is None or search.loss < best.loss else best
        if not restarts.cheap and not best.is_finished:
            yield from best.run(may_give_up=False)
        if not may_restart or not restarts.worth_it(best.loss, best.theta):
            break
        following = yield from restarts.next_start(outer)
    return start[0] if best is None else best.center
