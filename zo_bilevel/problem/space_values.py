"""Single values of a space: checked, and to and from the numbers of the flat vector."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zo_bilevel.problem.parameters import Choice, Integer, Log, Parameter, Real
from zo_bilevel.support.arrays import FloatArray, own
from zo_bilevel.support.errors import InputError


def by_name(given: Any) -> Mapping[str, Any]:  # noqa: ANN401 - what somebody gave as a point
    """A point as it is, `None` as nothing; `InputError` if it is no mapping."""
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"initial must be a dict of values by name, got {given!r}")
    return {} if given is None else given


def whole_numbers(parameter: Integer, steps: FloatArray) -> Any:  # noqa: ANN401 - int or array
    """The integer, or the array of them, that lie so many steps above the lower bound, exactly."""
    width = parameter.upper - parameter.lower  # as a float it may be rounded up
    found = [parameter.lower + min(int(step), width) for step in steps.tolist()]
    return np.array(found, np.int64).reshape(parameter.shape) if parameter.shape else found[0]


def decode_choice(parameter: Choice, scores: FloatArray) -> Any:  # noqa: ANN401 - any option
    """The options of highest score, the first on a tie."""
    count = len(parameter.options)
    picks = np.argmax(scores.reshape(-1, count), axis=1)
    if not parameter.shape:
        return own(parameter.options[int(picks[0])])
    chosen = np.empty(len(picks), dtype=object)
    for index, pick in enumerate(picks):
        chosen[index] = own(parameter.options[int(pick)])
    return chosen.reshape(parameter.shape)


def encode_choice(name: str, parameter: Choice, value: Any) -> FloatArray:  # noqa: ANN401
    """Scores of an option, or of an array of them: 1 for it and 0 for the others.

    Raises:
        InputError: If a value is no option, or the shape is wrong.
    """
    if parameter.shape:
        array = np.asarray(value, dtype=object)
        if array.shape != parameter.shape:
            raise InputError(f"{name} must have shape {parameter.shape}, got {array.shape}")
        items = list(array.ravel())
    else:
        items = [value]
    scores = np.zeros((len(items), len(parameter.options)))
    for row, item in enumerate(items):
        place = parameter.index(item)
        if place is None:
            raise InputError(f"{name} must be one of {list(parameter.options)}, got {item!r}")
        scores[row, place] = 1.0
    return scores.ravel()


def checked_values(name: str, parameter: Real | Log | Integer, value: Any) -> FloatArray:  # noqa: ANN401
    """A value as flat numbers; integers as steps above the lower bound.

    Raises:
        InputError: If it is no number, masked, outside the bounds or of a wrong shape.
    """
    if np.ma.is_masked(value):
        raise InputError(f"{name} must not be masked, got {value!r}")
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiubO":
            raise TypeError
        numbers = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} must be a number or array of numbers, got {value!r}") from error
    if array.shape != parameter.shape:
        raise InputError(f"{name} must have shape {parameter.shape}, got {array.shape}")
    array = array.astype(object) if isinstance(parameter, Integer) else numbers  # objects are exact
    outside = ~np.asarray((array >= parameter.lower) & (array <= parameter.upper), dtype=bool)
    outside |= ~np.isfinite(numbers)
    if outside.any():
        raise InputError(
            f"{name} must lie in [{parameter.lower}, {parameter.upper}], "
            f"got {numbers[outside].ravel()[0]}"
        )
    if not isinstance(parameter, Integer):
        return numbers.ravel()
    if (numbers != np.round(numbers)).any():
        raise InputError(f"{name} must be a whole number, got {value!r}")
    return np.array([int(item) - parameter.lower for item in array.ravel()], dtype=np.float64)


def checked(name: str, parameter: Parameter, value: Any) -> Any:  # noqa: ANN401 - any value
    """A value of a parameter, within its bounds and of its shape, as the solver would be given it.

    Raises:
        InputError: If it is none.
    """
    if isinstance(parameter, Choice):
        return decode_choice(parameter, encode_choice(name, parameter, value))
    numbers = checked_values(name, parameter, value)
    if isinstance(parameter, Integer):
        return whole_numbers(parameter, numbers)
    return numbers.reshape(parameter.shape) if parameter.shape else float(numbers[0])
