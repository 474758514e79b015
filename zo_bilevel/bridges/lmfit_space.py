"""Parameters of lmfit as a space."""

from typing import Any

from zo_bilevel.problem.dependent import Fixed, Tied
from zo_bilevel.problem.parameters import Parameter, Real
from zo_bilevel.problem.space import Space
from zo_bilevel.support.errors import InputError


def space_of(parameters: Any) -> Space:  # noqa: ANN401 - of an optional package
    """The space of lmfit's `Parameters`.

    Raises:
        InputError: If an `expr` is no formula that `Tied` knows, or these are no such parameters.
    """
    try:
        declared = {p.name: _declared(p) for p in parameters.values()}
    except AttributeError as error:
        raise InputError(f"from_lmfit needs lmfit.Parameters, got {parameters!r}") from error
    return Space(declared)


def _declared(given: Any) -> Parameter | Fixed | Tied:  # noqa: ANN401 - lmfit.Parameter
    try:
        if given.expr:
            return Tied(given.expr)
        return Real(given.min, given.max) if given.vary else Fixed(given.value)
    except InputError as error:
        raise InputError(f"from_lmfit: parameter {given.name!r}: {error}") from error
