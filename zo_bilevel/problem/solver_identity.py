"""What tells inner solvers apart, for people and for stores.

Two solvers that differ must not be taken for one, or one would be given the other's stored answers.
The other way round costs solves and nothing else.
"""

import secrets
from collections.abc import Callable
from types import FunctionType
from typing import Any

from zo_bilevel.problem.content import DerivedName, UntellableError, content_digest
from zo_bilevel.support.errors import InputError


def solver_name(inner: Callable[..., Any]) -> str:
    """Name an inner solver for people.

    Returns:
        Its `name` attribute if it is text, else module and name, and where these are shared
        (lambdas, functions inside functions, methods, objects) a hash of what it is made of.

    Example:
        >>> solver_name(len)
        'builtins.len'
    """
    given = getattr(inner, "name", None)
    if isinstance(given, str) and given:
        return given
    kind = inner if hasattr(inner, "__qualname__") else type(inner)
    base = f"{kind.__module__}.{kind.__qualname__}"
    has_place = isinstance(inner, FunctionType | type(len)) and "<" not in base
    if has_place and kind.__module__ != "__main__":
        return DerivedName(base)
    try:
        return DerivedName(f"{base}#{content_digest(inner).hex()[:8]}")
    except UntellableError:
        return DerivedName(base)


def solver_identity(inner: Callable[..., Any], name: str, version: str) -> str:
    """What a store tells an inner solver by, as it is at this moment.

    Args:
        inner: The inner solver.
        name: Name of its problem: believed where a person gave it, and so is the solver's own
            `name`; else the solver counts by all that it is made of.
        version: Version of its problem.

    Raises:
        InputError: If nobody gave a name and the solver cannot be told from others.
    """
    if isinstance(name, DerivedName):
        own = getattr(inner, "name", None)
        is_given = isinstance(own, str) and own and not isinstance(own, DerivedName)
        name = str(own) if is_given else fingerprint(inner, "the inner solver")
    return f"{name}\0{version}"


def fingerprint(value: Any, owner: str) -> str:  # noqa: ANN401 - anything a problem holds
    """A hash of all that a value is made of: 32 hexadecimal digits, the same in every process.

    Raises:
        InputError: If a part of it cannot be told from another of its kind.
    """
    try:
        return content_digest(value).hex()
    except UntellableError as error:
        raise InputError(
            f"{owner} holds {error}, and no store can tell it from another of its kind: give "
            "zb.Problem(..., name=..., version=...), another version whenever its answers change"
        ) from error


def content_hash(*parts: Any) -> str:  # noqa: ANN401 - anything an adapter holds
    """A hash for the name of a solver that is made of parts.

    Returns:
        16 hexadecimal digits; where a part cannot be told from others, others every time: solves
        are then never taken from a store, rather than wrongly.
    """
    try:
        return content_digest(parts).hex()[:16]
    except UntellableError:
        return secrets.token_hex(8)
