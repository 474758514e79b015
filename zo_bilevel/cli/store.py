"""`zo-bilevel runs`, `show`, `stop`, `steer`: what a store holds, and what is at work on it.

A store may come from elsewhere: its texts are shown without control characters, and nothing that
it says is run.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zo_bilevel.support.errors import InputError
from zo_bilevel.support.printable import printable
from zo_bilevel.support.tables import Grid, number, shown, wrapped

if TYPE_CHECKING:
    from zo_bilevel.run.runs import Run
    from zo_bilevel.store.abstract import AbstractStore
    from zo_bilevel.store.records import StoredRun

MOST_PARAMETERS = 20
MOST_ERROR = 200
POSITIVE = click.FloatRange(min=0, min_open=True)
UNFINISHED = "unfinished"
"""What the store calls "running": still at it, or killed."""
store_argument = click.argument("store", metavar="STORE")
run_argument = click.argument("run", metavar="RUN", type=int)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def _open(path: str) -> AbstractStore:
    from zo_bilevel.store.places import open_store

    return open_store(path, read_only=True)


def _bill_only(store: str) -> str:
    """What the bill says where a search of prompts left nothing else; empty otherwise."""
    from zo_bilevel.adapters.prompts.answer_store import kept_answers
    from zo_bilevel.adapters.prompts.bill import bill_file, sum_of

    if "://" in store or Path(store).exists() or not (file := bill_file(store)).is_file():
        return ""
    costs, total = [answer.cost for _, answer in kept_answers(file)], sum_of(file)
    lost = f", {number(total)} with what calls without an answer can have cost at the most"
    has_lost = total - math.fsum(costs) > 1e-9 * total
    said = (
        f"{store} holds no runs: a search of prompts keeps its answers beside it. {store}.bill has "
        f"{len(costs)} answers, which cost {number(math.fsum(costs))}{lost * has_lost}; "
        f"zo-bilevel show {shlex.quote(store)} --answers 10 shows the newest"
    )
    return "\n".join(wrapped(said))


@click.command("runs")
@store_argument
@json_option
def runs_command(store: str, as_json: bool) -> None:
    """List the runs that STORE holds."""
    from zo_bilevel.support.json_data import to_json

    if bill := _bill_only(store):
        click.echo(to_json([]) if as_json else bill)
        return
    with _open(store) as opened:
        runs, records, name = opened.runs(), opened.records(), opened.name
    if as_json:
        pairs = zip(runs, records, strict=True)
        click.echo(to_json([_plain(facts, run) for facts, run in pairs]))
        return
    header = ("run", "problem", "method", "status", "updated", "seed", "solves", "failed", "loss")
    notes = ["details: zo-bilevel show STORE RUN"]
    if any(run["status"] == "running" for run in runs):
        notes.append("unfinished: still at it, or killed; zo-bilevel resume STORE RUN goes on")
    if any(run["status"] == "damaged" for run in runs):
        notes.append("damaged: run what made it again with this store, which keeps its solves")
    rows = tuple(map(_row, runs))
    title = f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} in {name}"
    click.echo(Grid(title, header, rows, tuple(notes), labels=5).text())


def _row(run: Mapping[str, Any]) -> tuple[str, ...]:
    if "problem" not in run:
        return (str(run["id"]), "-", "-", run["status"], *("-" * 5))
    status, updated = _status(run["status"]), _day(run["updated"])
    counts = (str(run[name]) for name in ("seed", "solves", "failures"))
    loss = "-" if run["loss"] is None else number(run["loss"])
    return (str(run["id"]), run["problem"], run["method"], status, updated, *counts, loss)


@click.command("show")
@store_argument
@click.argument("run", metavar="RUN", type=int, required=False)
@json_option
@click.option(
    "--answers",
    "num_answers",
    type=click.IntRange(min=1),
    help="Show the newest raw answers of a chat model that are kept beside STORE.",
)
def show_command(store: str, run: int | None, as_json: bool, num_answers: int | None) -> None:
    """Show one run of STORE and the best point that it found, or only --answers."""
    from zo_bilevel.comparison.stored_runs import found_by, quoted_failures
    from zo_bilevel.store.listing import summary_of
    from zo_bilevel.support.json_data import to_json

    if run is None:
        if as_json or not num_answers:
            raise click.UsageError("show needs RUN, or --answers alone: zo-bilevel runs STORE")
        click.echo(_answers(store, num_answers))
        return
    with _open(store) as opened:
        stored = opened.find_run(run)
        facts, found = summary_of(opened, stored), found_by(opened, stored)
        quoted = quoted_failures(opened, stored) if found.failures else {}
    if as_json:
        failed = [
            {"status": status, "count": count, "error": quoted.get(status, "")}
            for status, count in found.failures.items()
        ]
        click.echo(to_json({**_plain(facts, stored), "phi": found.phi, "failed": failed}))
        return
    click.echo(_facts(stored, found, quoted))
    if found.phi:
        click.echo(f"\n{_best_point(run, found.phi)}")
    if num_answers:
        click.echo(f"\n{_answers(store, num_answers)}")


def _answers(store: str, count: int) -> str:
    from collections import deque

    from zo_bilevel.adapters.prompts.answer_store import kept_answers
    from zo_bilevel.adapters.prompts.bill import bill_file

    if not (file := bill_file(store)).is_file():
        raise InputError(f"there are no answers: {file} does not exist")
    lines, total = deque[str](maxlen=count), 0
    for request, answer in kept_answers(file):
        total += 1
        question = str(request["messages"][-1]["content"])[-MOST_ERROR:]
        said = answer.text or f"({answer.unread_as})"
        lines.append(f"{total}. {printable(question)}\n   -> {printable(said)}")
    head = f"{len(lines)} of {total} answers kept in {store}.bill"
    return "\n".join([head, *lines])


def _facts(run: StoredRun, found: Run, quoted: Mapping[str, str]) -> str:
    from zo_bilevel.comparison.stored_runs import command_of, settings_of

    words, lowest = command_of(run), _lowest(found)
    lost = ", ".join(f"{count} {status}" for status, count in found.failures.items())
    facts = [
        ("problem", f"{run.problem}, version {run.version}"),
        ("method", f"{run.method}, seed {run.seed}"),
        ("status", _status(run.status)),
        ("stopped", run.stop_reason),
        ("started", _day(run.created)),
        ("updated", _day(run.updated)),
        ("solves", f"{found.solves}"),
        ("failed solves", lost or "0"),
        *((f"one {status}", error[:MOST_ERROR]) for status, error in quoted.items() if error),
        ("cost", number(found.cost) if found.cost else ""),
        ("loss", _judged_loss(found)),
        ("lowest loss", "" if lowest is None else number(lowest, 6)),
        ("settings", ", ".join(f"{name} {value}" for name, value in settings_of(run).items())),
        ("command", shlex.join(["zo-bilevel", *words]) if words else "a Python program"),
    ]
    rows = tuple(fact for fact in facts if fact[1])
    return Grid(f"run {run.number}", ("what", "value"), rows, labels=2).text()


def _lowest(found: Run) -> float | None:
    return min((step.loss for step in found.improvements), default=None)


def _judged_loss(found: Run) -> str:
    """The loss of a final point that was judged afresh; else it is the lowest one."""
    if found.standard_error is None:
        return f"{number(found.loss, 6)} without noise" if found.judged_by == "exact" else ""
    from zo_bilevel.support.intervals import mean_in_words

    return mean_in_words(found.loss, found.interval, found.draws) + " on fresh seeds"


def _best_point(number: int, phi: Mapping[str, Any]) -> str:
    rows = tuple((name, shown(value)) for name, value in list(phi.items())[:MOST_PARAMETERS])
    left_out = len(phi) - len(rows)
    notes = (f"... and {left_out} more parameters; --json has them all",) if left_out else ()
    return Grid(f"best point of run {number}", ("parameter", "found"), rows, notes).text()


@click.command("stop")
@store_argument
@run_argument
def stop_command(store: str, run: int) -> None:
    """Ask whoever works on a run of STORE to stop, as Ctrl-C would there.

    Solves that are running are given up; what was solved is kept, and the run can be resumed. A
    run of a comparison ends the comparison.
    """
    from zo_bilevel.store.places import open_store

    with open_store(store, must_exist=True) as opened:
        status = opened.find_run(run).status
        if not opened.stop(run):
            raise InputError(f"run {run} of store {store} is not running: it is {status}")
    click.echo(f"run {run} stops before its next solve")


@click.command("steer")
@store_argument
@run_argument
@click.option("--max-solves", type=click.IntRange(min=1), help="Solves, all in all.")
@click.option("--max-seconds", type=POSITIVE, help="Seconds, all in all.")
@click.option("--max-cost", type=POSITIVE, help="Cost, all in all.")
def steer_command(store: str, run: int, **limits: float | None) -> None:
    """Give a run of STORE that is at work more budget, or less, without stopping it.

    It takes the new limits with its next solve. More workers need no word: start them.
    """
    from zo_bilevel.run.identity import steered
    from zo_bilevel.store.places import open_store

    given = {name: limit for name, limit in limits.items() if limit is not None}
    if not given:
        raise InputError("steer needs --max-solves, --max-seconds or --max-cost")
    with open_store(store, must_exist=True) as opened:
        known = opened.find_run(run)
        if not opened.change(run, **steered(known, given)):
            raise InputError(f"run {run} of store {store} is not running: it is {known.status}")
    click.echo(f"run {run}: {', '.join(f'{n} {limit:g}' for n, limit in given.items())}")


def _plain(facts: dict[str, Any], run: StoredRun) -> dict[str, Any]:
    """A run as JSON data."""
    from zo_bilevel.comparison.stored_runs import command_of, json_of, settings_of

    if "problem" not in facts:
        return facts
    return {
        **facts,
        "command": command_of(run),
        "settings": settings_of(run),
        "space": json_of(run, "space", list),
    }


def _status(status: str) -> str:
    return UNFINISHED if status == "running" else status


def _day(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):  # a file may say anything
        return "-"
