"""Standard errors of tied parameters, which follow the free ones by formulas."""

from typing import Any

import numpy as np

from zo_bilevel.problem.space import Space
from zo_bilevel.support.arrays import FloatArray

DIFFERENCE_STEP = 1e-5
"""Scaled; formulas are exact to rounding, so that rounding and curvature are alike."""
OPEN_SHARE = 1e-3
"""Part of a derivative along what the data leave open, above which nothing is determined."""


def tied_errors(
    space: Space, x: FloatArray, factor: FloatArray, is_open: FloatArray
) -> dict[str, tuple[Any, Any]]:
    """Value and standard error of each tied parameter, to first order in the free ones.

    Args:
        space: The parameters.
        x: The answer, scaled, shape `(N,)`.
        factor: Root of the scaled covariance of what is determined, `(N, N)`.
        is_open: Scaled directions that the data leave open, one a row, `(k, N)`.
    """
    if not space.tied:
        return {}
    columns = []
    for index in range(space.size):
        ends = []
        for sign in (-1.0, 1.0):
            end = x.copy()
            end[index] = np.clip(
                x[index] + sign * DIFFERENCE_STEP, space.lower[index], space.upper[index]
            )
            ends.append(end)
        change = _flat(space, ends[1]) - _flat(space, ends[0])
        columns.append(change / (ends[1][index] - ends[0][index]))
    slopes = np.stack(columns, axis=1)
    errors = np.linalg.norm(slopes @ factor, axis=1)
    along, whole = (np.linalg.norm(part, axis=1) for part in (slopes @ is_open.T, slopes))
    errors = np.where(along > OPEN_SHARE * whole, np.inf, errors)
    phi, found, start = space.decode(x), {}, 0
    for name in space.tied:
        value = phi[name]
        error = errors[start : start + np.size(value)].reshape(np.shape(value))
        found[name] = (value, error if np.shape(value) else float(error))
        start += np.size(value)
    return found


def _flat(space: Space, x: FloatArray) -> FloatArray:
    phi = space.decode(x)
    return np.concatenate([np.ravel(phi[name]) for name in space.tied]).astype(np.float64)
