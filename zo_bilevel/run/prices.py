"""What solves have cost, by level of fidelity, and how many more a sum of money pays for."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

PRICE_SAFETY_FACTOR: Final = 2.0
"""Times their mean that prices may turn out to be, where several solves run at once."""
PRICE_DEVIATIONS: Final = 3.0
"""Standard deviations above their mean that the prices of a round may add up to."""


@dataclass(slots=True)
class _Level:
    """Solves of a level that had a price."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    highest: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def variance(self) -> float:
        return max(self.squares / self.count - self.mean**2, 0.0)


@final
class Prices:
    """Prices seen so far.

    Attributes:
        highest: Of all; 0 before the first.
    """

    __slots__ = ("_levels", "highest")

    def __init__(self) -> None:
        self.highest = 0.0
        self._levels: defaultdict[float | None, _Level] = defaultdict(_Level)

    def see(self, level: float | None, price: float) -> None:
        """Book one price; those of 0 tell nothing."""
        if price > 0.0:
            seen = self._levels[level]
            seen.count += 1
            seen.total += price
            seen.squares += price**2
            seen.highest = max(seen.highest, price)
            self.highest = max(self.highest, price)

    def payable(self, levels: Iterable[float | None], left: float) -> int:
        """How many solves of a round, from the first, may run at once on so much money.

        Of each level no more than have had a price, or one at the highest price of all. Set aside
        are the highest price of a solve that may have it and the means of the others, with a margin
        for how much they vary, and no less than twice the mean for each, as those seen may not be
        typical.
        """
        new = _Level(1, self.highest, self.highest**2, self.highest)
        dearest, means, variances, payable = new, 0.0, 0.0, 0
        asked: defaultdict[float | None, int] = defaultdict(int)
        for level in levels:
            seen = self._levels.get(level, new)
            asked[level] += 1
            means, variances = means + seen.mean, variances + seen.variance
            if payable == 0 or seen.highest > dearest.highest:
                dearest = seen
            margin = PRICE_DEVIATIONS * math.sqrt(max(variances - dearest.variance, 0.0))
            aside = dearest.highest + means - dearest.mean + margin
            if payable > 0:
                aside = max(aside, PRICE_SAFETY_FACTOR * means)
            if asked[level] > seen.count or aside > left * (1 + 1e-12):
                break
            payable += 1
        return payable
