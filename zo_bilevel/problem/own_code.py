"""Which code is the user's own, what it names, and what it looks up as it runs.

Imports inside a function are read from its code. A look-up by a text that is made as the code runs
cannot be: it is found, so that it can be refused by name.
"""

import builtins
import dis
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from zo_bilevel.support.errors import FOREIGN

GLOBALS: Final = ("LOAD_GLOBAL", "LOAD_NAME")
LOADS: Final = (*GLOBALS, "LOAD_DEREF")
STORES: Final = ("STORE_GLOBAL", "STORE_DEREF")
CONSTANTS: Final = ("LOAD_CONST", "LOAD_SMALL_INT")
ATTRIBUTES: Final = ("LOAD_ATTR", "LOAD_METHOD")
SILENT: Final = ("EXTENDED_ARG", "PUSH_NULL")
INSTALLED: Final = (*FOREIGN, "dist-packages")
BUILT_IN: Final = ("built-in", "frozen")
BY_TEXT: Final = (globals, eval, exec, __import__, importlib.import_module, os.getenv)
"""Functions that find a value by a text."""
OF_A_MODULE: Final = (getattr, vars)
"""Likewise, when their first argument is a module of the user's own."""
TABLES: Final = {"os.environ": os.environ, "sys.modules": sys.modules}
"""Likewise, when one entry is read; handed on whole they are a program's environment."""


def is_installed(file: str) -> bool:
    """Whether code is the interpreter's or an installed package's, not the user's own."""
    return any(mark in file for mark in INSTALLED)


