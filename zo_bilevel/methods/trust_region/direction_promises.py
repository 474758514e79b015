"""What each direction promised when it was taken up, which says what the next may promise."""

from typing import final

import numpy as np

from zo_bilevel.methods.trust_region.region_model import RegionModel

FEWEST_PROMISES = 16
"""So many directions, or 2, 4 ... times as many, show whether the first matter most."""
DECAYED_SHARE = 0.3
"""They do when the second half of them promises less than this share of what the first does."""
LATEST_DIRECTIONS = 4
"""So many tell what the next may promise."""


@final
class DirectionPromises:
    """Predicted gains along the directions, in the order in which they were taken up."""

    def __init__(self) -> None:
        self._gains: list[float] = []

    def note(self, region: RegionModel, radius: float) -> None:
        """Take in what the newest direction promises alone."""
        slope = abs(float(region.local.gradient_at(region.centre()[0])[-1]))
        unit = np.zeros(region.size)
        unit[-1] = 1.0
        curvature = float(region.local.product(unit)[-1])
        if curvature * radius < slope:
            gain = slope * radius - 0.5 * curvature * radius**2
        else:
            gain = slope**2 / (2 * curvature) if curvature > 0 else 0.0
        self._gains.append(gain)

    @property
    def latest(self) -> float:
        """What a new direction may promise; infinite before there is any."""
        return float(np.mean(self._gains[-LATEST_DIRECTIONS:])) if self._gains else np.inf

    @property
    def are_even(self) -> bool:
        """Whether the first directions matter no more than the next."""
        count = len(self._gains)
        if count < FEWEST_PROMISES:
            return False
        half = 1 << (count.bit_length() - 2)
        first = float(np.mean(self._gains[:half]))
        return float(np.mean(self._gains[half : 2 * half])) > DECAYED_SHARE * first
