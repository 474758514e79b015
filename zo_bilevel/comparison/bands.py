"""Median and quartiles of many runs as one curve."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np

from zo_bilevel.comparison.summaries import quantile
from zo_bilevel.run.runs import Axis, Improvement, Run
from zo_bilevel.support.arrays import FloatArray

Quantity: TypeAlias = Callable[[Improvement], float]
MOST_POSITIONS = 160
"""A curve on a screen has no more corners than that."""


@final
@dataclass(frozen=True, slots=True)
class Band:
    """Median and quartiles over runs as step functions.

    Args:
        positions: Where they change, shape `(n,)`, ascending.
        lower: First quartile from there on; NaN while fewer than that share have a value.
        median: Median.
        upper: Third quartile.
    """

    positions: FloatArray
    lower: FloatArray
    median: FloatArray
    upper: FloatArray


def band(runs: Sequence[Run], by: Axis, quantity: Quantity) -> Band | None:
    """Median and quartiles of a quantity of the best point so far.

    Args:
        runs: Runs of one method; one that has not found anything yet counts as infinity.
        by: What positions are counted in.
        quantity: What to read off an improvement.

    Returns:
        The band up to the end of the longest run, or `None` when no run found anything.
    """
    if not any(run.improvements for run in runs):
        return None
    positions = _positions(runs, by)
    table = np.stack([values_at(run, by, positions, quantity) for run in runs])
    lower, median, upper = (column_quantile(table, share) for share in (0.25, 0.5, 0.75))
    return Band(positions, lower, median, upper)


def _positions(runs: Sequence[Run], by: Axis) -> FloatArray:
    found = {step.at(by) for run in runs for step in run.improvements}
    found.add(max(float(getattr(run, by)) for run in runs))
    positions = np.array(sorted(found))
    if positions.size <= MOST_POSITIONS:
        return positions
    first = max(positions[0], 1e-6)
    wanted = np.geomspace(first, positions[-1], MOST_POSITIONS)
    places = np.unique(np.searchsorted(positions, wanted).clip(0, positions.size - 1))
    thinned: FloatArray = positions[places]
    return thinned


def values_at(run: Run, by: Axis, positions: FloatArray, quantity: Quantity) -> FloatArray:
    """The step function of one run: shape `(n,)`; infinity before its first improvement."""
    at = np.array([step.at(by) for step in run.improvements])
    values = np.array([math.inf, *(quantity(step) for step in run.improvements)])
    found: FloatArray = values[np.searchsorted(at, positions, side="right")]
    return found


def column_quantile(table: FloatArray, share: float) -> FloatArray:
    """Quantile of each column by linear interpolation, where infinity is a value like others.

    Args:
        table: Shape `(runs, n)`.
        share: In [0, 1].

    Returns:
        Shape `(n,)`; NaN where an infinite value has a part in it.
    """
    found = np.array([quantile(column, share) for column in table.T])
    return np.where(np.isfinite(found), found, np.nan)
