"""The step that minimises a quadratic model within a ball, and within a ball and a box."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from zo_bilevel.support.arrays import FloatArray

Product: TypeAlias = Callable[[FloatArray], FloatArray]

MOST_ITERATIONS = 40
MOST_HELD = 6
SMALLEST_NUMBER = 1e-300


def ball_step(
    gradient: FloatArray, product: Product, radius: float, hessian: FloatArray | None = None
) -> FloatArray:
    """Minimise `g.s + s.H.s / 2` over `|s| <= radius`: the step, shape `(p,)`.

    Example:
        >>> step = ball_step(np.array([1.0, 0.0]), lambda v: v, 0.5, np.eye(2))
        >>> [round(float(s), 1) for s in abs(step)]  # to 1 %
        [0.5, 0.0]
    """
    if hessian is None:
        return _conjugate_step(gradient, product, radius)
    return _exact_step(gradient, hessian, radius)


def _exact_step(gradient: FloatArray, hessian: FloatArray, radius: float) -> FloatArray:
    """By eigenvalues and the secular equation (More, Sorensen, 1983)."""
    curvatures, vectors, _ = lapack.dsyevd(hessian)
    slopes = vectors.T @ gradient
    top = max(abs(curvatures[-1]), abs(curvatures[0]), SMALLEST_NUMBER)
    if curvatures[0] > 1e-13 * top:
        step = -slopes / curvatures
        if step @ step <= radius * radius:
            return np.asarray(vectors @ step)
    step = _secular_step(curvatures, slopes, radius, top)
    length = float(np.sqrt(step @ step))
    if length < 0.9 * radius and curvatures[0] <= 0:  # the hard case: along the lowest curvature
        step[0] += np.copysign(np.sqrt(radius**2 - length**2), -slopes[0])
        length = float(np.sqrt(step @ step))
    return np.asarray(vectors @ (step * min(1.0, radius / max(length, SMALLEST_NUMBER))))


def _secular_step(
    curvatures: FloatArray, slopes: FloatArray, radius: float, top: float
) -> FloatArray:
    """Newton's method on `1 / |s(shift)| = 1 / radius`, kept within a bracket."""
    low = max(0.0, -float(curvatures[0]))
    high = low + float(np.sqrt(slopes @ slopes)) / radius + 1e-14 * top
    shift = high  # from below it is faster, but Rosenbrock needed 20 % more solves
    step = np.zeros_like(slopes)
    for _ in range(30):
        shifted = np.maximum(curvatures + shift, 1e-16 * top)
        step = -slopes / shifted
        length = float(np.sqrt(step @ step))
        if abs(length - radius) <= 1e-2 * radius or high - low <= 1e-14 * max(high, 1e-3 * top):
            break
        low, high = (shift, high) if length > radius else (low, shift)
        fall = float(step @ (step / shifted))
        shift += (length / radius - 1.0) * length * length / fall if fall > 0 else 0.0
        if not low < shift < high:
            shift = 0.5 * (low + high)
    return step


def _conjugate_step(gradient: FloatArray, product: Product, radius: float) -> FloatArray:
    """Truncated conjugate gradients (Steihaug, 1983)."""
    step = np.zeros_like(gradient)
    residual = -gradient
    direction = residual.copy()
    square = first = float(residual @ residual)
    for _ in range(MOST_ITERATIONS):
        if square <= 1e-6 * first or square == 0.0:
            break
        image = product(direction)
        curvature = float(direction @ image)
        along, across = float(direction @ direction), float(step @ direction)
        room = max(radius**2 - float(step @ step), 0.0)
        edge = float((np.sqrt(across**2 + along * room) - across) / along)
        if curvature <= 0 or square / curvature >= edge:
            return step + edge * direction
        step = step + square / curvature * direction
        residual = residual - square / curvature * image
        square, previous = float(residual @ residual), square
        direction = residual + square / previous * direction
    return step


def box_step(
    gradient: FloatArray,
    product: Product,
    radius: float,
    frame: FloatArray,
    box: tuple[FloatArray, FloatArray],
    hessian: FloatArray | None,
) -> FloatArray:
    """The same with `low <= frame @ s <= high`: what leaves the box is held, the rest redone.

    Returns:
        The step, shape `(p,)`; rounding may leave it outside by 1e-12.
    """
    step = ball_step(gradient, product, radius, hessian)
    low, high = box
    held: NDArray[np.bool_] = np.zeros(len(low), dtype=bool)
    for _ in range(MOST_HELD):
        move = frame @ step
        outside = (move < low - 1e-12) | (move > high + 1e-12)
        fresh, held = (outside & ~held).any(), held | outside
        if not fresh or (basis := _held_basis(frame[held])) is None:
            break
        inside, triangle, free = basis
        target = np.minimum(np.maximum(move, low), high)[held]
        fixed = inside @ np.linalg.solve(triangle.T, target)
        fixed *= min(1.0, radius / max(float(np.linalg.norm(fixed)), SMALLEST_NUMBER))
        left = float(np.sqrt(max(radius**2 - float(fixed @ fixed), 1e-4 * radius**2)))
        inner = free.T @ hessian @ free if hessian is not None else None
        step = fixed + free @ _reduced_step(gradient + product(fixed), product, left, free, inner)
    return step


def _reduced_step(
    gradient: FloatArray,
    product: Product,
    radius: float,
    free: FloatArray,
    hessian: FloatArray | None,
) -> FloatArray:
    def reduced(vector: FloatArray) -> FloatArray:
        return np.asarray(free.T @ product(free @ vector))

    return ball_step(free.T @ gradient, reduced, radius, hessian)


def _held_basis(rows: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Orthonormal bases of the held rows' span and of the rest; `None` if nothing stays free."""
    count, size = rows.shape
    if count >= size:
        return None
    basis, triangle = np.linalg.qr(rows.T, mode="complete")
    if bool((abs(triangle.diagonal()) < 1e-10).any()):
        return None
    return basis[:, :count], triangle[:count], basis[:, count:]
