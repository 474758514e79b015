"""What a value is made of, as a hash that is the same in every process.

Everything that can decide what a solver returns is followed to its end: code, closures, defaults,
the global names that code uses, attributes, slots, containers, arrays. Code of the standard library
and of installed packages counts by its name, what it holds by its content. What cannot be followed
(an open file, a generator, a handle of a C library) is never guessed.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import (
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final, final

import numpy as np

from zo_bilevel.support.errors import FOREIGN

PLAIN: Final = (bool, float, complex, str, type(None), type(...), type(NotImplemented))
PLAIN_MODULES: Final = ("builtins", "collections", "functools", "types", "_thread")
CONTENTLESS: Final = (type(threading.Lock()), type(threading.RLock()), threading.local)
"""What orders threads changes no answer."""
DESCRIPTORS: Final = (MemberDescriptorType, GetSetDescriptorType)
CODE_KINDS: Final = (FunctionType, staticmethod, classmethod, property)
GLOBALS: Final = ("LOAD_GLOBAL", "LOAD_NAME")
LOADS: Final = (*GLOBALS, "LOAD_DEREF")
STORES: Final = ("STORE_GLOBAL", "STORE_DEREF")
CONSTANTS: Final = ("LOAD_CONST", "LOAD_SMALL_INT")
ADAPTERS: Final = "zo_bilevel.adapters."
INSTALLED: Final = (*FOREIGN, "dist-packages")


@final
class DerivedName(str):
    """A name that nobody gave: it shows which solver is meant, and proves nothing."""

    __slots__ = ()


@final
class UntellableError(Exception):
    """A value that cannot be told from another of its kind; the text says which."""


def content_digest(value: Any) -> bytes:  # noqa: ANN401 - anything a solver holds
    """A hash of everything that a value is made of, 16 bytes.

    Args:
        value: A function, number, array, object, ...

    Raises:
        UntellableError: If a part of it cannot be followed.

    Example:
        >>> def scaled(factor):
        ...     return lambda phi: factor * phi["a"]
        >>> content_digest(scaled(2.0)) == content_digest(scaled(3.0))
        False
    """
    try:
        return _Content().digest(value)
    except RecursionError as error:
        raise UntellableError(f"a {type(value).__qualname__} that goes too deep") from error


def _is_installed(file: str) -> bool:
    """Whether code is the interpreter's or an installed package's, not the user's own."""
    return any(mark in file for mark in INSTALLED)


