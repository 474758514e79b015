"""When, where and with what something was measured, so that it can be measured again."""

import importlib.metadata
import os
import platform
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import final

from zo_bilevel.support.packages import loaded

PACKAGES = ("zo-bilevel", "numpy", "scipy", "torch")
"""That every method uses."""
PROBLEM_PACKAGES = ("cocoex",)
"""That a problem may be from: it is, where it has been imported."""
HIDDEN_TEXT = "***"
_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")


@final
@dataclass(frozen=True, slots=True)
class Environment:
    """When, where and with what.

    Args:
        created: Date and time, UTC.
        versions: Of Python, of what every method uses, and of the packages of those compared.
        machine: Operating system, processor, number of its cores.
        command: The command line, without secrets; empty when called from Python.
    """

    created: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    command: str = ""


def environment(words: Sequence[str] = (), packages: Iterable[str] = ()) -> Environment:
    """The present moment and process.

    Args:
        words: Of the command line, after the program's name.
        packages: Those of the methods, as in `Method.packages`.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Environment(now, versions(packages), machine, command_line(words))


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Versions of Python, of the packages in `PACKAGES`, of the problem's, and of those given.

    Args:
        packages: By the names that Python imports; those that are not installed are left out.
    """
    found = {"python": platform.python_version()}
    of_problem = [name for name in PROBLEM_PACKAGES if loaded(name) is not None]
    for name in dict.fromkeys((*PACKAGES, *packages, *of_problem)):
        try:
            known = importlib.metadata.distribution(_distribution(name))
        except importlib.metadata.PackageNotFoundError:
            continue
        found[known.metadata["Name"]] = known.version
    return found


def _distribution(module: str) -> str:
    """What is installed to import a module: mostly of the same name, else it is looked up."""
    try:
        importlib.metadata.distribution(module)
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.packages_distributions().get(module, [module])[0]
    return module


def command_line(words: Sequence[str]) -> str:
    """The command that was typed, fit to be shown.

    Args:
        words: After the program's name, secrets already hidden.

    Returns:
        The command, quoted for a shell, without logins in addresses; empty without words.

    Example:
        >>> command_line(["compare", "mine.py", "--set", "url=http://me:word@host"])
        "zo-bilevel compare mine.py --set 'url=http://***@host'"
    """
    return (
        shlex.join(["zo-bilevel", *(_LOGIN.sub(f"{HIDDEN_TEXT}@", word) for word in words)])
        if words
        else ""
    )
