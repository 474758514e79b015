"""Reads the inner solution from what a program printed or wrote."""

import csv
import functools
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.adapters.command_line.fields import inside
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, SolveError, unknown_name_message

_FORTRAN_EXPONENT = re.compile(r"(?<=[0-9.])(?:[dDqQ](?=[+-]?[0-9])|(?=[+-][0-9]{2,4}$))")
"""1.0D-3, and 1.234-103 where the exponent leaves no room for its letter."""
_NO_NUMBER = re.compile(r"[+-]?(?:[0-9.]+#)?(?:[qs]?nan|ind)(?:\([a-z0-9_]*\))?0*", re.IGNORECASE)
_INFINITE = re.compile(r"([+-]?)[0-9.]+#inf0*", re.IGNORECASE)
"""1.#QNAN, -1.#IND00 and 1.#INF of Microsoft's library, NaN(ind) of others."""


@final
class Run:
    """What a finished program left: for readers, the user's own functions included.

    Args:
        folder: Its working directory; gone after the reader returns.
        logs: Where its standard output and standard error are.
        phi: The parameters, by name.
    """

    def __init__(self, folder: Path, logs: tuple[Path, Path], phi: Mapping[str, Any]) -> None:
        self.folder = folder
        self.phi = dict(phi)
        self._logs = logs

    @functools.cached_property
    def stdout(self) -> str:
        """What it printed."""
        return self._logs[0].read_text(errors="replace")

    @functools.cached_property
    def stderr(self) -> str:
        """What it printed to standard error."""
        return self._logs[1].read_text(errors="replace")

    def text(self, path: str | None) -> str:
        """A file in the working directory, or standard output for `None`.

        Raises:
            SolveError: If the program wrote no such file.
        """
        return self.stdout if path is None else self.file(path).read_text(errors="replace")

    def file(self, path: str) -> Path:
        """Where a file in the working directory is.

        Raises:
            SolveError: If the program wrote no such file.
        """
        found = self.folder / path
        if not found.is_file():
            there = sorted(p.name for p in self.folder.iterdir())[:8]
            raise SolveError(f"wrote no file {path!r} (there is: {', '.join(there) or 'nothing'})")
        return found


Reader: TypeAlias = Callable[[Run], Any]


@final
@dataclass(frozen=True, slots=True)
class Parts:
    """Several readers: theta is a dict of what they read."""

    readers: Mapping[str, Reader]

    def __call__(self, run: Run) -> dict[str, Any]:
        """Read a finished run."""
        return {name: read(run) for name, read in self.readers.items()}


def number(text: str, place: str) -> float:
    """Read one number; Fortran's exponents (1.0D-3, 1.5-103) and 1.#QNAN too.

    Raises:
        SolveError: Naming the place and the text.

    Example:
        >>> number("1.5D-3", "line 1"), number("1.5-103", "line 1"), number("-1.#IND", "line 1")
        (0.0015, 1.5e-103, nan)
    """
    text = text.strip()
    if _NO_NUMBER.fullmatch(text):
        return math.nan
    try:
        return float(_FORTRAN_EXPONENT.sub("e", _INFINITE.sub(r"\1inf", text)))
    except ValueError:
        raise SolveError(f"gave unreadable output: {place}: {text[:40]!r} is no number") from None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@final
