"""A result in a folder: a JSON card to read and an array file; nothing in it is ever unpickled."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.run.result import Record, Result
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.json_data import to_json
from zo_bilevel.support.memory import Memory

Arrays: TypeAlias = dict[str, NDArray[Any]]

FORMAT = 2
CARD, ARRAYS = "result.json", "result.npz"
IN_FILE = "array"
"""The key of a card's entry that stands for an array of the other file."""
ANSWERS = ("phi", "theta")
FACTS = tuple(f.name for f in dataclasses.fields(Record) if f.name not in ANSWERS)
NUMBERS = ("loss", "solves", "rounds", "seconds", "cost", "seed", "standard_error", "violation")


def save_result(result: Result, folder: str | os.PathLike[str]) -> Path:
    """Write a result: `result.json` with its numbers and history, `result.npz` with its arrays."""
    path, arrays = Path(folder), {"x": result.x}
    path.mkdir(parents=True, exist_ok=True)
    card = {
        "format": FORMAT,
        **{name: getattr(result, name) for name in NUMBERS},
        "interval": result.interval,
        "draws": result.draws,
        "stop_reason": result.stop_reason,
        "method": result.method,
        "failures": result.failures,
        **{kind: _entries(kind, getattr(result, kind), arrays) for kind in ANSWERS},
        "warnings": result.warnings,
        "parts": result.parts,
        "memory": dataclasses.asdict(result.memory),
        "history": [[getattr(record, name) for name in FACTS] for record in result.history],
        "answers": {kind: _answers_entry(result.history, arrays, kind) for kind in ANSWERS},
    }
    np.savez_compressed(path / ARRAYS, **arrays)  # type: ignore[arg-type]  # names, not options
    (path / CARD).write_text(to_json(card) + "\n", encoding="utf-8")
    return path


def load_result(folder: str | os.PathLike[str]) -> Result:
    """Read what `save_result` wrote; tensors come back as arrays.

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
    draws, interval = card.get("draws", 0), card.get("interval")
    error_of_one = {"standard_error": math.nan} if draws == 1 else {}  # JSON has no word for it
    return Result(
        **{name: card[name] for name in NUMBERS} | error_of_one,
        interval=None if interval is None else (interval[0], interval[1]),
        draws=draws,
        **{kind: _values(card[kind], arrays) for kind in ANSWERS},
        stop_reason=card["stop_reason"],
        method=card["method"],
        failures=card["failures"],
        history=_history(card, arrays),
        x=arrays["x"],
        memory=Memory(**card["memory"]),
        warnings=tuple(card["warnings"]),
        parts=card.get("parts", {}),
    )


def _answers_entry(history: Sequence[Record], arrays: Arrays, kind: str) -> dict[str, Any]:
    """`phi` or `theta` of the solves that have it, stacked, and which solves those are."""
    answers = [(record.phi or None) if kind == "phi" else record.theta for record in history]
    kept = {place: answer for place, answer in enumerate(answers) if answer is not None}
    stack = _stacked(list(kept.values())) if kept else 0
    return {"places": list(kept), **_entries(f"history/{kind}", stack, arrays)}


def _stacked(values: list[Any]) -> Any:  # noqa: ANN401 - the structure of the values
    if isinstance(values[0], Mapping):
        return {name: _stacked([value[name] for value in values]) for name in values[0]}
    if isinstance(values[0], np.ndarray):
        return np.stack(values)
    is_number = {type(value) for value in values} in ({float}, {int})
    return np.array(values) if is_number else np.fromiter(values, object, len(values))


def _history(card: Mapping[str, Any], arrays: Arrays) -> tuple[Record, ...]:
    """The records; their missing losses are the infinite ones: JSON has no word for them."""
    records = [dict(zip(FACTS, line, strict=True)) for line in card["history"]]
    for values in records:
        for name in ("loss", "best_loss"):
            values[name] = math.inf if values[name] is None else values[name]
    for kind, entry in card["answers"].items():
        stack = _values(entry, arrays)
        for row, place in enumerate(entry["places"]):
            records[place][kind] = _row(stack, row)
    return tuple(Record(**values) for values in records)


def _row(stack: Any, row: int) -> Any:  # noqa: ANN401 - the structure of the values
    if isinstance(stack, Mapping):
        return {name: _row(part, row) for name, part in stack.items()}
    return stack[row].item() if isinstance(stack[row], np.generic) else stack[row]


def _entries(name: str, value: Any, arrays: Arrays) -> dict[str, Any]:  # noqa: ANN401 - any value
    if not isinstance(value, Mapping):
        return _entry(name, _on_host(value), arrays)
    return {"names": {k: _entry(f"{name}/{k}", _on_host(v), arrays) for k, v in value.items()}}


def _values(entry: Mapping[str, Any], arrays: Arrays) -> Any:  # noqa: ANN401 - any value
    names = entry.get("names")
    if names is None:
        return _value(entry, arrays)
    return {name: _value(part, arrays) for name, part in names.items()}


def _entry(name: str, value: Any, arrays: Arrays) -> dict[str, Any]:  # noqa: ANN401 - any value
    """A number or text as itself, an array of numbers by its name in the array file."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        arrays[name] = value
        return {IN_FILE: name}
    if isinstance(value, np.ndarray):
        return {"options": value.ravel().tolist(), "shape": value.shape}
    return {"value": value.item() if isinstance(value, np.generic) else value}


def _value(entry: Mapping[str, Any], arrays: Arrays) -> Any:  # noqa: ANN401 - any value
    if IN_FILE in entry:
        return arrays[entry[IN_FILE]]
    if "options" in entry:
        options = entry["options"]
        return np.fromiter(options, object, len(options)).reshape(entry["shape"])
    return entry["value"]


def _on_host(value: Any) -> Any:  # noqa: ANN401 - array, tensor or number
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value
