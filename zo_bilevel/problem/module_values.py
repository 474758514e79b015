"""Numbers and arrays in modules of the user's own, which another process imports afresh."""

import importlib
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from zo_bilevel.problem.content import PLAIN, cell_content, content_digest, functions_reached
from zo_bilevel.problem.own_code import (
    codes_in,
    counted_names,
    global_names,
    imports_inside,
    is_users,
)


def module_values(inner: Any, by_value: Collection[str]) -> dict[tuple[str, str], bytes]:  # noqa: ANN401
    """What a solver's code can read of modules that travel by their names.

    Returns:
        By module and name, a hash; of values that do not change by themselves only.
    """
    found: dict[tuple[str, str], bytes] = {}
    for function in functions_reached(inner):
        code, scope = function.__code__, function.__globals__
        used = {name: scope[name] for name in global_names(code) if name in scope}
        closed = map(cell_content, function.__closure__ or ())
        held_by = [*used.values(), *closed, *imports_inside(function).values()]
        attributes = {name for part in codes_in(code) for name in part.co_names}
        read = [(str(scope.get("__name__")), scope, used.keys() - counted_names(code))]
        for module in held_by:
            if isinstance(module, ModuleType) and is_users(module):
                read.append((module.__name__, vars(module), attributes & vars(module).keys()))
        for module_name, held, names in read:
            parts = module_name.split(".")
            parents = {".".join(parts[: end + 1]) for end in range(len(parts))}
            if not parents & {"__main__", "__mp_main__", *by_value}:
                found |= {
                    (module_name, name): content_digest(held[name])
                    for name in names
                    if not name.startswith("__") and _is_constant(held[name])
                }
    return found


def changed_value(expected: Mapping[tuple[str, str], bytes]) -> str | None:
    """The first name whose value here is another than there, or `None`."""
    for (module, name), digest in sorted(expected.items()):
        try:
            held = vars(importlib.import_module(module))
        except Exception:  # noqa: BLE001 - the solver's own import will say so
            continue
        if name not in held or content_digest(held[name]) != digest:
            return f"{module}.{name}"
    return None


def _is_constant(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    if type(value) is np.ndarray or isinstance(value, np.generic):
        return not value.dtype.hasobject
    return type(value) is int or type(value) in PLAIN
