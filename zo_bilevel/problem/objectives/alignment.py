"""Whether numbers line up with a target, part by part."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

Shape: TypeAlias = tuple[int, ...]


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
