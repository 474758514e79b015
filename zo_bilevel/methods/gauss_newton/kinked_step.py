"""The step where no quadratic describes the objective: absolute values, quantiles, ratios.

The objective is known and cheap; only theta is modelled. So the objective of the model is minimised
as it is, kinks and all: by a quasi-Newton method whose line search asks that the slope has risen,
not that it has vanished (Lewis and Overton 2013, "Nonsmooth optimization via quasi-Newton
methods"), then by the linear program of all planes that were seen (Kelley 1960, "The cutting-plane
method for solving convex programs"), which finds the corner where kinks meet.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np

from zo_bilevel.methods.gauss_newton.trust_step import Room
from zo_bilevel.methods.shared.planes import Plane, lowest_point
from zo_bilevel.support.arrays import FloatArray

Change: TypeAlias = Callable[[FloatArray], tuple[float, FloatArray]]
"""What a step, `(b,)`, adds to a loss, and its gradient, `(b,)`."""

DECREASE, RISE = 1e-4, 0.5
"""Shares of a slope: gained at least along a step of a line search, and left of it at most."""
MOST_TRIALS = 20
PATIENCE, LITTLE = 5, 0.01
"""So many iterations that bring a smaller share of all that was gained are the last."""
SPARE_CALLS, CALLS_PER_DIRECTION = 20, 6
"""Of the objective, for one step."""
CLOSER = 0.1
"""A line search that finds nothing looks so much closer, as does a descent that begins again."""

SPARE_PROGRAMS, PLANES_PER_DIRECTION = 6, 10
"""Linear programs for one step beside one for each direction, and planes in them."""
MOST_IN_PROGRAM = 16
"""Directions above which linear programs take too long."""
FARTHER, GROWTH, SHRINK = 10.0, 2.0, 0.7
"""Cube of a linear program, in distances of the newest planes; its factors after each."""
LEAST_PROMISE = 1e-3
"""Share of all that was gained below which what the planes promise is not looked at."""


@final
@dataclass(frozen=True, slots=True)
class ModelledLoss:
    """What a step is expected to add to the loss, where it is allowed, and how far to go.

    Args:
        change: Of the objective of the model.
        doubt: Added as `s . doubt s / 2`, shape `(b, b)`.
        quartic: Added as `quartic |s|^4 / 4`.
        basis: Orthonormal directions, shape `(N, b)`.
        room: `lower - center` and `upper - center`.
        radius: Longest step.
        steepness: Of the walls around what is allowed.
    """

    change: Change
    doubt: FloatArray
    quartic: float
    basis: FloatArray
    room: Room
    radius: float
    steepness: float

    def allowed(self, step: FloatArray) -> FloatArray:
        """The step as long as allowed."""
        whole = self.basis @ (step * self._share(step))
        return np.asarray(self.basis.T @ np.minimum(np.maximum(whole, self.room[0]), self.room[1]))

    def _share(self, step: FloatArray) -> float:
        return min(1.0, self.radius / max(math.sqrt(step @ step), 1e-300))

    def __call__(self, step: FloatArray) -> tuple[float, FloatArray]:
        """At the nearest step that is allowed, and a wall as high as it is far from there."""
        share, (low, high) = self._share(step), self.room
        whole = self.basis @ (share * step)
        inside = np.minimum(np.maximum(whole, low), high)
        near, outside = self.basis.T @ inside, whole - inside
        value, gradient = self.change(near)
        square, bent = float(near @ near), self.doubt @ near
        value += 0.5 * float(near @ bent) + 0.25 * self.quartic * square**2
        value += self.steepness * float(np.abs(outside).sum())
        gradient = self.basis @ (gradient + bent + self.quartic * square * near)
        walls = self.steepness * np.sign(outside)
        gradient = self.basis.T @ np.where(outside == 0.0, gradient, walls)
        if share < 1.0:
            length = math.sqrt(step @ step)
            unit = step / length
            value += self.steepness * (length - self.radius)
            gradient = share * (gradient - unit * (unit @ gradient)) + self.steepness * unit
        return value, gradient

    def least(self, starts: list[FloatArray], inverse: FloatArray) -> FloatArray:
        """The step that gains most, shape `(b,)`, near the best of some starts.

        Args:
            starts: Each of shape `(b,)`.
            inverse: First guess of the inverse Hessian, `(b, b)`; its scale does not matter.
        """
        best, value, reach = min(starts, key=lambda step: self(step)[0]), math.inf, self.radius
        planes = _Planes(self)
        left = SPARE_CALLS + CALLS_PER_DIRECTION * best.size
        while left > 0 and reach > 0.5 * CLOSER * self.radius:
            found, low, calls = _descend(planes, best, inverse, reach, left)
            left, reach = left - calls, CLOSER * reach
            if value - low > LITTLE * abs(low):
                reach = max(reach, CLOSER * self.radius)
            if low < value:
                best, value = found, low
        return self.allowed(_to_corner(planes, best, value))


@final
class _Planes:
    """A function that remembers where it was called, its values and its gradients."""

    def __init__(self, function: Change) -> None:
        self._function = function
        self.seen: list[Plane] = []

    def __call__(self, step: FloatArray) -> tuple[float, FloatArray]:
        """The function."""
        value, gradient = self._function(step)
        if math.isfinite(value):
            self.seen.append(Plane(step, value, gradient))
        return value, gradient

    def lowest(self, step: FloatArray, value: float, reach: float) -> tuple[FloatArray, float]:
        """Where the highest plane is lowest, in a cube around a step, and how far below there."""
        rows = self.seen[-PLANES_PER_DIRECTION * step.size :]
        return lowest_point(rows, step, value, reach)


def _to_corner(planes: _Planes, step: FloatArray, value: float) -> FloatArray:
    """The lowest of the points where the planes seen so far are lowest, each seen in turn."""
    if step.size > MOST_IN_PROGRAM:
        return step
    newest = [place for place, _, _ in planes.seen[-step.size - 3 :]]
    reach = FARTHER * max(float(np.abs(step - place).max()) for place in newest)
    for _ in range(SPARE_PROGRAMS + step.size):
        moved, promise = planes.lowest(step, value, reach)
        if not promise > LEAST_PROMISE * abs(value):
            break
        new, _ = planes(moved)
        reach *= GROWTH if new < value else SHRINK
        if new < value:
            step, value = moved, new
    return step


def _descend(
    function: Change, start: FloatArray, inverse: FloatArray, reach: float, most: int
) -> tuple[FloatArray, float, int]:
    """Go down from a start by a first step of length `reach`: where to, how low, in how many calls.

    Args:
        function: Continuous, smooth almost everywhere.
        start: Shape `(b,)`.
        inverse: First guess of the inverse Hessian, `(b, b)`.
        reach: Length of the first step.
        most: Calls after which no new line search begins.
    """
    x, (value, gradient) = start, function(start)
    calls, is_scaled, lows = 1, False, [value]
    first = inverse @ gradient
    inverse = inverse * (reach / max(math.sqrt(first @ first), 1e-300))
    while calls < most:
        way = -(inverse @ gradient)
        before = lows[-1 - PATIENCE] if len(lows) > PATIENCE else math.inf
        if before - value <= LITTLE * (lows[0] - value) or not gradient @ way < 0.0:
            break
        moved, new, steep, used = _line_search(function, x, value, gradient, way)
        calls += used
        if not new < value:
            break
        step, change = moved - x, steep - gradient
        x, value, gradient = moved, new, steep
        lows.append(value)
        if not step @ change > 0.0:
            continue
        if not is_scaled:
            inverse, is_scaled = inverse * (step @ change / (change @ inverse @ change)), True
        inverse = _updated(inverse, step, change)
    return x, value, calls


def _line_search(
    function: Change, x: FloatArray, value: float, gradient: FloatArray, way: FloatArray
) -> tuple[FloatArray, float, FloatArray, int]:
    """A point that is lower and past most of the slope; its value, its gradient, and the calls."""
    slope = float(gradient @ way)
    low, high, length, calls = 0.0, math.inf, 1.0, 0
    while True:
        moved = x + length * way
        new, steep = function(moved)
        calls += 1
        if not new <= value + DECREASE * length * slope:
            high = length
        elif float(steep @ way) < RISE * slope:
            low = length
        else:
            break
        if calls == MOST_TRIALS:
            break
        if low == 0.0:
            length = CLOSER * high
        else:
            length = 2.0 * low if high == math.inf else 0.5 * (low + high)
    return moved, new, steep, calls


def _updated(inverse: FloatArray, step: FloatArray, change: FloatArray) -> FloatArray:
    """The inverse Hessian after a step changed the gradient (Broyden to Shanno 1970)."""
    bend, turned = float(step @ change), inverse @ change
    along = (1.0 + float(change @ turned) / bend) * np.outer(step, step)
    return np.asarray(inverse + (along - np.outer(turned, step) - np.outer(step, turned)) / bend)
