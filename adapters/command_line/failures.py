"""Explains a failed run of a program, and keeps what is needed to repeat it by hand."""

import contextlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from zo_bilevel.adapters.command_line.workspace import SolveFolder
from zo_bilevel.support.errors import SolveError
from zo_bilevel.support.redaction import hide, secret_values

TAIL_LINES = 5
TAIL_CHARACTERS = 600
COMPLAINT = re.compile(r"error|fatal|cannot|invalid", re.IGNORECASE)
"""The first line of a log that says so tells more than the last ones."""
MAX_LOG_BYTES = 1 << 20
STDIN, STDOUT, STDERR, SCRIPT = "stdin.txt", "stdout.txt", "stderr.txt", "repeat.sh"


@final
class FailureReport:
    """What is known of one failed solve.

    Args:
        folder: Its directory.
        command: Program and arguments, as started.
        given: Variables the user passed; their values are never shown.
        limits: Variables that set the number of threads.
    """

    def __init__(
        self,
        folder: SolveFolder,
        command: Sequence[str],
        given: Mapping[str, str],
        limits: Mapping[str, str],
    ) -> None:
        self._folder = folder
        self._command = command
        self._given = given
        self._limits = {name: v for name, v in limits.items() if name not in given}
        self._secrets = secret_values(given, os.environ)

    def explain(self, error: SolveError) -> SolveError:
        """Say what failed, what the program said, and where its directory is kept.

        Returns:
            An error of the same kind whose message holds no secret.
        """
        said = self._tail()
        where = ""
        with contextlib.suppress(OSError):  # a full disk must not hide what went wrong
            where = self._keep()
        text = f"{Path(self._command[0]).name} {error}{said}{where}"
        return type(error)(hide(text, self._secrets))

    def _tail(self) -> str:
        for name in (STDERR, STDOUT):
            lines = [line for line in self._log(name).splitlines() if line.strip()]
            if lines:
                before, last = lines[:-TAIL_LINES], lines[-TAIL_LINES:]
                first = next((k for k, line in enumerate(before) if COMPLAINT.search(line)), None)
                why = [] if first is None else [*before[first : first + TAIL_LINES], "..."]
                said = " | ".join(why)[:TAIL_CHARACTERS] + " | " * bool(why)
                return f"; it said: {said}{' | '.join(last)[-TAIL_CHARACTERS:]}"
        return "; it said nothing"

    def _log(self, name: str) -> str:
        """The end of a log, from a line's beginning, without secrets."""
        path = self._folder.path / name
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_LOG_BYTES))
            text = file.read().decode(errors="replace")
        if size > MAX_LOG_BYTES:
            text = text.partition("\n")[2]  # the first line may hold the end of a secret
        return hide(text, self._secrets)

    def _keep(self) -> str:
        for name in (STDOUT, STDERR):
            (self._folder.path / name).write_text(self._log(name), encoding="utf-8")
        kept = self._folder.keep()
        if kept is None:
            return ""
        script = kept / SCRIPT
        script.write_text(self._script(kept), encoding="utf-8", errors="surrogateescape")
        return f"; repeat it by hand: sh {shlex.quote(str(script))}"

    def _script(self, kept: Path) -> str:
        lines = ["#!/bin/sh", f"cd {shlex.quote(str(kept / 'work'))} || exit 1"]
        lines += [
            f'export {name}="${{{name}:?set it: its value is not kept}}"' for name in self._given
        ]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self._limits.items()]
        lines.append(f"exec {shlex.join(self._command)} < {shlex.quote(str(kept / STDIN))}")
        return hide("\n".join(lines) + "\n", self._secrets)
