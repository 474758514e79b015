"""Weighted mean squared error against a target."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from zo_bilevel.problem.objectives.base import OuterContext
from zo_bilevel.problem.theta import ThetaLayout, flatten_theta
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError


@final
class SquaredError:
    """Weighted mean squared difference between the inner solution and a target.

    `loss = mean(weights * (theta - target)**2)`

    Args:
        target: Number, array or dict of arrays, of the inner solution's structure; finite.
        weights: The same structure, or one number; finite and >= 0. Default 1.

    Raises:
        InputError: If the target is empty or not finite, or a weight is negative.

    Example:
        >>> objective = SquaredError([1.0, 2.0], weights=[1.0, 0.5])
        >>> objective.loss(np.array([0.0, 0.0]))
        1.5
    """

    is_vector = True

    def __init__(self, target: Any, weights: Any = None) -> None:  # noqa: ANN401 - number to dict
        try:
            self.target, self.layout = flatten_theta(target)
        except (TypeError, ValueError) as error:
            raise InputError(f"target must be numbers, got {target!r} ({error})") from error
        bad = np.flatnonzero(~np.isfinite(self.target))
        if bad.size:
            raise InputError(
                f"target must be finite, got {self.target[bad[0]]} at position {bad[0]} "
                f"({bad.size} of {self.target.size} values)"
            )
        self.target = self.target.copy()
        self.target.flags.writeable = False
        self.weights = self._flat_weights(weights)
        self._scaled = self.weights * (1.0 / self.target.size)

    def _flat_weights(self, weights: Any) -> FloatArray:  # noqa: ANN401 - number to dict
        if weights is None:
            return np.ones(self.target.size)
        flat, _ = flatten_theta(weights)
        if flat.size == 1:
            flat = np.full(self.target.size, flat[0])
        if flat.size != self.target.size:
            raise InputError(
                f"weights must have as many values as target ({self.target.size}), got {flat.size}"
            )
        if not (np.isfinite(flat).all() and (flat >= 0).all() and flat.any()):
            raise InputError("weights must be finite, >= 0 and not all 0, got " + repr(weights))
        return flat

    def check(self, layout: ThetaLayout) -> None:
        """Refuse an inner solution that does not fit the target.

        Raises:
            InnerSolverError: Naming both shapes.
        """
        if layout.size != self.target.size or layout.names != self.layout.names:
            raise InnerSolverError(
                f"the inner solver returned {layout.describe()}, "
                f"but the target of SquaredError has {self.layout.describe()}"
            )

    def loss(self, theta: FloatArray) -> float:
        """The loss of a flat inner solution of shape `(m,)`."""
        difference = theta - self.target
        return float(np.dot(self._scaled * difference, difference))

    def value(self, theta: FloatArray, x: FloatArray, context: OuterContext) -> float:  # noqa: ARG002
        """The loss."""
        return self.loss(theta)

    def gradient(
        self,
        theta: FloatArray,
        x: FloatArray,
        context: OuterContext,  # noqa: ARG002
    ) -> tuple[FloatArray, FloatArray]:
        """`2 w (theta - target) / m`, and zero explicitly in x."""
        return 2.0 * self._scaled * (theta - self.target), np.zeros(x.size)

    def hessian_product(
        self,
        theta: FloatArray,  # noqa: ARG002
        x: FloatArray,  # noqa: ARG002
        theta_tangents: FloatArray,
        x_tangents: FloatArray,
        context: OuterContext,  # noqa: ARG002
    ) -> tuple[FloatArray, FloatArray]:
        """`diag(2 w / m) T`, and zero in x."""
        return 2.0 * self._scaled[:, None] * theta_tangents, np.zeros_like(x_tangents)
