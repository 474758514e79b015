"""Methods by name, for the command line: the one place that turns names into methods."""

from __future__ import annotations

from collections.abc import Callable

from zo_bilevel.errors import InputError, unknown_name_message
from zo_bilevel.methods.base import Method


def _default() -> Method:
    from zo_bilevel.methods.default import DefaultMethod

    return DefaultMethod()


def _zo_adam() -> Method:
    from zo_bilevel.methods.gradient import GradientMethod

    return GradientMethod()


def _random() -> Method:
    from zo_bilevel.methods.random_search import RandomSearch

    return RandomSearch()


PLAIN: dict[str, Callable[[], Method]] = {
    "default": _default,
    "zo-adam": _zo_adam,
    "random": _random,
}
FAMILIES: dict[str, Callable[[str], Method]] = {}


def method_from_name(name: str) -> Method:
    """Make a method from its name on the command line.

    Args:
        name: A plain name ("gauss-newton"), or a family and a member ("nevergrad:CMA").

    Returns:
        The method with its defaults.

    Raises:
        InputError: If the name is unknown, with the nearest ones.
    """
    family, colon, member = name.partition(":")
    if colon and family in FAMILIES and member:
        return FAMILIES[family](member)
    if name in PLAIN:
        return PLAIN[name]()
    known = [*PLAIN, *(f"{family}:NAME" for family in FAMILIES)]
    raise InputError(unknown_name_message("method", name, known))
