"""A Nevergrad parametrization as a space, and values back in its structure."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from zo_bilevel.problem.parameters import Choice, Integer, Log, Parameter, Real
from zo_bilevel.problem.space import Space
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.packages import import_optional

Leaf: TypeAlias = Any
"""A Nevergrad parameter that holds values and no other parameters."""


def space_of(parametrization: Any) -> Space:  # noqa: ANN401 - a Nevergrad parametrization
    """A Nevergrad parametrization as a space.

    Args:
        parametrization: Scalar, Log, Array, Choice, or a Dict, Tuple or Instrumentation of them.

    Returns:
        The space. Names are keys, "outer.inner" within another; positional arguments are "0", "1";
        a parameter that stands alone is "value". Constants are left out.

    Raises:
        InputError: If a parameter has no bounds, different bounds for its numbers, a constraint, or
            is of a kind that no space has (a parameter as an option of a choice too), by its name.
        MissingPackageError: If Nevergrad is not installed.
    """
    _kinds()
    found = {name: _parameter(name, leaf) for name, leaf in leaves(parametrization)}
    if not found:
        raise InputError("the parametrization has no parameter that is not constant")
    return Space(found)


def _kinds() -> Any:  # noqa: ANN401 - a module without types
    return import_optional("nevergrad", "Nevergrad's parametrization", "baselines").p


def leaves(parametrization: Any, prefix: str = "") -> Iterator[tuple[str, Leaf]]:  # noqa: ANN401
    """Parameters by name, constants left out; `InputError` if one has a constraint."""
    kinds = _kinds()
    _refuse_constraints(prefix or "the parametrization", parametrization)
    if isinstance(parametrization, kinds.Instrumentation):
        for part in (parametrization[0], parametrization[1]):
            yield from leaves(part, prefix)
    elif isinstance(parametrization, kinds.Dict | kinds.Tuple):
        for key, part in parametrization._content.items():
            yield from leaves(part, f"{prefix}.{key}" if prefix else str(key))
    elif not isinstance(parametrization, kinds.Constant):
        yield prefix or "value", parametrization


def _refuse_constraints(name: str, parametrization: Any) -> None:  # noqa: ANN401
    owner = "Nevergrad's parametrization"
    core = import_optional("nevergrad.parametrization.core", owner, "baselines")
    utils = import_optional("nevergrad.parametrization.utils", owner, "baselines")
    rules = [
        rule
        for rule in parametrization._constraint_checkers
        if not isinstance(rule, utils.BoundChecker)  # the bounds, known by themselves
    ]
    layers = [layer._LAYER_LEVEL for layer in parametrization._layers]
    if rules or core.Level.CONSTRAINT in layers:
        raise InputError(
            f"{name} has a constraint, and constraints are not known here: return a high loss "
            "where it is broken, or raise in the solver"
        )


def _parameter(name: str, leaf: Leaf) -> Parameter:
    kinds = _kinds()
    if isinstance(leaf, kinds.Choice | kinds.TransitionChoice):
        for option, part in leaves(leaf.choices):
            raise InputError(
                f"{name} has a {type(part).__name__} as option {option}, which no space has: give "
                f"it a name of its own beside {name}"
            )
        options = leaf.choices.value
        repetitions = getattr(leaf, "_repetitions", None)
        return Choice(list(options), () if repetitions is None else (int(repetitions),))
    if not isinstance(leaf, kinds.Array | kinds.Scalar):
        raise InputError(f"{name} is a {type(leaf).__name__}, which no space has")
    lower, upper = _bounds(name, leaf)
    shape = () if isinstance(leaf, kinds.Scalar) else tuple(leaf.value.shape)
    if leaf.integer:
        return Integer(round(lower), round(upper), shape)
    if isinstance(leaf, kinds.Log):
        return Log(lower, upper, shape)
    return Real(lower, upper, shape)


def _bounds(name: str, leaf: Leaf) -> tuple[float, float]:
    found = []
    for side, bound in zip(("lower", "upper"), leaf.bounds, strict=True):
        if bound is None:
            raise InputError(f"{name} has no {side} bound: give it one by set_bounds(lower, upper)")
        values = np.unique(np.asarray(bound, dtype=np.float64))
        if values.size != 1:
            raise InputError(
                f"{name} has different {side} bounds for its numbers: give each a name of its own"
            )
        found.append(float(values[0]))
    return found[0], found[1]


def initial_of(parametrization: Any) -> dict[str, Any]:  # noqa: ANN401
    """The values that a parametrization has now, by the names of its space.

    Returns:
        Values by name. A `Choice` that was not set has none, since Nevergrad draws it at random; a
        `TransitionChoice` that was not set is in the middle of its options.
    """
    kinds = _kinds()
    found: dict[str, Any] = {}
    for name, leaf in leaves(parametrization):
        if isinstance(leaf, kinds.TransitionChoice):
            found[name] = _chosen(leaf, leaf.indices.value)
        elif not isinstance(leaf, kinds.Choice):
            found[name] = leaf.value
        else:
            weights = leaf.indices._value  # a row for each repetition; its own value may be drawn
            if np.ptp(weights) > 0:
                found[name] = _chosen(leaf, np.argmax(weights, axis=1))
    return found


def _chosen(leaf: Leaf, picks: Any) -> Any:  # noqa: ANN401 - any option, or an array of them
    options = leaf.choices.value
    if leaf._repetitions is None:
        return options[int(picks[0])]
    chosen = np.empty(len(picks), dtype=object)
    for place, pick in enumerate(picks):
        chosen[place] = options[int(pick)]
    return chosen


def value_of(parametrization: Any, phi: Mapping[str, Any], prefix: str = "") -> Any:  # noqa: ANN401
    """Values by name in the structure of the parametrization."""
    kinds = _kinds()
    if isinstance(parametrization, kinds.Instrumentation):
        return tuple(
            value_of(part, phi, prefix) for part in (parametrization[0], parametrization[1])
        )
    if isinstance(parametrization, kinds.Dict | kinds.Tuple):
        parts = {
            key: value_of(part, phi, f"{prefix}.{key}" if prefix else str(key))
            for key, part in parametrization._content.items()
        }
        return tuple(parts.values()) if isinstance(parametrization, kinds.Tuple) else parts
    if isinstance(parametrization, kinds.Constant):
        return parametrization.value
    found = phi[prefix or "value"]
    is_repeated = isinstance(found, np.ndarray) and found.dtype == object
    return tuple(found.tolist()) if is_repeated else found
