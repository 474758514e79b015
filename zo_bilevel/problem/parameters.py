"""The kinds of meta-parameters: real, logarithmic, integer, choice, and arrays of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from zo_bilevel.support.errors import InputError

Shape: TypeAlias = tuple[int, ...]


def _check_bounds(kind: str, lower: float, upper: float) -> None:
    if not (math.isfinite(lower) and math.isfinite(upper)):
        raise InputError(f"{kind} bounds must be finite, got lower={lower}, upper={upper}")
    if lower >= upper:
        raise InputError(f"{kind} lower must be < upper, got lower={lower}, upper={upper}")


def _check_shape(kind: str, shape: Shape) -> None:
    if any(not isinstance(length, int) or length < 1 for length in shape):
        raise InputError(f"{kind} shape must hold integers >= 1, got {shape}")


@final
@dataclass(frozen=True, slots=True)
class Real:
    """A real number, or an array of them, between two bounds.

    Args:
        lower: Smallest value, finite.
        upper: Largest value, finite, above `lower`.
        shape: Shape of the array; `()` is a plain number.
        correlation_length: For an array that samples a smooth field over the unit interval,
            square or cube: the distance over which it varies, in units of the side, > 0.
            Methods then try smooth directions first. A factor of a few either way is harmless.

    Raises:
        InputError: If a bound, the shape or the correlation length breaks its rule.

    Example:
        >>> Real(-5, 5, shape=(64,), correlation_length=0.1).shape
        (64,)
    """

    lower: float
    upper: float
    shape: Shape = ()
    correlation_length: float | None = None

    def __post_init__(self) -> None:
        _check_bounds("Real", self.lower, self.upper)
        _check_shape("Real", self.shape)
        length = self.correlation_length
        if length is None:
            return
        if not (math.isfinite(length) and length > 0):
            raise InputError(f"Real correlation_length must be finite and > 0, got {length}")
        if not 1 <= len(self.shape) <= 3:
            raise InputError(
                f"Real correlation_length needs a shape of 1 to 3 axes, got shape={self.shape}"
            )


@final
@dataclass(frozen=True, slots=True)
class Log:
    """A positive number, or an array of them, searched on a logarithmic scale.

    Args:
        lower: Smallest value, > 0.
        upper: Largest value, finite, above `lower`.
        shape: Shape of the array; `()` is a plain number.

    Raises:
        InputError: If `lower <= 0`, `lower >= upper`, or a bound is not finite.

    Example:
        >>> Log(1e-4, 10.0).lower
        0.0001
    """

    lower: float
    upper: float
    shape: Shape = ()

    def __post_init__(self) -> None:
        if self.lower <= 0:
            raise InputError(f"Log lower must be > 0, got {self.lower}")
        _check_bounds("Log", self.lower, self.upper)
        _check_shape("Log", self.shape)


@final
@dataclass(frozen=True, slots=True)
class Integer:
    """An integer, or an array of them, between two bounds that are both included.

    Args:
        lower: Smallest value.
        upper: Largest value, above `lower`.
        shape: Shape of the array; `()` is a plain integer.

    Raises:
        InputError: If a bound is not a whole number or `lower >= upper`.

    Example:
        >>> Integer(1, 4).upper
        4
    """

    lower: int
    upper: int
    shape: Shape = ()

    def __post_init__(self) -> None:
        for name, bound in (("lower", self.lower), ("upper", self.upper)):
            if not math.isfinite(bound) or int(bound) != bound:
                raise InputError(f"Integer {name} must be a whole number, got {bound}")
        _check_bounds("Integer", self.lower, self.upper)
        _check_shape("Integer", self.shape)


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """One of several options, or an array of such choices.

    Inside, a choice is one score per option and the largest score wins (the first on a tie),
    so that smoothing over the scores makes the choice probabilistic.

    Args:
        options: At least two different values of any type.
        shape: Shape of the array of choices; `()` is a single choice.

    Raises:
        InputError: If there are fewer than two options or one appears twice.

    Example:
        >>> Choice(["euler", "heun"]).options
        ('euler', 'heun')
    """

    options: Sequence[Any]
    shape: Shape = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        if len(self.options) < 2:
            raise InputError(f"Choice needs at least 2 options, got {list(self.options)}")
        for index, option in enumerate(self.options):
            if option in self.options[:index]:
                raise InputError(f"Choice options must differ, got {option!r} twice")
        _check_shape("Choice", self.shape)


Parameter: TypeAlias = Real | Log | Integer | Choice
