"""`zo-bilevel runs`, `show`, `export`, `resume`: what a store holds, and going on with it."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from zo_bilevel.comparison.stored_runs import Found, Row
    from zo_bilevel.store.store import Store

MOST_PARAMETERS = 20
MOST_ERROR = 200
RESUMABLE = ("run", "compare")
UNFINISHED = "unfinished"
"""What the store calls "running": still at it, or killed."""
store_argument = click.argument("store", metavar="STORE")
run_argument = click.argument("run", metavar="RUN", type=int)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def _open(path: str) -> Store:
    from zo_bilevel.store.store import Store

    return Store(path, read_only=True)


@click.command("runs")
@store_argument
@json_option
def runs_command(store: str, as_json: bool) -> None:
    """List the runs that STORE holds."""
    from zo_bilevel.support.json_data import to_json
    from zo_bilevel.support.tables import Grid, number

    with _open(store) as opened:
        found = opened.runs()
    if as_json:
        click.echo(to_json([_plain(run) for run in found]))
        return
    rows = tuple(
        (
            *(str(run["id"]), run["problem"], run["method"], _status(run), _day(run["updated"])),
            *(str(run["seed"]), str(run["solves"]), str(run["failures"] or 0)),
            number(run["best_loss"] if run.get("loss") is None else run["loss"]),
        )
        for run in found
    )
    header = ("run", "problem", "method", "status", "updated", "seed", "solves", "failed", "loss")
    notes = ["details: zo-bilevel show STORE RUN"]
    if any(_status(run) == UNFINISHED for run in found):
        notes.append("unfinished: still at it, or killed; zo-bilevel resume STORE RUN goes on")
    click.echo(Grid(f"{len(found)} runs in {store}", header, rows, tuple(notes), labels=5).text())


@click.command("show")
@store_argument
@run_argument
@json_option
def show_command(store: str, run: int, as_json: bool) -> None:
    """Show one run of STORE and the best point that it found."""
    from zo_bilevel.comparison.stored_runs import failures, find_run, found_by
    from zo_bilevel.support.json_data import to_json, to_plain

    with _open(store) as opened:
        row = find_run(opened, run)
        found = found_by(opened, row)
        failed = failures(opened, row)
    if as_json:
        best = {"phi": {}} if found is None else to_plain(found)
        click.echo(to_json({**_plain(row), **best, "failed": failed}))
        return
    click.echo(_facts(row, found, failed))
    if found is not None:
        click.echo(f"\n{_best_point(row, found.phi)}")


def _facts(run: Row, found: Found | None, failed: list[Row]) -> str:
    from zo_bilevel.comparison.stored_runs import command_of
    from zo_bilevel.support.tables import Grid, number

    words = command_of(run)
    lost = ", ".join(f"{row['count']} {row['status']}" for row in failed)
    facts = [
        ("problem", f"{run['problem']}, version {run['version']}"),
        ("method", f"{run['method']}, seed {run['seed']}"),
        ("status", _status(run)),
        ("stopped", run["stop_reason"]),
        ("started", _day(run["created"])),
        ("updated", _day(run["updated"])),
        ("solves", f"{run['solves']}"),
        ("failed solves", lost or "0"),
        *((f"one {row['status']}", row["error"][:MOST_ERROR]) for row in failed if row["error"]),
        ("cost", number(run["cost"]) if run["cost"] else ""),
        ("loss", _judged_loss(found)),
        ("lowest loss", number(run["best_loss"], 6)),
        ("settings", _settings(run)),
        ("command", shlex.join(["zo-bilevel", *words]) if words else "a Python program"),
    ]
    rows = tuple(fact for fact in facts if fact[1])
    return Grid(f"run {run['id']}", ("what", "value"), rows, labels=2).text()


def _judged_loss(found: Found | None) -> str:
    """The loss of a final point that was judged afresh; else it is the lowest one."""
    from zo_bilevel.support.tables import number

    if found is None or found.standard_error is None:
        return ""
    error = number(found.standard_error, 2)
    return f"{number(found.loss, 6)} ± {error}, the mean of fresh solves of the final point"


def _settings(run: Row) -> str:
    import json

    given = json.loads(run["settings"])
    return ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)


def _best_point(run: Row, phi: Mapping[str, Any]) -> str:
    from zo_bilevel.support.parameter_text import shown
    from zo_bilevel.support.tables import Grid

    rows = tuple((name, shown(value)) for name, value in list(phi.items())[:MOST_PARAMETERS])
    left_out = len(phi) - len(rows)
    notes = (f"... and {left_out} more parameters; --json has them all",) if left_out else ()
    return Grid(f"best point of run {run['id']}", ("parameter", "found"), rows, notes).text()


@click.command("export")
@store_argument
@run_argument
@click.option(
    "--csv",
    "path",
    metavar="[FILE]",
    is_flag=False,
    flag_value="-",
    default="-",
    help="Comma-separated values, to a file or (the default) to standard output.",
)
def export_command(store: str, run: int, path: str) -> None:
    """Write all solves of one run of STORE as a table: named parameters, loss, status, seconds."""
    from zo_bilevel.comparison.stored_runs import exported, find_run
    from zo_bilevel.support.errors import InputError

    page = io.StringIO()
    with _open(store) as opened:
        csv.writer(page, lineterminator="\n").writerows(exported(opened, find_run(opened, run)))
    if path == "-":
        click.echo(page.getvalue(), nl=False)
        return
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(page.getvalue())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


@click.command("resume")
@store_argument
@run_argument
@click.pass_context
def resume_command(context: click.Context, store: str, run: int) -> None:
    """Go on with a run of STORE: the command that started it, in the same folder as then."""
    words = _resumable(store, run)
    click.echo(f"resuming: {shlex.join(['zo-bilevel', *words, '--store', store])}", err=True)
    program = context.find_root().command
    code = program.main([*words, "--store", store], "zo-bilevel", standalone_mode=False)
    context.exit(code or 0)


def _resumable(store: str, run: int) -> list[str]:
    from zo_bilevel.cli.command_line_words import HIDDEN_WORD
    from zo_bilevel.comparison.stored_runs import command_of, find_run
    from zo_bilevel.support.errors import InputError, StoreError

    with _open(store) as opened:
        words = command_of(find_run(opened, run))
    if not words:
        raise InputError(
            f"run {run} was started from Python: run that script again with the same store, and "
            "it goes on where it stopped"
        )
    if words[0] not in RESUMABLE:
        raise StoreError(f"the command of run {run} is damaged: {shlex.join(words)}")
    if any(word.endswith(HIDDEN_WORD) for word in words):
        raise InputError(
            f"the command of run {run} held a secret, which no store keeps: give it again with "
            f"zo-bilevel {shlex.join(words)} --store {store}"
        )
    return words


def _plain(run: Row) -> dict[str, Any]:
    import json

    parts = {name: json.loads(run[name]) for name in ("command", "settings", "space")}
    hidden = ("identity", "start", "point", *parts)
    return {name: value for name, value in run.items() if name not in hidden} | parts


def _status(run: Row) -> str:
    return UNFINISHED if run["status"] == "running" else str(run["status"])


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
