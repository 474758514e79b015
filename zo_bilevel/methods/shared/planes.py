"""Where the highest of several planes is lowest: the model of a loss with kinks.

Source: Kelley (1960), "The cutting-plane method for solving convex programs".
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zo_bilevel.support.arrays import FloatArray


class Plane(NamedTuple):
    """A loss near a point, as far as one gradient tells.

    Args:
        place: Shape `(n,)`.
        value: The loss there.
        slope: Its gradient there, shape `(n,)`.
    """

    place: FloatArray
    value: float
    slope: FloatArray


def lowest_point(
    planes: Sequence[Plane],
    x: FloatArray,
    value: float,
    reach: float,
    box: tuple[FloatArray, FloatArray] | None = None,
) -> tuple[FloatArray, float]:
    """Where the highest plane is lowest in a cube around a point, and how far below the loss there.

    A plane that is above the loss at the point, as the loss is not convex, counts as being as far
    below it.

    Args:
        planes: One or more.
        x: The middle of the cube, shape `(n,)`.
        value: The loss there.
        reach: Half of a side of the cube.
        box: Lower and upper bounds, if any, each of shape `(n,)`.

    Example:
        >>> seen = [Plane(np.array([s]), 1.0, np.array([s])) for s in (1.0, -1.0)]
        >>> point, promise = lowest_point(seen, np.array([1.0]), 1.0, 5.0)
        >>> abs(point).round(6).tolist(), round(promise, 6)
        ([0.0], 1.0)
    """
    from scipy.optimize import linprog  # slow to import, seldom needed

    places, values, slopes = (np.array(part) for part in zip(*planes, strict=True))
    gaps = np.abs(value - values - np.einsum("ij,ij->i", slopes, x - places))
    unit = max(float(np.abs(slopes).max()) * reach, 1e-300)
    matrix = np.column_stack([slopes * (reach / unit), -np.ones(len(planes))])
    low, high = np.full(x.size, -1.0), np.full(x.size, 1.0)
    if box is not None:
        low = np.minimum(np.maximum(low, (box[0] - x) / reach), 0.0)
        high = np.maximum(np.minimum(high, (box[1] - x) / reach), 0.0)
    limits = [*zip(low, high, strict=True), (None, None)]
    found = linprog([0.0] * x.size + [1.0], matrix, gaps / unit, bounds=limits)
    if found.x is None:
        return x, 0.0
    return x + reach * found.x[:-1], -unit * float(found.fun)
