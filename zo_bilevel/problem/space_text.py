"""A space as text that can be read back without running anything, for the store."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zo_bilevel.problem.dependent import Fixed, Tied
from zo_bilevel.problem.far_bounds import Placement
from zo_bilevel.problem.parameters import (
    Choice,
    Integer,
    Log,
    LogNormal,
    Normal,
    Parameter,
    Real,
)
from zo_bilevel.problem.space import Space
from zo_bilevel.support.errors import StoreError

KINDS: Mapping[str, type[Parameter | Fixed | Tied]] = {
    "Real": Real,
    "Log": Log,
    "Integer": Integer,
    "Choice": Choice,
    "Fixed": Fixed,
    "Tied": Tied,
}


APART = ("name", "kind", "is_array", "placement")
"""Facts that are no arguments of a parameter."""


def space_to_text(space: Space) -> str:
    """A space as JSON: one object a parameter, in order.

    Args:
        space: Options of a choice that are no plain values are told by their `repr`.

    Example:
        >>> space_to_text(Space(nu=Log(0.1, 1.0)))
        '[{"name": "nu", "kind": "Log", "lower": 0.1, "upper": 1.0, "shape": []}]'
    """
    facts = [_facts(name, parameter) for name, parameter in space.declared.items()]
    for fact in facts if space.is_placed else ():
        if fact["name"] in space.placements:
            placement = space.placements[fact["name"]]
            fact["placement"] = [placement.center.tolist(), placement.scale.tolist()]
    return json.dumps(facts)


def _facts(name: str, parameter: Parameter | Fixed | Tied) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": name, "kind": type(parameter).__name__}
    if isinstance(parameter, Tied):
        return {**facts, "formula": parameter.formula}
    if isinstance(parameter, Fixed):
        is_array = isinstance(parameter.value, np.ndarray) and parameter.value.dtype != object
        value = parameter.value.tolist() if is_array else plain_option(parameter.value)
        return {**facts, "value": value, "is_array": is_array}
    if isinstance(parameter, Choice):
        facts["options"] = [plain_option(option) for option in parameter.options]
    else:
        number = int if isinstance(parameter, Integer) else float
        ends = {"lower": parameter.lower, "upper": parameter.upper}
        facts |= {name: number(end) for name, end in ends.items() if math.isfinite(end)}
    facts["shape"] = [int(length) for length in parameter.shape]
    if isinstance(parameter, Real) and parameter.correlation_length is not None:
        facts["correlation_length"] = float(parameter.correlation_length)
    if isinstance(parameter, Real) and parameter.scale is not None:
        facts["scale"] = parameter.scale
    if isinstance(parameter, Real | Log) and parameter.prior is not None:
        facts["prior"] = dataclasses.asdict(parameter.prior)
    return facts


def plain_option(option: object) -> str | int | float | bool | None:
    """An option of a choice as JSON can say it: as it is, or by its `repr`."""
    plain = option is None or isinstance(option, str | int | float | bool)
    return option if plain else repr(option)  # type: ignore[return-value] # checked above


def space_from_text(text: str) -> Space:
    """Undo `space_to_text`; `StoreError` if the text is no space."""
    try:
        parameters, placements = {}, {}
        for facts in json.loads(text):
            options = {k: v for k, v in facts.items() if k not in APART}
            if "prior" in facts:
                kind = Normal if facts["kind"] == "Real" else LogNormal
                options["prior"] = kind(**facts["prior"])
            if "placement" in facts:
                placements[facts["name"]] = Placement(*map(np.array, facts["placement"]))
            if "shape" in options:
                options["shape"] = tuple(options["shape"])
            if facts.get("is_array"):
                options["value"] = np.array(options["value"])
            parameters[facts["name"]] = KINDS[facts["kind"]](**options)
        space = Space(parameters)
        return space.placed(placements) if placements else space
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"the space of a run cannot be read from the store ({type(error).__name__}: {error})"
        ) from error
