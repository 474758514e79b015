"""A run as text that is read back without running anything, for the store."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Final, cast, get_args

import numpy as np

from zo_bilevel.problem.space import Space
from zo_bilevel.problem.space_text import plain_option, space_from_text
from zo_bilevel.run.runs import Improvement, Run, RunStatus
from zo_bilevel.store.arrays import unpack_array
from zo_bilevel.store.records import StoredRun
from zo_bilevel.support.errors import StoreError

APART: Final = ("method", "seed", "phi", "improvements")
"""Fields of a run that are columns of their own, or have a form of their own."""
_KINDS: Final[Mapping[Any, tuple[type, ...]]] = {
    RunStatus: (str,),
    str: (str,),
    int: (int,),
    float: (float, int),
    float | None: (float, int, type(None)),
    Mapping[str, int]: (dict,),
    Mapping[str, Any]: (dict,),
}


def run_to_text(run: Run) -> str:
    """A run as JSON, all but its method, seed and final point.

    Args:
        run: The run; options of a choice that are no plain values are told by their `repr`.
    """
    steps = [
        {**_facts(step), "values": {n: _plain(v) for n, v in step.values.items()}}
        for step in run.improvements
    ]
    return json.dumps({**_facts(run), "improvements": steps})


def run_from_text(stored: StoredRun) -> Run:
    """Undo `run_to_text`.

    Raises:
        StoreError: If the text is no run, or the final point is none of its space.
    """
    try:
        facts = json.loads(stored.found)
        steps = tuple(_made(Improvement, step) for step in facts.pop("improvements"))
        if facts["status"] not in get_args(RunStatus):
            raise ValueError(f"status {facts['status']!r} is not known")
        phi = decoded(space_from_text(stored.space), stored.point) if stored.point else {}
        own = {"method": stored.method, "seed": stored.seed, "phi": phi, "improvements": steps}
        return cast(Run, _made(Run, facts, **own, **_interval(facts)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"what run {stored.number} found cannot be read from the store "
            f"({type(error).__name__}: {error})"
        ) from error


def _interval(facts: dict[str, Any]) -> dict[str, tuple[float, float] | None]:
    """The interval, taken out of the facts of a run; older runs have none."""
    ends = facts.pop("interval", None)
    if ends is None:
        return {"interval": None}
    lower, upper = ends
    return {"interval": (float(lower), float(upper))}


def decoded(space: Space, point: bytes) -> dict[str, Any]:
    """A stored point by name; `StoreError` if it is damaged or of another space."""
    x = unpack_array(point, space.size)
    if not all(map(math.isfinite, x)):
        raise StoreError("a point in the store has coordinates that are not finite")
    return space.decode(x)


def single_values(space: Space, phi: Mapping[str, Any]) -> dict[str, Any]:
    """The meta-parameters that are single values; fields are too long to keep."""
    return {name: value for name, value in phi.items() if not space.shapes[name]}


def _facts(record: Any) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    fields = [field for field in dataclasses.fields(record) if field.name not in APART]
    return {field.name: _number(getattr(record, field.name)) for field in fields}


def _number(value: Any) -> Any:  # noqa: ANN401 - a field of a run
    return float(value) if isinstance(value, float) else value  # numpy's floats are floats, too


def _plain(value: Any) -> Any:  # noqa: ANN401 - a parameter's value
    return plain_option(value.item() if isinstance(value, np.generic) else value)


def _made(kind: type, facts: dict[str, Any], **own: Any) -> Any:  # noqa: ANN401 - of that kind
    kinds = {field.name: field.type for field in dataclasses.fields(kind)}
    for name, value in facts.items():
        allowed = _KINDS[kinds[name]]
        if type(value) not in allowed:
            raise TypeError(f"{name} is {value!r}")
    return kind(**facts, **own)
