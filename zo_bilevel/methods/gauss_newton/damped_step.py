"""One damped Gauss-Newton step in the span of the basis, inside the bounds and a trust radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from scipy.linalg.lapack import dposv, dpotrf

from zo_bilevel.support.arrays import FloatArray

Room: TypeAlias = tuple[FloatArray, FloatArray]

FIRST_DAMPING = 1e-4
"""In units of the largest entry of the Hessian's diagonal, as Marquardt (1963)."""
LEAST_DAMPING = 1e-16
FIRST_RADIUS = 3.0
"""Largest change of a parameter in the first step: half its range."""
MOST_TRIES = 30
"""Dampings tried, each four times the last, until a step keeps to the radius."""
SLACK = 1.1
"""By this factor a step may exceed the radius."""
STIFFNESS = 1e6
"""Of the springs that hold a step on a bound, in units of the Hessian's trace."""
MOST_SETS = 6
"""Active sets tried."""


@final
@dataclass(frozen=True, slots=True)
class Quadratic:
    """gradient . s + s . hessian s / 2, and the part of the two that doubt alone adds.

    Args:
        gradient: Shape `(b,)`.
        hessian: Shape `(b, b)`.
        doubt_gradient: Shape `(b,)`.
        doubt_hessian: Shape `(b, b)`.
        unit: What damping 1 adds to the diagonal.
    """

    gradient: FloatArray
    hessian: FloatArray
    doubt_gradient: FloatArray
    doubt_hessian: FloatArray
    unit: float

    def leading(self, count: int) -> Quadratic:
        """The same in the first directions alone."""
        return Quadratic(
            self.gradient[:count],
            self.hessian[:count, :count],
            self.doubt_gradient[:count],
            self.doubt_hessian[:count, :count],
            self.unit,
        )


@final
@dataclass(slots=True)
class Trust:
    """How far the model is trusted.

    Args:
        damping: Added to the Hessian's diagonal, relative to its largest entry.
        radius: Largest change of one parameter.
        extra: By how much the radius last raised the damping.
    """

    damping: float = FIRST_DAMPING
    radius: float = FIRST_RADIUS
    extra: float = 1.0

    def after_success(self, agreement: float, length: float) -> None:
        """Adapt to actual over predicted reduction of an accepted step."""
        if agreement < 0.25:
            self.radius = 0.7 * min(self.radius, length)
        elif agreement > 0.7:
            self.radius = max(self.radius, 3.0 * length)
        self._adapt_damping(agreement)

    def after_failure(self, shrink: float, length: float) -> None:
        """Shrink after a rejected step, to the minimum of the parabola through what is known."""
        self.radius = min(max(shrink, 0.1), 0.5) * length
        self._adapt_damping(0.0)

    def _adapt_damping(self, agreement: float) -> None:
        if agreement < 0.1:
            self.damping *= 4.0
        elif agreement > 0.7:
            self.damping = max(self.damping / 3.0, LEAST_DAMPING)


def nearest_convex(hessian: FloatArray) -> FloatArray:
    """A symmetric matrix with its negative eigenvalues set to zero.

    Args:
        hessian: Shape `(b, b)`.
    """
    shift = 1e-12 * float(np.abs(hessian.diagonal()).max(initial=0.0))
    _, failed = dpotrf(hessian + shift * np.eye(len(hessian)))
    if not failed:
        return hessian
    values, vectors = np.linalg.eigh(hessian)
    clipped: FloatArray = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return clipped


def _solve(matrix: FloatArray, right: FloatArray) -> FloatArray:
    _, solution, failed = dposv(matrix, right)
    if failed:
        return np.asarray(np.linalg.lstsq(matrix, right, rcond=None)[0])
    return np.asarray(solution)


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
        springs = rows.T @ rows
        step = _solve(matrix + stiffness * springs, right + stiffness * (rows.T @ target))
    return step


def trial_step(
    model: Quadratic,
    basis: FloatArray,
    room: Room,
    trust: Trust,
    *,
    doubt: bool = True,
    floor: float = 0.0,
) -> tuple[FloatArray, bool]:
    """The step, and whether the trust radius held it back.

    Args:
        model: The quadratic model in the coordinates of the basis.
        basis: Orthonormal directions, shape `(N, b)`.
        room: `lower - center` and `upper - center`.
        trust: Damping and radius.
        doubt: Whether to shy away from directions whose columns are uncertain.
        floor: What is added to the diagonal in any case.

    Returns:
        The step in coordinates of the basis, shape `(b,)`, and whether the radius cut it.
    """
    if doubt:
        matrix, right = model.hessian + model.doubt_hessian, -model.gradient - model.doubt_gradient
    else:
        matrix, right = model.hessian.copy(), -model.gradient
    damping = trust.damping * max(trust.extra / 16.0, 1.0)
    held = damping > trust.damping
    bare = matrix.diagonal() + floor
    diagonal = matrix.reshape(-1)[:: len(matrix) + 1]
    for _ in range(MOST_TRIES):
        np.add(bare, damping * model.unit, out=diagonal)
        step = _solve(matrix, right)
        whole = basis @ step
        change = np.minimum(np.maximum(whole, room[0]), room[1])
        if float(np.abs(change).max()) <= SLACK * trust.radius:
            break
        damping, held = 4.0 * damping, True
    trust.extra = damping / trust.damping
    if np.count_nonzero(change != whole):
        step = _bounded_step(matrix, right, basis, room, step)
    return step, held
