"""Weighted mean squared error against a target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np

from zo_bilevel.problem.objectives.base import OuterContext
from zo_bilevel.problem.theta import ThetaLayout, flatten_theta
from zo_bilevel.support.arrays import FloatArray, frozen
from zo_bilevel.support.errors import InnerSolverError, InputError, WrongShapeError


@final
class SquaredError:
    """Weighted mean squared difference between the inner solution and a target.

    `loss = mean(weights * (theta - target)**2)`, over the values of the target that are there.

    Args:
        target: Number, array or dict of arrays, of the inner solution's structure. NaN and masked
            values are missing: they have no weight. Labels of tables must be those of the inner
            solution, in its order.
        weights: The same structure, or one number; for a dict, arrays or numbers by the same
            names. Finite and >= 0. Default 1.
        sigma: Standard deviations of the measurements, the same structure, or one number; > 0.
            Each weight is divided by its square.

    Raises:
        InputError: If the target is empty, infinite or missing altogether, or weights do not fit
            it.

    Example:
        >>> objective = SquaredError([1.0, 2.0, np.nan], weights=[1.0, 0.5, 1.0])
        >>> objective.loss(np.array([0.0, 0.0, 7.0]))
        1.5
    """

    is_vector = True

    def __init__(self, target: Any, weights: Any = None, *, sigma: Any = None) -> None:  # noqa: ANN401
        try:
            self.target, self.layout = flatten_theta(target)
        except (TypeError, ValueError) as error:
            raise InputError(f"target must be numbers, got {target!r} ({error})") from error
        bad = np.flatnonzero(np.isinf(self.target))
        if bad.size:
            raise InputError(
                f"target must be finite, or NaN where it is missing, got {self.target[bad[0]]} at "
                f"position {bad[0]} ({bad.size} of {self.target.size} values)"
            )
        missing = np.isnan(self.target)
        if missing.all():
            raise InputError("target must have at least one value that is not NaN or masked")
        present = np.where(missing, 0.0, missing.size / np.count_nonzero(~missing))
        self.target = frozen(np.where(missing, 0.0, self.target))
        inverse = self._flat("weights", weights)
        deviations = self._flat("sigma", sigma)
        if not (deviations > 0).all():
            raise InputError(f"sigma must be > 0, got {sigma!r}")
        self.weights = frozen(inverse * present / deviations**2)
        if not self.weights.any():
            raise InputError("weights must not be 0 wherever target is given")
        self._scaled = self.weights * (1.0 / self.target.size)

    def _flat(self, argument: str, given: Any) -> FloatArray:  # noqa: ANN401 - number to dict
        """One number for each of the target, 1 where none is given."""
        if given is None:
            return np.ones(self.target.size)
        try:
            flat = self._matched(given) if self.layout.names else flatten_theta(given)[0]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{argument} must be numbers as target has, got {given!r} ({error})"
            ) from error
        if flat.size == 1:
            flat = np.full(self.target.size, flat[0])
        if flat.size != self.target.size:
            raise InputError(
                f"{argument} must have as many values as target ({self.target.size}), "
                f"got {flat.size}"
            )
        if not (np.isfinite(flat).all() and (flat >= 0).all() and flat.any()):
            raise InputError(f"{argument} must be finite, >= 0 and not all 0, got {given!r}")
        return flat

    def _matched(self, weights: Any) -> FloatArray:  # noqa: ANN401 - number to dict
        """Weights of named parts, by name."""
        if not isinstance(weights, Mapping):
            return flatten_theta(weights)[0]
        names, shapes = self.layout.names, self.layout.shapes
        if sorted(weights) != sorted(names):
            raise ValueError(f"its names are not {', '.join(names)}")
        parts = [
            np.broadcast_to(flatten_theta(weights[name])[0].reshape(np.shape(weights[name])), s)
            for name, s in zip(names, shapes, strict=True)
        ]
        return np.concatenate([part.ravel() for part in parts])

    def check(self, layout: ThetaLayout) -> None:
        """Refuse an inner solution that does not fit the target.

        Raises:
            WrongShapeError: If it is shorter, as of a solver that stopped early.
            InnerSolverError: If no other point would make it fit, naming both structures.
        """
        said = (
            f"the inner solver returned {layout.describe()}, "
            f"but the target of SquaredError has {self.layout.describe()}"
        )
        pairs = list(zip(layout.shapes, self.layout.shapes, strict=False))
        if layout.names == self.layout.names and all(_is_shorter(*pair) for pair in pairs):
            if any(_essential(shape) != _essential(wanted) for shape, wanted in pairs):
                raise WrongShapeError(said)
            if conflict := layout.label_conflict(self.layout):
                raise InnerSolverError(
                    f"the inner solution and the target of SquaredError are labelled differently: "
                    f"{conflict}; put the target into the order of the inner solution"
                )
            return
        raise InnerSolverError(said)

    def loss(self, theta: FloatArray) -> float:
        """The loss of an inner solution of the target's shape, or flat, `(m,)`."""
        difference = np.ravel(theta) - self.target
        return float(np.dot(self._scaled * difference, difference))

    def shares(self, theta: Any) -> dict[str, float]:  # noqa: ANN401 - as the solver returns it
        """How much of the loss each named part of the target makes up.

        Args:
            theta: An inner solution in the target's structure.

        Returns:
            Shares by name that add up to 1; all 0 for a loss of 0.

        Raises:
            InputError: If the target has no named parts.

        Example:
            >>> deviations = {"u": 1.0, "flux": 2.0}
            >>> objective = SquaredError({"u": [1.0, 2.0], "flux": 3.0}, sigma=deviations)
            >>> objective.shares({"u": np.array([2.0, 2.0]), "flux": 5.0})
            {'u': 0.5, 'flux': 0.5}
        """
        if not self.layout.names:
            raise InputError("shares needs a target with named parts, a dict")
        terms = self._scaled * (flatten_theta(theta)[0] - self.target) ** 2
        ends = np.cumsum([math.prod(shape) for shape in self.layout.shapes])
        sums = [float(part.sum()) for part in np.split(terms, ends[:-1])]
        total = sum(sums) or 1.0
        return {name: part / total for name, part in zip(self.layout.names, sums, strict=True)}

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


def _essential(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its axes of length 1."""
    return tuple(length for length in shape if length != 1)


def _is_shorter(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether an array fits a target's shape, or would if it were longer along an axis."""
    if _essential(shape) == _essential(wanted):
        return True
    is_permuted = sorted(_essential(shape)) == sorted(_essential(wanted))
    fits = len(shape) == len(wanted) and all(a <= b for a, b in zip(shape, wanted, strict=True))
    return fits and not is_permuted
