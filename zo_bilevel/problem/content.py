"""What a value is made of, as a hash that is the same in every process.

Everything that can decide what a solver returns is followed to its end: code, closures, defaults,
the global names that code uses, attributes, slots, containers, arrays. Code of the standard library
and of installed packages counts by its name, what it holds by its content. What cannot be followed
(an open file, a generator, a handle of a C library) is never guessed.
"""

import builtins
import copyreg
import functools
import hashlib
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Set
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final, final

import numpy as np

from zo_bilevel.problem.own_code import (
    codes_in,
    counted_names,
    global_names,
    imports_inside,
    is_installed,
    is_users,
    lookup_by_text,
)
from zo_bilevel.support.packages import loaded

PLAIN: Final = (bool, float, complex, str, type(None), type(...), type(NotImplemented))
PLAIN_MODULES: Final = ("builtins", "functools", "types", "_thread")
CONTENTLESS: Final = (type(threading.Lock()), type(threading.RLock()))
"""What orders threads changes no answer."""
DESCRIPTORS: Final = (MemberDescriptorType, GetSetDescriptorType)
CODE_KINDS: Final = (FunctionType, staticmethod, classmethod, property)
ADAPTERS: Final = "zo_bilevel.adapters."


@final
class DerivedName(str):
    """A name that nobody gave: it shows which solver is meant, and proves nothing."""

    __slots__ = ()


@final
class UntellableError(Exception):
    """A value that cannot be told from another of its kind; the text says which."""


def content_digest(value: Any) -> bytes:  # noqa: ANN401 - anything a solver holds
    """A hash of everything that a value is made of, 16 bytes.

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


def functions_reached(value: Any) -> list[FunctionType]:  # noqa: ANN401
    """The functions of the user's own that a value leads to; none where it cannot be followed."""
    content = _Content()
    try:
        content.digest(value)
    except (UntellableError, RecursionError):
        return []
    functions = [known for known, _ in content._known.values() if isinstance(known, FunctionType)]
    return [each for each in functions if not is_installed(each.__code__.co_filename)]


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
            held = [np.ascontiguousarray(array).tobytes(), *_attributes(value)]
            return f"{label} {array.dtype} {array.shape}", held
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
    module = loaded("torch")  # which need not be there
    if module is None or not isinstance(value, module.Tensor):
        return None
    try:
        tensor = value.detach().cpu()
        tensor = tensor if tensor.layout is module.strided else tensor.to_dense()
        return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()
    except (TypeError, RuntimeError):  # quantized, for one
        return None


def _function_parts(function: FunctionType) -> Iterable[Any]:
    code = function.__code__
    counters = counted_names(code)
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    closed = {name: cell_content(cell) for name, cell in cells if name not in counters}
    rest = [function.__defaults__, function.__kwdefaults__, vars(function)]
    if is_installed(code.co_filename):
        is_by_name = "<" not in function.__qualname__ and function.__closure__ is None
        return [] if is_by_name else [*closed.values(), *rest]
    imported = _imports(function)
    lookup = lookup_by_text(function, closed)
    if lookup is not None:
        raise UntellableError(f"{function.__qualname__}, which looks a value up by {lookup}")
    names = sorted(global_names(code))
    scope = {**_patched(), **function.__globals__}
    used = {name: scope[name] for name in names if name in scope and name not in counters}
    attributes = {name for part in codes_in(code) for name in part.co_names}
    held, used, imported = (_reached_all(each, attributes) for each in (closed, used, imported))
    return [code, *held.values(), *rest, used, *imported.values()]


def _patched() -> dict[str, Any]:
    """What somebody put among the built-in names."""
    own = (BuiltinFunctionType, type)
    return {name: value for name, value in vars(builtins).items() if not isinstance(value, own)}


def _imports(function: FunctionType) -> dict[str, Any]:
    """The user's own modules that a function imports as it runs."""
    try:
        found = imports_inside(function)
    except ImportError as error:
        raise UntellableError(
            f"{function.__qualname__}, whose import of {error.name} fails ({error.msg})"
        ) from error
    return {name: module for name, module in sorted(found.items()) if is_users(module)}


def _reached_all(
    held: Mapping[str, Any], attributes: Set[str], within: tuple[Any, ...] = ()
) -> dict[str, Any]:
    """Values by name; of the user's own modules, what code that names `attributes` can reach."""
    found = dict(held)
    for name, value in held.items():
        if isinstance(value, ModuleType) and is_users(value) and value not in within:
            reached = {a: vars(value)[a] for a in sorted(attributes & vars(value).keys())}
            found[name] = _reached_all(reached, attributes, (*within, value))
    return found


def cell_content(cell: CellType) -> Any:  # noqa: ANN401 - whatever a function closes over
    """What a function closes over; `None` while that is not set."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _code_parts(code: CodeType) -> Iterable[Any]:
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    flow = code.co_code, code.co_exceptiontable, code.co_flags
    return [*flow, code.co_names, code.co_freevars, arguments, code.co_consts]


def _class_parts(kind: type) -> Iterable[Any]:
    if not is_users(sys.modules.get(kind.__module__)):
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
    reducer: Any = type(value).__reduce__
    is_foreign = reducer is not object.__reduce__ and isinstance(reducer, MethodDescriptorType)
    beside = _attributes(value) if is_foreign else []  # which C code leaves out
    return [type(value), arguments, state, list(items or ()), list(pairs or ()), *beside]


def _attributes(value: Any) -> list[Any]:  # noqa: ANN401
    """The attributes that a person gave an object of a class written in C, if there are any."""
    return [vars(value)] if getattr(value, "__dict__", None) else []


_PARTS: Final[dict[Any, Callable[[Any], Iterable[Any]]]] = {
    list | tuple: lambda value: value,
    dict | MappingProxyType: lambda value: [part for item in value.items() for part in item],
    CodeType: _code_parts,
    ModuleType: lambda value: [value.__name__],
    MethodType: lambda value: [value.__func__, value.__self__],
    staticmethod | classmethod: lambda value: [value.__func__],
    property: lambda value: [value.fget, value.fset, value.fdel],
    CONTENTLESS: lambda _: [],
    threading.local: lambda value: [vars(value)],
}
"""How to follow what the interpreter itself is made of; subclasses are objects like others."""
