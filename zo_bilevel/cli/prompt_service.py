"""`zo-bilevel prompt FILE.toml`: a prompt of a chat model, judged on held-out examples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import click
import numpy as np

from zo_bilevel.cli.prompt_settings import (
    chat_of,
    metric_of,
    only_process,
    read_settings,
    texts_of,
    writer_settings,
)
from zo_bilevel.support.errors import InputError, SolveError

if TYPE_CHECKING:
    from zo_bilevel.adapters.prompts.chat import Chat
    from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger
    from zo_bilevel.adapters.prompts.found_prompt import FoundPrompt
    from zo_bilevel.adapters.prompts.prompt_search import PromptSearch
    from zo_bilevel.adapters.prompts.prompt_task import PromptTask
    from zo_bilevel.methods.base import Method
    from zo_bilevel.support.tables import Grid
    from zo_bilevel.tasks.prompt_data import Texts
    from zo_bilevel.tasks.scoring import PairedDifference, Score

PLAIN, START, BEST = "no prompt", "hand-written", "found"
ONLY_SOFT = {
    **{"model": "[model]", "words": "[slots]", "label_words": "[template]", "template": "[template]"},
    **dict.fromkeys(("kind", "shots", "tokens", "latent", "device", "precision"), "its tables"),
}
"""Options of soft prompts, and where a file of settings says the same."""
MOST_HELD_OUT = 100
"""Held-out examples unless `--max-test` says else: their answers cost money too."""


@final
@dataclass(frozen=True, slots=True)
class ServiceRow:
    """What one seed found.

    Args:
        seed: Of the split and of the search.
        found: The prompt.
        scores: Mean held-out score of no prompt, of the hand-written one, of what each baseline
            found with as many answers, and of the one found.
        gains: Each minus the hand-written one, on the same examples.
        fault: Why there are no scores; empty where there are.
    """

    seed: int
    found: FoundPrompt
    scores: dict[str, Score]
    gains: dict[str, PairedDifference]
    fault: str = ""


@final
class ServiceBench:
    """One file of settings: its data, model and searches.

    Args:
        path: The TOML file; data are looked for beside it.
        options: Those of the command line.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        self.path, self.options, self.settings = path, options, read_settings(path)
        columns = {name: options[name] for name in ("text_column", "label_column")}
        self.texts = texts_of(path, self.settings["data"], columns)
        self.chat = chat_of(self.settings["model"])
        self.metric = metric_of(self.settings, self.chat)
        self._writer: Chat | None = None
        if "proposer" in self.settings:
            other = self.settings["proposer"].get("model")
            is_here = not other and "local" in self.settings["model"]  # loaded once, greedy
            own = other or writer_settings(self.settings["model"])
            self._writer = self.chat if is_here else chat_of(own)

    def split(self, seed: int) -> tuple[Texts, Texts]:
        """The examples of a seed, and those that are held out."""
        rows = np.random.default_rng([seed, 0]).permutation(len(self.texts)).tolist()
        count = self.settings.get("examples", min(40, len(rows) // 2))
        held_out = rows[count:][: self.options["max_test"] or MOST_HELD_OUT]
        if not 0 < count < len(rows) or not held_out:
            raise InputError(f"examples={count} of {len(rows)} rows leaves none to hold out")
        return self.texts.take(rows[:count]), self.texts.take(held_out)

    def searches(self, seed: int) -> tuple[PromptTask, PromptSearch, Texts]:
        """The task and the search of a seed, and what is held out."""
        from zo_bilevel.adapters import PromptSearch, PromptTask, PromptTemplate, Proposer

        train, held_out = self.split(seed)
        pairs = list(zip(train.texts, train.labels, strict=True))
        given = dict(self.settings["template"])
        count = given.get("num_shown", 0)
        template = PromptTemplate(
            given.pop("user", "{text}"),
            slots=self.settings.get("slots", {}),
            examples=pairs if count else (),
            as_turns=bool(count) and "{examples}" not in given.get("user", ""),
            **given,
        )
        known = self.texts.classes if self.metric is None else None
        task = PromptTask(
            self.chat, template, train.texts, train.labels, self.metric, classes=known
        )
        task.try_metric(held_out.texts, held_out.labels)
        proposer = None
        if self._writer is not None:
            proposer = Proposer(self._writer, self.settings["proposer"].get("about", ""))
        share = self.options["validation"] or self.settings.get("validation", 0.4)
        given = {name: self.settings.get(name, 0) for name in ("folds", "length_price")}
        if self.options["folds"] is not None:
            given["folds"] = self.options["folds"]
        search = PromptSearch(task, proposer, validation=share, **given)
        return task, search, held_out

    def run(self, seed: int) -> tuple[PromptTask, ServiceRow]:
        """Search, and judge on held-out examples; nothing is asked before all is checked."""
        from zo_bilevel.adapters.prompts.prompt_template import PromptTemplate
        from zo_bilevel.tasks.scoring import paired_difference, score_values

        task, search, held_out = self.searches(seed)
        limits = {name: self.settings.get(name) for name in ("max_cost", "max_answers")}
        if self.options["max_calls_given"]:
            limits["max_answers"] = self.options["max_calls"]
        store = self.options["store"]
        found = search.run(**limits, seed=seed, store=store)
        phis = {PLAIN: None, START: task.template.start}
        for name, method in self.options["baselines"].items():
            phis[name] = self._baseline(task, method, found, seed)
        values, bare = {}, PromptTemplate("{text}")
        for name, phi in {**phis, BEST: found.phi}.items():
            template = bare if phi is None else task.template
            messages = [template.messages(phi or {}, text) for text in held_out.texts]
            try:
                answers = self.chat.ask_all(messages, seed=0)
                values[name] = task.scores(held_out.texts, held_out.labels, answers)[0]
            except SolveError as error:  # what was searched for is there, and paid
                return task, ServiceRow(seed, found, {}, {}, str(error))
        scores = {name: score_values(value) for name, value in values.items()}
        gains = {name: paired_difference(v, values[START]) for name, v in values.items()}
        return task, ServiceRow(seed, found, scores, gains)

    def run_all(self, seeds: Iterable[int]) -> list[tuple[PromptTask, ServiceRow]]:
        """Seed after seed, until held-out examples cannot be scored."""
        rows: list[tuple[PromptTask, ServiceRow]] = []
        for seed in seeds:
            rows.append(self.run(seed))
            if rows[-1][1].fault:
                break
        return rows

    def _baseline(
        self, task: PromptTask, method: Method, found: FoundPrompt, seed: int
    ) -> dict[str, Any]:
        """What a method finds with as many answers, each prompt tried on all examples."""
        from zo_bilevel.run.loop import minimize
        from zo_bilevel.support.errors import InnerSolverError

        count = max(1, found.answers // len(task.texts))
        try:
            result = minimize(
                task.problem(),
                method,
                initial=task.template.start,
                max_solves=count,
                seed=seed,
                store=self.options["store"],
            )
        except InnerSolverError:  # no prompt that it tried gave an answer that can be read
            return task.template.start
        return dict(result.phi)

    def bills(self, task: PromptTask) -> dict[str, ChatLedger]:
        """Who was paid: the model, and a judge and a writer of wordings of their own."""
        whose = {"model": self.chat, "judge": task.judge, "proposer": self._writer}
        found: dict[str, ChatLedger] = {}
        for name, chat in whose.items():
            if chat is not None and chat.ledger not in found.values():
                found[name] = chat.ledger
        return found


def tune_service(context: click.Context, path: str, options: Mapping[str, Any]) -> None:
    """Search for each seed, show a row each, and save what is best on its validation share."""
    from zo_bilevel.support.json_data import to_json, to_plain

    if options["report"]:
        raise click.UsageError("--report is for soft prompts; --save writes a card in Markdown")
    bench = ServiceBench(path, {**options, **_given(context, options)})
    seeds = range(options["seed"], options["seed"] + options["seeds"])
    with only_process(options["store"]):
        rows = bench.run_all(seeds)
    task, best = max(rows, key=lambda row: row[1].found.score)
    bills = bench.bills(task)
    if options["as_json"]:
        plain = [to_plain(row) for _, row in rows]
        spent = {name: ledger.facts() for name, ledger in bills.items()}
        click.echo(to_json({"rows": plain, "best_seed": best.seed, "spent": spent}))
    else:
        for _, row in rows:
            click.echo(_table(bench, row, bills).text())
        if len(rows) > 1 and not rows[-1][1].fault:
            click.echo(_medians([row for _, row in rows]).text())
        click.echo(f"\nBest on its validation share (seed {best.seed}):\n\n{best.found.text}")
    if options["save"]:
        _save(options["save"], task, best)
    task.close()
    if fault := rows[-1][1].fault:
        click.echo(
            f"Not scored on held-out examples: {fault}. Mend it (or raise the limit) and run the "
            "same command again: with --store nothing is paid twice.",
            err=True,
        )
        context.exit(1)


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
    save_prompt(folder, task, best.found, {"validation": best.found.score, **held_out, **gain})
    click.echo(f"saved: {folder}", err=True)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _table(bench: ServiceBench, row: ServiceRow, bills: Mapping[str, ChatLedger]) -> Grid:
    from zo_bilevel.support.tables import Grid, number

    cells = tuple(
        (
            name,
            f"{score.value:.3f} ({score.lower:.3f} to {score.upper:.3f})",
            "-" if name == START else _gain(row.gains[name]),
        )
        for name, score in row.scores.items()
    )
    paid = "; ".join(
        f"{name} {ledger.spent.calls} answers, {number(ledger.spent.cost)}"
        for name, ledger in bills.items()
    )
    notes = (
        "Scores of examples that no search has seen; p by random changes of sign.",
        f"The search took {row.found.answers} answers, {number(row.found.cost)}: "
        f"{row.found.stop_reason}. Paid by this run: {paid}; with earlier ones in its store: "
        f"{number(math.fsum({id(k.bill): k.bill.total for k in bills.values()}.values()))}.",
    )
    header = (
        "prompt",
        "score, held out\n(95 % interval)",
        "over the hand-written\n(95 % interval)",
    )
    return Grid(f"{bench.chat.model}, {bench.path}, seed {row.seed}", header, cells, notes)


def _gain(gain: PairedDifference) -> str:
    ends = f"{gain.lower:+.3f} to {gain.upper:+.3f}"
    return f"{gain.mean:+.3f} ({ends}, p {gain.p_value:.2g})"


def _medians(rows: list[ServiceRow]) -> Grid:
    from zo_bilevel.support.tables import Grid

    cells = []
    for name in rows[0].scores:
        values = [row.scores[name].value for row in rows]
        low, middle, high = np.percentile(values, [25, 50, 75])
        gain = float(np.median([row.gains[name].mean for row in rows]))
        cells.append((name, f"{middle:.3f} ({low:.3f} to {high:.3f})", f"{gain:+.3f}"))
    header = ("prompt", "score\n(quartiles)", "over the\nhand-written")
    return Grid(f"Medians of {len(rows)} seeds, held out", header, tuple(cells))
