"""What baseline libraries cannot see, refused by name, and the finite numbers that they see."""

from collections.abc import Sequence
from typing import final

import numpy as np

from zo_bilevel.methods.base import Search
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.prior_term import Residuals
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import UnsupportedProblemError

LOSS_WHEN_NOTHING_SUCCEEDED = 1e10
FAILED_RESIDUALS = 2.0
"""Times the residuals of the best solve so far, of a failed one."""


def residuals_of(search: Search, method: str) -> Residuals:
    """What a method that works on residuals sees of the problem.

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
    return Residuals(search.space, outer)


def refuse_discrete(search: Search, label: str, reason: str, *, only_choices: bool = False) -> None:
    """Refuse integers and choices, or choices alone, with how many coordinates they are."""
    space = search.space
    found = int((space.is_choice if only_choices else space.discrete).sum())
    if found:
        kinds = "choices" if only_choices else "integers or choices"
        raise UnsupportedProblemError(
            f"{label} {reason}, but {found} of {space.size} coordinates are {kinds}"
        )


def refuse_many_solves(search: Search, label: str, limit: int) -> None:
    """Refuse more solves than a Gaussian process on all of them can carry."""
    if search.max_solves is not None and search.max_solves > limit:
        raise UnsupportedProblemError(
            f"{label} fits a Gaussian process to all solves, at a cost of their cube: max_solves "
            f"must be <= {limit}, got {search.max_solves}"
        )


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
        """Losses of one round, finite: one number each, in order."""
        good = [evaluation.loss for evaluation in evaluations if evaluation.ok]
        self._best, self._worst = min([self._best, *good]), max([self._worst, *good])
        failed = self._failed_loss()
        return [evaluation.loss if evaluation.ok else failed for evaluation in evaluations]

    def residuals(
        self, evaluations: Sequence[Evaluation], residuals: Residuals
    ) -> list[FloatArray]:
        """Residuals of one round, scaled so that their squares add up to the loss."""
        found = [
            None if e.theta is None else residuals.normalised(e.theta, e.point.x)
            for e in evaluations
        ]
        for evaluation, vector in zip(evaluations, found, strict=True):
            if vector is not None and evaluation.loss < self._least:
                self._least, self._of_best = evaluation.loss, vector
        failed = FAILED_RESIDUALS * self._of_best
        if not failed.size:
            size = residuals.size
            failed = np.full(size, np.sqrt(LOSS_WHEN_NOTHING_SUCCEEDED / size))
        return [failed.copy() if vector is None else vector for vector in found]

    def _failed_loss(self) -> float:
        if not np.isfinite(self._worst):
            return LOSS_WHEN_NOTHING_SUCCEEDED
        return self._worst + (max(self._worst - self._best, abs(self._worst)) or 1.0)
