"""Says which part of an inner solver cannot travel to another process."""

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cloudpickle

MAX_DEPTH = 6


def unpicklable_message(inner: Callable[..., Any], backend: str, error: Exception) -> str:
    """Name the part of `inner` that cannot be pickled, and what to do.

    Example:
        >>> import threading
        >>> lock = threading.Lock()
        >>> def solver(phi):
        ...     with lock:
        ...         return phi["a"]
        >>> print(unpicklable_message(solver, "loky", TypeError("cannot pickle")).split(";")[0])
        the inner solver cannot be sent to a process: inner -> global 'lock' is of type lock
    """
    path, culprit = find_unpicklable(inner)
    return (
        f"the inner solver cannot be sent to a process: {path} is of type "
        f"{type(culprit).__name__}; use backend='threading' instead of {backend!r}, or make the "
        f"solver a module-level function that creates this itself ({type(error).__name__}: {error})"
    )


def find_unpicklable(value: Any, path: str = "inner", depth: int = 0) -> tuple[str, Any]:  # noqa: ANN401 - anything
    """Follow the parts of `value` to the deepest one that cannot be pickled."""
    if depth < MAX_DEPTH:
        for name, part in _parts(value):
            if not _picklable(part):
                return find_unpicklable(part, f"{path}{name}", depth + 1)
    return path, value


def _picklable(value: Any) -> bool:  # noqa: ANN401 - anything
    try:
        cloudpickle.dumps(value)
    except Exception:  # noqa: BLE001 - whatever a `__reduce__` raises
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - anything
    """The parts of a value that pickle would follow, each with its name."""
    if isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, functools.partial):
        yield from ((f" -> argument {k}", part) for k, part in enumerate(value.args))
        yield from ((f" -> argument {name!r}", part) for name, part in value.keywords.items())
        yield ".func", value.func
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{k}]", part) for k, part in enumerate(value))
    else:
        yield from ((f".{name}", part) for name, part in _attributes(value).items())


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f" -> closure variable {name!r}", cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f" -> global {name!r}", function.__globals__[name]
    yield from ((f" -> default {k}", part) for k, part in enumerate(function.__defaults__ or ()))


def _attributes(value: Any) -> dict[str, Any]:  # noqa: ANN401 - anything
    """Instance attributes, slots included."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                found[name] = getattr(value, name)
    return found
