"""What `zo-bilevel prompt FILE.toml` shows and writes of a search: tables, a card, a page."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from zo_bilevel.adapters.prompts.answer_form import answer_forms
from zo_bilevel.cli.command_line_words import words_to_store
from zo_bilevel.cli.options import INTERRUPTED_EXIT
from zo_bilevel.cli.prompt_service import BEST, FORM, PLAIN, START, ServiceBench, ServiceRow
from zo_bilevel.support.tables import Grid, number, shown, wrapped

if TYPE_CHECKING:
    from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger
    from zo_bilevel.adapters.prompts.found_prompt import FoundPrompt
    from zo_bilevel.adapters.prompts.prompt_task import PromptTask
    from zo_bilevel.tasks.scoring import PairedDifference

MOST_TRIED = 10
"""Prompts of a race that the page shows."""
ONLY_SOFT = {
    **{
        "model": "[model]",
        "words": "[slots]",
        "label_words": "[template]",
        "template": "[template]",
    },
    **dict.fromkeys(("kind", "shots", "tokens", "latent", "device", "precision"), "its tables"),
}
"""Options of soft prompts, and where a file of settings says the same."""


def tune_service(context: click.Context, path: str, options: Mapping[str, Any]) -> None:
    """Search for each seed, show a row each, and save what is best on its validation share."""
    from zo_bilevel.adapters.prompts.bill import alone_at
    from zo_bilevel.adapters.prompts.saved_prompt import check_folder
    from zo_bilevel.report.result_page import check_page

    if options["report"]:
        check_page(options["report"])
    if options["save"]:
        check_folder(options["save"])
    bench = ServiceBench(path, {**options, **_given(context, options)})
    seeds = range(options["seed"], options["seed"] + options["seeds"])
    click.echo("\n".join(wrapped(bench.estimate(seeds))), err=True)
    with alone_at(options["store"], 1):
        try:
            rows, fault = bench.run_all(seeds)
        except KeyboardInterrupt:
            click.echo(_interrupted(bench, options["store"]), err=True)
            context.exit(INTERRUPTED_EXIT)
    _show(context, bench, rows, fault, options)
    if fault:
        is_ours = rows[-1][1].is_interrupted
        mend = "Run" if is_ours else "Mend it (or raise the limit) and run"
        kept = "nothing is paid twice" if options["store"] else "without --store no answer was kept"
        again = f"{mend} the same command again: {kept}."
        click.echo(f"{fault[:1].upper()}{fault[1:]}. {again}", err=True)
        context.exit(INTERRUPTED_EXIT if is_ours else 1)


def _show(
    context: click.Context,
    bench: ServiceBench,
    rows: list[tuple[PromptTask, ServiceRow]],
    fault: str,
    options: Mapping[str, Any],
) -> None:
    """Print what was found, and write what was asked for."""
    from zo_bilevel.report.result_page import write_page

    task, best = max(rows, key=lambda row: (row[1].found.is_judged, row[1].found.score))
    bills = bench.bills(task)
    grids, scored = [_table(bench, *row) for row in rows], [r for _, r in rows if not r.fault]
    if len(scored) > 1:
        grids.append(_medians(scored))
    more = (*grids[-1].notes, *_better(scored), *_paid(bills, in_store=bool(options["store"])))
    grids[-1] = dataclasses.replace(grids[-1], notes=more)
    if options["as_json"]:
        click.echo(_json([row for _, row in rows], best, bills))
    else:
        for grid in grids:
            click.echo(grid.text())
        where = "on its validation share" if best.found.is_judged else "of the races so far"
        click.echo(f"\nBest {where} (seed {best.seed}):\n\n{best.found.text}")
    if options["save"]:
        _save(options["save"], task, best)
    if options["report"]:
        texts = {"prompt found": best.found.text, START: task.template.text(task.template.start)}
        texts["command"] = shlex.join(["zo-bilevel", *words_to_store(context)])
        page = write_page(
            options["report"],
            title=f"Prompt for {bench.chat.model}",
            warnings=[fault] if fault else [],
            tables=[grids[-1], *grids[:-1], _tried(best.found)],
            texts=texts,
        )
        click.echo(f"report: {page}", err=True)
    task.close()


def _interrupted(bench: ServiceBench, store: str | None) -> str:
    """What becomes of answers that were paid for before any prompt was raced."""
    count = bench.chat.ledger.spent.answers
    kept = "nothing is kept: --store would keep them"
    if store:
        kept = f"they are kept in {store}.bill, and the same command goes on from there"
    return f"interrupted before any prompt was raced; of {count} answers paid for {kept}"


def _json(rows: list[ServiceRow], best: ServiceRow, bills: Mapping[str, ChatLedger]) -> str:
    from zo_bilevel.support.json_data import to_json, to_plain

    spent = {name: ledger.facts() for name, ledger in bills.items()}
    return to_json({"rows": to_plain(rows), "best_seed": best.seed, "spent": spent})


def _given(context: click.Context, options: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a number of answers was given, and the methods to compare with."""
    from zo_bilevel.methods.names import method_from_name

    is_given = {
        name: context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        for name in ("max_calls", "methods", *ONLY_SOFT)
    }
    if ignored := next((name for name in ONLY_SOFT if is_given[name]), ""):
        flag = next(o.opts[0] for o in context.command.params if o.name == ignored)
        raise click.UsageError(f"{flag} is for soft prompts: a .toml file has {ONLY_SOFT[ignored]}")
    names = options["methods"].split(",") if is_given["methods"] else ()
    baselines = {name: method_from_name(name) for name in map(str.strip, names) if name}
    return {"max_calls_given": is_given["max_calls"], "baselines": baselines}


