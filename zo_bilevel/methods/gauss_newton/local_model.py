"""The outer objective of the affine model: a quadratic in the coordinates of the basis.

Gradient and Hessian in these coordinates follow every rank-one change of the columns, so that a
step costs nothing in the length of theta.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.affine_model import AffineModel, Update
from zo_bilevel.methods.gauss_newton.damped_step import Quadratic, nearest_convex
from zo_bilevel.methods.gauss_newton.outer_model import OuterModel
from zo_bilevel.methods.shared.exploration import orthogonal_part
from zo_bilevel.support.arrays import FloatArray

MOST_UPDATES = 64
"""Rank-one changes of all columns after which sums are formed afresh, against rounding."""
FLAT = 1e-8
"""Least damping unit in terms of the slope, for objectives without curvature."""
NEW_DIRECTION = 1e-3
"""A displacement has a new direction when this share of it lies outside the basis."""


@final
class LocalModel:
    """Outer objective of `center + basis @ s`, by way of the affine model.

    Args:
        outer: The outer objective.
        center: Shape `(N,)`.
        theta: Modelled vector there, shape `(m,)`.
        variance: Of one component of theta.
    """

    def __init__(
        self, outer: OuterModel, center: FloatArray, theta: FloatArray, variance: float = 0.0
    ) -> None:
        self.outer = outer
        self.affine = AffineModel(center, theta, variance)
        self.loss = outer.loss(theta)
        self._gradient: FloatArray | None = None
        self._slope = outer.gradient(theta)
        self._hessian = np.zeros((0, 0))
        self._is_current = True
        self._updates = 0
        self.trace = outer.trace(theta)

    @property
    def size(self) -> int:
        """How many directions are known."""
        return self.affine.size

    @property
    def is_flat(self) -> bool:
        """Whether the outer objective has no slope at the center's theta."""
        return not self._slope.any()

    # ---- the quadratic -----------------------------------------------------------------------

    def quadratic(self) -> Quadratic:
        """Gradient, Hessian, and the part of the two that doubt about the columns adds."""
        if self._gradient is None:
            self._gradient = self.affine.jacobian.T @ self._slope
        hessian = self._current_hessian()
        if not self.outer.is_convex:
            hessian = nearest_convex(hessian)
        spread = self.trace * self.affine.spread
        steepest = float(np.abs(self._gradient).max())
        unit = max(float(hessian.diagonal().max()), FLAT * steepest, 1e-300)
        return Quadratic(self._gradient, hessian, spread[1:, 0], spread[1:, 1:], unit)

    def _current_hessian(self) -> FloatArray:
        b = self.size
        if not self._is_current:
            self._hessian = self.outer.curvature(self.affine.theta, self.affine.jacobian)
            self.affine.renew_norms()
            self._is_current, self._updates = True, 0
        elif len(self._hessian) < b:
            grown = np.zeros((b, b))
            grown[: len(self._hessian), : len(self._hessian)] = self._hessian
            self._hessian = grown
        return self._hessian

    def promised_loss(self, step: FloatArray, quadratic: Quadratic) -> float:
        """Predicted loss after a step, without doubt."""
        if self.outer.is_quadratic:
            change = step @ (quadratic.gradient + 0.5 * (quadratic.hessian @ step))
            return max(self.loss + float(change), 0.0)
        return self.outer.loss(self.affine.value(at_center(step)))

    # ---- learning ----------------------------------------------------------------------------

    def observe(
        self,
        weights: FloatArray,
        value: FloatArray,
        variance: float,
        known: FloatArray | None = None,
    ) -> None:
        """Learn that `columns @ weights` is a value up to a variance; see `AffineModel.observe`."""
        known = self.affine.value(weights) if known is None else known
        self._current_hessian()
        update = self.affine.observe(weights, value, variance, known)
        if update is not None:
            self._follow(update)

    def _follow(self, update: Update) -> None:
        error, gain = update.error, update.gain[1:]
        curved = self.outer.bend(self.affine.theta, error)
        power = float(curved @ error)
        if self.outer.is_quadratic:
            cross = self.outer.constant * update.cross[1:]
        else:
            cross = self.affine.jacobian.T @ curved - power * gain
        half = (cross + 0.5 * power * gain)[:, None] * gain
        self._hessian += half
        self._hessian += half.T
        if np.count_nonzero(gain) > 1:
            self._updates += 1
            self._is_current = self._updates < MOST_UPDATES
        if update.gain[0] != 0.0:
            self._set_center()
        elif self._gradient is not None:
            slope = float(error @ self._slope)
            missing = gain.size - self._gradient.size
            gradient = slope * gain
            gradient[: gain.size - missing] += self._gradient
            self._gradient = gradient

    def _set_center(self) -> None:
        theta = self.affine.theta
        self.loss = self.outer.loss(theta)
        self._slope = self.outer.gradient(theta)
        self._gradient = None

    def move(self, step: FloatArray, point: FloatArray, theta: FloatArray, *, exact: bool) -> None:
        """Make another point the center; see `AffineModel.move`."""
        self.affine.move(step, point, theta, exact)
        self._set_center()
        if not self.outer.is_quadratic:
            self._is_current = False
            self.trace = self.outer.trace(theta)

    # ---- coordinates -------------------------------------------------------------------------

    def coordinates(self, displacement: FloatArray, unit: FloatArray | None = None) -> FloatArray:
        """Coordinates of a displacement, with one more basis direction when it needs one.

        Args:
            displacement: Shape `(N,)`.
            unit: A unit vector orthogonal to the basis that it is thought to lie along.

        Returns:
            Shape `(b,)`, b after the basis has grown.
        """
        affine = self.affine
        if unit is not None and affine.size < unit.size:
            length = float(displacement @ unit)
            off = displacement - length * unit
            if off @ off <= 1e-12 * length**2:
                affine.add_direction(unit, self._unseen_variance())
                coordinates = np.zeros(affine.size)
                coordinates[-1] = length
                return coordinates
        rest = orthogonal_part(displacement, affine.basis)
        length = math.sqrt(rest @ rest)
        whole = math.sqrt(displacement @ displacement)
        if length > NEW_DIRECTION * whole and affine.size < displacement.size:
            affine.add_direction(rest / length, self._unseen_variance())
        found: FloatArray = affine.basis.T @ displacement
        return found

    def _unseen_variance(self) -> float:
        """What to expect of a column about which nothing is known."""
        if self.size:
            return float(np.mean(self.affine.powers[-8:])) + 1e-12
        return 1e4 * (float(np.var(self.affine.theta)) + self.loss + 1e-300)


def at_center(step: FloatArray) -> FloatArray:
    """The weights `[1, s]` of a solve at center + basis @ s."""
    weights = np.empty(step.size + 1)
    weights[0] = 1.0
    weights[1:] = step
    return weights


def along(step: FloatArray) -> FloatArray:
    """The weights `[0, s]` of a difference along basis @ s."""
    weights = at_center(step)
    weights[0] = 0.0
    return weights
