"""Puts parameter values into arguments (`{name}` fields) and into input files (Jinja2)."""

import functools
import math
import re
import string
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.support.errors import InputError
from zo_bilevel.support.packages import import_optional

Field: TypeAlias = tuple[str, str, str]
"""Literal text, then a parameter's name, then its format; no name at the end of a text."""

ALL_PARAMETERS = "phi"
"""In a file template: the mapping of all values."""


@final
class Argument:
    """One argument of a command line with `{name}` or `{name:format}` fields.

    Numbers are written so that they read back to the last bit, arrays as numbers with commas
    between them. Attributes, items and conversions of Python's format language are refused:
    a field is a parameter's name, whatever characters it has.

    Args:
        text: The argument; `{{` and `}}` stand for braces.

    Raises:
        InputError: If a brace is left open or a field is more than a name and a format.

    Example:
        >>> Argument("--nu={nu:.2e}").render({"nu": 0.1})
        '--nu=1.00e-01'
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._fields = _parse(text)
        self.names = frozenset(name for _, name, _ in self._fields if name)

    def render(self, values: Mapping[str, Any]) -> str:
        """The argument with values put in."""
        return "".join(
            literal + (written(values[name], spec) if name else "")
            for literal, name, spec in self._fields
        )


def _parse(text: str) -> list[Field]:
    hint = "write {{ and }} for braces that are no field"
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise InputError(f"argument {text!r}: {error}; {hint}") from error
    fields: list[Field] = []
    for literal, name, spec, conversion in parts:
        if name is not None and (not name or conversion or "{" in (spec or "")):
            raise InputError(f"argument {text!r}: a field is {{name}} or {{name:format}}; {hint}")
        fields.append((literal, name or "", spec or ""))
    return fields


def written(value: Any, spec: str = "") -> str:  # noqa: ANN401 - a number, array or option
    """Write one value; without a format numbers keep every bit.

    Example:
        >>> written(1e308), written(np.array([0.1, 2.0])), written("a b")
        ('1e+308', '0.1,2.0', 'a b')
    """
    if isinstance(value, np.ndarray):
        return ",".join(written(item, spec) for item in value.ravel().tolist())
    return format(value, spec) if spec else str(value)


@final
class FileTemplate:
    """An input file with Jinja2 fields such as `{{ nu }}`; an unknown name is an error.

    Arrays are lists in it: `{% for value in field %}...`. Values are never read as templates.
    `{{ nu | width(10) }}` is for decks of fixed columns: see `in_columns`. Other formats are
    Jinja2's own: `{{ "%.6e" | format(nu) }}`.

    Raises:
        InputError: If the template is not one.
        MissingPackageError: If Jinja2 is not installed.

    Example:
        >>> FileTemplate("in.nml", "&run nu={{ nu }} /").render({"nu": 0.5})
        '&run nu=0.5 /'
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        jinja2 = import_optional("jinja2", "CommandLine with a file template", "command")
        meta = import_optional("jinja2.meta", "CommandLine with a file template", "command")
        try:
            tree = _environment().parse(text)
            _compiled(text)
        except jinja2.TemplateSyntaxError as error:
            raise InputError(f"file {name!r}, line {error.lineno}: {error.message}") from error
        self.names: frozenset[str] = frozenset(meta.find_undeclared_variables(tree))

    def render(self, values: Mapping[str, Any]) -> str:
        """The file's text with values put in."""
        plain = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        }
        try:
            text: str = _compiled(self.text).render({ALL_PARAMETERS: plain, **plain})
        except TooWideError as error:
            known = {n: v if isinstance(v, list) else [v] for n, v in plain.items()}
            names = [name for name, value in known.items() if error.value in np.ravel(value)]
            raise InputError(f"{' or '.join(names) or 'a value'}: {error}") from error
        return text


class TooWideError(ValueError):
    """A value that does not fit into its columns."""

    def __init__(self, value: object, width: int) -> None:
        super().__init__(f"{value!r} does not fit into {width} columns")
        self.value = value


def in_columns(value: Any, width: int) -> str:  # noqa: ANN401 - a number or option
    """Write a value into columns of a fixed width, a number to the right with all digits that fit.

    A real number has a decimal point, which Fortran would set itself otherwise.

    Raises:
        TooWideError: If it does not fit.

    Example:
        >>> in_columns(1 / 3, 8), in_columns(-1.5e-12, 8), in_columns(400.0, 6), in_columns(7, 3)
        ('0.333333', '-1.5e-12', '400.00', '  7')
    """
    if not isinstance(value, float):
        text = str(value)
        fitted = text.rjust(width) if isinstance(value, int) else text.ljust(width)
        if len(fitted) > width:
            raise TooWideError(value, width)
        return fitted
    texts: list[str] = []
    for digits in range(17, 0, -1):
        plain, power = f"{value:#.{digits}g}", f"{value:#.{digits - 1}e}"
        texts += [plain, re.sub(r"e([+-])0*(?=\d)", lambda sign: f"e{sign[1].strip('+')}", power)]
    for text in texts:
        if len(text) <= width and math.isfinite(float(text)):  # 1.8e308 is not
            return text.rjust(width)
    raise TooWideError(value, width)


@functools.lru_cache(maxsize=1)
def _environment() -> Any:  # noqa: ANN401 - a Jinja2 environment
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["width"] = in_columns
    return environment


@functools.lru_cache(maxsize=64)
def _compiled(text: str) -> Any:  # noqa: ANN401 - a Jinja2 template
    return _environment().from_string(text)


def inside(name: str, what: str) -> str:
    """Check that a file name stays inside a solve's own directory.

    Args:
        name: Relative path with `/` between folders.
        what: What the name is for, for the message.

    Raises:
        InputError: If it is empty, absolute, or leads upwards.

    Example:
        >>> inside("results/out.csv", "output")
        'results/out.csv'
    """
    path = PurePosixPath(name)
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts or not path.name:
        raise InputError(
            f"{what} must be a relative path inside the directory of the solve, got {name!r}"
        )
    return str(path)
