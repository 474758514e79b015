"""What solves have cost, and what the next ones may."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

SAFETY_FACTOR = 2.0
"""Times their mean that prices may turn out to be, where several solves run at once."""
DEVIATIONS = 3.0
"""Standard deviations above their mean that the prices of a round may add up to."""


@final
@dataclass(slots=True)
class Prices:
    """Prices seen, those of nothing apart.

    Args:
        count: How many.
        total: Their sum.
        squares: The sum of their squares.
        highest: The highest.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    highest: float = 0.0

    def see(self, price: float) -> None:
        """Take in the price of one solve, >= 0."""
        self.count += price > 0.0
        self.total += price
        self.squares += price**2
        self.highest = max(self.highest, price)

    def set_aside(self, count: int) -> float:
        """What so many solves at once may cost, by the prices seen.

        One at the highest price and the others at their mean, with a margin for how much they vary;
        and no less than twice the mean for each, as those seen may not be typical.
        """
        others, mean = count - 1, self.total / self.count
        variance = max(self.squares / self.count - mean**2, 0.0)
        margin = DEVIATIONS * math.sqrt(others * variance)
        several = SAFETY_FACTOR * mean * count if others else 0.0
        return max(self.highest + others * mean + margin, several)
