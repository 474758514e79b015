"""When a program's run counts as a success."""

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import final

from zo_bilevel.adapters.command_line.process import Ending
from zo_bilevel.support.errors import InputError, SolveCrashError, SolveError, SolveTimeoutError


@final
@dataclass(frozen=True, slots=True)
class SuccessRules:
    """What a good solve looks like from outside.

    Args:
        statuses: Exit statuses that mean success.
        required_output: Regular expression that a good solve prints; empty for none.
        forbidden_output: Regular expression that only a bad solve prints; empty for none.

    Raises:
        InputError: If there is no status or an expression is none.

    Example:
        >>> SuccessRules((0,), "", "meas failed").statuses
        (0,)
    """

    statuses: tuple[int, ...]
    required_output: str
    forbidden_output: str

    def __post_init__(self) -> None:
        if not self.statuses or any(not isinstance(status, int) for status in self.statuses):
            raise InputError(f"success_statuses must be whole numbers, got {self.statuses!r}")
        for name in ("required_output", "forbidden_output"):
            try:
                re.compile(getattr(self, name))
            except (re.error, TypeError) as error:
                text = f"{name} must be a regular expression, got {getattr(self, name)!r}: {error}"
                raise InputError(text) from error

    def check(self, ending: Ending, timeout_s: float | None, logs: tuple[Path, ...]) -> None:
        """Refuse a run that is no success; `SolveError` in words; of the kind that fits."""
        if ending.status is None:
            raise SolveTimeoutError(f"was killed after timeout_s={timeout_s:g}")
        ended = f"{describe_status(ending.status)} after {ending.seconds:.3g} s"
        if ending.status not in self.statuses:
            raise (SolveCrashError if ending.status < 0 else SolveError)(ended)
        if not (self.required_output or self.forbidden_output):
            return
        printed = "\n".join(path.read_text(errors="replace") for path in logs)
        if self.required_output and not re.search(self.required_output, printed):
            raise SolveError(f"{ended} but did not print {self.required_output!r}")
        if self.forbidden_output and re.search(self.forbidden_output, printed):
            raise SolveError(f"{ended} but printed {self.forbidden_output!r}")


def describe_status(status: int) -> str:
    """An exit status of `subprocess` style in words.

    Example:
        >>> describe_status(3), describe_status(-6)
        ('exited with status 3', 'was killed by SIGABRT')
    """
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
