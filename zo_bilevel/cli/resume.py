"""`zo-bilevel resume`: going on with a run, without running what the store says.

The words that a store keeps are read as data. A task of this package and plain options are taken
from them; files, programs and secrets are not, and are to be given again.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from zo_bilevel.cli.command_line_words import HIDDEN_WORD
from zo_bilevel.cli.store import run_argument, store_argument
from zo_bilevel.support.errors import InputError, StoreError
from zo_bilevel.support.printable import printable

if TYPE_CHECKING:
    from zo_bilevel.store.records import StoredRun

RESUMABLE = ("run", "compare")
DROPPED = ("--store", "--plot", "--report", "--round-width")
"""Options of the stored words that name a file to write, or that the run's settings know better."""
PLAIN_VALUE = re.compile(r"[\w=+\-.,()\[\] ]*")
PLAIN_WORD = re.compile(r"[A-Za-z_][\w-]*")
MOST_WORKERS_A_CORE = 4


@click.command("resume", context_settings={"ignore_unknown_options": True})
@store_argument
@run_argument
@click.argument("task", metavar="[TASK]", required=False)
@click.argument("words", metavar="[OPTIONS OF RUN OR COMPARE]...", nargs=-1)
@click.pass_context
def resume_command(
    context: click.Context, store: str, run: int, task: str | None, words: tuple[str, ...]
) -> None:
    """Go on with a run of STORE, in the same folder as then.

    A run of a problem in a file of your own needs that again, as TASK: FILE.py:NAME. Options that
    follow are used beside those of then, or in their place.
    """
    is_task = task is not None and not task.startswith("-")
    given = words if is_task or task is None else (task, *words)
    task = task if is_task else None
    program = context.find_root().command
    command, name, stored = _command(program, store, run, task, given)
    shown = shlex.join(["zo-bilevel", *command, "--store", name])
    click.echo(f"resuming: {printable(shown)}", err=True)
    line = [*command, "--store", store]
    code = program.main(line, "zo-bilevel", standalone_mode=False, obj=stored)
    context.exit(code or 0)


def _command(
    program: click.Command, store: str, number: int, task: str | None, given: Sequence[str]
) -> tuple[list[str], str, StoredRun]:
    """The words to run, what the store is called (its address may hold a password), the run."""
    from zo_bilevel.comparison.stored_runs import command_of
    from zo_bilevel.store.places import open_store

    with open_store(store, read_only=True) as opened:
        run, name = opened.find_run(number), opened.name
    words = command_of(run)
    if not words:
        raise InputError(
            f"run {number} was started from Python: run that script again with the same store, and "
            "it goes on where it stopped"
        )
    if words[0] not in RESUMABLE or not isinstance(program, click.Group):
        raise StoreError(f"the command of run {number} is damaged: {shlex.join(words)}")
    command = program.commands[words[0]]
    try:
        context = command.make_context(words[0], words[1:])
        ours = command.make_context(words[0], ["-", *given], resilient_parsing=True)
    except click.ClickException as error:
        raise InputError(f"run {number} cannot be resumed: {error.format_message()}") from error
    subject = task or _named_task(run, str(context.params["subject"]))
    options = _options(run, command, context.params, ours.params)
    return [words[0], subject, *options, *given], name, run


def _named_task(run: StoredRun, subject: str) -> str:
    """The task of the stored words, if it is one of this package."""
    from zo_bilevel import tasks

    if subject in tasks.NAMES:
        return subject
    raise InputError(
        f"run {run.number} was made with {subject}, and no store is believed what to run: "
        f"give the file again, zo-bilevel resume STORE {run.number} {subject}"
    )


def _options(
    run: StoredRun, command: click.Command, known: dict[str, Any], ours: dict[str, Any]
) -> list[str]:
    """The stored options as words, without those that were given again."""
    found: list[str] = []
    for option in command.params:
        name, value = option.name or "", known.get(option.name or "")
        flag = option.opts[0]
        if not isinstance(option, click.Option) or flag in DROPPED or value in (None, False, ()):
            continue
        if option.multiple:
            again = {word.partition("=")[0] for word in ours[name]}
            kept = [word for word in value if word.partition("=")[0] not in again]
            found += [part for word in kept for part in (flag, _checked(run, flag, word))]
        elif option.is_flag:
            found.append(flag)
        elif value != option.get_default(click.Context(command)):
            most = MOST_WORKERS_A_CORE * (os.cpu_count() or 1)
            found += [flag, str(min(value, most) if name == "workers" else value)]
    return [*found, *_width(run)]


def _width(run: StoredRun) -> list[str]:
    """The round width, which shapes the search: with other workers it must stay what it was."""
    from zo_bilevel.comparison.stored_runs import settings_of

    width = settings_of(run).get("round_width", 1)
    return ["--round-width", str(int(width))] if width > 1 else []


def _checked(run: StoredRun, flag: str, word: str) -> str:
    """A setting of the stored words, if it can name no file, no address and no secret."""
    name, _, value = word.partition("=")
    if word.endswith(HIDDEN_WORD):
        raise InputError(
            f"the command of run {run.number} held a secret, which no store keeps: give it again, "
            f"{flag} {name}=..."
        )
    is_number = PLAIN_VALUE.fullmatch(value) and not re.search(r"[A-Za-z_]{2}", value)
    if is_number or PLAIN_WORD.fullmatch(value):
        return word
    raise InputError(
        f"run {run.number} was made with {flag} {word}, which no store is believed: give it again"
    )
