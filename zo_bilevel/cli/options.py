"""Options that several commands share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, final

import click

from zo_bilevel.cli.dispatch import dispatcher_of
from zo_bilevel.support.errors import InputError

if TYPE_CHECKING:
    from zo_bilevel.problem.task import Task
    from zo_bilevel.solve.dispatch.base import Dispatcher
    from zo_bilevel.store.records import StoredRun

Command = TypeVar("Command", bound=Callable[..., Any])
INTERRUPTED_EXIT = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""
WORDS_KEY = "zo_bilevel.words"
"""Where a click context keeps the words of the command line."""
POSITIVE = click.IntRange(min=1)
POSITIVE_SECONDS = click.FloatRange(min=0, min_open=True)

PROBLEM = ("inner solver", "space", "outer objective", "version")
"""What a run that is resumed must share with the stored one."""

SHARED_OPTIONS = (
    click.argument("subject", metavar="TASK"),
    click.option("--max-solves", type=POSITIVE, help="Solves a run may spend."),
    click.option("--tolerance", type=float, default=None, help="Stop at or below this loss."),
    click.option("--workers", type=POSITIVE, default=1, help="Solves to run at once."),
    click.option(
        "--round-width",
        type=POSITIVE,
        help="Solves the method may ask for at once; default the number of workers.",
    ),
    click.option("--timeout", type=POSITIVE_SECONDS, help="Seconds one solve may take."),
    click.option("--scalar", is_flag=True, help="Show methods the loss only, as a black box."),
    click.option(
        "--initial", multiple=True, metavar="NAME=VALUE", help="Start; may be given again."
    ),
    click.option(
        "--fix",
        "fixed",
        multiple=True,
        metavar="NAME=VALUE",
        help="Keep a parameter at a value, or tie it to others by a formula; may be given again.",
    ),
    click.option(
        "--set",
        "options",
        multiple=True,
        metavar="OPTION=VALUE",
        help="Option of the task, for instance size=64; may be given again.",
    ),
    click.option(
        "--store",
        metavar="FILE",
        help="Remember every solve in this file; the same command again goes on from there.",
    ),
    click.option(
        "--dispatch",
        metavar="WHERE",
        help="Where solves run: queue:STORE (zo-bilevel worker takes them), slurm:FOLDER, "
        "dask:ADDRESS, ray:ADDRESS; options of zb.Queue and zb.Slurm behind commas, "
        "slurm:jobs,timeout_min=60. Set --workers to about as many as there are.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document, no progress."),
    click.option("--plot", metavar="FILE.png", help="Draw what was found to a file."),
)


def shared_options(command: Command) -> Command:
    """Give a command the task argument and the options of every run."""
    for option in reversed(SHARED_OPTIONS):
        command = option(command)
    return command


@final
@dataclass(frozen=True, slots=True)
class Conditions:
    """What the shared options ask for, checked but not yet run.

    Args:
        task: The task, with the start that was asked for.
        max_solves: Budget, or `None` to take the task's.
        tolerance: Loss to stop at.
        workers: Solves at once.
        round_width: Solves the method may ask for at once.
        timeout: Seconds for one solve, or `None`.
        store: File that remembers every solve, or `None`.
        place: Where solves run, or `None` for this machine.
    """

    task: Task
    max_solves: int | None
    tolerance: float | None
    workers: int
    round_width: int
    timeout: float | None
    store: str | None
    place: str | None

    def dispatcher(self) -> AbstractContextManager[Dispatcher]:
        """The dispatcher, closed at the end of a `with` block."""
        is_process = self.workers > 1 or self.timeout is not None
        return dispatcher_of(self.workers, self.timeout, is_process=is_process, place=self.place)


def conditions_of(shared: dict[str, Any]) -> Conditions:
    """Check the shared options and load the task.

    Raises:
        InputError: If an option breaks its rule; nothing has been solved then.
        MissingPackageError: If a plot is asked for and matplotlib is not there.
    """
    from zo_bilevel.cli.loading import load_subject, parse_settings

    if shared["plot"]:
        from zo_bilevel.report.figures import check_plot_path

        check_plot_path(shared["plot"])
    initial = parse_settings("--initial", shared["initial"])
    task = load_subject(shared["subject"], parse_settings("--set", shared["options"]))
    task = with_fixed(task, parse_settings("--fix", shared["fixed"]))
    if shared["scalar"]:
        task = dataclasses.replace(task, problem=task.problem.scalar)
    resumed = click.get_current_context().find_root().obj
    if resumed is not None:
        _check_same_problem(task, resumed)
    if initial:
        task.problem.space.placed_at(initial).encode(initial)
        drawn = task.start
        task = dataclasses.replace(task, start=lambda seed: {**drawn(seed), **initial})
    return Conditions(
        task,
        shared["max_solves"],
        shared["tolerance"],
        shared["workers"],
        shared["round_width"] or shared["workers"],
        shared["timeout"],
        shared["store"],
        shared["dispatch"],
    )


def with_fixed(task: Task, values: dict[str, Any]) -> Task:
    """The task with some of its parameters fixed, which its start then leaves out."""
    if not values:
        return task
    space, drawn = task.problem.space.fixed(values), task.start
    kinds = {name: getattr(task, name) for name in ("problem", "exact", "held_out")}
    problems = {
        name: dataclasses.replace(each, space=space) for name, each in kinds.items() if each
    }
    return dataclasses.replace(
        task,
        **problems,
        start=lambda seed: {n: v for n, v in drawn(seed).items() if n in space.parameters},
    )


def _check_same_problem(task: Task, run: StoredRun) -> None:
    """Refuse to go on with a run of another problem."""
    from zo_bilevel.comparison.stored_runs import json_of
    from zo_bilevel.run.identity import facts_of_run

    facts = facts_of_run(task.problem, run.method, run.seed, task.start, {})
    known, now = (json_of(each, "conditions", dict) for each in (run, facts))
    others = [name for name in PROBLEM if known.get(name) != now[name]]
    if others:
        raise InputError(
            f"{task.problem.name} does not match run {run.number} of {run.problem}: another "
            f"{', another '.join(others)}; start it with zo-bilevel run or compare"
        )
