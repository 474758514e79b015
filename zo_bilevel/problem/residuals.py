"""What a squared error and the priors measure, as one vector of standard deviations."""

from __future__ import annotations

from typing import final

import numpy as np

from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.prior_term import PriorTerm
from zo_bilevel.problem.space import Space
from zo_bilevel.support.arrays import FloatArray


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
        """The residuals of the data that are there, then those of the priors.

        Args:
            theta: Flat inner solution, shape `(m,)`.
            x: Where it was solved, scaled, shape `(N,)`.
        """
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
        """Derivatives of the residuals, shape `(size, b)`.

        Args:
            derivative: Of theta along the directions, shape `(m, b)`.
            x: Where, scaled, shape `(N,)`.
            directions: Shape `(N, b)`.
        """
        rows = self.objective.whiten(derivative)
        if self.prior is None:
            return rows
        return np.concatenate([rows, self.prior.tangents(x, directions)])

    def of_theta(self, derivative: FloatArray) -> FloatArray:
        """Derivatives of theta, `(m, b)`, from those of `modelled`; NaN where there are no data."""
        return self.objective.unwhiten(derivative[: self.count])

    def _joined(self, rows: FloatArray, x: FloatArray) -> FloatArray:
        return rows if self.prior is None else np.append(rows, self.prior.residuals(x))
