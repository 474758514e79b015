"""A plain Python function as an inner solver: by keyword, by dict or by flat vector."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, final, get_args

import numpy as np

from zo_bilevel.adapters.seeding import solver_signature
from zo_bilevel.problem.parameters import Choice
from zo_bilevel.problem.solver_identity import solver_name
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.support.arguments import refuse_unknown
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, unknown_name_message

Style: TypeAlias = Literal["keyword", "dict", "flat"]


@final
class Function:
    """Call a Python function as the inner solver.

    Args:
        function: The function; it may also take `seed` as a keyword.
        style: How it takes the parameters: "keyword" (`function(nu=0.1, order=2)`), "dict"
            (`function({"nu": 0.1, "order": 2})`), or "flat" (`function(vector)`, a float64 vector
            of all values in the user's units and the order of the space, arrays row by row).

    Raises:
        InputError: If `function` cannot be called or the style is unknown. When a `Problem` is
            made: if a parameter of the space is none of the function's, or the other way round,
            or a `Choice` would go into a flat vector.

    Example:
        >>> solver = Function(lambda a, b: [a * b, a + b])
        >>> solver({"a": 2.0, "b": 3.0})
        [6.0, 5.0]
        >>> Function(lambda vector: vector**2, style="flat")({"a": 2.0, "b": np.ones(2)})
        array([4., 1., 1.])
    """

    def __init__(self, function: Callable[..., Any], style: Style = "keyword") -> None:
        if not callable(function):
            raise InputError(f"function must be callable, got {type(function).__name__}")
        check_style(style)
        self.function = function
        self.style: Style = style
        self.with_seed = takes_seed(function)
        self.__signature__ = solver_signature(with_seed=self.with_seed)
        self.name = solver_name(function)

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401 - the user's own value
        """Call the function with named values."""
        seeded = {"seed": seed} if self.with_seed and "seed" not in phi else {}
        if self.style == "keyword":
            return self.function(**phi, **seeded)
        return self.function(flat_vector(phi) if self.style == "flat" else dict(phi), **seeded)

    def check(self, space: Space) -> None:
        """Refuse a space that does not fit the function, before the first solve.

        Raises:
            InputError: Naming the parameter.
        """
        owner = f"Function({self.name})"
        if self.style == "keyword":
            check_keywords(owner, self.function, space, extra=("seed",))
        if self.style == "flat":
            refuse_choices(owner, space)

    def __repr__(self) -> str:
        return f"Function({self.name}, style={self.style!r})"


def check_style(style: str) -> None:
    """Refuse a style that does not exist."""
    if style not in get_args(Style):
        raise InputError(unknown_name_message("style", str(style), get_args(Style)))


def flat_vector(phi: Mapping[str, Any]) -> FloatArray:
    """All values one after the other, arrays row by row."""
    return np.concatenate([np.ravel(np.asarray(value, dtype=np.float64)) for value in phi.values()])


def refuse_choices(owner: str, space: Space) -> None:
    """Refuse parameters that are no numbers, for flat vectors."""
    for name, parameter in space.parameters.items():
        if isinstance(parameter, Choice):
            raise InputError(
                f"{owner}: parameter {name!r} is a Choice, which has no place in a flat vector; "
                "use style='dict' or style='keyword'"
            )


def check_keywords(
    owner: str, function: Callable[..., Any], space: Space, extra: tuple[str, ...]
) -> None:
    """Compare the parameters of a space with the keywords of a function, both ways.

    Raises:
        InputError: Naming the first mismatch, with the nearest names.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # written in C and without a signature: the first call will tell
    named = {
        name: p
        for name, p in signature.parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        refuse_unknown(owner, "argument", space.names, named)
    for name, p in signature.parameters.items():
        wanted = p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        if wanted and name not in (*space.names, *extra):
            raise InputError(
                f"{owner}: the function's argument {name!r} has no default and no parameter of "
                f"that name (the space has {', '.join(space.names)}); add the parameter, or use "
                "style='dict' for a function of one dict"
            )