def _is_users(module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    if file is None or module is None:  # typed in, or built in
        return getattr(module, "__spec__", None) is None
    return module.__name__ == "__main__" or not _is_installed(file)


@final
class _Content:
    """Follows one value; what is met again is not followed again."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, bytes]] = {}  # keeps the values, and so their ids, alive
        self._within: list[int] = []

    def digest(self, value: Any) -> bytes:  # noqa: ANN401
        if type(value) is int:
            return _hashed("int", [b"%x" % value])  # decimal digits have a limit
        if type(value) in PLAIN:
            return _hashed(type(value).__name__, [repr(value).encode("utf-8", "surrogatepass")])
        if isinstance(value, bytes | bytearray | memoryview):
            return _hashed("bytes", [bytes(value)])
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._within:
            return _hashed("within", [b"%d" % self._within.index(id(value))])
        self._within.append(id(value))
        label, parts = self._parts(value)
        found = _hashed(label, [self.digest(part) for part in parts])
        self._within.pop()
        self._known[id(value)] = value, found
        return found

    def _parts(self, value: Any) -> tuple[str, Iterable[Any]]:  # noqa: ANN401
        """What kind of thing a value is, and what it holds, in an order of its own."""
        label = _name_of(type(value))
        if type(value) in (set, frozenset):  # in another order in every process
            return label, sorted(self.digest(part) for part in value)
        array = _as_array(value)
        if array is not None:
            return f"{label} {array.dtype} {array.shape}", [np.ascontiguousarray(array).tobytes()]
        if isinstance(value, FunctionType):
            return f"function {_name_of(value)}", _function_parts(value)
        if isinstance(value, type):
            return f"class {_name_of(value)}", _class_parts(value)
        parts = next((parts for kind, parts in _PARTS.items() if isinstance(value, kind)), None)
        is_plain = type(value).__module__ in PLAIN_MODULES
        return label, parts(value) if parts and is_plain else _object_parts(value)


def _hashed(label: str, parts: Iterable[bytes]) -> bytes:
    digest = hashlib.blake2b(label.encode(), digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def _name_of(kind: Any) -> str:  # noqa: ANN401 - a class or function
    return f"{kind.__module__}.{kind.__qualname__}"


def _as_array(value: Any) -> Any:  # noqa: ANN401 - an array or None
    if type(value) is np.ndarray or isinstance(value, np.generic):
        return None if value.dtype.hasobject else np.asarray(value)
    module = sys.modules.get("torch")  # which need not be loaded
    if module is None or not isinstance(value, module.Tensor):
        return None
    try:
        tensor = value.detach().cpu()
        tensor = tensor if tensor.layout is module.strided else tensor.to_dense()
        return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()
    except (TypeError, RuntimeError):  # quantized, for one
        return None


def _function_parts(function: FunctionType) -> Iterable[Any]:
    counters = _counters(function.__code__)
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    held = [_content(cell) for name, cell in cells if name not in counters]
    held += [function.__defaults__, function.__kwdefaults__, vars(function)]
    if _is_installed(function.__code__.co_filename):
        is_by_name = "<" not in function.__qualname__ and function.__closure__ is None
        return [] if is_by_name else held
    names = sorted({name for code in _codes(function.__code__) for name in _globals(code)})
    scope = function.__globals__
    used = {name: scope[name] for name in names if name in scope and name not in counters}
    attributes = {name for code in _codes(function.__code__) for name in code.co_names}
    for name, value in used.items():
        if isinstance(value, ModuleType) and _is_users(value):
            used[name] = {a: vars(value)[a] for a in sorted(attributes & vars(value).keys())}
    return [function.__code__, *held, used]


def _content(cell: CellType) -> Any:  # noqa: ANN401 - whatever a function closes over
    try:
        return cell.cell_contents
    except ValueError:  # not yet set
        return None


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Code, and the code of functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _globals(code: CodeType) -> Iterator[str]:
    return (step.argval for step in dis.get_instructions(code) if step.opname in GLOBALS)


def _counters(code: CodeType) -> set[str]:
    """Names that code only ever counts up (`calls += 1`): no answer depends on them."""
    loads: dict[str, int] = {}
    counted: dict[str, int] = {}
    for part in _codes(code):
        steps = [step for step in dis.get_instructions(part) if step.opname != "EXTENDED_ARG"]
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


def _code_parts(code: CodeType) -> Iterable[Any]:
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    flow = code.co_code, code.co_exceptiontable, code.co_flags
    return [*flow, code.co_names, code.co_freevars, arguments, code.co_consts]


def _class_parts(kind: type) -> Iterable[Any]:
    if not _is_users(sys.modules.get(kind.__module__)):
        return []
    held = {name: value for name, value in sorted(vars(kind).items()) if _decides(name, value)}
    return [kind.__bases__, held]


def _decides(name: str, value: Any) -> bool:  # noqa: ANN401 - an entry of a class
    """Whether an entry of a class can decide what its objects do."""
    if isinstance(value, DESCRIPTORS) or name == "_abc_impl":
        return False
    is_special = name.startswith("__") and name.endswith("__")
    return isinstance(value, CODE_KINDS) or not is_special


def _object_parts(value: Any) -> Iterable[Any]:  # noqa: ANN401
    """What an object hands over when it is copied to another process."""
    if type(value).__module__.startswith(ADAPTERS):
        name = getattr(value, "name", None)
        if isinstance(name, str) and "#" in name and not isinstance(name, DerivedName):
            return [str(name)]  # it ends with a hash of all that the adapter is made of
    if isinstance(value, functools._lru_cache_wrapper):
        return [value.__wrapped__]
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception as error:
        raise UntellableError(f"a {_name_of(type(value))}") from error
    if isinstance(reduced, str):
        return [reduced, getattr(value, "__wrapped__", None)]
    _, arguments, *rest = reduced
    state, items, pairs = (*rest, None, None, None)[:3]
    return [type(value), arguments, state, list(items or ()), list(pairs or ())]


_PARTS: Final[dict[Any, Callable[[Any], Iterable[Any]]]] = {
    list | tuple | deque: lambda value: value,
    dict | MappingProxyType: lambda value: [part for item in value.items() for part in item],
    CodeType: _code_parts,
    ModuleType: lambda value: [value.__name__],
    MethodType: lambda value: [value.__func__, value.__self__],
    staticmethod | classmethod: lambda value: [value.__func__],
    property: lambda value: [value.fget, value.fset, value.fdel],
    CONTENTLESS: lambda _: [],
}
"""How to follow what the interpreter itself is made of; subclasses are objects like others."""
