"""Names of inner solvers, by which a store tells them apart.

Two solvers that differ must not share a name, or one would be given the other's stored answers. The
other way round costs solves and nothing else.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any, Final

import numpy as np

PLAIN: Final = (bool, int, float, complex, str, bytes, type(None))
REBINDS: Final = ("STORE_DEREF", "STORE_GLOBAL", "DELETE_DEREF")


def solver_name(inner: Callable[..., Any]) -> str:
    """Name an inner solver for stores and reports.

    Functions that have no place of their own (lambdas, functions inside functions) are told apart
    by a hash of their code and of the numbers, arrays and functions that they close over, objects
    by their `repr`.

    Args:
        inner: The inner solver.

    Returns:
        Its `name` attribute if it is text, else module, name and hash; the same in every process.

    Example:
        >>> solver_name(len)
        'builtins.len'
    """
    given = getattr(inner, "name", None)
    if isinstance(given, str) and given:
        return given
    kind = inner if hasattr(inner, "__qualname__") else type(inner)
    base = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(inner, FunctionType):
        has_place = "<" not in base and kind.__module__ != "__main__"
        text = "" if has_place else content_text(inner)
    else:
        text = "" if kind is inner else repr(inner)
    return f"{base}#{short_hash(text)}" if text else base


def short_hash(text: str) -> str:
    """Eight hexadecimal digits; memory addresses in the text do not count.

    Args:
        text: What to tell apart.
    """
    return hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode()).hexdigest()[:8]


def content_text(value: Any, depth: int = 0) -> str:  # noqa: ANN401 - anything a function holds
    """What a value is made of, in words that are the same in every process.

    Args:
        value: A function, number, array, module or any other object.
        depth: How many objects deep attributes are looked at; containers that can change, and
            objects beyond that depth, count by their type alone.

    Example:
        >>> def scaled(factor):
        ...     return lambda phi: factor * phi["a"]
        >>> content_text(scaled(2.0)) == content_text(scaled(3.0))
        False
    """
    return _text(value, depth, frozenset())


def _text(value: Any, depth: int, within: frozenset[int]) -> str:  # noqa: ANN401
    if isinstance(value, PLAIN):
        return repr(value)
    if id(value) in within:
        return "itself"
    within |= {id(value)}
    if isinstance(value, FunctionType):
        return _function_text(value, depth, within)
    parts = _parts(value)
    if parts is not None:
        return f"({','.join(_text(part, depth, within) for part in parts)})"
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    array = _as_array(value)
    if array is not None:
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return f"{array.dtype}{array.shape}{digest}"
    return _object_text(value, depth, within)


def _parts(value: Any) -> Sequence[Any] | None:  # noqa: ANN401
    """What a tuple, a method or a partial function consists of; `None` for anything else."""
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, functools.partial):
        return value.func, *value.args, *sorted(value.keywords.items())
    return value if isinstance(value, tuple) else None


def _function_text(function: FunctionType, depth: int, within: frozenset[int]) -> str:
    code = function.__code__
    rebound = {step.argval for step in dis.get_instructions(code) if step.opname in REBINDS}
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    held = [_text(_content(cell), depth, within) for name, cell in cells if name not in rebound]
    return repr((_code_parts(code), held, _text(function.__defaults__, depth, within)))


def _content(cell: CellType) -> Any:  # noqa: ANN401 - whatever a function closes over
    try:
        return cell.cell_contents
    except ValueError:  # not yet set
        return None


def _object_text(value: Any, depth: int, within: frozenset[int]) -> str:  # noqa: ANN401
    if callable(getattr(value, "state_dict", None)):  # a torch module
        held: Mapping[str, Any] = {"shown": repr(value), **value.state_dict()}
    elif dataclasses.is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    else:
        held = getattr(value, "__dict__", {}) if depth > 0 else {}
    parts = (f";{name}={_text(held[name], depth - 1, within)}" for name in sorted(held))
    return f"{type(value).__module__}.{type(value).__qualname__}" + "".join(parts)


def _as_array(value: Any) -> Any:  # noqa: ANN401 - an array or None
    if isinstance(value, np.ndarray):
        return None if value.dtype.hasobject else value
    if callable(getattr(value, "detach", None)) and callable(getattr(value, "numpy", None)):
        tensor = value.detach().cpu()  # torch, which need not be loaded
        return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()
    return None


def _code_parts(code: CodeType) -> Sequence[Any]:
    return code.co_code, code.co_names, tuple(_constant(c) for c in code.co_consts)


def _constant(value: Any) -> Any:  # noqa: ANN401 - a constant of a function
    if isinstance(value, CodeType):
        return _code_parts(value)
    # a set is in another order in every process
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)
