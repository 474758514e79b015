"""Values of parameters as short texts, for cells of tables and pages."""

from __future__ import annotations

from typing import Any

import numpy as np

from zo_bilevel.support.tables import number, percent


def shown(value: Any) -> str:  # noqa: ANN401 - any parameter value
    """A parameter's value for a cell."""
    if isinstance(value, float):
        return f"{value:.6g}"
    array = np.asarray(value)
    if array.shape and array.dtype.kind in "fiu":
        return f"{array.size} values in {array.min():.4g}..{array.max():.4g}"
    return str(value)


def deviation(found: Any, truth: Any) -> str:  # noqa: ANN401 - any parameter value
    """How far a parameter is from its true value, for a cell.

    Args:
        found: The value found.
        truth: The true value.

    Returns:
        The relative error, of the Euclidean norm for arrays; the difference where the truth is 0.
    """
    one, other = np.asarray(found), np.asarray(truth)
    if one.dtype.kind not in "fiu" or other.dtype.kind not in "fiu" or one.shape != other.shape:
        return "same" if np.array_equal(one, other) else "differs"
    distance, size = float(np.linalg.norm(one - other)), float(np.linalg.norm(other))
    return percent(distance / size) if size > 0 else number(distance)
