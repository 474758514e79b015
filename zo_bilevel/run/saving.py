"""A result in a folder: a JSON card to read and an array file; nothing in it is ever unpickled."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.run.result import Record, Result
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.json_data import to_json
from zo_bilevel.support.memory import Memory

Arrays: TypeAlias = dict[str, NDArray[Any]]

FORMAT = 1
CARD, ARRAYS = "result.json", "result.npz"
IN_FILE = "array"
"""The key of a card's entry that stands for an array of the other file."""
NUMBERS = ("loss", "solves", "rounds", "seconds", "cost", "seed", "standard_error")


def save_result(result: Result, folder: str | os.PathLike[str]) -> Path:
    """Write a result: `result.json` with its numbers and history, `result.npz` with its arrays.

    Args:
        result: The result.
        folder: Where; made when missing.

    Returns:
        The folder.
    """
    path, arrays = Path(folder), {"x": result.x}
    path.mkdir(parents=True, exist_ok=True)
    card = {
        "format": FORMAT,
        **{name: getattr(result, name) for name in NUMBERS},
        "stop_reason": result.stop_reason,
        "method": result.method,
        "failures": result.failures,
        "phi": {name: _entry(f"phi/{name}", v, arrays) for name, v in result.phi.items()},
        "theta": _theta_entry(result.theta, arrays),
        "memory": dataclasses.asdict(result.memory),
        "history": [list(dataclasses.astuple(record)) for record in result.history],
    }
    np.savez_compressed(path / ARRAYS, **arrays)  # type: ignore[arg-type]  # names, not options
    (path / CARD).write_text(to_json(card) + "\n", encoding="utf-8")
    return path


def load_result(folder: str | os.PathLike[str]) -> Result:
    """Read what `save_result` wrote; tensors come back as arrays.

    Args:
        folder: Where.

    Raises:
        InputError: If a file is missing or damaged.
    """
    path = Path(folder)
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise ValueError(f"format {card['format']!r} is not {FORMAT}")
        with np.load(path / ARRAYS, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _result(card, arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise InputError(f"{path} holds no saved result: {error}") from error


def _result(card: Mapping[str, Any], arrays: Arrays) -> Result:
    theta = card["theta"]
    names = theta.get("names")
    return Result(
        **{name: card[name] for name in NUMBERS},
        phi={name: _value(entry, arrays) for name, entry in card["phi"].items()},
        theta=(
            _value(theta, arrays)
            if names is None
            else {name: _value(entry, arrays) for name, entry in names.items()}
        ),
        stop_reason=card["stop_reason"],
        method=card["method"],
        failures=card["failures"],
        history=tuple(_record(line) for line in card["history"]),
        x=arrays["x"],
        memory=Memory(**card["memory"]),
    )


def _record(line: list[Any]) -> Record:
    """A record whose missing losses are the infinite ones: JSON has no word for them."""
    fields = [f.name for f in dataclasses.fields(Record)]
    values = dict(zip(fields, line, strict=True))
    for name in ("loss", "best_loss"):
        values[name] = math.inf if values[name] is None else values[name]
    return Record(**values)


def _theta_entry(theta: Any, arrays: Arrays) -> dict[str, Any]:  # noqa: ANN401 - user's structure
    if not isinstance(theta, Mapping):
        return _entry("theta", _on_host(theta), arrays)
    return {"names": {k: _entry(f"theta/{k}", _on_host(v), arrays) for k, v in theta.items()}}


def _entry(name: str, value: Any, arrays: Arrays) -> dict[str, Any]:  # noqa: ANN401 - any value
    """A number or text as itself, an array of numbers by its name in the array file."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        arrays[name] = value
        return {IN_FILE: name}
    if isinstance(value, np.ndarray):
        return {"options": value.tolist(), "shape": value.shape}
    return {"value": value.item() if isinstance(value, np.generic) else value}


def _value(entry: Mapping[str, Any], arrays: Arrays) -> Any:  # noqa: ANN401 - any value
    if IN_FILE in entry:
        return arrays[entry[IN_FILE]]
    if "options" in entry:
        return np.array(entry["options"], dtype=object).reshape(entry["shape"])
    return entry["value"]


def _on_host(value: Any) -> Any:  # noqa: ANN401 - array, tensor or number
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value
