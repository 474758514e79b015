"""What is known of the parameters before the data, as residuals beside those of the data.

Each number with a prior adds the square of its distance from the mean, in standard deviations, to
twice the negative logarithm of the posterior: `(value - mean) / std` of a `Real`, likewise its
logarithm of a `Log`, and for a field the amplitudes of its smooth modes (`Prior.whiten`).
"""

from typing import Any, final

import numpy as np

from zo_bilevel.problem.objectives.cross_entropy import CrossEntropy
from zo_bilevel.problem.objectives.robust_error import RobustError
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.parameters import Log, Real
from zo_bilevel.problem.prior import Prior
from zo_bilevel.problem.space import Space
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError


def prior_share(outer: Any) -> float:  # noqa: ANN401 - any objective
    """By how much the squares of the prior's residuals count beside an objective.

    Twice the negative logarithm of the posterior is the sum of the squares of all residuals in
    standard deviations; a squared error is their mean. Cross-entropy is a mean of negative
    logarithms of the likelihood; any other function is taken to be their sum.

    Raises:
        InputError: If the data have no standard deviations.
    """
    if isinstance(outer, RobustError):
        outer = outer.squares
    if isinstance(outer, SquaredError):
        if not outer.is_absolute:
            raise InputError(
                "a prior needs sigma= or covariance= of the data: without their standard "
                "deviations nobody knows how much they count against it"
            )
        return 1.0 / outer.rows.size
    return 0.5 / outer.labels.size if isinstance(outer, CrossEntropy) else 0.5


@final
class PriorTerm:
    """The prior's residuals and their derivatives in the scaled vector.

    Args:
        space: At least one of its free parameters has a prior.

    Example:
        >>> from zo_bilevel.problem.parameters import Normal
        >>> term = PriorTerm(Space(a=Real(0, 6, prior=Normal(2, 0.5)), b=Real(0, 1)))
        >>> term.residuals(np.zeros(2))  # a = 3
        array([2.])
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._center, self._deviation = np.zeros(space.size), np.ones(space.size)
        is_held, fields = np.zeros(space.size, dtype=bool), []
        for block in space.blocks:
            parameter, section = block.parameter, block.section
            if isinstance(parameter, Real) and parameter.prior is not None:
                self._center[section] = parameter.prior.mean
                self._deviation[section] = parameter.prior.std
                if parameter.correlation_length is not None:
                    fields.append((section, parameter.shape, parameter.correlation_length))
            elif isinstance(parameter, Log) and parameter.prior is not None:
                self._center[section] = np.log(parameter.prior.median)
                self._deviation[section] = parameter.prior.sigma
            else:
                continue
            is_held[section] = True
        self._held = np.flatnonzero(is_held)
        self.size: int = self._held.size
        self._smooth = Prior(space.size, fields)

    def residuals(self, x: FloatArray) -> FloatArray:
        """Distances from the means in standard deviations.

        Returns:
            Shape `(k,)`, one for each number with a prior.
        """
        values = self._space.values(x)
        np.log(values, out=values, where=self._space.is_log)
        found: FloatArray = self._smooth.whiten((values - self._center) / self._deviation)
        return found[self._held]

    def tangents(self, x: FloatArray, directions: FloatArray) -> FloatArray:
        """Derivatives of the residuals along directions: shape `(k, b)`."""
        found: FloatArray = self._smooth.whiten(self._rates(x)[:, None] * directions)
        return found[self._held]

    def _rates(self, x: FloatArray) -> FloatArray:
        rates = self._space.rates(x)
        is_log = self._space.is_log
        np.divide(rates, self._space.values(x), out=rates, where=is_log)
        return rates / self._deviation

    def pulled(self, x: FloatArray, residuals: FloatArray) -> FloatArray:
        """The transpose of `tangents`: `J' r`; returns shape `(N,)` or `(N, b)`."""
        whole = np.zeros((self._space.size, *residuals.shape[1:]))
        whole[self._held] = residuals
        back: FloatArray = self._smooth.whiten(whole)  # symmetric
        rates = self._rates(x)
        return rates * back if back.ndim == 1 else rates[:, None] * back


@final
class Residuals:
    """Residuals of the data, then those of the priors; the loss is their squares over `count`."""

    def __init__(self, space: Space, objective: SquaredError) -> None:
        self.objective = objective
        self.prior = PriorTerm(space) if space.has_prior else None
        self.count = objective.rows.size
        held = 0 if self.prior is None else self.prior.size
        self.size = objective.target.size if self.is_plain else self.count + held

    @property
    def is_plain(self) -> bool:
        """Whether there are only independent data."""
        return self.prior is None and not self.objective.has_covariance

    def at(self, theta: FloatArray, x: FloatArray) -> FloatArray:
        """The residuals of the data that are there, then those of the priors."""
        return self._joined(self.objective.whiten(theta - self.objective.target), x)

    def normalised(self, theta: FloatArray, x: FloatArray) -> FloatArray:
        """The residuals scaled so that their squares add up to the loss, shape `(size,)`."""
        scaled: FloatArray
        if self.is_plain:
            roots = np.sqrt(self.objective.weights / self.size)
            scaled = roots * (theta - self.objective.target)
        else:
            scaled = self.at(theta, x) / np.sqrt(self.count)
        return scaled

    def modelled(self, theta: FloatArray, x: FloatArray) -> FloatArray:
        """The part of the residuals that changes: `at` plus `target`."""
        return self._joined(self.objective.whiten(theta), x)

    @property
    def target(self) -> FloatArray:
        """What `modelled` is compared with, shape `(size,)`."""
        target = np.zeros(self.size)
        target[: self.count] = self.objective.whiten(self.objective.target)
        return target

    def slopes(self, derivative: FloatArray, x: FloatArray, directions: FloatArray) -> FloatArray:
        """Derivatives of the residuals, shape `(size, b)`."""
        rows = self.objective.whiten(derivative)
        if self.prior is None:
            return rows
        return np.concatenate([rows, self.prior.tangents(x, directions)])

    def of_theta(self, derivative: FloatArray) -> FloatArray:
        """Derivatives of theta, `(m, b)`, from those of `modelled`; NaN where there are no data."""
        return self.objective.unwhiten(derivative[: self.count])

    def _joined(self, rows: FloatArray, x: FloatArray) -> FloatArray:
        return rows if self.prior is None else np.append(rows, self.prior.residuals(x))
