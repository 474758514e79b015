"""Labels of tables, series and labelled arrays, as short texts that can be compared and stored."""

import hashlib
import sys
from typing import Any

import numpy as np

SHOWN_LABELS = 6
REARRANGED = "rearranged: "
"""How the text of 0, 1, ... in another order begins; in order they are a count, without a text."""


def is_labelled(part: Any) -> bool:  # noqa: ANN401 - the user's value
    """Whether a part of an inner solution is a table or series of pandas, or one of xarray's."""
    pandas, xarray = sys.modules.get("pandas"), sys.modules.get("xarray")
    return (pandas is not None and isinstance(part, pandas.DataFrame | pandas.Series)) or (
        xarray is not None and isinstance(part, xarray.DataArray)
    )


def axis_labels(part: Any) -> tuple[str, ...]:  # noqa: ANN401 - the user's value
    """One text an axis: its name and labels, or nothing where it is merely counted from 0.

    Returns:
        One text for each axis; `()` for what has no labels.

    Example:
        >>> import pandas
        >>> axis_labels(pandas.DataFrame([[1.0, 2.0]], columns=["u", "v"]))
        ('', 'u, v')
    """
    if not is_labelled(part):
        return ()
    if hasattr(part, "dims"):  # xarray
        named = [(f"{dim}: ", part.coords.get(dim)) for dim in part.dims]
        return tuple(name + ("" if c is None else _text(c.to_index())) for name, c in named)
    return tuple(_text(axis) for axis in part.axes)


def _text(index: Any) -> str:  # noqa: ANN401 - an index of pandas
    """The labels, or the first and last of many and a hash of all."""
    values, word = np.asarray(index), ""
    if values.dtype.kind in "iuf":
        values = values.astype(np.float64)
        counted = np.arange(len(values))
        if np.array_equal(values, counted):
            return ""
        data = values.tobytes()
        word = REARRANGED if np.array_equal(np.sort(values), counted) else ""
    else:
        data = "\0".join(map(str, values)).encode(errors="backslashreplace")
    shown = [str(label) for label in values[:SHOWN_LABELS].tolist()]
    if len(values) <= SHOWN_LABELS:
        return word + ", ".join(shown)
    return f"{word}{', '.join(shown)}, ... #{hashlib.blake2b(data, digest_size=6).hexdigest()}"
