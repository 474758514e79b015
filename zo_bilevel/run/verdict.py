"""What fresh draws of the final point say of its loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from zo_bilevel.run.seen_losses import SeenLosses
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.intervals import normal_quantile, standard_error


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """The point to report and its loss.

    Args:
        evaluation: A solve of the point, for its inner solution.
        loss: Mean loss over fresh seeds, or the one loss there is.
        standard_error: Of that mean, NaN of one draw; `None` when solves are not known to be noisy.
        interval: Of 95 %, around the mean of at least two draws.
        draws: Fresh ones that the mean is of.
    """

    evaluation: Evaluation
    loss: float
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    draws: int = 0


def judged(draws: Sequence[Evaluation], losses: SeenLosses) -> Verdict | None:
    """What fresh draws of one point say; `None` when all failed.

    Args:
        draws: Of the point.
        losses: All of the run.
    """
    usable = [evaluation for evaluation in draws if evaluation.ok]
    if not usable:
        return None
    found = np.array([evaluation.loss for evaluation in usable])
    if len(found) == 1:
        return Verdict(usable[0], usable[0].loss, math.nan, None, 1)
    interval = losses.interval(found)
    loss = float(found[0]) if np.all(found == found[0]) else interval.value
    return Verdict(
        usable[0], loss, error_of(found, losses), (interval.lower, interval.upper), len(found)
    )


def error_of(draws: FloatArray, losses: SeenLosses) -> float:
    """Standard error of a mean; of draws that agree that of their interval, which may have a width.

    Args:
        draws: At least two.
        losses: All that were seen.
    """
    if np.any(draws != draws[0]):
        return standard_error(draws)
    interval = losses.interval(draws)
    return (interval.upper - interval.lower) / (2.0 * normal_quantile())
