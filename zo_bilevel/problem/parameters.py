"""The kinds of meta-parameters: real, logarithmic, integer, choice, and arrays of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.support.arguments import finite_number, shape_of, whole_number
from zo_bilevel.support.arrays import own
from zo_bilevel.support.errors import InputError

Shape: TypeAlias = tuple[int, ...]
INT64 = np.iinfo(np.int64)


@final
@dataclass(frozen=True, slots=True)
class Normal:
    """What is known of a `Real` before the data: a mean and how far it may be off.

    Args:
        mean: Within the bounds.
        std: Standard deviation, > 0. Of an array each number has it; of a field with a
            correlation length neighbouring values are correlated.

    Raises:
        InputError: If a number is not finite, or `std <= 0`.
    """

    mean: float
    std: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", finite_number("Normal mean", self.mean))
        object.__setattr__(self, "std", finite_number("Normal std", self.std, "> 0"))


@final
@dataclass(frozen=True, slots=True)
class LogNormal:
    """What is known of a `Log` before the data: its logarithm is normally distributed.

    Args:
        median: > 0, within the bounds.
        sigma: Standard deviation of the natural logarithm, > 0: 0.1 is about 10 percent, 0.7 a
            factor of two.

    Raises:
        InputError: If a number is not finite and > 0.
    """

    median: float
    sigma: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "median", finite_number("LogNormal median", self.median, "> 0"))
        object.__setattr__(self, "sigma", finite_number("LogNormal sigma", self.sigma, "> 0"))


def _check_prior(parameter: Real | Log, kind: type[Normal | LogNormal]) -> None:
    prior = parameter.prior
    if prior is None:
        return
    if not isinstance(prior, kind):
        raise InputError(
            f"the prior of {type(parameter).__name__} must be zb.{kind.__name__}, got {prior!r}"
        )
    center = prior.mean if isinstance(prior, Normal) else prior.median
    if not parameter.lower <= center <= parameter.upper:
        raise InputError(
            f"the prior's {'mean' if isinstance(prior, Normal) else 'median'} must lie in "
            f"[{parameter.lower}, {parameter.upper}], got {center}"
        )


def _settle(parameter: Real | Log | Integer) -> None:
    """Check the bounds and the shape, and keep them as plain numbers and a plain tuple."""
    kind, is_integer = type(parameter).__name__, isinstance(parameter, Integer)
    for name in ("lower", "upper"):
        given = getattr(parameter, name)
        none = -math.inf if name == "lower" else math.inf
        if isinstance(parameter, Real) and isinstance(given, float) and given == none:
            continue
        number = (whole_number if is_integer else finite_number)(f"{kind} {name}", given)
        if is_integer and not INT64.min <= number <= INT64.max:
            raise InputError(f"{kind} {name} must fit 64 bits, got {given!r}")
        if is_integer or type(given) is not int:  # as the user wrote it, for messages
            object.__setattr__(parameter, name, number)
    low, high = parameter.lower, parameter.upper
    if low >= high:
        fixed = f": a single value is zb.Fixed({low})" if low == high else ""
        raise InputError(f"{kind} lower must be < upper, got lower={low}, upper={high}{fixed}")
    is_open = isinstance(parameter, Real) and not parameter.is_bounded
    if not is_open and not math.isfinite(float(high) - float(low)):
        raise InputError(f"{kind} upper - lower must be finite, got lower={low}, upper={high}")
    object.__setattr__(parameter, "shape", shape_of(kind, parameter.shape))


@final
@dataclass(frozen=True, slots=True)
class Real:
    """A real number, or an array of them, between two bounds, or without one or both.

    Bounds that say nothing are better left out. A number without a bound, with a `scale`, or with a
    range of more than a thousand times the size of the start, is searched around the start in steps
    of a scale and further out ever faster, up to 3e9 scales away (and 3e9, of a scale below 1): a
    far bound costs nothing.

    Args:
        lower: Smallest value; default none.
        upper: Largest value, above `lower`; default none.
        shape: Shape of the array; `()` is a plain number.
        correlation_length: For an array that samples a smooth field over the unit interval,
            square or cube: the distance over which it varies, in units of the side, > 0.
            Methods then try smooth directions first. A factor of a few either way is harmless.
        scale: By how much the number may well change, > 0. Default, where one is needed: the
            prior's standard deviation, or the way from the start to its mean if that is longer;
            without a prior the size of the start; of a start of 0, the largest of the array's, else
            1. Without a start it is searched around the prior's mean, around 0, or one scale away
            from its only bound.
        prior: What is known before the data; see `Normal`.

    Raises:
        InputError: If an argument breaks its rule, or the prior's mean is outside the bounds.

    Example:
        >>> Real(-5, 5, shape=(64,), correlation_length=0.1).shape
        (64,)
        >>> Real(lower=0, scale=20.0).is_bounded
        False
    """

    lower: float = -math.inf
    upper: float = math.inf
    shape: Shape = ()
    correlation_length: float | None = None
    scale: float | None = None
    prior: Normal | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether it has both bounds."""
        return math.isfinite(self.lower) and math.isfinite(self.upper)

    def __post_init__(self) -> None:
        _settle(self)
        if self.scale is not None:
            object.__setattr__(self, "scale", finite_number("Real scale", self.scale, "> 0"))
        _check_prior(self, Normal)
        if self.correlation_length is None:
            return
        finite_number("Real correlation_length", self.correlation_length, "> 0")
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
        prior: What is known before the data; see `LogNormal`.

    Raises:
        InputError: If `lower <= 0`, `lower >= upper`, a bound is not finite, or the prior's median
            is outside the bounds.

    Example:
        >>> Log(1e-4, 10.0).lower
        0.0001
    """

    lower: float
    upper: float
    shape: Shape = ()
    prior: LogNormal | None = None

    def __post_init__(self) -> None:
        _settle(self)
        if self.lower <= 0:
            raise InputError(f"Log lower must be > 0, got {self.lower}")
        _check_prior(self, LogNormal)


@final
@dataclass(frozen=True, slots=True)
class Integer:
    """An integer, or an array of them, between two bounds that are both included.

    Of more than about `2**50` values only so many can be told apart: methods search among those,
    and a start is put on one beside it.

    Args:
        lower: Smallest value, of 64 bits.
        upper: Largest value, of 64 bits, above `lower`.
        shape: Shape of the array; `()` is a plain integer.

    Raises:
        InputError: If a bound is not a whole number of 64 bits or `lower >= upper`.

    Example:
        >>> Integer(1, 4).upper
        4
    """

    lower: int
    upper: int
    shape: Shape = ()

    def __post_init__(self) -> None:
        _settle(self)


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """One of several options, or an array of such choices.

    Inside, a choice is one score per option and the largest score wins (the first on a tie),
    so that smoothing over the scores makes the choice probabilistic.

    Args:
        options: At least two different values of any type, in a list or another sequence: a set
            has no order of its own. Lists, dicts and arrays among them are copied, also each time
            the solver is given one.
        shape: Shape of the array of choices; `()` is a single choice.

    Raises:
        InputError: If there are fewer than two options or one appears twice, or they are a set, a
            mapping or a text.

    Example:
        >>> Choice(["euler", "heun"]).options
        ('euler', 'heun')
    """

    options: Sequence[Any]
    shape: Shape = ()

    def __post_init__(self) -> None:
        if isinstance(self.options, str | bytes | Set | Mapping):
            kind = type(self.options).__name__
            raise InputError(f"Choice options must be a list of options, got a {kind}")
        try:
            options = tuple(map(own, self.options))
        except TypeError:
            kind = type(self.options).__name__
            raise InputError(f"Choice options must be a list of options, got a {kind}") from None
        object.__setattr__(self, "options", options)
        if len(options) < 2:
            fixed = f": a single value is zb.Fixed({options[0]!r})" if options else ""
            raise InputError(f"Choice needs at least 2 options, got {list(options)}{fixed}")
        for index, option in enumerate(options):
            if any(same_option(option, other) for other in options[:index]):
                raise InputError(f"Choice options must differ, got {option!r} twice")
        object.__setattr__(self, "shape", shape_of("Choice", self.shape))

    def index(self, value: Any) -> int | None:  # noqa: ANN401 - any option
        """Which option a value is, or `None`."""
        places = (k for k, option in enumerate(self.options) if same_option(option, value))
        return next(places, None)


def same_option(one: Any, other: Any) -> bool:  # noqa: ANN401 - any options
    """Whether two options are equal; arrays are when all their numbers are."""
    if one is other:
        return True
    if hasattr(one, "shape") or hasattr(other, "shape"):
        return type(one) is type(other) and np.array_equal(np.asarray(one), np.asarray(other))
    try:
        return bool(one == other)
    except ValueError:  # arrays inside
        return repr(one) == repr(other)


Parameter: TypeAlias = Real | Log | Integer | Choice
