"""Tasks by name, and problems in a person's own file: `FILE.py:NAME`."""

import ast
import dataclasses
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from zo_bilevel.comparison.compare import as_task
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.task import Task
from zo_bilevel.support.errors import InputError, ZoBilevelError, unknown_name_message
from zo_bilevel.support.tables import listed

LITERAL_WORDS = {"true": True, "false": False, "none": None}


def load_subject(subject: str, options: Mapping[str, Any] | None = None) -> Task:
    """Find what a person names on the command line.

    Args:
        subject: A task's name, or `FILE.py:NAME` where NAME is a `Problem`, a `Task`, or a
            function that returns one. NAME may be left out when there is only one.
        options: Handed to the task, or to the function.

    Returns:
        The task; a problem becomes a task without known facts.

    Raises:
        InputError: If there is no such task, file or name, or it is no problem.
    """
    options = dict(options or {})
    path, name = _split(subject)
    if path is None:
        return _named_task(subject, options)
    module = _module_of(path)
    found = _object_in(module, path, name)
    if isinstance(found, Problem | Task):
        if options:
            raise InputError(f"{subject} takes no options, got {listed(list(options))}")
        return _titled(as_task(found), subject)
    made = _call(subject, found, options)
    if not isinstance(made, Problem | Task):
        raise InputError(
            f"{subject} must give a zb.Problem or zb.Task, its function gave {type(made).__name__}"
        )
    return _titled(as_task(made), subject)


def _titled(task: Task, subject: str) -> Task:
    """A plain problem is called what the person typed, without the folder."""
    if task.summary:
        return task
    return dataclasses.replace(task, name=Path(subject).name)


def _split(subject: str) -> tuple[Path | None, str]:
    """The file and the name in it; no file when a task is named."""
    if subject.endswith(".py"):
        return Path(subject), ""
    path, colon, name = subject.rpartition(":")
    if colon and path.endswith(".py"):
        return Path(path), name
    return None, ""


def _named_task(name: str, options: dict[str, Any]) -> Task:
    from zo_bilevel import tasks

    if name not in tasks.NAMES:
        message = unknown_name_message("task", name, tasks.NAMES)
        raise InputError(f"{message}; a problem of your own is FILE.py:NAME")
    make = importlib.import_module(f"zo_bilevel.tasks.{name.replace('-', '_')}").task
    task: Task = _call(f"task {name}", make, options)
    return task


def _call(label: str, make: Callable[..., Any], options: dict[str, Any]) -> Any:  # noqa: ANN401
    known = inspect.signature(make).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for option in options:
        if option not in known and not takes_any:
            choices = f"options: {listed(list(known))}" if known else "it takes none"
            raise InputError(f"{label} has no option {option!r} ({choices})")
    missing = [
        n
        for n, p in known.items()
        if p.default is p.empty
        and n not in options
        and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if missing:
        raise InputError(f"{label} needs {listed(missing)}: give them by --set {missing[0]}=VALUE")
    try:
        return make(**options)
    except ZoBilevelError:
        raise
    except Exception as error:
        given = f" with {options}" if options else ""
        raise InputError(f"{label} failed{given}: {type(error).__name__}: {error}") from error


def _module_of(path: Path) -> ModuleType:
    """Run a person's file, so that its functions also reach worker processes."""
    import cloudpickle

    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}")
    name, folder = _module_name(path), str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python FILE.py` does
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{str(path)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        where = _line_in(path, error)
        raise InputError(f"{path.name} failed{where}: {type(error).__name__}: {error}") from error
    cloudpickle.register_pickle_by_value(module)  # a worker could not import it by its name
    return module


def _module_name(path: Path) -> str:
    """The name under which the file could be imported, unless something else has it."""
    try:
        spec = importlib.util.find_spec(path.stem) if path.stem.isidentifier() else None
    except ValueError:  # a module without a spec, "__main__" for one
        return f"zo_bilevel_file_{path.stem}"
    is_free = spec is None or (spec.origin and Path(spec.origin).resolve() == path.resolve())
    return path.stem if is_free else f"zo_bilevel_file_{path.stem}"


def _line_in(path: Path, error: BaseException) -> str:
    traceback, line = error.__traceback__, 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path.absolute()):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f" in line {line}" if line else ""


def _object_in(module: ModuleType, path: Path, name: str) -> Any:  # noqa: ANN401 - checked below
    values = {n: v for n, v in vars(module).items() if not n.startswith("_")}
    ready = [n for n, v in values.items() if isinstance(v, Problem | Task)]
    makers = [n for n, v in values.items() if _is_maker(v, module)]
    if not name and len(ready) == 1:
        return values[ready[0]]
    if not name:
        raise InputError(f"name the problem: {path.name}:NAME ({_offer(path, ready, makers)})")
    if name not in values:
        raise InputError(f"{path.name} has no {name!r} ({_offer(path, ready, makers)})")
    found = values[name]
    if isinstance(found, Problem | Task) or (callable(found) and not isinstance(found, type)):
        return found
    raise InputError(
        f"{path.name}:{name} must be a zb.Problem or zb.Task, or a function that returns one, "
        f"got {type(found).__name__} ({_offer(path, ready, makers)})"
    )


def _is_maker(value: Any, module: ModuleType) -> bool:  # noqa: ANN401 - anything in a module
    return inspect.isfunction(value) and value.__module__ == module.__name__


def _offer(path: Path, ready: list[str], makers: list[str]) -> str:
    if ready:
        return f"problems in {path.name}: {listed(ready)}"
    if makers:
        return f"no problem in {path.name}; its functions: {listed(makers)}"
    return f"no problem or task in {path.name}"


def parse_settings(flag: str, settings: Iterable[str]) -> dict[str, Any]:
    """Turn `name=value` words into values.

    Args:
        flag: The option they were given with, for messages.
        settings: Each `name=value`; a value that is no Python literal is a string.

    Raises:
        InputError: If a word has no "=" or no name, or a name comes twice.

    Example:
        >>> parse_settings("--set", ["size=64", "difference=central"])
        {'size': 64, 'difference': 'central'}
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InputError(f"{flag} must be NAME=VALUE, got {setting!r}")
        if name in values:
            raise InputError(f"{flag} {name} is given twice")
        values[name] = _literal(text.strip())
    return values


def _literal(text: str) -> Any:  # noqa: ANN401 - any literal
    if text.lower() in LITERAL_WORDS:
        return LITERAL_WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_seeds(text: str) -> tuple[int, ...]:
    """Turn a count or a list into seeds; `InputError` if it is neither, or there is no seed.

    Args:
        text: "5" means 0 to 4; "3,7,9" is a list, and so is "3,".

    Example:
        >>> parse_seeds("3"), parse_seeds("3,7")
        ((0, 1, 2), (3, 7))
    """
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InputError(
            f"--seeds must be a count such as 5 or a list such as 3,7,9, got {text!r}"
        ) from error
    if "," in text:
        return numbers
    if not numbers or numbers[0] < 1:
        raise InputError(f"--seeds must be a count >= 1 or a list, got {text!r}")
    return tuple(range(numbers[0]))
