"""When, where and with what something was measured, so that it can be measured again."""

import importlib.metadata
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import final

PACKAGES = (
    "zo-bilevel",
    "numpy",
    "scipy",
    "torch",
    "nevergrad",
    "cma",
    "DFO-LS",
    "iterative-ensemble-smoother",
    "coco-experiment",
)
HIDDEN_TEXT = "***"
_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")


@final
@dataclass(frozen=True, slots=True)
class Environment:
    """When, where and with what.

    Args:
        created: Date and time, UTC.
        versions: Of Python and of every package that matters and is installed.
        machine: Operating system, processor, number of its cores.
        command: The command line, without secrets; empty when called from Python.
    """

    created: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    command: str = ""


def environment(words: Sequence[str] = ()) -> Environment:
    """The present moment and process; `words`: of the command line, after the program's name."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Environment(now, versions(), machine, command_line(words))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages in `PACKAGES` that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


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