def is_users(module: ModuleType | None) -> bool:
    """Whether a module is the user's own."""
    file = getattr(module, "__file__", None)
    if file is None or module is None:  # typed in, or built in
        return getattr(module, "__spec__", None) is None
    return module.__name__ == "__main__" or not is_installed(file)


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """Code, and the code of functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def global_names(code: CodeType) -> set[str]:
    """The global names that code, or code inside it, uses."""
    steps = (step for part in codes_in(code) for step in _steps(part))
    return {step.argval for step in steps if step.opname in GLOBALS}


def counted_names(code: CodeType) -> set[str]:
    """Names that code only ever counts up (`calls += 1`): no answer depends on them."""
    loads: dict[str, int] = {}
    counted: dict[str, int] = {}
    for part in codes_in(code):
        steps = _steps(part)
        for place, step in enumerate(steps):
            if step.opname in LOADS:
                loads[step.argval] = loads.get(step.argval, 0) + 1
            if step.opname in STORES:
                is_count = place >= 3 and (
                    steps[place - 1].opname == "BINARY_OP"
                    and steps[place - 2].opname in CONSTANTS
                    and steps[place - 3].opname in LOADS
                    and steps[place - 3].argval == step.argval
                )
                counted[step.argval] = counted.get(step.argval, 0) + (1 if is_count else -1 << 20)
    return {name for name, count in counted.items() if count == loads.get(name, 0)}


def imports_inside(function: FunctionType) -> dict[str, ModuleType]:
    """The modules that a function imports as it runs, loaded if they are the user's own.

    Returns:
        By full name, with the packages that they are in. Installed ones that are not yet loaded,
        and those that do not exist, are left out.

    Raises:
        ImportError: If one of the user's own cannot be loaded, with its name.
    """
    package = str(function.__globals__.get("__package__") or "")
    found: dict[str, ModuleType] = {}
    for part in codes_in(function.__code__):
        steps = _steps(part)
        for place, step in enumerate(steps):
            if step.opname != "IMPORT_NAME":
                continue
            level, items = steps[place - 2].argval, steps[place - 1].argval or ()
            words = _absolute(step.argval, level, package).split(".")
            names = [".".join(words[: end + 1]) for end in range(len(words))]
            for name in [*names, *(f"{names[-1]}.{item}" for item in items)]:
                module = _loaded(name)
                found |= {name: module} if isinstance(module, ModuleType) else {}
    return found


def lookup_by_text(function: FunctionType, closed: Mapping[str, Any]) -> str | None:
    """The first thing by which a function finds a value through a text, or `None`."""
    scope = {**vars(builtins), **function.__globals__}
    for part in codes_in(function.__code__):
        steps = _steps(part)
        local = {**closed, **_bound_by_imports(function, steps)}
        closed = local  # for functions inside
        values = (_value_at(steps, place, scope, local) for place in range(len(steps)))
        for value, after in (found for found in values if found[0] is not None):
            if any(value is known for known in BY_TEXT):
                return f"{value.__name__}()"
            if any(value is known for known in OF_A_MODULE):
                module, _ = _value_at(steps, after, scope, local)
                if isinstance(module, ModuleType) and is_users(module):
                    return f"{value.__name__}() of the module {module.__name__}"
            for name, table in TABLES.items():
                if value is table and _is_read(steps[after:]):
                    return name
    return None


@lru_cache(maxsize=1024)
def _steps(code: CodeType) -> tuple[dis.Instruction, ...]:
    """Kept, as each reader of a function takes its code apart, at every problem that is made."""
    return tuple(step for step in dis.get_instructions(code) if step.opname not in SILENT)


def _absolute(name: str, level: int, package: str) -> str:
    try:
        return importlib.util.resolve_name("." * level + name, package)
    except ImportError:  # the solver's call will say so
        return name


def _loaded(name: str) -> ModuleType | None:
    if name in sys.modules or not name:
        return sys.modules.get(name)
    parent, _, _ = name.rpartition(".")
    root = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None)
    if (root and is_installed(root)) or (parent and not _is_package(sys.modules.get(parent))):
        return None
    try:
        spec = importlib.util.find_spec(name)
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        if any(place in BUILT_IN or is_installed(place) for place in places if place):
            return None
        return None if spec is None else importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ImportError(f"{type(error).__name__}: {error}", name=name) from error


def _is_package(module: ModuleType | None) -> bool:
    return hasattr(module, "__path__")


def _bound_by_imports(function: FunctionType, steps: tuple[dis.Instruction, ...]) -> dict[str, Any]:
    """The local names that imports give, with their values where these are loaded."""
    package = str(function.__globals__.get("__package__") or "")
    bound: dict[str, Any] = {}
    module: Any = None
    for place, step in enumerate(steps[:-1]):
        if step.opname == "IMPORT_NAME":
            level, items = steps[place - 2].argval, steps[place - 1].argval
            name = _absolute(step.argval, level, package)
            module = value = sys.modules.get(name if items else name.partition(".")[0])
        elif step.opname == "IMPORT_FROM":
            value = getattr(module, step.argval, None)
        else:
            continue
        if steps[place + 1].opname.startswith("STORE_"):
            bound[_ends(steps[place + 1])[0]] = value
    return bound


def _ends(step: dis.Instruction) -> tuple[Any, Any]:
    """The first and last name of a step; newer interpreters join two steps into one."""
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    return names[0], names[-1]


def _value_at(
    steps: tuple[dis.Instruction, ...],
    place: int,
    scope: Mapping[str, Any],
    local: Mapping[str, Any],
) -> tuple[Any, int]:
    """What a name, and attributes of modules behind it, stands for, and the place after it."""
    step = steps[place] if place < len(steps) else None
    if step is None or not step.opname.startswith("LOAD_"):
        return None, place + 1
    is_global = step.opname in GLOBALS
    if not is_global and "FAST" not in step.opname and "DEREF" not in step.opname:
        return None, place + 1
    value = (scope if is_global else local).get(_ends(step)[1])
    place += 1
    while isinstance(value, ModuleType) and steps[place].opname in ATTRIBUTES:
        value = vars(value).get(steps[place].argval)
        place += 1
    return value, place


def _is_read(steps: tuple[dis.Instruction, ...]) -> bool:
    """Whether the steps behind a table read one entry of it."""
    if steps[0].opname in ATTRIBUTES:
        return bool(steps[0].argval == "get")
    if not steps[0].opname.startswith("LOAD_"):  # it is handed on
        return False
    uses = (step for step in steps if step.opname.endswith("_SUBSCR") or step.argrepr == "[]")
    return "BINARY" in getattr(next(uses, None), "opname", "")
