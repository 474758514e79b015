"""What follows from runs: expected running time, probability of being better, paired tests.

Sources: Hansen et al., "COCO: performance assessment" (2016, arXiv 1605.03560) for the expected
running time; Holm (1979) for several tests at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

FEWEST_SEEDS = 5
"""Below this, medians and quartiles say next to nothing."""
SIGNIFICANCE_LEVEL = 0.05
"""Differences with a smaller corrected p-value are called real."""
NUM_RESAMPLES = 4000
_SEED = 20240614


def expected_running_time(counts: Sequence[float], spent: Sequence[float]) -> float:
    """Solves until the target if the run were begun anew, from another seed, until it gets there.

    `ERT = (all solves spent before the target, of all runs) / (runs that reached it)`.

    Args:
        counts: Solves of each run to the target, infinity where it never got there.
        spent: Solves that each run spent in all.

    Returns:
        The expected running time; infinity when no run got there.

    Raises:
        InputError: If there are not as many of one as of the other.

    Example:
        >>> expected_running_time([10, math.inf, 30], [60, 50, 60])
        45.0
    """
    if len(counts) != len(spent):
        raise InputError(f"counts and spent must be as many, got {len(counts)} and {len(spent)}")
    reached = sum(math.isfinite(count) for count in counts)
    if not reached:
        return math.inf
    pairs = zip(counts, spent, strict=True)
    return sum(count if math.isfinite(count) else total for count, total in pairs) / reached


@final
@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two methods against each other, seed by seed.

    Args:
        first: Label of one.
        second: Label of the other.
        num_seeds: Seeds that both ran with.
        probability: Share of the seeds with which the first is better, ties count half.
        lower: Lower end of its 95 % interval.
        upper: Upper end.
        p_value: Of no difference, by an exact paired test; corrected where there are several.
    """

    first: str
    second: str
    num_seeds: int
    probability: float
    lower: float
    upper: float
    p_value: float

    @property
    def is_decided(self) -> bool:
        """Whether there are seeds enough and the difference is no chance."""
        return self.num_seeds >= FEWEST_SEEDS and self.p_value < SIGNIFICANCE_LEVEL


def paired_test(
    first: Sequence[float], second: Sequence[float], labels: tuple[str, str] = ("first", "second")
) -> PairedTest:
    """Compare two methods on the same seeds.

    Args:
        first: One number a seed, smaller is better, infinity allowed.
        second: The same for the other method, in the same order.
        labels: What the two are called.

    Raises:
        InputError: If there are not as many of one as of the other, or none, or one is NaN.

    Example:
        >>> found = paired_test([1.0, 2.0, 3.0], [2.0, 1.0, 3.0])
        >>> found.probability, found.p_value
        (0.5, 1.0)
    """
    one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if one.shape != other.shape or one.ndim != 1 or one.size == 0:
        raise InputError(
            f"a paired test needs as many of one as of the other, got {one.size}, {other.size}"
        )
    if np.isnan(one).any() or np.isnan(other).any():
        raise InputError("a paired test needs numbers or infinity, got NaN")
    points = np.where(one < other, 1.0, np.where(one > other, 0.0, 0.5))
    lower, upper = interval_of_share(points)
    p_value = paired_p_value(one, other)
    return PairedTest(*labels, points.size, float(points.mean()), lower, upper, p_value)


def interval_of_share(points: FloatArray) -> tuple[float, float]:
    """95 % interval of a mean of zeros, halves and ones.

    The percentile bootstrap over seeds. Where all seeds agree it has no width, whatever their
    number; the exact binomial interval (Clopper and Pearson) takes its place there.

    Args:
        points: Shape `(n,)`, each 0, 1/2 or 1.

    Example:
        >>> interval_of_share(np.ones(5))[0] > 0.47
        True
    """
    from scipy.stats import binomtest

    if (points == points[0]).all() and points[0] in (0.0, 1.0):
        exact = binomtest(int(points.sum()), points.size).proportion_ci(0.95)
        return float(exact.low), float(exact.high)
    rng = np.random.default_rng(_SEED)
    means = rng.choice(points, (NUM_RESAMPLES, points.size)).mean(axis=1)
    lower, upper = np.quantile(means, (0.025, 0.975))
    return float(lower), float(upper)


def paired_p_value(first: FloatArray, second: FloatArray) -> float:
    """Two-sided p-value of no difference: the signed-rank test on ranks over both methods.

    Losses range over many powers of ten and may be infinite, so that only their order counts.
    Signs are flipped in all ways (in 9,999 random ones beyond 13 seeds), so that few seeds and
    ties are no approximation. Without ties it is scipy's exact Wilcoxon test of those ranks.

    Args:
        first: Shape `(n,)`, infinity allowed.
        second: The same.

    Returns:
        In (0, 1]; 1 when all pairs are equal.
    """
    from scipy.stats import permutation_test, rankdata

    ranks = rankdata(np.concatenate([first, second]))
    differences = ranks[: first.size] - ranks[first.size :]
    differences = differences[differences != 0]
    if not differences.size:
        return 1.0
    signed = np.sign(differences) * rankdata(np.abs(differences))
    if signed.size == 1:
        return 1.0
    test = permutation_test(
        (signed,),
        lambda values, axis: np.sum(values, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        random_state=np.random.default_rng(_SEED),
    )
    return float(min(test.pvalue, 1.0))


def corrected(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's correction for several tests at once: in the same order, none smaller than before.

    Example:
        >>> corrected([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    found, highest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        found[index] = highest
    return tuple(found)
