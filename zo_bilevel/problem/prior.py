"""The prior covariance of the scaled vector: smooth fields through their cosine spectrum.

A field with correlation length `l` over the unit interval, square or cube has cosine modes of
frequency `k` with standard deviation proportional to `1 / (1 + (pi |k| l)^2)`: smooth modes are
large, rough ones small. Products with the square root cost one fast cosine transform, so that
no N x N matrix is ever made.
"""

from collections.abc import Sequence
from typing import TypeAlias, final

import numpy as np

from zo_bilevel.support.arrays import FloatArray

Field: TypeAlias = tuple[slice, tuple[int, ...], float]


def cosine_spectrum(shape: tuple[int, ...], correlation_length: float) -> FloatArray:
    """Standard deviation of each cosine mode of a field of unit pointwise variance.

    Args:
        shape: Grid of the field, 1 to 3 axes over a unit side each.
        correlation_length: In units of the side, > 0.

    Returns:
        Array of the given shape; its mean square is 1.

    Source:
        Matern-type covariance with zero-flux boundaries: Lindgren, Rue, Lindstroem (2011),
        "An explicit link between Gaussian fields and Gaussian Markov random fields", eq. 2.
    """
    frequencies = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in shape], indexing="ij")
    squared = sum((np.pi * k * correlation_length) ** 2 for k in frequencies)
    weights: FloatArray = 1.0 / (1.0 + np.asarray(squared))
    return np.asarray(weights / np.sqrt(np.mean(weights**2)))


@final
class Prior:
    """Square root of the prior covariance, applied without ever forming it.

    Args:
        size: Length of the scaled vector.
        fields: For each smooth field its place in the vector, its shape, correlation length.

    Example:
        >>> prior = Prior(3, [(slice(0, 2), (2,), 0.5)])
        >>> x = prior.apply_sqrt(np.array([1.0, 2.0, 3.0]))
        >>> bool(np.allclose(prior.whiten(x), [1.0, 2.0, 3.0]))
        True
    """

    def __init__(self, size: int, fields: Sequence[Field]) -> None:
        self.size = size
        self._fields = [
            (section, shape, cosine_spectrum(shape, length)) for section, shape, length in fields
        ]

    @property
    def is_white(self) -> bool:
        """Whether no field is correlated: then the square root is the identity."""
        return not self._fields

    def apply_sqrt(self, z: FloatArray) -> FloatArray:
        """Map white coordinates to the scaled vector.

        Args:
            z: Shape `(size,)` or `(size, count)`, columns independent.

        Returns:
            The same shape; standard normal `z` gives draws from the prior.
        """
        return self._scale(z, inverse=False)

    def from_modes(self, z: FloatArray) -> FloatArray:
        """Map amplitudes of the prior's modes, smoothest first, to the scaled vector.

        Standard normal `z` gives draws from the prior, as for `apply_sqrt`, but here a single
        coordinate is a single mode, for methods that move along coordinates.

        Args:
            z: Shape `(size,)`.
        """
        out = np.array(z, dtype=np.float64)
        if not self._fields:
            return out
        from scipy import fft  # slow to import, seldom needed

        for section, shape, spectrum in self._fields:
            modes = np.empty(spectrum.size)
            order = np.argsort(-spectrum, axis=None, kind="stable")
            modes[order] = out[section] * spectrum.ravel()[order]
            out[section] = fft.idctn(modes.reshape(shape), norm="ortho").ravel()
        return out

    def whiten(self, x: FloatArray) -> FloatArray:
        """Undo `apply_sqrt`: white coordinates of the same shape.

        Args:
            x: Shape `(size,)` or `(size, count)`.
        """
        return self._scale(x, inverse=True)

    def _scale(self, values: FloatArray, *, inverse: bool) -> FloatArray:
        out = np.array(values, dtype=np.float64)
        if not self._fields:
            return out
        from scipy import fft  # slow to import, seldom needed

        for section, shape, spectrum in self._fields:
            block = out[section]
            grid = block.reshape(shape + block.shape[1:])
            axes = tuple(range(len(shape)))
            weights = spectrum.reshape(shape + (1,) * (block.ndim - 1))
            modes = fft.dctn(grid, axes=axes, norm="ortho")
            modes = modes / weights if inverse else modes * weights
            out[section] = fft.idctn(modes, axes=axes, norm="ortho").reshape(block.shape)
        return out
