"""Scores on held-out examples and their differences, with confidence intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.intervals import INTERVAL_LEVEL, Interval, mean_interval

IntArray: TypeAlias = NDArray[np.int64]
NUM_RESAMPLES = 1000
Score: TypeAlias = Interval
"""A score on all examples; its interval is that of `mean_interval`, of macro-F1 by percentiles of a
bootstrap."""


@final
@dataclass(frozen=True, slots=True)
class Scores:
    """What a classifier achieves.

    Args:
        accuracy: Share of examples whose class is right.
        f1: Mean over the classes of the harmonic mean of precision and recall.
        cross_entropy: Mean negative logarithm of the probability of the right class, or `None`
            when only classes are known.
        num_examples: How many examples.
    """

    accuracy: Score
    f1: Score
    cross_entropy: Score | None
    num_examples: int


def score_logits(logits: Any, labels: Sequence[int], *, seed: int = 0) -> Scores:  # noqa: ANN401
    """Score logits.

    Args:
        logits: Shape `(examples, classes)`. Further columns beyond the classes of `labels`, for
            answers that name no class, count as wrong.
        labels: The class of each example.
        seed: Of the resampling.

    Raises:
        InputError: If shapes do not match or there is no example.

    Example:
        >>> score_logits([[2.0, 0.0], [0.0, 2.0]], [0, 1]).accuracy.value
        1.0
    """
    rows, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if rows.ndim != 2 or len(rows) != len(truth) or not len(truth):
        raise InputError(
            f"logits must be one row for each of {len(truth)} labels, got shape {rows.shape}"
        )
    shifted = rows - rows.max(axis=1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=1))
    losses = total - shifted[np.arange(len(truth)), truth]
    return _scores(rows.argmax(axis=1), truth, losses, seed)


def score_classes(predicted: Sequence[int], labels: Sequence[int], *, seed: int = 0) -> Scores:
    """Score classes alone; -1 is an answer that names none.

    Example:
        >>> score_classes([0, -1], [0, 1]).accuracy.value
        0.5
    """
    if len(predicted) != len(labels) or not len(labels):
        raise InputError(f"as many predictions as labels, got {len(predicted)} and {len(labels)}")
    return _scores(np.asarray(predicted), np.asarray(labels), None, seed)


def score_values(values: Sequence[float] | FloatArray) -> Score:
    """Mean of the scores of examples, with its 95 % interval.

    Example:
        >>> print(score_values([1.0] * 20))
        1.000 [0.839, 1.000]
    """
    found = np.asarray(values, dtype=np.float64)
    is_share = bool(np.all((found >= 0.0) & (found <= 1.0)))
    return mean_interval(found, *((0.0, 1.0) if is_share else (-math.inf, math.inf)))


def _scores(
    predicted: NDArray[Any], truth: IntArray, losses: FloatArray | None, seed: int
) -> Scores:
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    draws = rng.integers(len(truth), size=(NUM_RESAMPLES, len(truth)))
    right = (predicted == truth).astype(np.float64)
    num_classes = int(truth.max()) + 1

    def f1(rows: IntArray) -> float:
        return macro_f1(predicted[rows], truth[rows], num_classes)

    return Scores(
        mean_interval(right, 0.0, 1.0),
        _interval(f1, draws),
        None if losses is None else mean_interval(losses, -math.inf, math.inf),
        len(truth),
    )


def _interval(statistic: Callable[[IntArray], float], draws: IntArray) -> Score:
    values = [statistic(rows) for rows in draws]
    tail = 50.0 * (1.0 - INTERVAL_LEVEL)
    lower, upper = np.percentile(values, [tail, 100.0 - tail])
    return Score(statistic(np.arange(draws.shape[1])), float(lower), float(upper))


def macro_f1(predicted: NDArray[Any], truth: NDArray[Any], num_classes: int) -> float:
    """Mean F1 over the classes that occur among predictions or labels.

    Example:
        >>> round(macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1]), 2), 4)
        0.6667
    """
    found = []
    for name in range(num_classes):
        hits = int(((predicted == name) & (truth == name)).sum())
        seen = int((predicted == name).sum()) + int((truth == name).sum())
        if seen:
            found.append(2.0 * hits / seen)
    return float(np.mean(found)) if found else 0.0


@final
@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much better one prompt is than another on the same examples.

    Args:
        mean: Mean of the differences of their scores.
        lower: Lower end of its 95 % interval, as `mean_interval` has it.
        upper: Upper end.
        p_value: Of no difference, two-sided, by random changes of sign.
    """

    mean: float
    lower: float
    upper: float
    p_value: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.lower:+.3f}, {self.upper:+.3f}], p = {self.p_value:.2g}"


def paired_difference(
    first: Sequence[float] | FloatArray, second: Sequence[float] | FloatArray, *, seed: int = 0
) -> PairedDifference:
    """Compare two prompts on the same examples.

    Raises:
        InputError: If there are not as many of both, or none.

    Example:
        >>> paired_difference([1.0, 1.0, 0.0], [1.0, 0.0, 0.0]).mean == 1 / 3
        True
    """
    if len(first) != len(second) or not len(first):
        raise InputError(f"as many scores of both are needed, got {len(first)} and {len(second)}")
    scores = np.array([first, second], dtype=np.float64)
    gains = scores[0] - scores[1]
    is_share = bool(np.all((scores >= 0.0) & (scores <= 1.0)))
    interval = mean_interval(gains, *((-1.0, 1.0) if is_share else (-math.inf, math.inf)))
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    signs = rng.choice([-1.0, 1.0], size=(10 * NUM_RESAMPLES, len(gains)))
    chance = np.abs(signs @ gains) >= abs(gains.sum()) - 1e-12
    p_value = (1.0 + float(chance.sum())) / (1.0 + len(chance))
    return PairedDifference(interval.value, interval.lower, interval.upper, p_value)
