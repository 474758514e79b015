"""One damped Gauss-Newton step in the span of the basis, inside the bounds and a trust radius."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quadratic:
    """gradient . s + s . hessian s / 2, and the part of the two that doubt alone adds."""

    gradient: Array
    hessian: Array
    doubt_gradient: Array
    doubt_hessian: Array
    unit: float  # what damping 1 adds to the diagonal
    floor: float = 0.0  # what is added to the diagonal in any case


@dataclass(slots=True)
class Trust:
    """How far the model is trusted: a damping and a radius (largest change of a parameter)."""

    damping: float = 1e-4
    radius: float = 3.0
    extra: float = 1.0  # by how much the radius last raised the damping

    def after_success(self, agreement: float, length: float) -> None:
        """Adapt to actual over predicted reduction of an accepted step."""
        if agreement < 0.25:
            self.radius = 0.7 * min(self.radius, length)
        elif agreement > 0.7:
            self.radius = max(self.radius, 3.0 * length)
        self._adapt_damping(agreement)

    def after_failure(self, shrink: float, length: float) -> None:
        """Shrink after a rejected step, to the minimum of the parabola through what is known."""
        self.radius = float(np.clip(shrink, 0.1, 0.5)) * length
        self._adapt_damping(0.0)

    def _adapt_damping(self, agreement: float) -> None:
        if agreement < 0.1:
            self.damping *= 4.0
        elif agreement > 0.7:
            self.damping = max(self.damping / 3.0, 1e-16)


def _solve(matrix: Array, right: Array) -> Array:
    try:
        return np.asarray(cho_solve(cho_factor(matrix, check_finite=False), right))
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(matrix, right, rcond=None)[0])


def _bounded_step(matrix: Array, right: Array, basis: Array, room: tuple[Array, Array], step: Array) -> Array:
    """Minimise the quadratic with low <= basis @ step <= high by an active set of stiff springs."""
    low, high = room
    stiffness = 1e6 * float(np.trace(matrix)) / max(len(matrix), 1)
    active = np.zeros(len(basis), dtype=np.int8)
    for _ in range(6):
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
        step = _solve(matrix + stiffness * rows.T @ rows, right + stiffness * rows.T @ target)
    return step


def trial_step(
    model: Quadratic, basis: Array, room: tuple[Array, Array], trust: Trust, *, doubt: bool = True
) -> tuple[Array, bool]:
    """The step, and whether the trust radius held it back.

    Args:
        model: the quadratic model in the coordinates of the basis.
        basis: orthonormal directions (num_parameters, size).
        room: lower - center and upper - center.
        trust: damping and radius.
        doubt: whether to shy away from directions whose columns are uncertain.
    """
    matrix, right = model.hessian, -model.gradient
    if doubt:
        matrix, right = matrix + model.doubt_hessian, right - model.doubt_gradient
    damping = trust.damping * max(trust.extra / 16.0, 1.0)
    held = damping > trust.damping
    identity = np.eye(len(matrix))
    for _ in range(30):
        damped = matrix + (damping * model.unit + model.floor) * identity
        step = _solve(damped, right)
        change = np.clip(basis @ step, *room)
        if np.abs(change).max() <= 1.1 * trust.radius:
            break
        damping, held = 4.0 * damping, True
    trust.extra = damping / trust.damping
    return _bounded_step(damped, right, basis, room, step), held
