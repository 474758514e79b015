"""The step: least of a quadratic model in a ball, inside the bounds."""

import math
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from scipy.linalg.lapack import dsyevd

from zo_bilevel.support.arrays import FloatArray

Room: TypeAlias = tuple[FloatArray, FloatArray]

FIRST_RADIUS = 1.5
"""Of a first step in one parameter: a quarter of its range; sqrt(N) times that in N."""
POOR_AGREEMENT, GOOD_AGREEMENT = 0.25, 0.7
"""Actual over predicted gain below which the radius shrinks, above which it may grow."""
GROWTH_FACTOR, SHRINK_FACTOR, SHRINK_AFTER_FAILURE = 2.0, 0.7, 0.25
"""Of the radius, in lengths of the step."""
SPRING_STIFFNESS = 1e6
"""Of the springs that hold a step on a bound, in units of the Hessian's trace."""
MOST_HALVINGS = 64
"""Of the ratio of two dampings, in logarithms: more than any two numbers need."""
MOST_DECADES = 50
"""From 1, of slopes and curvatures: farther, they are the unit, as powers of them overflow."""
MOST_SETS = 6
"""Active sets tried."""
SINGULAR_SHARE = 1e-14
"""Share of the largest eigenvalue below which a direction has no curvature."""


@final
@dataclass(slots=True)
class Trust:
    """How far the model is trusted: the longest step, scaled."""

    radius: float

    def adapt(self, agreement: float, length: float, *, accepted: bool) -> None:
        """After a trial step."""
        if not accepted:
            self.radius = SHRINK_AFTER_FAILURE * length
        elif agreement < POOR_AGREEMENT:
            self.radius = min(self.radius, SHRINK_FACTOR * length)
        elif agreement > GOOD_AGREEMENT:
            self.radius = max(self.radius, GROWTH_FACTOR * length)


@final
class TrialSteps:
    """Steps from one center on one quadratic, in coordinates of the basis.

    Args:
        gradient: Shape `(b,)`.
        hessian: Shape `(b, b)`, symmetric, of any sign.
        basis: Orthonormal directions, shape `(N, b)`.
        room: `lower - center` and `upper - center`.
        radius: Longest step.
    """

    def __init__(
        self,
        gradient: FloatArray,
        hessian: FloatArray,
        basis: FloatArray,
        room: Room,
        radius: float,
    ) -> None:
        largest = max(float(np.abs(hessian).max()), float(np.abs(gradient).max()))
        is_extreme = largest > 0.0 and abs(math.log10(largest)) > MOST_DECADES
        self._unit = largest if is_extreme else 1.0
        if is_extreme:
            gradient, hessian = gradient / self._unit, hessian / self._unit
        self._gradient, self._hessian = gradient, hessian
        self._basis, self._room, self._radius = basis, room, radius
        self._values, vectors, _ = dsyevd(hessian, lower=1)
        self._vectors = np.ascontiguousarray(vectors)
        self._turned = self._vectors.T @ gradient

    def step(self, quartic: float = 0.0) -> FloatArray:
        """The one that gains most, shape `(b,)`; `quartic`: of the term `quartic |s|^4 / 4`."""
        step, damping = self.in_ball(quartic)
        change, (low, high) = self._basis @ step, self._room
        if (change < low).any() or (change > high).any():
            matrix = self._hessian + damping * np.eye(len(step))
            step = _bounded_step(matrix, -self._gradient, self._basis, self._room, step)
            length = math.sqrt(step @ step)
            step = step * min(1.0, self._radius / max(length, 1e-300))
        return step

    def in_ball(self, quartic: float) -> tuple[FloatArray, float]:
        """The same without bounds (More and Sorensen 1983), and its damping."""
        values, turned, radius = self._values, self._turned, self._radius
        quartic = quartic / self._unit
        size = math.sqrt(turned @ turned)
        least = max(SINGULAR_SHARE * float(values[-1]), SINGULAR_SHARE * size / radius, 1e-300)
        lift = max(0.0, -float(values[0]))
        curvatures = values + lift
        low = 0.0 if values[0] > least else least
        pairs = np.column_stack((turned, curvatures)).tolist()

        def is_too_long(damping: float) -> bool:
            length = math.hypot(*[slope / (curvature + damping) for slope, curvature in pairs])
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
        step: FloatArray = -(self._vectors @ (turned / (curvatures + high)))
        return step, lift + high


def _bounded_step(
    matrix: FloatArray, right: FloatArray, basis: FloatArray, room: Room, step: FloatArray
) -> FloatArray:
    """Minimise the quadratic with low <= basis @ step <= high by an active set of stiff springs."""
    low, high = room
    stiffness = SPRING_STIFFNESS * float(np.trace(matrix)) / len(matrix)
    above = below = np.zeros(len(basis), dtype=bool)
    for _ in range(MOST_SETS):
        change = basis @ step
        tight = 1e-9 + 1e-9 * np.abs(change)
        # what is held pushes its spring outwards, if only a little, or is let go
        outside = (
            (change > high + tight) | (above & (change >= high)),
            (change < low - tight) | (below & (change <= low)),
        )
        if np.array_equal(outside, (above, below)):
            break
        above, below = outside
        held = above | below
        rows, target = basis[held], np.where(above, high, low)[held]
        springs = stiffness * (rows.T @ rows)
        sides = right + stiffness * (rows.T @ target)
        step = np.linalg.lstsq(matrix + springs, sides, rcond=None)[0]
    return step
