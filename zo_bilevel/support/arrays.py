"""The array type of the whole package, and who owns an array."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
"""Double precision, whatever the solver computes in."""


def frozen(values: Any) -> FloatArray:  # noqa: ANN401 - whatever numpy takes
    """Numbers that nobody else can change: a read-only copy, unless they are one already.

    Example:
        >>> mine = np.zeros(2)
        >>> kept = frozen(mine)
        >>> mine[0] = 1.0
        >>> float(kept[0]), kept.flags.writeable
        (0.0, False)
    """
    array = np.asarray(values, dtype=np.float64)
    if array.flags.writeable or not array.flags.owndata:
        array = array.copy()
        array.flags.writeable = False
    return array


def own(value: Any) -> Any:  # noqa: ANN401 - the user's own value
    """A copy of what the user may change in place: arrays, lists, dicts and what they hold.

    Other objects are handed on as they are, so that `phi["model"] is MODEL` stays true.

    Example:
        >>> option = {"sizes": [1, 2]}
        >>> copy = own(option)
        >>> copy["sizes"].append(3)
        >>> option
        {'sizes': [1, 2]}
    """
    kind = type(value)
    if kind in (list, tuple, set):
        return kind(own(item) for item in value)
    if kind is np.ndarray:
        copy = value.copy()
        if copy.dtype == object:
            for index, item in np.ndenumerate(value):
                copy[index] = own(item)
        return copy
    if kind is dict:
        return {key: own(item) for key, item in value.items()}
    return value
