"""Tangents of the scaled vector as tangents of named values, and gradients the other way.

`phi = from + unit * (x + 3)` for a real, `exp` of it for a `Log`: `dphi = slope * dx` with
`slope = unit` or `unit * phi`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from zo_bilevel.problem.space import Space
from zo_bilevel.support.arrays import FloatArray


def slopes(space: Space, x: FloatArray) -> FloatArray:
    """Derivative of each value in the user's units by its scaled coordinate.

    Args:
        space: Of reals and logs only.
        x: Scaled point, shape `(N,)`.

    Returns:
        Shape `(N,)`.

    Example:
        >>> from zo_bilevel.problem.parameters import Log, Real
        >>> slopes(Space(a=Real(0, 6), b=Log(1, 1e6)), np.zeros(2)).round(2).tolist()
        [1.0, 2302.59]
    """
    return np.where(space.is_log, space.unit * space.values(x), space.unit)


def _sections(space: Space) -> Iterator[tuple[str, slice, tuple[int, ...]]]:
    start = 0
    for name, parameter in space.parameters.items():
        stop = start + math.prod(parameter.shape)
        yield name, slice(start, stop), parameter.shape
        start = stop


def named_tangents(space: Space, x: FloatArray, directions: Any) -> dict[str, Any]:  # noqa: ANN401
    """Turn scaled directions into tangents of the named values.

    Args:
        space: Of reals and logs only.
        x: Scaled point, shape `(N,)`.
        directions: Shape `(N, c)`, an array or a tensor.

    Returns:
        Per name an array or tensor of shape `(c, *shape)`, in the user's units.
    """
    by_coordinate: Any = slopes(space, x)[:, None]
    if not isinstance(directions, np.ndarray):
        import torch

        by_coordinate = torch.from_numpy(by_coordinate).to(directions.device)
    scaled = (by_coordinate * directions).T
    return {
        name: scaled[:, section].reshape(-1, *shape) for name, section, shape in _sections(space)
    }


def scaled_gradient(space: Space, x: FloatArray, named: Mapping[str, FloatArray]) -> FloatArray:
    """Turn a gradient by name into one in the scaled vector.

    Args:
        space: Of reals and logs only.
        x: Scaled point, shape `(N,)`.
        named: Per name an array of the parameter's shape, per unit of the user.

    Returns:
        Shape `(N,)`.
    """
    gradient = np.zeros(space.size)
    for name, section, _ in _sections(space):
        gradient[section] = np.ravel(named[name])
    return gradient * slopes(space, x)
