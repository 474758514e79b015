"""Past kinks: what follows where a trust region foresees too little of its steps.

The second difference of a smooth loss is 64 times smaller at an eighth of the distance, that of a
kink 8 times, that of a jump not at all. Four solves along a random way through the best point tell.
"""

from collections.abc import Iterator
from typing import final

import numpy as np

from zo_bilevel.methods.shared.endings import UNFORESEEN
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart, LocalSearch
from zo_bilevel.methods.trust_region.kinked_descent import KinkedDescent
from zo_bilevel.methods.trust_region.region_search import RegionSearch
from zo_bilevel.methods.trust_region.ripples import RippleLook
from zo_bilevel.methods.trust_region.turns import Paused
from zo_bilevel.support.arrays import FloatArray

FLOORS = 10.0
"""Distance of the look, in floors of the trust radius: the kink lies within a floor or so."""
CLOSER = 8.0
LEAST_GROWTH, MOST_GROWTH = 2.5, 20.0
"""Of the second difference over the squared distance; 1 of what is smooth, 8 of a kink, 64 of a
jump."""
LEAST_DIFFERENCE = 1e-13
"""Share of the loss below which a second difference is rounding."""
SPARE_PLANES = 4
"""A turn pays for so many planes beside one for each parameter: fewer make no corner."""
KINKED = "the loss has kinks there"


def past_kinks(
    part: ContinuousPart, local: RegionSearch, rng: np.random.Generator
) -> Iterator[LocalSearch]:
    """A trust region; where kinks keep it from foreseeing its steps, a descent over these as well.

    What was found where it ends is told to the part, if that is the best point so far.
    """
    region, foresight, doubt, before = local.model, local.foresight, "", part.best.loss
    foresight.may_pause = True
    yield local
    across = RippleLook(part, local)
    if local.ripples.are_followed:
        yield across
        if across.are_ripples:
            return
        local.ripples.forget()
        yield local
    while foresight.is_in_doubt:
        look = KinkLook(part, region.x, region.value, FLOORS * local.floor, rng)
        yield look
        foresight.is_in_doubt, doubt = False, look.doubt
        if look.is_kink and local.ripples.are_many:
            yield across
        if look.is_kink and not (local.ripples.are_many and across.are_ripples):
            foresight.may_pause = False
            kinked = KinkedDescent(part, region.x, region.value, rng, look.distance)
            yield from _in_turns(part, local, kinked)
            break
        yield local
    else:
        doubt = doubt if foresight.is_poor else ""
    if part.best.loss < before or part.doubt is None:
        part.doubt = doubt


def _in_turns(
    part: ContinuousPart, local: RegionSearch, kinked: KinkedDescent
) -> Iterator[LocalSearch]:
    """Whichever gained more in its last turn goes on, from the better point of both.

    Args:
        part: Their coordinates.
        local: The trust region.
        kinked: It has the first turn; the trust region is taken to have gained as its last steps.
    """
    region, both = local.model, (Paused(local, part), Paused(kinked, part))
    solves = (len(part.start) + SPARE_PLANES) * (len(part.start) + 2)
    gains, kind = [local.foresight.gain * solves, np.inf], 1
    while not (both[0].has_ended or both[1].has_ended):
        before = min(region.value, kinked.value)
        yield both[kind].until(part.solves + solves)
        gains[kind] = before - min(region.value, kinked.value)
        if kinked.value < region.value:
            region.learn_at(kinked.x, kinked.value, local.radius)
        else:
            kinked.take(region.x, region.value)
        kind = int(gains[1] > gains[0]) if gains[0] != gains[1] else 1 - kind
    yield both[0 if both[1].has_ended and gains[1] == 0.0 else 1].until(np.inf)


@final
class KinkLook:
    """Second differences at two distances.

    Attributes:
        x: The point, shape `(N,)`.
        distance: The larger one, scaled.
        growth: Of the second difference over the squared distance, from there to the smaller one;
            NaN where solves fail or rounding hides it.
    """

    def __init__(
        self,
        part: ContinuousPart,
        x: FloatArray,
        value: float,
        distance: float,
        rng: np.random.Generator,
    ) -> None:
        self._part, self.x, self._value, self.distance = part, x, value, distance
        self._rng, self.growth = rng, np.nan

    @property
    def is_kink(self) -> bool:
        """Whether the loss is bent at the point, and does not jump."""
        return LEAST_GROWTH < self.growth < MOST_GROWTH

    @property
    def doubt(self) -> str:
        """What speaks against a minimum that is known by its slopes, in words."""
        if self.is_kink:
            return KINKED
        return "" if self.growth <= LEAST_GROWTH else UNFORESEEN

    def rounds(self) -> RoundsThen[None]:
        """Two pairs, along what has room on both sides."""
        low, high = self._part.box
        has_room = np.minimum(self.x - low, high - self.x) >= self.distance
        if not has_room.any():
            return
        way = np.where(has_room, self._rng.standard_normal(self.x.size), 0.0)
        way *= self.distance / float(np.linalg.norm(way))
        moves = [way, -way, way / CLOSER, -way / CLOSER]
        losses = yield from self._part.ask([self.x + move for move in moves], "sketch")
        values = [np.nan if loss is None else loss for loss in losses]
        far, near = (sum(pair) - 2.0 * self._value for pair in (values[:2], values[2:]))
        if abs(near) > LEAST_DIFFERENCE * max(abs(self._value), *map(abs, values)) and far != 0.0:
            self.growth = CLOSER**2 * near / far
