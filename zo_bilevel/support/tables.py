"""Tables as plain text of a bounded width, and as Markdown; numbers and values for their cells."""

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, final

from zo_bilevel.support.printable import printable

WIDTH = 100
"""Columns that a table may take."""
LONGEST_WORD = 40
"""Characters of a name that is shown in one piece, however narrow the table."""
RULES = "    \n    \n -- \n    \n    \n    \n    \n    \n"
"""A rule under the header and nothing else, in characters that every terminal has."""


@final
@dataclass(frozen=True, slots=True)
class Grid:
    """A table before it is drawn; control characters in it become escapes.

    Args:
        title: One line above it.
        header: Column names.
        rows: Cells, as many in each row as there are column names.
        notes: Lines below it.
        labels: How many of the first columns are words, drawn to the left.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    labels: int = 1

    def __post_init__(self) -> None:
        rows = tuple(tuple(map(printable, row)) for row in self.rows)
        notes = tuple(map(printable, self.notes))
        for name, value in (("title", printable(self.title)), ("rows", rows), ("notes", notes)):
            object.__setattr__(self, name, value)

    def text(self, width: int = WIDTH) -> str:
        """Draw the table for a terminal.

        Args:
            width: Columns it may take, >= 40; cells that are too wide go on in the next line.

        Returns:
            Lines of at most `width` characters, without a line break at the end.
        """
        from rich.box import Box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=Box(RULES, ascii=True), show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
        )
        for index, name in enumerate(self.header):
            is_label = index < self.labels
            table.add_column(
                name,
                justify="left" if is_label else "right",
                overflow="fold",
                no_wrap=not is_label,  # words may go on in the next line, numbers may not
                min_width=self._longest_word(index) if is_label else None,
            )
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        page = StringIO()
        console = Console(file=page, width=width, color_system=None, force_terminal=False)
        console.print(table)
        drawn = [line.rstrip() for line in page.getvalue().splitlines()]
        return "\n".join([*wrapped(self.title, width), "", *drawn, *self._notes(width)])

    def _longest_word(self, index: int) -> int:
        """Characters of it in a column; a name is never broken, unless it alone is too wide."""
        words = [word for row in self.rows for word in row[index].split()]
        return min(max(map(len, words), default=1), LONGEST_WORD)

    def _notes(self, width: int) -> list[str]:
        lines = [line for note in self.notes for line in wrapped(note, width)]
        return ["", *lines] if lines else []

    def markdown(self) -> str:
        """Draw the table in Markdown."""
        aligned = [":--" if k < self.labels else "--:" for k in range(len(self.header))]
        lines = [self.header, tuple(aligned), *self.rows]
        drawn = ["| " + " | ".join(map(_escape, line)) + " |" for line in lines]
        return "\n\n".join([f"**{_escape(self.title)}**", "\n".join(drawn), *self.notes])


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    """Break a text into lines, those after the first indented by two."""
    return textwrap.wrap(text, width, subsequent_indent="  ") or [""]


def number(value: float | None, digits: int = 3) -> str:
    """A number for a cell.

    Args:
        value: `None` and NaN are shown as a dash, infinity as "inf".
        digits: Significant digits.

    Example:
        >>> number(1.23456e-9), number(0.5), number(None)
        ('1.23e-9', '0.5', '-')
    """
    if value is None or math.isnan(value):
        return "-"
    return re.sub(r"e([+-])0(\d)$", r"e\1\2", f"{value:.{digits}g}")


def percent(share: float | None) -> str:
    """A share for a cell, in per cent.

    Args:
        share: 0.01 is one per cent; `None` and NaN are shown as a dash.

    Example:
        >>> percent(0.00972), percent(1.2e-7), percent(None)
        ('0.97 %', '1.2e-5 %', '-')
    """
    if share is None or math.isnan(share):
        return "-"
    value = 100.0 * share
    if 100 <= abs(value) < 1e5:
        return f"{value:.0f} %"
    return f"{value:.2f} %" if 0.01 <= abs(value) < 100 or value == 0 else f"{number(value, 2)} %"


def spread(lower: float, upper: float, show: str = "number") -> str:
    """Two quartiles for a cell.

    Example:
        >>> spread(1e-9, 2e-9)
        '1e-9..2e-9'
    """
    if show == "percent":
        return "..".join(percent(quartile).removesuffix(" %") for quartile in (lower, upper))
    return f"{number(lower, 2)}..{number(upper, 2)}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names in a message, with a count of those left out.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b, ... (3)'
    """
    if len(names) <= most:
        return ", ".join(names)
    return ", ".join(names[:most]) + f", ... ({len(names)})"


def shown(value: Any) -> str:  # noqa: ANN401 - any parameter value
    """A parameter's value for a cell."""
    if isinstance(value, float):
        return f"{value:.6g}"
    import numpy as np  # `--help` does without

    array = np.asarray(value)
    if array.shape and array.dtype.kind in "fiu":
        return f"{array.size} values in {array.min():.4g}..{array.max():.4g}"
    return str(value)


def deviation(found: Any, truth: Any) -> str:  # noqa: ANN401 - any parameter value
    """How far a parameter is from its true value, for a cell.

    Returns:
        The relative error, of the Euclidean norm for arrays; the difference where the truth is 0.
    """
    import numpy as np

    one, other = np.asarray(found), np.asarray(truth)
    if one.dtype.kind not in "fiu" or other.dtype.kind not in "fiu" or one.shape != other.shape:
        return "same" if np.array_equal(one, other) else "differs"
    distance, size = float(np.linalg.norm(one - other)), float(np.linalg.norm(other))
    return percent(distance / size) if size > 0 else number(distance)
