"""Checks of arguments, one for each kind, so that every refusal reads alike."""

import math
import numbers
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np

from zo_bilevel.support.errors import InputError, unknown_name_message

Word = TypeVar("Word", bound=str)


def whole_number(name: str, value: object, least: int | None = None) -> int:
    """A whole number of any type that stands for one, as a plain `int`.

    Args:
        name: What it is called, for the message.
        value: Python's and numpy's whole numbers, and floats without a fraction (`1e3`).
        least: Smallest value allowed, or `None`.

    Raises:
        InputError: If it is none, or too small; truth values are none.

    Example:
        >>> whole_number("max_solves", np.int64(5), least=1), whole_number("max_solves", 1e3)
        (5, 1000)
    """
    rule = "a whole number" if least is None else f"a whole number >= {least}"
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    number: Any = value if is_number else math.nan
    is_finite = isinstance(number, numbers.Integral) or math.isfinite(number)
    if not is_finite or int(number) != number or (least is not None and number < least):
        raise InputError(f"{name} must be {rule}, got {value!r}")
    return int(number)


def finite_number(name: str, value: object, rule: str = "") -> float:
    """A finite real number of any type that stands for one, as a plain `float`.

    Args:
        name: What it is called, for the message.
        value: Python's and numpy's numbers, and arrays of one.
        rule: "> 0", ">= 0", or nothing.

    Raises:
        InputError: If it is no number, not finite, or breaks the rule.

    Example:
        >>> finite_number("radius", np.float32(0.5), "> 0")
        0.5
    """
    try:
        plain = np.asarray(value).item() if hasattr(value, "dtype") else value
        number = math.nan if isinstance(plain, str | bytes | bool) else float(plain)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    kept = {"": True, "> 0": number > 0, ">= 0": number >= 0}[rule]
    if not (math.isfinite(number) and kept):
        raise InputError(f"{name} must be finite{' and ' + rule if rule else ''}, got {value!r}")
    return number


def one_of(name: str, value: Word, allowed: tuple[str, ...]) -> Word:
    """One of a few words, as it is; `InputError` if it is none of them.

    Example:
        >>> one_of("difference", "central", ("forward", "central"))
        'central'
    """
    if value not in allowed:
        words = " or ".join(", ".join(map(repr, allowed)).rsplit(", ", 1))
        raise InputError(f"{name} must be {words}, got {value!r}")
    return value


def shape_of(kind: str, shape: object) -> tuple[int, ...]:
    """A shape given as a tuple, a list or one number, as a tuple of plain `int`.

    Args:
        kind: Whose shape, for the message.
        shape: The shape.

    Raises:
        InputError: If a length is no whole number >= 1.

    Example:
        >>> shape_of("Real", 3), shape_of("Real", [2, np.int64(4)])
        ((3,), (2, 4))
    """
    is_many = isinstance(shape, tuple | list) or (isinstance(shape, np.ndarray) and shape.ndim == 1)
    lengths = list(shape) if is_many else [shape]  # type: ignore[call-overload]  # checked above
    try:
        return tuple(whole_number("length", length, least=1) for length in lengths)
    except InputError:
        raise InputError(f"{kind} shape must hold integers >= 1, got {shape}") from None


def refuse_unknown(owner: str, kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse the first name that is not known.

    Raises:
        InputError: Naming the owner, the name and the nearest known names.

    Example:
        >>> refuse_unknown("FMU ball.fmu", "variable", ["gravity"], ["g", "gravity"])
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise InputError(f"{owner}: {unknown_name_message(kind, name, known)}")


def refuse_unused(owner: str, names: Iterable[str], used: Iterable[str], place: str) -> None:
    """Refuse parameters of the space that would have no effect; `InputError` naming the parameters.

    Example:
        >>> refuse_unused("CommandLine", ["a"], ["a", "seed"], "no field uses them")
    """
    unused = sorted(set(names).difference(used))
    if unused:
        raise InputError(f"{owner}: parameters without effect: {', '.join(unused)}; {place}")
