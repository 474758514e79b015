"""`zo-bilevel run`: one method on one task, and what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from zo_bilevel.cli.command_line_words import words_to_store
from zo_bilevel.cli.options import (
    INTERRUPTED_EXIT,
    POSITIVE,
    POSITIVE_SECONDS,
    Conditions,
    conditions_of,
    shared_options,
)
from zo_bilevel.cli.progress import make_progress
from zo_bilevel.support.tables import Grid, deviation, number, percent, shown, wrapped

if TYPE_CHECKING:
    from zo_bilevel.problem.task import Task
    from zo_bilevel.run.result import Result
    from zo_bilevel.run.runs import Run

MOST_PARAMETERS = 20


@click.command("run")
@shared_options
@click.option("--method", default="default", help="A name that `zo-bilevel methods` lists.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Same seed, same numbers.")
@click.option("--max-seconds", type=POSITIVE_SECONDS, help="Seconds the run may take.")
@click.option("--ftol", type=float, help="Stop at a step that changes the loss by a smaller share.")
@click.option("--xtol", type=float, help="Stop at a step shorter than this share of |phi|.")
@click.option("--patience", type=POSITIVE, help="Stop after so many solves without improvement.")
@click.option("--no-restarts", is_flag=True, help="Stop where the first local search ends.")
@click.option(
    "--asynchronous", is_flag=True, help="Use each answer as it arrives, and wait for no round."
)
@click.option("--report", "report_file", metavar="FILE.html", help="Write a page of the result.")
@click.pass_context
def run_command(
    context: click.Context,
    /,
    method: str,
    seed: int,
    max_seconds: float | None,
    ftol: float | None,
    xtol: float | None,
    patience: int | None,
    no_restarts: bool,
    asynchronous: bool,
    report_file: str | None,
    **shared: Any,  # noqa: ANN401 - the shared options, typed in Conditions
) -> None:
    """Find the parameters of TASK and print them.

    TASK is a task's name or FILE.py:NAME.
    """
    conditions = conditions_of(shared)
    if report_file:
        from zo_bilevel.report.result_page import check_result_page

        check_result_page(report_file)
    command = words_to_store(context)
    rules = {"ftol": ftol, "xtol": xtol, "patience": patience, "restarts": not no_restarts}
    rules["asynchronous"] = asynchronous
    silent = shared["as_json"]
    run, result = _solve(conditions, method, seed, max_seconds, rules, command, is_silent=silent)
    show = _json if silent else report
    click.echo(show(conditions.task, run, result.warnings, _errors(result)))
    if shared["plot"]:
        result.plot(shared["plot"])
        click.echo(f"plot: {shared['plot']}", err=True)
    if report_file:
        click.echo(f"report: {result.to_html(report_file)}", err=True)
    if run.status == "interrupted":
        context.exit(INTERRUPTED_EXIT)


def _solve(
    conditions: Conditions,
    name: str,
    seed: int,
    max_seconds: float | None,
    rules: dict[str, Any],
    command: list[str],
    *,
    is_silent: bool,
) -> tuple[Run, Result]:
    from zo_bilevel.comparison.observed_method import ObservedMethod
    from zo_bilevel.methods.names import method_from_name
    from zo_bilevel.run.loop import minimize

    task, max_solves = conditions.task, conditions.max_solves
    if max_solves is None and max_seconds is None:
        max_solves = task.max_solves
    method = method_from_name(name)
    traced = ObservedMethod(method, method.name, task.error)
    with conditions.dispatcher() as dispatcher:
        result = minimize(
            task.problem,
            traced,
            initial=task.start,
            max_solves=max_solves,
            max_seconds=max_seconds,
            tolerance=conditions.tolerance,
            seed=seed,
            dispatcher=dispatcher,
            store=conditions.store,
            round_width=conditions.round_width,
            callback=traced.observe,
            progress=make_progress(is_silent=is_silent),
            command=command,
            **rules,
        )
    return traced.finished(result), result


def _errors(result: Result) -> dict[str, Any]:
    """Standard errors by name, where the run itself knows them; else none."""
    from zo_bilevel.report.result_figure import known_uncertainty

    known = known_uncertainty(result)
    return {} if known is None else known.standard_error


def report(
    task: Task, run: Run, warnings: Sequence[str] = (), errors: Mapping[str, Any] | None = None
) -> str:
    """What a run found, as text of at most 100 columns.

    Args:
        task: What is known about the problem.
        run: The run.
        warnings: What has to be said with it.
        errors: Standard errors by name, of the parameters of which they are known.
    """
    grids = (_parameters(task, run.phi, errors or {}), _facts(task, run))
    said = ["\n".join(line for words in warnings for line in wrapped(words))] if warnings else []
    return "\n\n".join([*(grid.text() for grid in grids), *said])


def _parameters(task: Task, phi: Mapping[str, Any], errors: Mapping[str, Any]) -> Grid:
    truth = task.truth or {}
    has_truth = any(name in truth for name in phi)
    rows = []
    for name, found in list(phi.items())[:MOST_PARAMETERS]:
        cells = [name, shown(found)]
        if errors:
            error = errors.get(name)
            told = "-" if error is None else shown(error)
            cells.append(number(error, 3) if isinstance(error, float) else told)
        if has_truth:
            known = truth.get(name)
            cells += ["-", "-"] if known is None else [shown(known), deviation(found, known)]
        rows.append(tuple(cells))
    header = ("parameter", "found", *["standard\nerror"] * bool(errors))
    header += ("truth", "error") * has_truth
    left_out = len(phi) - len(rows)
    notes = (f"... and {left_out} more parameters; --json has them all",) if left_out else ()
    title = f"{task.name}: {task.summary}" if task.summary else task.name
    return Grid(title, header, tuple(rows), notes)


def _facts(task: Task, run: Run) -> Grid:
    facts = [("loss", number(run.loss, 6))]
    if run.relative_error is not None:
        facts.append(("relative error", percent(run.relative_error)))
    facts += [_target_fact(task, run), *_published(task)]
    failed = ", ".join(f"{count} {status}" for status, count in run.failures.items())
    facts += [
        ("method", f"{run.method}, seed {run.seed}"),
        ("solves", run.effort),
        ("failed solves", failed or "0"),
        ("stopped", run.stop_reason),
    ]
    rows = tuple(fact for fact in facts if fact[1])
    return Grid("result", ("what", "value"), rows, labels=2)


def _target_fact(task: Task, run: Run) -> tuple[str, str]:
    from zo_bilevel.comparison.compare import task_target

    target = task_target(task)
    if target is None:
        return "target", ""
    step = run.first_at(target)
    return f"target: {target}", f"reached after {step.solve} solves" if step else "not reached"


def _published(task: Task) -> list[tuple[str, str]]:
    return [
        (f"published: {name}", percent(value) if "relative" in name else number(value, 6))
        for name, value in task.published.items()
    ]


def _json(task: Task, run: Run, warnings: Sequence[str], errors: Mapping[str, Any]) -> str:
    from zo_bilevel.comparison.compare import task_target
    from zo_bilevel.support.json_data import to_json, to_plain

    facts = {"truth": task.truth, "target": task_target(task), "published": task.published}
    said = {"warnings": warnings, "standard_errors": to_plain(errors)}
    return to_json({"task": task.name, **to_plain(run), **facts, **said})
