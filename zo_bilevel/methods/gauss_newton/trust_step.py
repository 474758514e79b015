"""The step: least of a quadratic model in a ball, inside the bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np

from zo_bilevel.support.arrays import FloatArray

Room: TypeAlias = tuple[FloatArray, FloatArray]

FIRST_RADIUS = 1.5
"""Of a first step in one parameter: a quarter of its range; sqrt(N) times that in N."""
POOR, GOOD = 0.25, 0.7
"""Actual over predicted gain below which the radius shrinks, above which it may grow."""
GROWTH, SHRINK, SHRINK_AFTER_FAILURE = 2.0, 0.7, 0.25
"""Of the radius, in lengths of the step."""
STIFFNESS = 1e6
"""Of the springs that hold a step on a bound, in units of the Hessian's trace."""
MOST_HALVINGS = 64
"""Of the ratio of two dampings, in logarithms: more than any two numbers need."""
MOST_DECADES = 50
"""From 1, of slopes and curvatures: farther, they are the unit, as powers of them overflow."""
MOST_SETS = 6
"""Active sets tried."""
SINGULAR = 1e-14
"""Share of the largest eigenvalue below which a direction has no curvature."""


@final
@dataclass(slots=True)
class Trust:
    """How far the model is trusted.

    Args:
        radius: Longest step, scaled.
    """

    radius: float

    def adapt(self, agreement: float, length: float, *, accepted: bool) -> None:
        """After a trial step."""
        if not accepted:
            self.radius = SHRINK_AFTER_FAILURE * length
        elif agreement < POOR:
            self.radius = min(self.radius, SHRINK * length)
        elif agreement > GOOD:
            self.radius = max(self.radius, GROWTH * length)


def ball_step(
    gradient: FloatArray, hessian: FloatArray, radius: float, quartic: float = 0.0
) -> tuple[FloatArray, float]:
    """Minimise a quadratic in a ball (More and Sorensen 1983), plus `quartic |s|^4 / 4`.

    Args:
        gradient: Shape `(b,)`.
        hessian: Shape `(b, b)`, symmetric, of any sign.
        radius: Of the ball.
        quartic: >= 0.
    """
    values, vectors = np.linalg.eigh(hessian)
    turned = vectors.T @ gradient
    size = math.sqrt(turned @ turned)
    least = max(SINGULAR * float(values[-1]), SINGULAR * size / radius, 1e-300)
    lift = max(0.0, -float(values[0]))
    curvatures = values + lift
    low = 0.0 if values[0] > least else least

    def is_too_long(damping: float) -> bool:
        way = turned / (curvatures + damping)
        length = math.sqrt(way @ way)
        return length > radius or damping < quartic * length**2

    high = low
    if is_too_long(low):
        high = low + size / radius + (quartic * size**2) ** (1.0 / 3.0)
    for _ in range(MOST_HALVINGS):
        if high <= 1.02 * max(low, least):
            break
        middle = math.sqrt(max(low, least) * high)
        if is_too_long(middle):
            low = middle
        else:
            high = middle
    step: FloatArray = -(vectors @ (turned / (curvatures + high)))
    return step, lift + high


def trial_step(
    gradient: FloatArray,
    hessian: FloatArray,
    basis: FloatArray,
    room: Room,
    radius: float,
    quartic: float = 0.0,
) -> FloatArray:
    """The step in coordinates of the basis, shape `(b,)`.

    Args:
        gradient: Shape `(b,)`.
        hessian: Shape `(b, b)`.
        basis: Orthonormal directions, shape `(N, b)`.
        room: `lower - center` and `upper - center`.
        radius: Longest step.
        quartic: Of the term `quartic |s|^4 / 4`.
    """
    largest = max(float(np.abs(hessian).max()), float(np.abs(gradient).max()), quartic)
    unit = largest if largest > 0.0 and abs(math.log10(largest)) > MOST_DECADES else 1.0
    gradient, hessian, quartic = gradient / unit, hessian / unit, quartic / unit
    step, damping = ball_step(gradient, hessian, radius, quartic)
    change = basis @ step
    if (change < room[0]).any() or (change > room[1]).any():
        matrix = hessian + damping * np.eye(len(hessian))
        step = _bounded_step(matrix, -gradient, basis, room, step)
        length = math.sqrt(step @ step)
        step = step * min(1.0, radius / max(length, 1e-300))
    return step


def _bounded_step(
    matrix: FloatArray, right: FloatArray, basis: FloatArray, room: Room, step: FloatArray
) -> FloatArray:
    """Minimise the quadratic with low <= basis @ step <= high by an active set of stiff springs."""
    low, high = room
    stiffness = STIFFNESS * float(np.trace(matrix)) / max(len(matrix), 1)
    active = np.zeros(len(basis), dtype=np.int8)
    for _ in range(MOST_SETS):
        change = basis @ step
        wanted = np.where(active > 0, high, low)
        pull = stiffness * (wanted - change)
        released = np.where(active > 0, pull > 0.0, pull < 0.0) & (active != 0)
        tight = 1e-9 + 1e-9 * np.abs(change)
        new = np.where(change > high + tight, 1, np.where(change < low - tight, -1, active))
        new = np.where(released, 0, new).astype(np.int8)
        if np.array_equal(new, active):
            break
        active = new
        rows = basis[active != 0]
        target = np.where(active > 0, high, low)[active != 0]
        springs = stiffness * (rows.T @ rows)
        sides = right + stiffness * (rows.T @ target)
        step = np.linalg.lstsq(matrix + springs, sides, rcond=None)[0]
    return step
