"""Where a local search has ended although its slopes say that a number without bounds lies far off.

A step is as long as its trust, and of a loss that is 1e10 times as far away as that it gains less
than rounding shows. Theta still tells: alone, a number whose theta is nearly straight in it should
move by -g / h, g its slope and h its Gauss-Newton curvature. Such steps are tried as they are. Of a
slope that rounding drowns a change by 1 is tried, then the step that theta's change there promises.
"""

import math

import numpy as np

from zo_bilevel.methods.gauss_newton.local_search import LocalSearch
from zo_bilevel.methods.gauss_newton.probing import Probing, StepPlan
from zo_bilevel.methods.gauss_newton.restarts import UNEXPLAINED_SHARE, Start
from zo_bilevel.methods.shared.whole_rounds import one_round, whole
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.problem.space import HALF_RANGE
from zo_bilevel.support.arrays import FloatArray

LOST_DIGITS, LOST_DIGITS_OF_NOISE = 1e-6, 1e-9
"""Relative resolution of a value in its coordinate, above which the answer may lie between two; and
where answers look noisy, as those of such values do."""
LEAST_PART = 1e-3
"""Of theta, that is the value's."""
DROWNED_SLOPE = 10.0
"""Of what rounding makes of a slope, up to which that is not known."""


def far_start(probing: Probing, search: LocalSearch) -> RoundsThen[tuple[Start | None, str]]:
    """Try what the slopes promise far away, each number alone, where a search has ended.

    Yields:
        Up to two rounds; none where nothing is promised.

    Returns:
        Where to begin again; else why the search cannot know that it has converged, in words.
    """
    model, outer, space = search.model, probing.outer, probing.search.space
    far: list[int] = np.flatnonzero(space.is_far[probing.is_free]).tolist()
    if search.is_solved or not far or not model.size:
        return None, ""
    names = [block.name for block in space.blocks for _ in range(block.start, block.stop)]
    names = [name for name, is_free in zip(names, probing.is_free, strict=True) if is_free]
    ways = {} if search.noise.found else _promised(probing, search, far)
    far_off = ", ".join(dict.fromkeys(names[k] for k in ways))
    obstacle = f"slopes say that the answer lies far from here along {far_off}" if ways else ""
    for _ in range(2):
        places = {k: search.state.explorer.reached(model.center, ways[k]) for k in ways}
        if not places:
            break
        plan = StepPlan(points=list(places.values()))
        found = yield from whole(probing.search, one_round(probing.points(plan)))
        thetas = probing.answers(plan, found, model.theta).thetas
        known = {k: theta for k, theta in zip(places, thetas, strict=True) if theta is not None}
        losses = {k: outer.loss(theta, places[k]) for k, theta in known.items()}
        best = min(losses, key=lambda k: losses[k], default=None)
        if best is not None and model.loss - losses[best] > _least(model.loss):
            return (places[best], known[best]), ""
        steps = {k: _step(probing, search, known[k] - model.theta) for k in known}
        ways = {k: step * ways[k] for k, step in steps.items() if step}
    lost = ", ".join(dict.fromkeys(names[k] for k in far if _is_lost(probing, search, k)))
    if lost and not obstacle:
        obstacle = f"too few digits are left of {lost} beside its start"
    return None, obstacle


def _promised(probing: Probing, search: LocalSearch, far: list[int]) -> dict[int, FloatArray]:
    """By coordinate a step of it alone that is longer than all of its range."""
    model, found = search.model, {}
    x = probing.outer.embed(model.center)
    rates = probing.search.space.rates(x)[probing.is_free]
    jacobian = model.slopes()[0]
    rounding = probing.rounding(model.theta) / search.noise.radius
    drowned = DROWNED_SLOPE * rounding * math.sqrt(model.theta.size)
    for place in far:
        slopes, unit = jacobian[:, place], np.eye(model.center.size)[place]
        is_drowned = float(np.linalg.norm(slopes)) <= drowned
        length = 1.0 / rates[place] if is_drowned else _step(probing, search, slopes, unit)
        if abs(length) > 2 * HALF_RANGE:
            found[place] = length * unit
    return found


def _is_lost(probing: Probing, search: LocalSearch, place: int) -> bool:
    """Whether a value that theta rests on is so small beside its start that its digits are few."""
    model, space = search.model, probing.search.space
    x = probing.outer.embed(model.center)
    values, rates = space.values(x)[probing.is_free], space.rates(x)[probing.is_free]
    value, begun = abs(values[place]), abs(space.values(space.middle)[probing.is_free][place])
    share = model.slopes()[0][:, place] * value / rates[place]
    rests = np.linalg.norm(share) > LEAST_PART * np.linalg.norm(model.theta)
    least = LOST_DIGITS_OF_NOISE if search.noise.found else LOST_DIGITS
    return bool(rests and value > 0.0 and np.spacing(begun) > least * value)


def _step(
    probing: Probing, search: LocalSearch, change: FloatArray, way: FloatArray | None = None
) -> float:
    """How many changes of theta, and ways in the coordinates, gain most; 0 if that is little."""
    model, outer = search.model, probing.outer
    way = np.zeros(model.center.size) if way is None else way
    in_theta, in_x = outer.gradient(model.theta, model.center)
    slope = float(in_theta @ change + in_x @ way)
    curvature = outer.curvature(model.theta, model.center, change[:, None], way[:, None])[0, 0]
    is_worth_it = curvature > 0.0 and 0.5 * slope**2 > _least(model.loss) * curvature
    return -slope / float(curvature) if is_worth_it else 0.0


def _least(loss: float) -> float:
    return UNEXPLAINED_SHARE * abs(loss)
