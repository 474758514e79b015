"""`zo-bilevel export`: all solves of a stored run as a table, or its best point as a deck."""

import csv
import io
from pathlib import Path

import click

from zo_bilevel.cli.store import run_argument, store_argument
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.printable import printable


@click.command("export")
@store_argument
@run_argument
@click.argument("task", required=False)
@click.option("--deck", metavar="FOLDER", help="Write the best point as TASK's input files there.")
@click.option(
    "--csv",
    "path",
    metavar="[FILE]",
    is_flag=False,
    flag_value="-",
    default="-",
    help="Comma-separated values, to a file or (the default) to standard output.",
)
def export_command(store: str, run: int, task: str | None, deck: str | None, path: str) -> None:
    """Write all solves of one run of STORE as a table: named parameters, loss, status, seconds.

    Or, with --deck, the input files of the program of TASK, FILE.py:NAME, at the best point.
    """
    from zo_bilevel.comparison.stored_runs import exported
    from zo_bilevel.store.places import open_store

    if deck is not None or task is not None:
        click.echo(f"deck: {_written(store, run, task, deck)}")
        return
    page = io.StringIO()
    with open_store(store, read_only=True) as opened:
        rows = exported(opened, opened.find_run(run))
        csv.writer(page, lineterminator="\n").writerows(rows)
    table = printable(page.getvalue())
    if path == "-":
        click.echo(table, nl=False)
        return
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(table)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _written(store: str, run: int, task: str | None, deck: str | None) -> Path:
    """Where the input files of the best point were written."""
    from zo_bilevel.adapters import CommandLine
    from zo_bilevel.cli.loading import load_subject
    from zo_bilevel.comparison.stored_runs import found_by
    from zo_bilevel.store.places import open_store

    if task is None or deck is None:
        raise InputError("a deck needs both TASK, FILE.py:NAME, and --deck FOLDER")
    solver = load_subject(task).problem.inner
    if not isinstance(solver, CommandLine):
        raise InputError(
            f"a deck is written by zb.adapters.CommandLine, but {task} is solved by "
            f"{type(solver).__name__}"
        )
    with open_store(store, read_only=True) as opened:
        phi = found_by(opened, opened.find_run(run)).phi
    if not phi:
        raise InputError(f"run {run} of store {store} has found no point")
    return solver.write(phi, deck)
