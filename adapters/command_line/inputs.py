"""What a program is given for one solve: arguments, input files, standard input."""

import bisect
import functools
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from zo_bilevel.adapters.command_line.fields import (
    ALL_PARAMETERS,
    Argument,
    FileTemplate,
    inside,
    written,
)
from zo_bilevel.problem.parameters import Choice
from zo_bilevel.problem.space import Space
from zo_bilevel.support.arguments import refuse_unknown, refuse_unused
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, SolveError

OWNER_NAME = "CommandLine"
SEED_FIELD = "seed"
STEPS = tuple(10.0 ** (-exponent / 2) for exponent in range(20, 1, -1))
"""Scaled steps by which it is asked whether a program is given other texts, 1e-10 to 0.1."""
MOST_TRIED = 32
"""Coordinates that are asked for."""


@final
@dataclass(frozen=True, slots=True)
class PreparedSolve:
    """Arguments and standard input with values put in; the files are written."""

    arguments: tuple[str, ...]
    standard_input: str


@final
class CommandInputs:
    """Everything about a command that depends on the parameters.

    Args:
        command: The program and its arguments.
        files: File name to template text, or to the path of a template.
        inputs: Files to copy.
        standard_input: Template of standard input.

    Raises:
        InputError: If an item breaks its rule.

    Example:
        >>> sorted(CommandInputs(["solve", "{nu}"], {"in.txt": "{{ lam }}"}, (), "").names)
        ['lam', 'nu']
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        files: Mapping[str, str | Path],
        inputs: Sequence[str | os.PathLike[str]],
        standard_input: str,
    ) -> None:
        self.command = _checked_command(command)
        self.program = self.command[0]
        if Argument(self.program).names:
            raise InputError(f"the program may hold no field, got {self.program!r}")
        self._arguments = [Argument(text) for text in self.command[1:]]
        self._templates = [
            FileTemplate(inside(name, "the name in files"), _template_text(name, source))
            for name, source in files.items()
        ]
        self._copies = _checked_copies(inputs, [template.name for template in self._templates])
        self._stdin = FileTemplate("standard input", standard_input) if standard_input else None
        self.names = frozenset().union(*(part.names for part in self._parts()))

    def prepare(self, values: Mapping[str, Any], folder: Path) -> PreparedSolve:
        """Write the files of one solve and fill in its arguments.

        Raises:
            SolveError: If a value cannot be written where its field is.
        """
        try:
            for copy in self._copies:
                shutil.copy(copy, folder / copy.name)
            for template in self._templates:
                path = folder / template.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(template.render(values), encoding="utf-8", newline="")
            arguments = tuple(argument.render(values) for argument in self._arguments)
            stdin = self._stdin.render(values) if self._stdin else ""
        except Exception as error:  # a template can fail in any way
            raise SolveError(f"could not be given its input: {error}") from error
        return PreparedSolve((self.program, *arguments), stdin)

    def check(self, space: Space) -> None:
        """Compare the fields with a space and fill them in once.

        Raises:
            InputError: Naming the field, parameter or option.
        """
        known = {*space.names, SEED_FIELD, ALL_PARAMETERS}
        for part in self._parts():
            where = part.text if isinstance(part, Argument) else part.name
            braces = " (braces that are no field are written {{ and }})"
            kind = f"parameter in a field of {where!r}{braces * isinstance(part, Argument)}:"
            refuse_unknown(OWNER_NAME, kind, sorted(part.names), known)
        if not any(
            isinstance(p, FileTemplate) and ALL_PARAMETERS in p.names for p in self._parts()
        ):
            hint = "no field {name} of the command and no field {{ name }} of a file uses them"
            refuse_unused(OWNER_NAME, space.names, self.names, hint)
        _check_options(space)
        places = {"the lower bounds": space.lower, "the upper bounds": space.upper}
        for place, x in {"the middle of the space": space.encode(), **places}.items():
            self._fill_in(space.decode(x), place)

    def _fill_in(self, phi: Mapping[str, Any], place: str) -> None:
        for part in self._parts():
            try:
                _filled(part, phi)
            except Exception as error:  # a template can fail in any way
                where = part.text if isinstance(part, Argument) else part.name
                text = f"{OWNER_NAME}: {where!r} cannot be filled in with {place}"
                raise InputError(f"{text}: {error}") from error

    def rounding(self, space: Space, x: FloatArray) -> FloatArray:
        """Steps of each coordinate below which the program is given the same texts.

        Returns:
            Shape `(N,)`; 0 where texts tell any step. Of many coordinates some are tried, and the
            largest stands for all.
        """
        found = np.zeros(space.size)
        tried = np.flatnonzero(~space.discrete)
        for place in tried[:: max(len(tried) // MOST_TRIED, 1)]:
            tells = functools.partial(self._tells, space, x, place)
            first = bisect.bisect_left(STEPS, 1, key=tells)
            found[place] = STEPS[first] if 0 < first < len(STEPS) else 0.0
        return found if len(tried) <= MOST_TRIED else np.where(space.discrete, 0.0, found.max())

    def _tells(self, space: Space, x: FloatArray, place: int, step: float) -> bool:
        """Whether the texts change by a step of one coordinate, either way."""
        here = self._texts(space.decode(x))
        for way in (-step, step):
            moved = x.copy()
            moved[place] = np.clip(x[place] + way, space.lower[place], space.upper[place])
            if moved[place] != x[place] and self._texts(space.decode(moved)) == here:
                return False
        return True

    def _texts(self, phi: Mapping[str, Any]) -> list[str]:
        return [_filled(part, phi) for part in self._parts()]

    def identity(self) -> tuple[Any, ...]:
        """All that decides what the program is given, contents of copied files included."""
        copies = [(c.name, hashlib.blake2b(c.read_bytes()).hexdigest()) for c in self._copies]
        templates = [(template.name, template.text) for template in self._templates]
        return self.command, templates, copies, self._stdin.text if self._stdin else ""

    def _parts(self) -> list[Argument | FileTemplate]:
        return [*self._arguments, *self._templates, *([self._stdin] if self._stdin else [])]


def _filled(part: Argument | FileTemplate, phi: Mapping[str, Any]) -> str:
    values = {SEED_FIELD: 0, **phi}
    is_argument = isinstance(part, Argument)
    return part.render({ALL_PARAMETERS: values, **values} if is_argument else values)


def _checked_command(command: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    if isinstance(command, str | bytes) or not isinstance(command, Sequence):
        raise InputError(
            "command must be a list of the program and its arguments, there is no shell; got "
            f"{command!r}"
        )
    items = [os.fspath(item) if isinstance(item, os.PathLike) else item for item in command]
    for item in items:
        if not isinstance(item, str) or "\0" in item:
            raise InputError(f"command must hold texts without zero bytes, got {item!r}")
    if not items or not items[0]:
        raise InputError(f"command must begin with a program, got {list(command)!r}")
    return tuple(items)


def _template_text(name: str, source: str | Path) -> str:
    if isinstance(source, str):
        return source
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, TypeError) as error:
        raise InputError(f"the template of file {name!r} cannot be read: {error}") from error


def _checked_copies(inputs: Sequence[str | os.PathLike[str]], taken: list[str]) -> list[Path]:
    if isinstance(inputs, str):
        raise InputError(f"inputs must be a list of files, got {inputs!r}")
    copies = [Path(item).absolute() for item in inputs]
    for copy in copies:
        if not copy.is_file():
            raise InputError(f"inputs: there is no file {str(copy)!r}")
        if copy.name in taken:
            raise InputError(f"inputs: the file name {copy.name!r} is given twice")
        taken = [*taken, copy.name]
    return copies


def _check_options(space: Space) -> None:
    """Refuse options that cannot be part of a command or file at all."""
    for name, parameter in space.parameters.items():
        for option in parameter.options if isinstance(parameter, Choice) else ():
            text = written(option)
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                text = "\0"
            if "\0" in text:
                raise InputError(
                    f"{OWNER_NAME}: option {option!r} of parameter {name!r} cannot be given to a "
                    "program: zero bytes and lone surrogates are no text"
                )
