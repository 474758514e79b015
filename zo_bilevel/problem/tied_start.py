"""A start given by the values of tied parameters: what the free ones must be then."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zo_bilevel.problem.coordinates import Coordinates
from zo_bilevel.support.arrays import FloatArray

START_ACCURACY = 1e-15
VARIABLE_SHIFT = 10.0
"""Keeps variables away from 0, of which scipy takes steps that are too short."""
INNER_SHARE = 0.999
"""Of the way to the bounds, where the search begins at the latest."""


def at_tied_values(
    space: Coordinates,
    decode: Callable[[FloatArray], dict[str, Any]],
    tied: tuple[str, ...],
    phi: Mapping[str, Any],
    x: FloatArray,
) -> FloatArray:
    """Move the numbers that nobody gave to where tied parameters have the values given."""
    try:
        wanted = {name: np.asarray(phi[name], np.float64) for name in tied if name in phi}
    except (TypeError, ValueError):
        return x  # no numbers, which whoever compares them says
    blocks = (b for b in space.blocks if b.name not in phi and not space.discrete[b.start])
    places = [k for block in blocks for k in range(block.start, block.stop)]
    if not wanted or not places:
        return x
    from scipy.optimize import least_squares  # slow to import, seldom needed

    units = np.concatenate([np.ravel(np.where(v == 0, 1.0, v)) for v in wanted.values()])

    def moved(part: FloatArray) -> FloatArray:
        point = x.copy()
        point[places] = part - VARIABLE_SHIFT
        return point

    def left(part: FloatArray) -> FloatArray:
        has = decode(moved(part))
        found = [np.ravel(np.asarray(has[name]) - value) for name, value in wanted.items()]
        shares = np.concatenate(found) / units
        return np.asarray(np.nan_to_num(shares, nan=1e6, posinf=1e6, neginf=-1e6))

    low, high = (end[places] for end in (space.lower, space.upper))
    begin = np.clip(x[places], INNER_SHARE * low, INNER_SHARE * high) + VARIABLE_SHIFT
    if not left(x[places] + VARIABLE_SHIFT).any():
        return x
    options = {"xtol": START_ACCURACY, "ftol": START_ACCURACY, "gtol": START_ACCURACY}
    bounds = low + VARIABLE_SHIFT, high + VARIABLE_SHIFT
    found = least_squares(left, begin, jac="3-point", bounds=bounds, **options)
    return moved(np.asarray(found.x))
