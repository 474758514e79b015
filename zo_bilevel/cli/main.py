"""The command line: what can be asked. Each answer is in a file of its own.

Nothing heavy is imported here, so that `--help` answers at once.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any

import click

from zo_bilevel import __version__
from zo_bilevel.cli.bench import bench_command
from zo_bilevel.cli.compare import compare_command
from zo_bilevel.cli.demo import demo_command
from zo_bilevel.cli.doctor import doctor_command
from zo_bilevel.cli.export import export_command
from zo_bilevel.cli.init import init_command
from zo_bilevel.cli.lists import methods_command, tasks_command
from zo_bilevel.cli.options import INTERRUPTED_EXIT, WORDS_KEY
from zo_bilevel.cli.paper import paper_command
from zo_bilevel.cli.prompt import prompt_command
from zo_bilevel.cli.resume import resume_command
from zo_bilevel.cli.run import run_command
from zo_bilevel.cli.store import (
    runs_command,
    show_command,
    steer_command,
    stop_command,
)
from zo_bilevel.cli.watch import report_command, watch_command
from zo_bilevel.cli.worker import worker_command
from zo_bilevel.support.errors import InnerSolverError, ZoBilevelError
from zo_bilevel.support.preemption import ends_when_preempted
from zo_bilevel.support.printable import printable


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings in one line, without the line of code that gave them."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


class _Failure(click.ClickException):
    """One line on stderr, an exit code, no traceback."""

    exit_code = 2  # what was asked cannot be done

    def __init__(self, error: ZoBilevelError) -> None:
        super().__init__(printable(" ".join(str(error).split())))


class _NothingFound(_Failure):
    """It was tried, and the inner solver gave nothing."""

    exit_code = 1


class _Commands(click.Group):
    """Turns errors that a person can mend into one line; keeps the words for the store."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[WORDS_KEY] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        try:
            with ends_when_preempted(), plain_warnings():
                return super().invoke(ctx)
        except ZoBilevelError as error:
            kind = _NothingFound if isinstance(error, InnerSolverError) else _Failure
            raise kind(error) from error
        except KeyboardInterrupt:
            click.echo("interrupted before there was any result", err=True)
            ctx.exit(INTERRUPTED_EXIT)


def _encode_whatever_happens() -> None:
    """A terminal that lacks a character shows a question mark instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zo-bilevel")
def main() -> None:
    """Tune the parameters of anything that can only be run, in few runs.

    TASK is a name that `zo-bilevel tasks` lists, or FILE.py:NAME: a Problem or Task in a file of
    your own, or a function there that returns one.
    """
    _encode_whatever_happens()


main.add_command(init_command)
main.add_command(tasks_command)
main.add_command(methods_command)
main.add_command(run_command)
main.add_command(compare_command)
main.add_command(demo_command)
main.add_command(bench_command)
main.add_command(watch_command)
main.add_command(report_command)
main.add_command(doctor_command)
main.add_command(runs_command)
main.add_command(show_command)
main.add_command(export_command)
main.add_command(resume_command)
main.add_command(stop_command)
main.add_command(steer_command)
main.add_command(prompt_command)
main.add_command(paper_command)
main.add_command(worker_command)
