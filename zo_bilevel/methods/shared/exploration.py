"""In which order directions are explored: scalars first, then arrays from smooth to rough.

An array is explored along the cosine modes of its grid, by rising frequency: where neighbours vary
together the first few modes carry most of the change, and where they do not the modes are as good
as any other rotation. A correlation length sets how fast the modes of one array give way to those
of another.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.problem.space import Space
from zo_bilevel.support.arrays import FloatArray

FEW_PARAMETERS = 8
"""Up to so many parameters each is explored on its own, unless they are a smooth field."""
DEFAULT_LENGTH = 0.3
"""Correlation length taken for a field that names none; sets the order of modes, no more."""
MOST_COORDINATES = 40
"""Up to so many parameters of a loss each is a direction of its own, unless they are a field."""
MIN_MODE_DEVIATION = 1e-3
"""Modes of a field whose prior deviation is below this share of the first are left out."""
ENOUGH_LEFT = 0.99
"""Squared share of a vector outside the basis with which one projection is accurate."""


def candidate_directions(space: Space) -> Iterator[FloatArray]:
    """All directions of the continuous coordinates once, the most promising first.

    Yields:
        Orthonormal vectors of shape `(N,)`, zero in integers and choices.

    Example:
        >>> from zo_bilevel import Log, Real
        >>> [d.tolist() for d in candidate_directions(Space(a=Log(1, 2), b=Real(0, 1)))]
        [[1.0, 0.0], [0.0, 1.0]]
    """
    roughness = np.full(space.size, np.inf)
    blocks = [block for block in space.blocks if not space.discrete[block.start]]
    few = sum(block.stop - block.start for block in blocks) <= FEW_PARAMETERS
    in_modes = {}
    for block in blocks:
        length = getattr(block.parameter, "correlation_length", None)
        in_modes[block.name] = length is not None or not (few or not block.parameter.shape)
        if in_modes[block.name]:
            roughness[block.section] = _roughness(block.parameter.shape, length)
        else:
            roughness[block.section] = 0.0
    for index in np.argsort(roughness, kind="stable"):
        if not np.isfinite(roughness[index]):
            return
        block = next(b for b in blocks if b.start <= index < b.stop)
        direction = np.zeros(space.size)
        direction[index] = 1.0
        if in_modes[block.name]:
            from scipy import fft  # slow to import, seldom needed

            grid = direction[block.section].reshape(block.parameter.shape)
            direction[block.section] = fft.idctn(grid, norm="ortho").ravel()
        yield direction


def _roughness(shape: tuple[int, ...], length: float | None) -> FloatArray:
    """`(pi |k| l)^2` of every cosine mode, flat."""
    axes = [np.arange(count, dtype=np.float64) for count in shape]
    squared = sum(k**2 for k in np.meshgrid(*axes, indexing="ij"))
    scale = np.pi * (DEFAULT_LENGTH if length is None else length)
    return np.asarray(squared, dtype=np.float64).ravel() * scale**2


def orthogonal_part(direction: FloatArray, basis: FloatArray) -> FloatArray:
    """What is left of a direction outside the span of an orthonormal basis."""
    before = float(direction @ direction)
    for _ in range(2):  # twice is enough (Parlett, "The symmetric eigenvalue problem")
        direction = direction - basis @ (basis.T @ direction)
        after = float(direction @ direction)
        if after > ENOUGH_LEFT * before:
            break
    return direction


def scaled_directions(space: Space, free: NDArray[np.bool_]) -> Iterator[FloatArray]:
    """Directions of the free coordinates, the most important first, as long as they are likely.

    Yields:
        Coordinates where there are few; else modes times their deviation in the prior.
    """
    count = int(free.sum())
    if not space.has_correlation and count <= MOST_COORDINATES:
        yield from np.eye(count)
        return
    longest = 0.0
    for direction in candidate_directions(space):
        scaled = space.prior.apply_sqrt(direction)
        length = float(np.linalg.norm(scaled))
        longest = max(longest, length)
        if length > MIN_MODE_DEVIATION * longest:
            yield scaled[free]