def _save(folder: str, task: PromptTask, best: ServiceRow) -> None:
    from zo_bilevel.adapters.prompts.saved_prompt import save_prompt
    from zo_bilevel.support.json_data import to_plain

    held_out = {f"held_out_{_plain(name)}": to_plain(s) for name, s in best.scores.items()}
    gain = {f"gain_over_{_plain(START)}": to_plain(g) for g in [best.gains.get(BEST)] if g}
    unread = {f"unreadable_{_plain(name)}": share for name, share in best.unread.items()}
    judged_on = "validation" if best.found.is_judged else "races"
    scores = {judged_on: best.found.score, **held_out, **gain, **unread}
    save_prompt(folder, task, best.found, scores)
    click.echo(f"saved: {folder}", err=True)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _table(bench: ServiceBench, task: PromptTask, row: ServiceRow) -> Grid:
    form = answer_forms(task.references, task.classes)[0]
    cells = tuple(
        (
            name,
            f"{score.value:.3f} ({score.lower:.3f} to {score.upper:.3f})",
            "-" if name == START or START not in row.scores else _gain(row.gains[name]),
            f"{row.unread[name]:.2f}",
        )
        for name, score in row.scores.items()
    )
    notes = (
        "Scores of examples that no search has seen; p by random changes of sign.",
        *[f"Form, told from the examples tuned on: {form}"] * (FORM in row.scores),
        *[f"Not scored: {row.fault}."] * bool(row.fault),
        f"The search took {row.found.answers} answers, {number(row.found.cost)}: "
        f"{row.found.stop_reason}.",
    )
    header = (
        "prompt",
        "score, held out\n(95 % interval)",
        "over the hand-written\n(95 % interval)",
        "share\nunread",
    )
    return Grid(f"{bench.chat.model}, {bench.path}, seed {row.seed}", header, cells, notes)


def _paid(bills: Mapping[str, ChatLedger], *, in_store: bool) -> list[str]:
    paid = "; ".join(
        f"{name} {ledger.spent.answers} answers, {number(ledger.spent.cost)}"
        for name, ledger in bills.items()
    )
    total = number(math.fsum({id(k.bill): k.bill.total for k in bills.values()}.values()))
    more = f"; with earlier ones in its store: {total}" if in_store else ""
    unmetered = sum(ledger.spent.unmetered for ledger in bills.values())
    booked = f"{unmetered} answers without a count of tokens are booked at the most they can cost."
    return [f"Paid by this run: {paid}{more}.", *[booked] * bool(unmetered)]


def _better(rows: list[ServiceRow]) -> list[str]:
    """Say where a prompt that needs no search scores higher."""
    medians = {
        name: float(np.median([row.scores[name].value for row in rows]))
        for name in (PLAIN, START, FORM)
        if rows and name in rows[0].scores
    }
    found = np.median([row.scores[BEST].value for row in rows]) if rows else 1.0
    best = max(medians, key=medians.__getitem__, default="")
    if not best or medians[best] <= found:
        return []
    return [f"{best} needs no search and scores {medians[best]:.3f}, what was found {found:.3f}."]


def _gain(gain: PairedDifference) -> str:
    ends = f"{gain.lower:+.3f} to {gain.upper:+.3f}"
    return f"{gain.mean:+.3f} ({ends}, p {gain.p_value:.2g})"


def _tried(found: FoundPrompt) -> Grid:
    rows = tuple(
        ("; ".join(f"{name} {shown(v)}" for name, v in phi.items()), f"{mean:.3f}", str(count))
        for phi, mean, count in found.tried[:MOST_TRIED]
    )
    shown_ones = "; shown_1 is the number of an example, from 0, or -1 for none"
    is_shown = any(name.startswith("shown_") for name in found.phi)
    notes = (f"{len(found.tried)} prompts were measured{shown_ones * is_shown}.",)
    return Grid(
        "Prompts raced, those that came farthest first",
        ("prompt", "mean score", "examples"),
        rows,
        notes,
    )


def _medians(rows: list[ServiceRow]) -> Grid:
    cells = []
    for name in rows[0].scores:
        values = [row.scores[name].value for row in rows]
        low, middle, high = np.percentile(values, [25, 50, 75])
        gain = float(np.median([row.gains[name].mean for row in rows]))
        lost = f"{np.median([row.unread[name] for row in rows]):.2f}"
        cells.append((name, f"{middle:.3f} ({low:.3f} to {high:.3f})", f"{gain:+.3f}", lost))
    header = ("prompt", "score\n(quartiles)", "over the\nhand-written", "share\nunread")
    return Grid(f"Medians of {len(rows)} seeds, held out", header, tuple(cells))
