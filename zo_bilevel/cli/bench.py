"""`zo-bilevel bench`: all methods on a suite of problems."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import click

from zo_bilevel.cli.command_line_words import words_to_store
from zo_bilevel.cli.options import INTERRUPTED_EXIT, POSITIVE
from zo_bilevel.cli.progress import make_progress
from zo_bilevel.support.tables import wrapped

if TYPE_CHECKING:
    from zo_bilevel.comparison.comparison import Comparison


@click.command("bench")
@click.argument("suite", metavar="SUITE")
@click.option("--seeds", help="A count (5 means 0 to 4) or a list (3,7,9); default 5, full 10.")
@click.option(
    "--workers", type=POSITIVE, help="Problems to work on at once; default the cores, at most 8."
)
@click.option("--report", metavar="FILE.html", help="Write a page with figures and every run.")
@click.option("--markdown", is_flag=True, help="Print the tables in Markdown.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, no progress.")
@click.pass_context
def bench_command(
    context: click.Context,
    /,
    suite: str,
    seeds: str | None,
    workers: int | None,
    report: str | None,
    markdown: bool,
    as_json: bool,
) -> None:
    """Compare our methods with the best of others on SUITE: small (minutes), large or full (a day).

    Vector methods on least-squares problems (More, Garbow and Hillstrom) and on tasks of this
    package; scalar methods on COCO's bbob functions; with and without noise.
    """
    from zo_bilevel.cli.loading import parse_seeds
    from zo_bilevel.comparison.provenance import command_line
    from zo_bilevel.report.page import check_report_path, write_report
    from zo_bilevel.support.json_data import to_json

    if markdown and as_json:
        raise click.UsageError("--markdown and --json exclude each other")
    if report:
        check_report_path(report)
    numbers = None if seeds is None else parse_seeds(seeds)
    count = workers or min(os.cpu_count() or 1, 8)
    words = words_to_store(context)
    found, is_whole = _run(suite, numbers, count, words, is_silent=as_json)
    if as_json:
        click.echo(to_json([comparison.to_dict() for comparison in found]))
    elif found:
        click.echo(summary(found, is_markdown=markdown))
    if report and found:
        command = command_line(words)
        path = write_report(found, report, title=f"bench {suite}", command=command)
        click.echo(f"report: {path}", err=True)
    if not is_whole:
        click.echo("interrupted: the problems until then", err=True)
        context.exit(INTERRUPTED_EXIT)


def _run(
    suite: str, seeds: tuple[int, ...] | None, workers: int, words: list[str], *, is_silent: bool
) -> tuple[list[Comparison], bool]:
    """The comparisons in the order of the suite, and whether there are all."""
    from zo_bilevel.cli.suites import entries_of, run_suite

    total, done = len(entries_of(suite)), {}
    with make_progress(is_silent=is_silent) as progress:
        try:
            for place, comparison in run_suite(suite, seeds=seeds, workers=workers):
                facts = dataclasses.replace(comparison.facts, command=_command(words))
                done[place] = dataclasses.replace(comparison, facts=facts)
                text = f"{len(done)} of {total} problems: {comparison.problem}"
                best = min((run.loss for run in comparison.runs), default=float("inf"))
                progress.update(len(done) / total, text, best)
        except KeyboardInterrupt:
            return [done[place] for place in sorted(done)], False
    return [done[place] for place in sorted(done)], True


def _command(words: list[str]) -> str:
    from zo_bilevel.comparison.provenance import command_line

    return command_line(words)


def summary(comparisons: list[Comparison], *, is_markdown: bool = False) -> str:
    """What the suite says, as text."""
    from zo_bilevel.report.suite import overview_of

    overview = overview_of(comparisons)
    grids = (*overview.tables, overview.problems)
    parts = [grid.markdown() if is_markdown else grid.text() for grid in grids]
    words = [line if is_markdown else "\n".join(wrapped(line)) for line in overview.words]
    return "\n\n".join([*words, *parts])
