"""Ripples of a loss: basins steeper than the loss is high further out.

A quadratic fitted in a ripple says far too much of losses some ripples away. One fitted at the
minimum of a smooth loss does not, however ill-conditioned that is. At a kink it may, and a look at
second differences tells the two apart.
"""

from itertools import pairwise
from typing import Protocol, final

import numpy as np

from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart, Known
from zo_bilevel.methods.trust_region.region_model import RegionModel
from zo_bilevel.support.arrays import FloatArray

ROUGH_RADIUS = 0.05
"""A search that is not ahead of its rival at so small a floor, or follows ripples there, ends."""
FEWEST_FAR, FAR_RADII = 5, 10.0
"""Points further out than so many trust radii tell, if they are so many."""
FEW_RIPPLES = 6.0
"""By how much the model of a descent overrates the losses around it where there are ripples."""
SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Of the way of a descent, where the loss is looked at."""
LEAST_HEIGHT = 1e-14
"""Of the losses, which a model must foresee further out to tell anything."""
SMALLEST_RISE = 1e-9
"""Of the highest that the model foresees: smaller ones are taken to be of this size."""


@final
class Ripples:
    """What one descent learns of them.

    Attributes:
        overrating: By what factor the model overrates the rise of the loss further out, in the
            median; `None` before it was looked at, and where few points tell.
        most_overrating: Beyond which the descent is in vain.
    """

    def __init__(self) -> None:
        self.overrating: float | None = None
        self.most_overrating = np.inf
        self._has_looked = False

    @property
    def are_many(self) -> bool:
        """Whether the loss around the descent's end has ripples, and so kinks tell nothing."""
        return self.overrating is not None and self.overrating > FEW_RIPPLES

    def forget(self) -> None:
        """What was seen is no ripple but a kink."""
        self.overrating = None

    @property
    def are_followed(self) -> bool:
        """Whether the descent is in vain."""
        return self.overrating is not None and self.overrating > self.most_overrating

    def look(self, model: RegionModel, known: Known, radius: float, floor: float) -> None:
        """Compare the model with what was solved on the way, once the floor is low.

        Args:
            model: Of the losses near the best point.
            known: All points of the descent.
            radius: The trust radius.
            floor: The search's.
        """
        if self._has_looked or floor > ROUGH_RADIUS:
            return
        self._has_looked = True
        centre, best = model.centre()
        rows: FloatArray = np.array([model.back @ (x - model.base) for x, _ in known])
        far = np.linalg.norm(rows - centre, axis=1) > FAR_RADII * radius
        if far.sum() < FEWEST_FAR:
            return
        foreseen = np.array([model.chosen.value_at(row) - best for row in rows[far]])
        actual = np.array([loss - best for _, loss in known])[far]
        highest = float(foreseen.max())
        if (
            not LEAST_HEIGHT * max(abs(best), float(actual.max())) < highest < np.inf
        ):  # a model that foresees no rise
            return
        foreseen, actual = foreseen / highest, np.maximum(actual / highest, SMALLEST_RISE)
        self.overrating = float(np.median(foreseen / actual))


class Descended(Protocol):
    """A descent that has ended or waits."""

    model: RegionModel


@final
class RippleLook:
    """Solves between the ends of a descent: the loss falls, and rises at most once, or has ripples.

    Args:
        part: The coordinates.
        local: The descent.

    Attributes:
        are_ripples: As long as nothing else was seen.
    """

    def __init__(self, part: ContinuousPart, local: Descended) -> None:
        self._part, self._local = part, local
        self.are_ripples, self._has_looked = True, False

    def rounds(self) -> RoundsThen[None]:
        """A few solves, once."""
        if self._has_looked:
            return
        self._has_looked = True
        start, end = self._part.known[0][0], self._local.model.x
        points = [start + share * (end - start) for share in SHARES]
        losses = yield from self._part.ask(points, "sketch")
        falls = [a is not None and b is not None and b < a for a, b in pairwise(losses)]
        self.are_ripples = falls != sorted(falls, reverse=True)
