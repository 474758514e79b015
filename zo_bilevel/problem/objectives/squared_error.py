"""Weighted mean squared error against a target."""

from __future__ import annotations

import math
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.problem.objectives.base import OuterContext
from zo_bilevel.problem.theta import ThetaLayout, flatten_theta
from zo_bilevel.support.arrays import FloatArray, frozen
from zo_bilevel.support.errors import InnerSolverError, InputError, WrongShapeError

Shape: TypeAlias = tuple[int, ...]
SMALLEST_LOSS = float(np.finfo(np.float64).tiny)
"""Below it digits are lost, and then all of it."""


@final
class SquaredError:
    """Weighted mean squared difference between the inner solution and a target.

    `loss = mean(weights * (theta - target)**2)`, over the values of the target that are there.

    Args:
        target: Number, array or dict of arrays, of the inner solution's structure. NaN and masked
            values are missing: they have no weight. Labels of tables must be those of the inner
            solution, in its order.
        weights: One number, or the target's structure: its shape, names and labels; parts of a
            dict also as numbers or arrays that broadcast. Finite and >= 0. Default 1.
        sigma: Standard deviations of the measurements, likewise; > 0. Each weight is divided by
            its square.

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
        inverse, deviations = self._numbers("weights", weights), self._numbers("sigma", sigma)
        if not (np.isfinite(inverse).all() and (inverse >= 0).all() and inverse.any()):
            raise InputError(f"weights must be finite, >= 0 and not all 0, got {weights!r}")
        if not (np.isfinite(deviations).all() and (deviations > 0).all()):
            raise InputError(f"sigma must be finite and > 0, got {sigma!r}")
        self.weights = frozen(inverse * present / deviations**2)
        if not self.weights.any():
            raise InputError("weights must not be 0 wherever target is given")
        self._scaled = self.weights * (1.0 / self.target.size)

    def _numbers(self, argument: str, given: Any) -> FloatArray:  # noqa: ANN401 - number to dict
        return np.ones(self.target.size) if given is None else self.lined_up(argument, given)

    def lined_up(self, argument: str, given: Any) -> FloatArray:  # noqa: ANN401 - number to dict
        """One number for each of the target, from numbers of its structure.

        Args:
            argument: What they are called, for messages.
            given: The target's structure, or one number; for a dict, parts by the same names, each
                of its part's shape or one that broadcasts to it. Labels are those of the target.

        Returns:
            Shape `(m,)`, in the target's order.

        Raises:
            InputError: If they are no numbers, or their names, shapes or labels are others.
        """
        target = self.layout
        try:
            flat, layout = flatten_theta(given)
        except (TypeError, ValueError) as error:
            raise InputError(f"{argument} must be numbers, got {given!r} ({error})") from error
        if flat.size == 1 and not layout.names:
            return np.full(self.target.size, flat[0])
        if sorted(layout.names) != sorted(target.names):
            raise InputError(
                f"{argument} must be one number or have the names of target, "
                f"{_named(target)}, got {_named(layout)}"
            )
        order = layout.order_of(target.names)
        if order is not None:
            flat, layout = flat[order], layout.reordered(target.names)
        parts = np.split(flat, np.cumsum([math.prod(shape) for shape in layout.shapes])[:-1])
        labels = layout.labels or ((),) * len(parts)
        tried = map(_fitted, parts, layout.shapes, target.shapes, labels)
        fitted = [part for part in tried if part is not None]
        if len(fitted) < len(parts) or (not target.names and flat.size != target.size):
            raise InputError(
                f"{argument} must be one number or have the shape of target, "
                f"{target.describe()}, got {layout.describe()}"
            )
        if conflict := layout.label_conflict(target):
            raise InputError(
                f"{argument} and target are labelled differently: {conflict}; "
                f"put {argument} into the order of target"
            )
        return np.concatenate(fitted)

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

    def check_scale(self, theta: FloatArray) -> None:
        """Refuse numbers so small that their squares are lost, which would look like a perfect fit.

        Args:
            theta: Of the first solve, flat, `(m,)`.

        Raises:
            InputError: If neither the target nor theta's difference from it has a loss that is
                kept in full, and they differ.
        """
        largest = float(np.max(np.abs(theta - self.target) * (self.weights > 0)))
        if largest > 0 and max(self.loss(theta), self.loss(0.0 * self.target)) < SMALLEST_LOSS:
            raise InputError(
                f"the inner solution differs from target by at most {largest:.3g}, whose weighted "
                "square double precision cannot hold: give both in other units"
            )

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


def _named(layout: ThetaLayout) -> str:
    return ", ".join(layout.names) or "no names"


def _fitted(
    part: FloatArray, shape: Shape, wanted: Shape, labels: tuple[str, ...]
) -> FloatArray | None:
    """The numbers of a part as many as are wanted; `None` where its shape does not fit."""
    if any(labels):  # they name axes of the target, one by one
        return part if shape == wanted else None
    if _essential(shape) == _essential(wanted):
        return part
    try:
        return np.broadcast_to(part.reshape(shape), wanted).ravel()
    except ValueError:
        return None


def _essential(shape: Shape) -> Shape:
    """A shape without its axes of length 1."""
    return tuple(length for length in shape if length != 1)


def _is_shorter(shape: Shape, wanted: Shape) -> bool:
    """Whether an array fits a target's shape, or would if it were longer along an axis."""
    if _essential(shape) == _essential(wanted):
        return True
    is_permuted = sorted(_essential(shape)) == sorted(_essential(wanted))
    fits = len(shape) == len(wanted) and all(a <= b for a, b in zip(shape, wanted, strict=True))
    return fits and not is_permuted
