"""Parameters that are not searched: fixed ones, and ones that follow others."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np

from zo_bilevel.problem.expression import Expression
from zo_bilevel.problem.parameters import Log, Parameter, Real, same_option
from zo_bilevel.support.arrays import own
from zo_bilevel.support.errors import InputError, unknown_name_message


@final
@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """A parameter that keeps its value: the solver is given it, no method searches it.

    A plain number or array in a space means the same.

    Args:
        value: Any value; arrays, lists and dicts are copied.

    Example:
        >>> from zo_bilevel import Real, Space
        >>> Space(a=Real(0, 1), mode=Fixed("fast"), b=0.3).decode(np.zeros(1))
        {'a': 0.5, 'mode': 'fast', 'b': 0.3}
    """

    value: Any

    def __post_init__(self) -> None:
        value = self.value.item() if isinstance(self.value, np.generic) else own(self.value)
        if isinstance(value, float | np.ndarray):
            numbers = np.asarray(value)
            if numbers.dtype.kind in "fc" and not np.isfinite(numbers).all():
                raise InputError(f"Fixed value must be finite, got {self.value!r}")
        object.__setattr__(self, "value", value)


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Tied:
    """A parameter that follows others by a formula: it is no unknown of its own.

    Args:
        formula: Of other parameters' names, as in Python: "a", "2 * a + b", "field[0] / sqrt(c)".
            Known are `+ - * / **`, brackets, `pi` and the functions abs, exp, log, log10, sqrt,
            sin, cos, tan, sinh, cosh, tanh, arcsin, arccos, arctan, minimum, maximum, sum,
            cumsum. Of an array it is an array.

    Raises:
        InputError: If it is no such formula.

    Example:
        >>> from zo_bilevel import Real, Space
        >>> Space(a=Real(0, 1), b=Tied("2 * a")).decode(np.zeros(1))
        {'a': 0.5, 'b': 1.0}
    """

    formula: str

    def __post_init__(self) -> None:
        if not isinstance(self.formula, str):
            raise InputError(f"Tied formula must be a text, got {self.formula!r}")
        if not Expression(self.formula).names:
            raise InputError(f"Tied formula must name a parameter, got {self.formula!r}")


def as_dependent(value: Any) -> Any:  # noqa: ANN401 - whatever a space is given
    """A plain number or array as a `Fixed`; anything else as it is."""
    if isinstance(value, bool | int | float | np.ndarray | np.generic):
        return Fixed(value)
    return value


@final
class Dependents:
    """The fixed and tied parameters of a space, added to the free ones in the declared order.

    Raises:
        InputError: If a formula names no parameter, or formulas go round in a circle.
    """

    def __init__(self, declared: Mapping[str, Any]) -> None:
        self.names = tuple(declared)
        self.fixed = {n: p.value for n, p in declared.items() if isinstance(p, Fixed)}
        ties = {n: Expression(p.formula) for n, p in declared.items() if isinstance(p, Tied)}
        for name, tie in ties.items():
            for other in tie.names:
                if other not in declared:
                    said = unknown_name_message("parameter", other, self.names)
                    raise InputError(f"Tied {name!r}: {said}")
        self.ties = _in_order(ties)
        self._is_empty = not self.fixed and not self.ties

    def completed(
        self, free: dict[str, Any], given_out: Callable[[Any], Any] = own
    ) -> dict[str, Any]:
        """All values by name, in the declared order."""
        if self._is_empty:
            return free
        values = {**free, **{name: given_out(value) for name, value in self.fixed.items()}}
        for name, tie in self.ties.items():
            values[name] = tie.evaluate(values)
        return {name: values[name] for name in self.names}

    def check(self, phi: Mapping[str, Any], whole: Callable[[], dict[str, Any]]) -> None:
        """Refuse other values than fixed and tied parameters have, rounding apart.

        Raises:
            InputError: Naming the first one.
        """
        given = {name: phi[name] for name in phi if name in self.fixed or name in self.ties}
        for name, has in whole().items() if given else ():
            if name in given and not _is_close(given[name], has):
                how = "fixed at" if name in self.fixed else f"tied to {self.ties[name].text!r},"
                raise InputError(f"{name} is {how} {has!r}, got {given[name]!r}")


def _is_close(one: Any, other: Any) -> bool:  # noqa: ANN401 - any values
    try:
        return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=1e-9, atol=0.0)
    except TypeError:  # no numbers
        return same_option(one, other)


def _in_order(ties: dict[str, Expression]) -> dict[str, Expression]:
    """The formulas so that each comes after those that it names."""
    ordered: dict[str, Expression] = {}
    while len(ordered) < len(ties):
        ready = [
            name
            for name, tie in ties.items()
            if name not in ordered and all(n in ordered or n not in ties for n in tie.names)
        ]
        if not ready:
            circle = ", ".join(repr(name) for name in ties if name not in ordered)
            raise InputError(
                f"Tied parameters must not depend on themselves, got a circle of {circle}"
            )
        ordered |= {name: ties[name] for name in ready}
    return ordered


def without_prior(parameter: Parameter | Fixed | Tied) -> Parameter | Fixed | Tied:
    """A parameter as solves depend on it."""
    if isinstance(parameter, Real | Log) and parameter.prior is not None:
        return dataclasses.replace(parameter, prior=None)
    return parameter


def as_tensor(value: Any) -> Any:  # noqa: ANN401 - any fixed value
    """A floating number or array as a float64 tensor; anything else as a copy."""
    import torch

    is_number = isinstance(value, float | np.ndarray) and np.asarray(value).dtype.kind == "f"
    return torch.as_tensor(value, dtype=torch.float64) if is_number else own(value)


def check_names(declared: Mapping[str, Any]) -> None:
    """Refuse names and values that a space cannot hold."""
    for name, parameter in declared.items():
        if not isinstance(name, str) or not name:
            raise InputError(f"parameter names must be non-empty strings, got {name!r}")
        if not name.isprintable():  # it would reach terminals, files and databases
            raise InputError(f"parameter names must be printable, got {name!r}")
        if not isinstance(parameter, Parameter | Fixed | Tied):
            raise InputError(
                f"parameter {name!r} must be Real, Log, Integer, Choice, Fixed, Tied or a number, "
                f"got {parameter!r}"
            )
        array = name.rpartition("[")[0] if name.endswith("]") else ""
        if getattr(declared.get(array), "shape", ()):
            raise InputError(
                f"parameter {name!r} is named as one number of the array {array!r} is where arrays "
                "are written out"
            )
