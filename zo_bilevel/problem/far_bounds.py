"""The scale of numbers whose bounds are far away, or nowhere.

Around a centre the coordinate is linear; further out it grows like a logarithm, so that a bound a
million scales away is as near as any other and the steps of methods stay those of the scale:

    value = center + CORE_SCALES * scale * g(v),   g(v) = v                                 |v| <= 1
                                            g(v) = +-(1 + sinh(G (|v| - 1)) / G)     beyond

with two continuous derivatives. It ends at the bound, or where v is 3,
`REACH_SCALES * CORE_SCALES` scales away, and never nearer than for a scale of 1: the size of a
tiny start is a guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.problem.parameters import Parameter, Real
from zo_bilevel.support.arrays import FloatArray, frozen

CORE_SCALES = 10 / 3
"""Scales on each side of the centre in which the coordinate is linear."""
REACH_SCALES = 1e9
"""Of g at its end, v = 3."""
FAR_RANGE = 1e3
"""A range of more than so many times the size of the start is no scale to search by."""
GROWTH_RATE = 11.9485
"""G, by which g(3) is REACH_SCALES."""
END_COORDINATE = 3.0
"""Of v, where there is no bound."""
LAST_COORDINATE, FURTHEST_VALUE = 9.0, 1e40
"""The same where there is one, less than 1, and of g."""


def grown(v: FloatArray) -> FloatArray:
    """g, rising even in its last bits."""
    out = np.exp(GROWTH_RATE * _beyond(v, LAST_COORDINATE))
    tail = 1.0 + (out - 1.0 / out) * (0.5 / GROWTH_RATE)
    return np.where(np.abs(v) <= 1.0, v, np.copysign(tail, v))


def grown_torch(v: Any) -> Any:  # noqa: ANN401 - tensors
    """G of a tensor."""
    import torch

    far = torch.clamp(v.abs() - 1.0, min=0.0, max=LAST_COORDINATE)
    return torch.where(
        v.abs() <= 1.0, v, v.sign() * (1.0 + torch.sinh(GROWTH_RATE * far) / GROWTH_RATE)
    )


def shrunk(g: FloatArray) -> FloatArray:
    """The inverse of g."""
    tail = 1.0 + np.arcsinh(GROWTH_RATE * _beyond(g, FURTHEST_VALUE)) / GROWTH_RATE
    return np.where(np.abs(g) <= 1.0, g, np.copysign(tail, g))


def growth_rate(v: FloatArray) -> FloatArray:
    """Derivative of g."""
    return np.asarray(np.cosh(GROWTH_RATE * _beyond(v, LAST_COORDINATE)))


def _beyond(v: FloatArray, end: float) -> FloatArray:
    """How far beyond 1, at most up to an end: other parameters' numbers are of any size."""
    return np.asarray(np.minimum(np.maximum(np.abs(v) - 1.0, 0.0), end))


LEAST_SHARE, SMALLEST_SIZE = 1e-7, 1e-280
"""Of bounds, where there are two: a smaller start, below 1, is as good as 0 and tells no size."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where a parameter is searched, and in steps of which size > 0: flat, of its size."""

    center: FloatArray
    scale: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "center", frozen(self.center))
        object.__setattr__(self, "scale", frozen(self.scale))


Placements: TypeAlias = Mapping[str, Placement]


def default_placement(parameter: Parameter) -> Placement | None:
    """Where a parameter is searched that nobody gave a start; `None` between its bounds."""
    if not isinstance(parameter, Real) or (parameter.scale is None and parameter.is_bounded):
        return None
    low, high, prior = parameter.lower, parameter.upper, parameter.prior
    scale = parameter.scale or (1.0 if prior is None else prior.std)
    if prior is not None:
        center = prior.mean
    elif parameter.is_bounded:
        center = low + 0.5 * (high - low)
    elif np.isfinite(low):
        center = low + scale
    else:
        center = high - scale if np.isfinite(high) else 0.0
    ones = np.ones(int(np.prod(parameter.shape)))
    return Placement(center * ones, scale * ones)


def placement_at(parameter: Parameter, center: FloatArray) -> Placement | None:
    """Where a parameter is searched from a start; `None` between its bounds."""
    if not isinstance(parameter, Real):
        return None
    span = parameter.upper - parameter.lower
    least = LEAST_SHARE * span if parameter.is_bounded else SMALLEST_SIZE
    sizes = np.where(np.abs(center) < least, 0.0, np.abs(center))
    largest = float(sizes.max()) or max(1.0, float(np.abs(center).max()))
    # a smooth field has one scale, not that of each of its values
    is_believed = parameter.is_bounded and parameter.correlation_length is not None
    if parameter.scale is None and (is_believed or span <= FAR_RANGE * largest):
        return None
    scale = np.where(sizes > 0, sizes, largest)
    given, prior = parameter.scale, parameter.prior
    if given is None and prior is not None:
        given = max(prior.std, float(np.abs(center - prior.mean).max()))
    return Placement(center, scale if given is None else np.full_like(center, given))