@dataclass(frozen=True, slots=True)
class ReadColumns:
    """Numbers in columns, from a file or from standard output.

    Args:
        path: File in the working directory, or `None` for standard output.
        columns: One column (from 0): a vector. Several: shape `(rows, columns)`. `None`: every
            number in reading order, a vector.
        skip_rows: Lines to leave out at the top.
        comment: Lines that begin so, and ends of lines from there, are left out.
        separator: Between columns; `None` for any white space.
        block: Text of the one line that heads the block wanted: its rows are the first lines below
            that hold numbers in these columns, up to one that does not.

    Raises:
        InputError: If the path leaves the working directory, or columns or rows are no counts.

    Example:
        >>> ReadColumns("field.dat", columns=1).columns
        1
    """

    path: str | None = None
    columns: int | Sequence[int] | None = None
    skip_rows: int = 0
    comment: str = "#"
    separator: str | None = None
    block: str = ""

    def __post_init__(self) -> None:
        if self.path is not None:
            inside(self.path, "path")
        if isinstance(self.columns, list | range):
            object.__setattr__(self, "columns", tuple(self.columns))
        wanted = self.columns if isinstance(self.columns, tuple) else (self.columns or 0,)
        if not wanted or not all(_is_count(column) for column in wanted):
            raise InputError(f"columns must be whole numbers >= 0, got {self.columns!r}")
        object.__setattr__(self, "skip_rows", whole_number("skip_rows", self.skip_rows, least=0))

    def __call__(self, run: Run) -> FloatArray:
        """Read a finished run."""
        rows: list[list[float]] = []
        lines = run.text(self.path).splitlines()
        first = self._first_of_block(lines) if self.block else self.skip_rows
        for line_number, line in enumerate(lines[first:], start=first + 1):
            kept = line.split(self.comment, 1)[0] if self.comment else line
            place = f"{self.path or 'standard output'}, line {line_number}"
            words = kept.split(self.separator) if kept.strip() else []
            try:
                row = [number(word, place) for word in self._chosen(words, place)] if words else []
            except SolveError:
                if not self.block:
                    raise
                row = []
            if row:
                rows.append(row)
            elif rows and self.block:
                break
        if not rows:
            raise SolveError(
                f"gave unreadable output: no numbers in {self.path or 'standard output'}"
            )
        if isinstance(self.columns, tuple):
            return np.array(rows)
        return np.array([value for row in rows for value in row])

    def _first_of_block(self, lines: list[str]) -> int:
        """The line after the one that heads the block."""
        heads = [place for place, line in enumerate(lines, start=1) if self.block in line]
        if len(heads) != 1:
            raise SolveError(
                f"gave unreadable output: {self.path or 'standard output'} has {len(heads)} lines "
                f"with {self.block!r}, one must head the block"
            )
        return heads[0] + self.skip_rows

    def _chosen(self, words: list[str], place: str) -> list[str]:
        if self.columns is None:
            return words
        wanted = (self.columns,) if isinstance(self.columns, int) else self.columns
        try:
            return [words[column] for column in wanted]
        except IndexError:
            raise SolveError(
                f"gave unreadable output: {place} has {len(words)} columns, "
                f"column {max(wanted)} is wanted"
            ) from None


@final
@dataclass(frozen=True, slots=True)
class ReadCSV:
    """Columns of a CSV table by their names in its first line.

    Args:
        path: File in the working directory, or `None` for standard output.
        columns: One name: a vector. Several, or `None` for all: shape `(rows, columns)`.
        separator: Between cells, one character.

    Example:
        >>> ReadCSV("out.csv", columns="pressure").separator
        ','
    """

    path: str | None = None
    columns: str | Sequence[str] | None = None
    separator: str = ","

    def __post_init__(self) -> None:
        if self.path is not None:
            inside(self.path, "path")

    def __call__(self, run: Run) -> FloatArray:
        """Read a finished run."""
        source = self.path or "standard output"
        reader = csv.DictReader(io.StringIO(run.text(self.path)), delimiter=self.separator)
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        wanted = (self.columns,) if isinstance(self.columns, str) else (self.columns or header)
        for name in wanted:
            if name not in header:
                message = unknown_name_message("column", name, header)
                raise SolveError(f"gave unreadable output: {source}: {message}")
            if header.count(name) > 1:
                raise SolveError(f"gave unreadable output: {source} has several columns {name!r}")
        rows = [
            [number(row[name] or "", f"{source}, line {reader.line_num}") for name in wanted]
            for row in reader
        ]
        if not rows:
            raise SolveError(f"gave unreadable output: no rows in {source}")
        table = np.array(rows)
        return table[:, 0] if isinstance(self.columns, str) else table


@final
@dataclass(frozen=True, slots=True)
class ReadNumpy:
    """A NumPy file; pickled objects in it are never loaded.

    Args:
        path: `.npy` or `.npz` file in the working directory.
        key: Name of an array in a `.npz` file; `None` for a dict of all.

    Example:
        >>> ReadNumpy("field.npy").path
        'field.npy'
    """

    path: str
    key: str | None = None

    def __post_init__(self) -> None:
        inside(self.path, "path")

    def __call__(self, run: Run) -> Any:  # noqa: ANN401 - array or dict
        """Read a finished run."""
        file = run.file(self.path)
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return dict(loaded) if self.key is None else loaded[self.key]
        except (ValueError, OSError, KeyError, EOFError) as error:
            raise SolveError(f"gave unreadable output: {self.path}: {error}") from None
