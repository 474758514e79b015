"""The finite numbers that baseline libraries see: losses, residuals, and the failure rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from zo_bilevel.methods.base import Search
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import UnsupportedProblemError

LOSS_WHEN_NOTHING_SUCCEEDED = 1e10
FAILED_RESIDUALS = 2.0
"""Times the residuals of the best solve so far, of a failed one."""


def squared_error_of(search: Search, method: str) -> SquaredError:
    """The outer objective of a method that works on residuals.

    Args:
        search: What the method starts from.
        method: Its name, for the message.

    Returns:
        The objective.

    Raises:
        UnsupportedProblemError: If the problem is scalar, has another objective or constraints.
    """
    outer = search.problem.outer
    if search.problem.is_scalar:
        raise UnsupportedProblemError(f"{method} needs a vector, but the problem is scalar")
    if not isinstance(outer, SquaredError):
        raise UnsupportedProblemError(
            f"{method} needs the residuals of a SquaredError, got {type(outer).__name__}"
        )
    if search.problem.feasible:
        raise UnsupportedProblemError(f"{method} cannot keep constraints")
    return outer


@final
class FailureRule:
    """Turns evaluations into the finite numbers that libraries need.

    The rule for a failed solve, the same for all baselines: its loss is the worst one seen plus
    the spread of all seen (at least plus the worst itself; 1e10 when none succeeded yet). Its
    residuals are twice those of the best solve so far: worse, without bending a model of the
    residuals so far that the library settles where nothing is to be found.
    """

    def __init__(self) -> None:
        self._best, self._worst = np.inf, -np.inf
        self._least, self._of_best = np.inf, np.empty(0)

    def losses(self, evaluations: Sequence[Evaluation]) -> list[float]:
        """Losses of one round, finite.

        Args:
            evaluations: The round.

        Returns:
            One number each, in order.
        """
        good = [evaluation.loss for evaluation in evaluations if evaluation.ok]
        self._best, self._worst = min([self._best, *good]), max([self._worst, *good])
        failed = self._failed_loss()
        return [evaluation.loss if evaluation.ok else failed for evaluation in evaluations]

    def residuals(self, evaluations: Sequence[Evaluation], outer: SquaredError) -> list[FloatArray]:
        """`sqrt(w / m) (theta - target)` of one round: squares add up to the loss.

        Args:
            evaluations: The round.
            outer: The objective.

        Returns:
            Vectors of shape `(m,)`, in order.
        """
        scale = np.sqrt(outer.weights / outer.target.size)
        for evaluation in evaluations:
            if evaluation.theta is not None and evaluation.loss < self._least:
                self._least = evaluation.loss
                self._of_best = scale * (evaluation.theta - outer.target)
        failed = FAILED_RESIDUALS * self._of_best
        if not failed.size:
            failed = np.full(scale.size, np.sqrt(LOSS_WHEN_NOTHING_SUCCEEDED / scale.size))
        return [
            failed.copy() if e.theta is None else scale * (e.theta - outer.target)
            for e in evaluations
        ]

    def _failed_loss(self) -> float:
        if not np.isfinite(self._worst):
            return LOSS_WHEN_NOTHING_SUCCEEDED
        return self._worst + (max(self._worst - self._best, abs(self._worst)) or 1.0)
