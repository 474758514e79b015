"""Tangents of the scaled vector as tangents of named values, and gradients the other way.

`phi = from + unit * (x + 3)` for a real, `exp` of it for a `Log`: `dphi = rate * dx`. A tied
parameter moves with those that it follows; a fixed one has no tangent.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zo_bilevel.problem.space import Space
from zo_bilevel.support.arrays import FloatArray


def named_tangents(space: Space, x: FloatArray, directions: Any) -> dict[str, Any]:  # noqa: ANN401
    """Turn scaled directions into tangents of the named values.

    Returns:
        Per name, but for fixed ones, an array or tensor of shape `(c, *shape)`, in the user's
        units.

    Example:
        >>> from zo_bilevel.problem.dependent import Tied
        >>> from zo_bilevel.problem.parameters import Real
        >>> space = Space(a=Real(0, 6), b=Tied("a ** 2"))
        >>> {n: t.tolist() for n, t in named_tangents(space, np.zeros(1), np.ones((1, 1))).items()}
        {'a': [1.0], 'b': [6.0]}
    """

    def like_directions(values: FloatArray) -> Any:  # noqa: ANN401 - array or tensor
        if isinstance(directions, np.ndarray):
            return values
        import torch

        return torch.from_numpy(values).to(directions.device)

    scaled = (like_directions(space.rates(x)[:, None]) * directions).T
    tangents = {
        block.name: scaled[:, block.section].reshape(-1, *block.parameter.shape)
        for block in space.blocks
    }
    for name, rates in tie_rates(space, x).items():
        moved = (like_directions(rates) @ directions).T
        tangents[name] = moved.reshape(-1, *space.shapes[name])
    return tangents


def tie_rates(space: Space, x: FloatArray) -> dict[str, FloatArray]:
    """Derivatives of the tied parameters in the scaled vector, each of shape `(count, N)`."""
    if not space.tied:
        return {}
    import torch

    def tied(x_now: Any) -> dict[str, Any]:  # noqa: ANN401 - tensors
        values = space.decode_torch(x_now, x)
        return {name: values[name].reshape(-1) for name in space.tied}

    rates = torch.func.jacrev(tied)(torch.tensor(x))
    return {name: rate.numpy() for name, rate in rates.items()}


def scaled_gradient(space: Space, x: FloatArray, named: Mapping[str, FloatArray]) -> FloatArray:
    """Turn a gradient by name into one in the scaled vector: shape `(N,)`."""
    gradient = np.concatenate([np.ravel(named[block.name]) for block in space.blocks])
    gradient = gradient * space.rates(x)
    for name, rates in tie_rates(space, x).items():
        gradient += np.ravel(named[name]) @ rates
    return gradient
