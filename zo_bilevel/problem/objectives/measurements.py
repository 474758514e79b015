"""What measurements say beside their values: weights that line up with them, and a covariance."""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.support.arrays import FloatArray, frozen
from zo_bilevel.support.errors import InputError

Shape: TypeAlias = tuple[int, ...]
MOST_ASYMMETRY = 1e-8
"""Of the largest number, that rounding may leave."""


def check_weights(
    inverse: FloatArray,
    weights: Any,  # noqa: ANN401 - as given
    deviations: FloatArray,
    sigma: Any,  # noqa: ANN401 - as given
) -> None:
    """Refuse weights and standard deviations that are none."""
    good = np.isfinite(inverse) & (inverse >= 0)
    if not (good.all() and inverse.any()):
        got = _first(inverse, good & inverse.any(), weights)
        raise InputError(f"weights must be finite, >= 0 and not all 0, got {got}")
    good = np.isfinite(deviations) & (deviations > 0)
    if not good.all():
        raise InputError(f"sigma must be finite and > 0, got {_first(deviations, good, sigma)}")


def _first(values: FloatArray, good: NDArray[np.bool_], given: Any) -> str:  # noqa: ANN401 - as given
    """The first number that breaks a rule, where many were given."""
    if np.isscalar(given):
        return repr(given)
    bad = np.flatnonzero(~good)
    return f"{values[bad[0]]} at position {bad[0]} ({bad.size} of {values.size} values)"


def names_of(layout: ThetaLayout) -> str:
    """Names of the parts, for messages."""
    return ", ".join(layout.names) or "no names"


def fitted(
    part: FloatArray, shape: Shape, wanted: Shape, labels: tuple[str, ...]
) -> FloatArray | None:
    """The numbers of a part as many as are wanted; `None` where its shape does not fit."""
    if any(labels):  # they name axes of the target, one by one
        return part if shape == wanted else None
    if essential(shape) == essential(wanted):
        return part
    try:
        return np.broadcast_to(part.reshape(shape), wanted).ravel()
    except ValueError:
        return None


def essential(shape: Shape) -> Shape:
    """A shape without its axes of length 1."""
    return tuple(length for length in shape if length != 1)


def is_shorter(shape: Shape, wanted: Shape) -> bool:
    """Whether an array fits a target's shape, or would if it were longer along an axis."""
    if essential(shape) == essential(wanted):
        return True
    is_permuted = sorted(essential(shape)) == sorted(essential(wanted))
    fits = len(shape) == len(wanted) and all(a <= b for a, b in zip(shape, wanted, strict=True))
    return fits and not is_permuted


def covariance_factor(
    covariance: Any,  # noqa: ANN401 - matrix or dict of them
    layout: ThetaLayout,
    rows: NDArray[np.int64],
) -> tuple[FloatArray, FloatArray]:
    """The lower Cholesky factor of the covariance of the numbers that are there.

    Returns:
        The factor, `(count, count)`, and the standard deviations, `(m,)`, 1 where not known.

    Raises:
        InputError: If it has another shape, or is not finite, symmetric and positive definite.
    """
    import scipy.linalg  # slow to import, seldom needed

    whole = _whole(covariance, layout)
    matrix = whole[np.ix_(rows, rows)]
    if not np.isfinite(matrix).all():
        raise InputError("covariance must be finite wherever target is given")
    if np.abs(matrix - matrix.T).max() > MOST_ASYMMETRY * np.abs(matrix).max():
        raise InputError("covariance must be symmetric")
    try:
        factor = scipy.linalg.cholesky(matrix, lower=True)
    except np.linalg.LinAlgError:
        smallest = float(np.linalg.eigvalsh(matrix)[0])
        raise InputError(
            f"covariance must be positive definite, its smallest eigenvalue is {smallest:.3g}"
        ) from None
    variances = np.diag(whole)
    is_known = np.isfinite(variances) & (variances > 0)
    return frozen(factor), np.sqrt(np.where(is_known, variances, 1.0))


def _whole(covariance: Any, layout: ThetaLayout) -> FloatArray:  # noqa: ANN401
    if not isinstance(covariance, Mapping):
        return _matrix("covariance", covariance, layout.size)
    if sorted(covariance) != sorted(layout.names):
        raise InputError(
            f"covariance must be a matrix or have the names of target, "
            f"{', '.join(layout.names) or 'none'}, got {', '.join(map(str, covariance))}"
        )
    import scipy.linalg

    sizes = [math.prod(shape) for shape in layout.shapes]
    parts = [
        _matrix(f"covariance of {name!r}", covariance[name], size)
        for name, size in zip(layout.names, sizes, strict=True)
    ]
    return np.asarray(scipy.linalg.block_diag(*parts), dtype=np.float64)


def _matrix(name: str, given: Any, size: int) -> FloatArray:  # noqa: ANN401
    try:
        matrix = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers, got {given!r}") from error
    if matrix.shape == () and size == 1:
        matrix = matrix.reshape(1, 1)
    if matrix.shape != (size, size):
        raise InputError(f"{name} must have shape {(size, size)}, got {matrix.shape}")
    return matrix
