"""Settings that a model compares: moves from good ones, and others from anywhere."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.methods.trust_region.features import Features
from zo_bilevel.support.arrays import FloatArray

MOVED_SETTINGS, FRESH_SETTINGS = 400, 100
"""Moves from the best settings, and settings drawn from anywhere, that are compared at first."""
NARROWING_ROUNDS = 3
"""Rounds of moves from the best of them."""
PARENTS = 8
"""Settings that moves start from."""
FEWEST_RANDOM_SETTINGS = 4
"""Drawn before there is a model; one more than there are features, if that is more."""
RANDOM_SHARE = 0.15
"""They are at most this share of the budget."""


@final
class Candidates:
    """Draws settings to be compared."""

    def __init__(self, features: Features, rng: np.random.Generator) -> None:
        self._features, self._rng = features, rng

    def first(self, max_solves: int | None, width: int) -> FloatArray:
        """Settings to solve before there is a model, shape `(count, d)`."""
        count = max(FEWEST_RANDOM_SETTINGS, self._features.size + 1)
        if max_solves is not None:
            count = min(count, int(RANDOM_SHARE * max_solves))
        return self._features.draw(max(1, count, width), self._rng)

    def around(self, rows: FloatArray, order: NDArray[np.intp]) -> FloatArray:
        """Moves from the first rows of an order, and rows anywhere."""
        parents = rows[order[:PARENTS]]
        picked = np.minimum(self._rng.geometric(0.4, MOVED_SETTINGS) - 1, len(parents) - 1)
        fresh = self._features.draw(FRESH_SETTINGS, self._rng)
        return np.vstack([self.moves(parents[picked]), fresh])

    def moves(self, rows: FloatArray) -> FloatArray:
        """One move from each row."""
        return self._features.moves(rows, self._rng)
