"""Tells answers that jump from answers that bend: the vertex of a program, a count, a class."""

from collections.abc import Sequence
from typing import final

import numpy as np

from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray

LONGEST_STILL, SHORTEST_MOVED = 5e-3, 0.1
"""Scaled lengths: an answer that is the same to the last bit after the one and moves before the
other has jumped."""
LEAST_COSINE = 0.99
"""Of two displacements along one direction."""


@final
class DiscontinuityError(Exception):
    """Raised inside a search whose answers jump."""

    def __init__(self, best: Evaluation) -> None:
        super().__init__("the inner solution jumps: its differences say nothing")
        self.best = best


@final
class DiscontinuityDetector:
    """Watches the first differences of a search."""

    def __init__(self, first: Evaluation) -> None:
        self._first = first
        self._still: FloatArray | None = None
        self._is_open = True

    def sees_jump(self, evaluations: Sequence[Evaluation]) -> bool:
        """Whether the inner solution jumps.

        Returns:
            True when a difference moved nothing at all, and a much longer one along the same
            direction moved something; never once a shorter one has moved something.
        """
        for evaluation in evaluations:
            theta, start = evaluation.theta, self._first.theta
            is_difference = self._is_open and evaluation.point.role == "sketch"
            if is_difference and theta is not None and start is not None:
                way = evaluation.point.x - self._first.point.x
                if np.array_equal(theta, start):
                    self._still = way if np.linalg.norm(way) >= LONGEST_STILL else self._still
                elif self._still is not None and _is_same_way(way, self._still):
                    return True
                else:
                    self._is_open = False
        return False


def _is_same_way(way: FloatArray, other: FloatArray) -> bool:
    length = float(np.linalg.norm(way))
    cosine = abs(float(way @ other)) / (length * float(np.linalg.norm(other)))
    return length >= SHORTEST_MOVED and cosine > LEAST_COSINE
