"""`zo-bilevel compare`: several methods on one task, seed by seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from zo_bilevel.cli.command_line_words import words_to_store
from zo_bilevel.cli.options import INTERRUPTED_EXIT, Conditions, conditions_of, shared_options
from zo_bilevel.cli.progress import make_progress
from zo_bilevel.run.progress import Progress
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.tables import number, shown, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from zo_bilevel.comparison.comparison import Comparison
    from zo_bilevel.methods.base import Method
    from zo_bilevel.run.result import Record


@click.command("compare")
@shared_options
@click.option(
    "--methods",
    "names",
    required=True,
    metavar="A,B,...",
    help="Names that `zo-bilevel methods` lists, for instance default,zo-adam,nevergrad:CMA.",
)
@click.option("--seeds", default="5", help="A count (5 means 0 to 4) or a list (3,7,9).")
@click.option("--target", type=float, help="Loss that counts as solved; default the task's.")
@click.option("--report", metavar="FILE.html", help="Write a page with figures and every run.")
@click.option("--markdown", is_flag=True, help="Print the table in Markdown.")
@click.pass_context
def compare_command(
    context: click.Context,
    /,
    names: str,
    seeds: str,
    target: float | None,
    report: str | None,
    markdown: bool,
    **shared: Any,  # noqa: ANN401 - the shared options, typed in Conditions
) -> None:
    """Run several methods on TASK under the same conditions.

    Every method gets the same start, seeds, budget and workers. TASK is a task's name or
    FILE.py:NAME.
    """
    from zo_bilevel.cli.loading import parse_seeds

    if markdown and shared["as_json"]:
        raise click.UsageError("--markdown and --json exclude each other")
    if report:
        from zo_bilevel.report.page import check_report_path

        check_report_path(report)
    numbers, methods = parse_seeds(seeds), methods_from_names(names)
    conditions = conditions_of(shared)
    is_silent = shared["as_json"]
    command = words_to_store(context)
    comparison = _compare(conditions, methods, numbers, target, command, is_silent=is_silent)
    if is_silent:
        click.echo(comparison.to_json())
    elif markdown:
        click.echo(comparison.to_markdown())
    else:
        click.echo(f"{comparison.table()}\n\n{best_point(comparison)}")
    if shared["plot"] and comparison.runs:
        click.echo(f"plot: {comparison.plot(shared['plot'])}", err=True)
    if report and comparison.runs:
        click.echo(f"report: {comparison.to_html(report)}", err=True)
    if comparison.is_interrupted:
        context.exit(INTERRUPTED_EXIT)


def methods_from_names(names: str) -> dict[str, Method]:
    """Methods by their names, in order.

    Returns:
        A method whose package is missing becomes one that refuses every problem and says why.

    Raises:
        InputError: If there is no name, one is unknown, or one comes twice.
    """
    from zo_bilevel.methods.names import method_or_its_absence

    methods: dict[str, Method] = {}
    for name in (part.strip() for part in names.split(",")):
        if not name:
            continue
        if name in methods:
            raise InputError(f"--methods names {name!r} twice")
        methods[name] = method_or_its_absence(name)
    if not methods:
        raise InputError(f"--methods must name at least one method, got {names!r}")
    return methods


def _compare(
    conditions: Conditions,
    methods: dict[str, Method],
    seeds: tuple[int, ...],
    target: float | None,
    command: list[str],
    *,
    is_silent: bool,
) -> Comparison:
    from zo_bilevel.comparison.compare import compare

    task = conditions.task
    max_solves = conditions.max_solves or task.max_solves
    with conditions.dispatcher() as dispatcher, make_progress(is_silent=is_silent) as progress:
        return compare(
            task,
            methods,
            max_solves=max_solves,
            seeds=seeds,
            target_loss=target,
            tolerance=conditions.tolerance,
            dispatcher=dispatcher,
            store=conditions.store,
            round_width=conditions.round_width,
            callback=follow(progress, list(methods), seeds, max_solves),
            command=command,
        )


def follow(
    progress: Progress, methods: list[str], seeds: tuple[int, ...], max_solves: int
) -> Callable[[str, int, Record], None]:
    """A callback that tells progress over all runs of a comparison.

    Args:
        progress: Where to tell it.
        methods: Labels, in order.
        seeds: Seeds, in order.
        max_solves: Solves that a run may spend.
    """
    total = len(methods) * len(seeds)

    def observe(label: str, seed: int, record: Record) -> None:
        before = seeds.index(seed) * len(methods) + methods.index(label)
        share = (before + record.solve / max_solves) / total
        text = f"run {before + 1} of {total}: {label}, seed {seed}, solve {record.solve}"
        progress.update(share, text, record.best_loss)

    return observe


def best_point(comparison: Comparison) -> str:
    """The best point of all runs in one sentence."""
    from zo_bilevel.comparison.summaries import level

    if not any(run.phi for run in comparison.runs):
        return "no run found anything"
    found = (run for run in comparison.runs if run.phi)
    best = min(found, key=lambda run: (level(run.loss), run.solves))
    values = [f"{name} = {shown(value)}" for name, value in list(best.phi.items())[:8]]
    more = ", ..." if len(best.phi) > len(values) else ""
    sentence = (
        f"best point: loss {number(best.loss, 6)} by {best.method}, seed {best.seed}, "
        f"at {', '.join(values)}{more}"
    )
    return "\n".join(wrapped(sentence))
