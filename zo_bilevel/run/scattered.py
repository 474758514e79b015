"""Tells failures that lie here and there from those beyond an edge."""

from collections import deque
from typing import final

import numpy as np
from scipy.optimize import nnls

from zo_bilevel.support.arrays import FloatArray

MOST_PLACES = 500
REACH = 1e3
"""Good solves within so many distances of a failure from the best point tell what is around it."""
PRECISION = 1e-9


@final
class Places:
    """The last places of solves, and whether each was ok; of many parameters none are kept."""

    def __init__(self) -> None:
        self._places: deque[tuple[FloatArray, bool]] = deque(maxlen=MOST_PLACES)

    def add(self, x: FloatArray, *, is_ok: bool) -> None:
        """Take in a solve at `x`, scaled, shape `(N,)`."""
        if x.size < MOST_PLACES:
            self._places.append((x, is_ok))

    def are_scattered(self, last: int, best: FloatArray) -> bool:
        """Whether at least half of the failures of the last solves lie among good solves.

        Beyond an edge none does, as long as the points that solve are convex there.

        Args:
            last: How many solves.
            best: The best point, scaled, shape `(N,)`.
        """
        failed = [x for x, is_ok in list(self._places)[-last:] if not is_ok]
        solved = np.array([x for x, is_ok in self._places if is_ok])
        if not failed or len(solved) <= best.size:
            return False
        away = np.linalg.norm(solved - best, axis=1)
        near = (solved[away <= REACH * np.linalg.norm(x - best)] for x in failed)
        among = sum(_is_among(x, points) for x, points in zip(failed, near, strict=True))
        return 2 * among >= len(failed)


def _is_among(x: FloatArray, points: FloatArray) -> bool:
    """Whether `x` lies in the convex hull of points `(p, N)`, all directions scaled alike."""
    if len(points) <= x.size:
        return False
    ways = (points - x).T
    ways = ways / np.maximum(np.abs(ways).max(axis=1, keepdims=True), np.finfo(float).tiny)
    wanted = np.append(np.zeros(x.size), 1.0)
    try:
        _, miss = nnls(np.vstack([ways, np.ones(len(points))]), wanted)
    except RuntimeError:  # too many iterations
        return False
    return bool(miss < PRECISION)
