"""The errors a user can meet, one small tree.

Errors of the user's making are raised at once and are also `ValueError`; a failed solve is
never an exception but an `Evaluation` with a status.
"""

import difflib
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from zo_bilevel.support.printable import printable

FOREIGN = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), "site-packages", "<frozen")
"""Marks of code that is not the user's."""
LONGEST_MESSAGE = 10_000
"""Characters of an exception that are kept."""
SolveStatus: TypeAlias = Literal["failed", "timed_out", "crashed", "wrong_shape", "stopped"]


class ZoBilevelError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(ZoBilevelError, ValueError):
    """An argument breaks a rule; the message names the argument, the rule and the value."""


class InnerSolverError(ZoBilevelError, RuntimeError):
    """The inner solver gave nothing that could be used, with what it gave instead."""


class SolveError(ZoBilevelError, RuntimeError):
    """One solve failed in a way its adapter understands; the run goes on.

    `status` is the status of the evaluation it becomes.
    """

    status: ClassVar[SolveStatus] = "failed"


class SolveTimeoutError(SolveError):
    """A solve was stopped at its time limit."""

    status: ClassVar[SolveStatus] = "timed_out"


class SolveCrashError(SolveError):
    """The program behind a solve was killed by a signal."""

    status: ClassVar[SolveStatus] = "crashed"


class StopRunError(SolveError):
    """A solve failed for a reason that would fail every further one: the run ends with its words.

    The solve is not stored, so the same call goes on from here once the reason is gone.
    """

    status: ClassVar[SolveStatus] = "stopped"


class WrongShapeError(SolveError):
    """A solve gave an answer of another length or shape than expected."""

    status: ClassVar[SolveStatus] = "wrong_shape"


class InvalidSolutionError(InnerSolverError):
    """The inner solver ended with an inner solution that is no number; the solve is "invalid"."""


class StoreError(ZoBilevelError, RuntimeError):
    """The store file cannot be used as asked; nothing already stored is lost."""


class UnsupportedProblemError(ZoBilevelError, ValueError):
    """A method cannot work on this problem, with the reason (dimension, bounds, no vector)."""


class MissingPackageError(ZoBilevelError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""


def described(error: BaseException) -> str:
    """An error in words: its type, its message, and the last line of the user's own code.

    Example:
        >>> described(ValueError("too cold"))
        'ValueError: too cold'
    """
    text = f"{type(error).__name__}: {shown(error)}"
    if isinstance(error, ZoBilevelError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(part in f.filename for part in FOREIGN)]
    if not own:
        return text
    return f"{text} ({Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name})"


def shown(error: BaseException) -> str:
    r"""The text of an exception, even of one that cannot be printed or should not be.

    Control characters and lone surrogates are written as escapes: they would reach the terminal.

    Example:
        >>> shown(ValueError("\x1b[2J gone"))
        '\\x1b[2J gone'
    """
    try:
        text = str(error)
    except BaseException as fault:  # the user's own `__str__`
        if isinstance(fault, KeyboardInterrupt):
            raise
        return "(its message cannot be shown)"
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[:LONGEST_MESSAGE]}... ({len(text)} characters)"
    return printable(text)


def unknown_name_message(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is unknown, with the nearest known names.

    Returns:
        One sentence with up to three near names, or all names when none is near.

    Example:
        >>> unknown_name_message("task", "burger", ["burgers", "kdv"])
        "unknown task 'burger'; did you mean 'burgers'? (known: burgers, kdv)"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})"
