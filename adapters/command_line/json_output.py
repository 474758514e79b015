"""Reads the inner solution from a JSON document: a program's output or a service's answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from zo_bilevel.adapters.command_line.fields import inside
from zo_bilevel.adapters.command_line.output import Run
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import SolveError


@final
@dataclass(frozen=True, slots=True)
class ReadJSON:
    """Part of a JSON document.

    Args:
        path: File in the working directory, or `None` for standard output.
        key: Dotted path in the document: "result.fields.0"; empty for all of it.

    Example:
        >>> ReadJSON("out.json", key="result.u").key
        'result.u'
    """

    path: str | None = None
    key: str = ""

    def __post_init__(self) -> None:
        if self.path is not None:
            inside(self.path, "path")

    def __call__(self, run: Run) -> Any:  # noqa: ANN401 - number, array or dict
        """Read a finished run."""
        text = run.text(self.path)
        try:
            document = json.loads(text, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            source = self.path or "standard output"
            raise SolveError(f"gave unreadable output: {source} is no JSON: {error}") from None
        return theta_at(document, self.key)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise SolveError(f"gave unreadable output: an object has several keys {name!r}")
    return found


def theta_at(document: Any, key: str) -> Any:  # noqa: ANN401 - a JSON document
    """Follow a dotted path into a JSON document and make arrays of what is there.

    Args:
        document: What `json.loads` gave.
        key: Names of objects and positions in lists with dots between them.

    Raises:
        SolveError: If the path or numbers are not there, naming what is.

    Example:
        >>> theta_at({"result": [{"u": [1, 2]}]}, "result.0.u")
        array([1., 2.])
    """
    for step in key.split(".") if key else ():
        try:
            if isinstance(document, Mapping):
                document = document[step]
            elif isinstance(document, Sequence) and not isinstance(document, str):
                document = document[int(step)]
            else:
                raise KeyError(step)
        except (KeyError, IndexError, ValueError):
            raise SolveError(
                f"gave unreadable output: no {step!r} of {key!r} in {_shown(document)}"
            ) from None
    if isinstance(document, Mapping):
        return {str(name): _numbers(part, f"{key}.{name}") for name, part in document.items()}
    return _numbers(document, key)


def _numbers(part: Any, key: str) -> FloatArray:  # noqa: ANN401 - part of a JSON document
    try:
        array = np.array(part)
        if array.dtype.kind in "fiu" and not _holds_truth(part):
            return array.astype(np.float64)
    except ValueError:
        pass  # rows of different lengths
    raise SolveError(
        f"gave unreadable output: {key or 'the document'} holds no numbers: {_shown(part)}"
    )


def _holds_truth(part: Any) -> bool:  # noqa: ANN401 - part of a JSON document
    """Whether `true` or `false` stands among numbers, where numpy would take it for 1 or 0."""
    if isinstance(part, list):
        return any(_holds_truth(item) for item in part)
    return isinstance(part, bool)


def _shown(document: Any) -> str:  # noqa: ANN401 - a JSON document
    if isinstance(document, Mapping):
        return "an object with " + ", ".join(repr(name) for name in list(document)[:8])
    text = json.dumps(document)
    return text if len(text) <= 80 else text[:80] + "..."
