"""Numbers within text, by a regular expression."""

import re
from dataclasses import dataclass
from typing import final

import numpy as np

from zo_bilevel.adapters.command_line.fields import inside
from zo_bilevel.adapters.command_line.output import Run, number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, SolveError


@final
@dataclass(frozen=True, slots=True)
class ReadPattern:
    r"""Numbers that a regular expression finds, all of them in order.

    Args:
        pattern: With exactly one group, around the number: r"period\s*=\s*(\S+)".
        path: File in the working directory, or `None` for standard output.

    Raises:
        InputError: If the pattern is none or has another number of groups.

    Example:
        >>> ReadPattern(r"gain = (\S+)").path is None
        True
    """

    pattern: str
    path: str | None = None

    def __post_init__(self) -> None:
        if self.path is not None:
            inside(self.path, "path")
        try:
            groups = re.compile(self.pattern, re.MULTILINE).groups
        except re.error as error:
            raise InputError(f"pattern {self.pattern!r}: {error}") from error
        if groups != 1:
            raise InputError(f"pattern {self.pattern!r} must have one group, got {groups}")

    def __call__(self, run: Run) -> FloatArray:
        """Read a finished run."""
        found = re.findall(self.pattern, run.text(self.path), re.MULTILINE)
        source = self.path or "standard output"
        if not found:
            raise SolveError(f"gave unreadable output: no match of {self.pattern!r} in {source}")
        return np.array([number(text, source) for text in found])
