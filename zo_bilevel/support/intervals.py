"""Intervals of means that are honest about few values: the one rule for scores and for losses.

Source: E. B. Wilson (1927), "Probable inference"; C. Clopper, E. Pearson (1934); skewness: P. Hall
(1992), "On the removal of skewness by transformation", as R. Willink (2005) uses it.
"""

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from scipy.special import betaincinv, ndtri, stdtrit

from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.tables import number

INTERVAL_LEVEL: Final = 0.95
FEW_SHARES: Final = 20
"""Of fewer values of 0 and 1 the interval is exact: Wilson's of three covers 85 % at 0.05."""
LEAST_SKEW: Final = 1e-6
"""Below it the skewness makes no difference."""


@final
@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, or another figure, and its 95 % interval.

    Args:
        value: The figure.
        lower: Lower end of the interval.
        upper: Upper end.
    """

    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


def mean_interval(
    values: FloatArray, least: float, most: float, level: float = INTERVAL_LEVEL
) -> Interval:
    """A mean and its interval, one with a width even where all values are the same.

    Wilson's for values of 0 and 1, of few the exact one; in another range Student's t, with half an
    observation added at each end of the range, and cut there; without a range `skewed_interval`.

    Args:
        values: Shape `(examples,)`, at least one.
        least: The least that a value can be, or minus infinity.
        most: The most, or infinity.
        level: How often it is to hold the true mean.

    Example:
        >>> print(mean_interval(np.zeros(20), 0.0, 1.0))
        0.000 [0.000, 0.161]
    """
    if not math.isfinite(most - least):
        return skewed_interval(values, level)
    if (least, most) == (0.0, 1.0) and np.isin(values, (0.0, 1.0)).all():
        return _share_interval(values, level)
    return _with_ends(values, (least, most), (least, most), level)


def stepped_interval(
    values: FloatArray,
    step: float,
    least: float = -math.inf,
    most: float = math.inf,
    level: float = INTERVAL_LEVEL,
) -> Interval:
    """A mean of values a step apart and its interval, where the range is not known, or wide.

    Student's t, with half an observation added one step beyond each end of what was seen.

    Args:
        values: Shape `(draws,)`, at least one.
        step: How far another value may be from these, > 0.
        least: The least that a value can be, or minus infinity.
        most: The most, or infinity.
        level: How often it is to hold the true mean.

    Example:
        >>> print(stepped_interval(np.array([0.25, 0.25, 0.25, 0.25]), 0.125, 0.0, 1.0))
        0.250 [0.161, 0.339]
    """
    ends = max(float(values.min()) - step, least), min(float(values.max()) + step, most)
    return _with_ends(values, ends, (least, most), level)


def skewed_interval(values: FloatArray, level: float = INTERVAL_LEVEL) -> Interval:
    """A mean of values that are all different, and its interval.

    Each end is the further one of Student's t and of the same corrected for the skewness of the
    values, whose interval around the mean of few values that lie far to one side is too short.

    Args:
        values: Shape `(draws,)`; of one the interval has no ends.
        level: How often it is to hold the true mean.

    Example:
        >>> print(skewed_interval(np.array([1.0, 2.0, 3.0])))
        2.000 [-0.484, 4.484]
    """
    count, mean = len(values), float(values.mean())
    if count < 2:
        return Interval(mean, -math.inf, math.inf)
    quantile = _student(level, count)
    error = standard_error(values)
    lower, upper = mean - quantile * error, mean + quantile * error
    if count > 2 and error > 0.0:
        cubes = float(((values - mean) ** 3).sum()) * count / ((count - 1) * (count - 2))
        skew = cubes / (6.0 * math.sqrt(count) * (error * math.sqrt(count)) ** 3)
        if abs(skew) > LEAST_SKEW:  # (Willink 2005, eq. 5)
            low, high = (
                (np.cbrt(1.0 + 6.0 * skew * (at - skew)) - 1.0) / (2.0 * skew)
                for at in (quantile, -quantile)
            )
            lower = min(lower, mean - float(low) * error)
            upper = max(upper, mean - float(high) * error)
    return Interval(mean, lower, upper)


def standard_error(values: FloatArray) -> float:
    """Of the mean of at least two values."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def normal_quantile(level: float = INTERVAL_LEVEL) -> float:
    """Half the width of an interval of a normal mean, in standard errors."""
    return float(ndtri(0.5 * (1.0 + level)))


def _student(level: float, count: int) -> float:
    return float(stdtrit(max(count - 1, 1), 0.5 * (1.0 + level)))


def _share_interval(values: FloatArray, level: float) -> Interval:
    count, mean = len(values), float(values.mean())
    if count < FEW_SHARES:
        ones, beyond = int(values.sum()), 0.5 * (1.0 - level)
        low = betaincinv(ones, count - ones + 1, beyond) if ones else 0.0
        high = betaincinv(ones + 1, count - ones, 1.0 - beyond) if ones < count else 1.0
        return Interval(mean, float(low), float(high))
    z = normal_quantile(level)
    weight = 1.0 + z**2 / count
    middle = (mean + 0.5 * z**2 / count) / weight
    half = z * math.sqrt(mean * (1.0 - mean) / count + 0.25 * z**2 / count**2) / weight
    return Interval(mean, min(max(middle - half, 0.0), mean), max(min(middle + half, 1.0), mean))


def _with_ends(
    values: FloatArray, ends: tuple[float, float], limits: tuple[float, float], level: float
) -> Interval:
    """Student's t with half an observation added at each of two ends, cut at the limits."""
    count, extra = len(values), np.array(ends)
    middle = float(values.sum() + 0.5 * extra.sum()) / (count + 1)
    squares = float(((values - middle) ** 2).sum() + 0.5 * ((extra - middle) ** 2).sum())
    half = _student(level, count) * math.sqrt(squares / count / (count + 1))
    lower, upper = max(middle - half, limits[0]), min(middle + half, limits[1])
    mean = float(values.mean())
    return Interval(mean, min(lower, mean), max(upper, mean))


def mean_in_words(
    mean: float, interval: tuple[float, float] | None, draws: int, digits: int = 6
) -> str:
    """A mean with what is known of it.

    Args:
        mean: Of the draws, or a value that is no mean.
        interval: Its 95 % interval, where there is one.
        draws: How many; 0 for a value that is no mean.
        digits: Significant ones of the mean.

    Example:
        >>> mean_in_words(0.5, (0.25, 0.75), 9), mean_in_words(0.5, None, 1)
        ('0.5 (95 % interval 0.25 to 0.75, 9 draws)', '0.5 (one draw)')
        >>> mean_in_words(0.5, (0.5, 0.5), 4), mean_in_words(0.5, None, 0)
        ('0.5 (the same in 4 draws)', '0.5')
    """
    shown = number(mean, digits)
    if draws == 1:
        return f"{shown} (one draw)"
    if interval is None:
        return shown
    if interval[0] == interval[1]:
        return f"{shown} (the same in {draws} draws)"
    lower, upper = (number(end, 2) for end in interval)
    return f"{shown} (95 % interval {lower} to {upper}, {draws} draws)"
