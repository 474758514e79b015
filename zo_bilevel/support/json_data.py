"""Values as plain JSON data."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def to_plain(value: Any) -> Any:  # noqa: ANN401 - any value a result may hold
    """Turn a value into what JSON can say.

    Args:
        value: Dataclasses, mappings, sequences, arrays, numbers; anything else becomes its text.

    Returns:
        Dicts, lists, strings, finite numbers and `None`; numbers that are not finite are `None`,
        because JSON has no word for them.

    Example:
        >>> to_plain({"phi": np.array([1.0, np.nan]), "solves": np.int64(3)})
        {'phi': [1.0, None], 'solves': 3}
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_plain(part) for name, part in value.items()}
    if isinstance(value, Iterable):
        return [to_plain(part) for part in value]
    return str(value)


def to_json(value: Any) -> str:  # noqa: ANN401 - as above
    """The value as an indented JSON document."""
    return json.dumps(to_plain(value), indent=2, allow_nan=False)
