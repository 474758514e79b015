"""Where solves begin to fail, learnt from those that did: a half space around the best point."""

from __future__ import annotations

from typing import final

import numpy as np
from scipy.optimize import nnls

from zo_bilevel.support.arrays import FloatArray

REACH = 4.0
"""Points within so many radii tell of the edge; of fewer, where no plane parts them."""
HALVINGS = 4
SHARE = 0.5
"""Of the way to the plane, which touches the nearest failure, that a step may go."""
SOLVED = 1e-9


@final
class FailureEdge:
    """The plane, as far from the center as it can be, that has all nearby failures beyond it.

    Steps along the plane are free, so that a search slides along an edge of failures, whose
    direction each further failure corrects. Source of the least-norm solution: Lawson and Hanson
    (1974), "Solving Least Squares Problems", chapter 23.
    """

    def __init__(self) -> None:
        self._failed: list[FloatArray] = []

    def add(self, x: FloatArray) -> None:
        """Remember where a solve failed, scaled, shape `(N,)`."""
        self._failed.append(x)

    def plane(self, center: FloatArray, solved: FloatArray, radius: float) -> FloatArray | None:
        """`w` such that steps `s` from the center with `w . s <= 1` are on its side.

        Args:
            center: A point that solves, shape `(N,)`.
            solved: Points that solve, shape `(p, N)`.
            radius: Of the region that is of interest.

        Returns:
            Shape `(N,)`; `None` when nothing failed nearby, or no plane parts the points.
        """
        if not self._failed:
            return None
        failed, good = np.array(self._failed) - center, solved - center
        reach = REACH * radius
        for _ in range(HALVINGS):
            beyond, within = (part[np.abs(part).max(axis=1) <= reach] for part in (failed, good))
            if not len(beyond):
                return None
            found = _least(np.vstack([beyond, -within]) / reach, len(beyond))
            if found is not None:
                return found / reach
            reach *= 0.5
        return None


def _least(rows: FloatArray, count: int) -> FloatArray | None:
    """The shortest `w` with `rows w >= 1` for the first rows and `>= -1` for the others."""
    limits = np.where(np.arange(len(rows)) < count, 1.0, -1.0)
    system = np.vstack([rows.T, limits])
    aim = np.append(np.zeros(rows.shape[1]), 1.0)
    residual = system @ nnls(system, aim)[0] - aim
    if -residual[-1] < SOLVED:
        return None
    found: FloatArray = -residual[:-1] / residual[-1]
    return found
