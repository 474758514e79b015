"""What the losses of a run tell of the noise: whether it repeats itself, and how its values lie."""

import math
from collections.abc import Sequence
from typing import Final, final

import numpy as np

from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.intervals import (
    INTERVAL_LEVEL,
    Interval,
    mean_interval,
    skewed_interval,
    stepped_interval,
)

FEW_VALUES_SHARE: Final = 0.5
"""Of the draws: with no more different values than that, losses take few values."""
SAME_VALUE: Final = 1e-12
"""Values closer together, of the largest, are one value."""


@final
class SeenLosses:
    """The losses of solves that were ok, and whether one point gave two."""

    def __init__(self) -> None:
        self._values: set[float] = set()
        self._first: dict[tuple[int, float | None], tuple[tuple[int, ...], float]] = {}
        self._count = self._agreeing = 0
        self._differ = False

    def see(self, evaluation: Evaluation, x: FloatArray) -> None:
        """Take note of a solve; `x`: its point, with integers and choices rounded."""
        if not evaluation.ok or not math.isfinite(evaluation.loss):
            return
        point, loss = evaluation.point, evaluation.loss
        self._values.add(loss)
        self._count += 1
        stream, before = self._first.setdefault(
            (hash(x.tobytes()), point.level), (point.stream, loss)
        )
        self._differ = self._differ or before != loss
        self._agreeing += stream != point.stream

    def look_at(self, losses: Sequence[float]) -> None:
        """Take note of losses of which nothing else is known."""
        self._values.update(loss for loss in losses if math.isfinite(loss))
        self._count += len(losses)

    @property
    def may_differ(self) -> bool:
        """Whether another seed may change a loss, for all that is known.

        Either one point gave two losses, or losses take few values, as 0 and 1, and then solves
        that agree show little: at the best point the other value may be rare.
        """
        return self._differ or self._are_few

    @property
    def seem_exact(self) -> bool:
        """Whether solves of one point on several seeds agree, and nothing says they might not."""
        return self._agreeing > 1 and not self.may_differ

    @property
    def _are_few(self) -> bool:
        fresh = self._count if self._differ else len(self._first) or self._count
        return len(self._values) <= max(FEW_VALUES_SHARE * fresh, 1)

    def interval(self, draws: FloatArray, level: float = INTERVAL_LEVEL) -> Interval:
        """The mean of fresh draws of one point, and its interval.

        Args:
            draws: Shape `(draws,)`, seen like all others.
            level: How often it is to hold the true mean.
        """
        if not self.may_differ and _all_same(draws):
            return Interval(float(draws[0]), float(draws[0]), float(draws[0]))
        values = np.array([*self._values, *draws])
        if np.isin(values, (0.0, 1.0)).all():
            return mean_interval(draws, 0.0, 1.0, level)
        if not self._are_few and not _all_same(draws):
            return skewed_interval(draws, level)
        is_share = bool(np.all((values >= 0.0) & (values <= 1.0)))
        limits = (0.0, 1.0) if is_share else (-math.inf, math.inf)
        return stepped_interval(draws, self._step(draws), *limits, level)

    def difference(self, draws: FloatArray, level: float) -> Interval:
        """The mean of differences between draws of two points on common seeds."""
        if self._are_few:
            return stepped_interval(draws, self._step(draws), level=level)
        return skewed_interval(draws, level)

    def _step(self, draws: FloatArray) -> float:
        """How far the next value may lie from these: the typical gap, or where values are many."""
        values = np.unique([*self._values, *draws])
        least = SAME_VALUE * float(np.abs(values).max())
        if self._are_few:
            gaps = np.diff(values)
            gaps = gaps[gaps > least]
            return float(np.median(gaps)) if len(gaps) else max(float(np.abs(values).max()), 1.0)
        return max(float(np.median(np.abs(values - draws[0]))), least)


def _all_same(draws: FloatArray) -> bool:
    return bool(np.all(draws == draws[0]))
