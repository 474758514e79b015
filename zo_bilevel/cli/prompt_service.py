"""`zo-bilevel prompt FILE.toml`: a prompt of a chat model, judged on held-out examples."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import click
import numpy as np

from zo_bilevel.support.errors import InputError, unknown_name_message

if TYPE_CHECKING:
    from zo_bilevel.adapters.prompts.chat import Chat
    from zo_bilevel.adapters.prompts.prompt_search import FoundPrompt, PromptSearch
    from zo_bilevel.adapters.prompts.prompt_task import PromptTask
    from zo_bilevel.tasks.prompt_data import Texts
    from zo_bilevel.tasks.scoring import PairedDifference, Score

PARTS: dict[str, tuple[str, ...]] = {
    "": ("data", "metric", "examples", "validation", "max_cost", "max_answers", "length_price"),
    "model": (),  # whatever ChatModel, LiteLLM or LocalChat takes
    "template": ("user", "system", "num_shown", "system_role"),
    "slots": (),
    "proposer": ("about", "model"),
}
CLASSES = "classes"
MOST_HELD_OUT = 100
"""Held-out examples unless `--max-test` says else: their answers cost money too."""


@final
@dataclass(frozen=True, slots=True)
class ServiceRow:
    """What one seed found.

    Args:
        seed: Of the split and of the search.
        found: The prompt.
        plain: Mean held-out score of the texts alone, without any prompt.
        start: The same of the hand-written prompt.
        best: The same of the one found.
        difference: Best minus start, on the same examples.
    """

    seed: int
    found: FoundPrompt
    plain: Score
    start: Score
    best: Score
    difference: PairedDifference


def read_settings(path: str) -> dict[str, Any]:
    """Read a TOML file, and refuse what it should not hold.

    Raises:
        InputError: If it cannot be read, or names what there is not.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    settings = {name: value for name, value in found.items() if not isinstance(value, dict)}
    for part, content in [("", settings), *((k, v) for k, v in found.items() if k not in settings)]:
        if part not in PARTS:
            raise InputError(f"{path}: {unknown_name_message('table', part, filter(None, PARTS))}")
        for name in content if PARTS[part] else ():
            if name not in PARTS[part]:
                where = f"{path} [{part}]" if part else path
                raise InputError(f"{where}: {unknown_name_message('setting', name, PARTS[part])}")
    for name in ("data", "model", "template"):
        if name not in found:
            raise InputError(f"{path} must have {name!r}")
    return found


def chat_of(settings: Mapping[str, Any]) -> Chat:
    """The model that a table describes: `local`, `litellm`, or `url` and `name`.

    Raises:
        InputError: If it describes none, or has a setting that there is not.
    """
    from zo_bilevel.adapters import ChatModel, LiteLLM, LocalChat

    given = dict(settings)
    kind = next((name for name in ("local", "litellm", "url") if name in given), None)
    if kind is None or (kind == "url" and "name" not in given):
        raise InputError("[model] must have local, litellm, or url and name")
    price = given.pop("price", None)
    first = given.pop(kind)
    name = {"url": lambda: given.pop("name"), "litellm": lambda: first}.get(
        kind, lambda: Path(first).name
    )()
    options = given if price is None else {**given, "prices": {name: tuple(price)}}
    if options.get("key_variable") == "":
        options["key_variable"] = None
    try:
        if kind == "url":
            return ChatModel(first, name, **options)
        return LiteLLM(first, **options) if kind == "litellm" else LocalChat(first, **options)
    except TypeError as error:
        raise InputError(f"[model]: {str(error).partition(') ')[2] or error}") from error


def metric_of(name: str) -> Any:  # noqa: ANN401 - a metric, or None for classes
    """A metric by name, or by a regular expression between slashes.

    Raises:
        InputError: If there is none.

    Example:
        >>> metric_of("/#(.*)#/")
        PatternMatch(pattern='#(.*)#')
    """
    from zo_bilevel.adapters.prompts import metrics

    if len(name) > 2 and name[0] == name[-1] == "/":
        return metrics.PatternMatch(name[1:-1])
    known = {
        CLASSES: None,
        "exact": metrics.exact_match,
        "number": metrics.NumberMatch(),
        "json": metrics.json_match,
        "rouge": metrics.Rouge(),
    }
    if name not in known:
        raise InputError(unknown_name_message("metric", name, known))
    return known[name]


@final
class ServiceBench:
    """One file of settings: its data, model and searches.

    Args:
        path: The TOML file; data are looked for beside it.
        options: Those of the command line.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        from zo_bilevel.tasks.prompt_data import read_texts

        self.path, self.options, self.settings = path, options, read_settings(path)
        columns = {name: options[name] for name in ("text_column", "label_column")}
        data = self.settings["data"]
        if isinstance(data, str):
            self.texts = read_texts(Path(path).parent / data, **columns)
        else:
            self.texts = _pairs(data)
        self.metric = metric_of(self.settings.get("metric", CLASSES))
        self.chat = chat_of(self.settings["model"])

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
        proposer = None
        if "proposer" in self.settings:
            other = self.settings["proposer"].get("model")
            chat = chat_of(other) if other else self.chat
            proposer = Proposer(chat, self.settings["proposer"].get("about", ""))
        share = self.options["validation"] or self.settings.get("validation", 0.4)
        price = self.settings.get("length_price", 0.0)
        search = PromptSearch(task, proposer, validation=share, length_price=price)
        return task, search, held_out

    def run(self, seed: int) -> tuple[PromptTask, ServiceRow]:
        """Search, and judge on held-out examples; nothing is asked before all is checked."""
        from zo_bilevel.adapters.prompts.prompt_template import PromptTemplate
        from zo_bilevel.tasks.scoring import paired_difference, score_values

        task, search, held_out = self.searches(seed)
        limits = {name: self.settings.get(name) for name in ("max_cost", "max_answers")}
        if self.options["max_calls_given"]:
            limits["max_answers"] = self.options["max_calls"]
        found = search.run(**limits, seed=seed, store=self.options["store"])
        values = []
        bare, phis = PromptTemplate("{text}"), (None, task.template.start, found.phi)
        for phi in phis:
            template = bare if phi is None else task.template
            messages = [template.messages(phi or {}, text) for text in held_out.texts]
            answers = self.chat.ask_all(messages, seed=0)
            values.append(task.scores(held_out.texts, held_out.labels, answers)[0])
        plain, start, best = (score_values(value) for value in values)
        gain = paired_difference(values[2], values[1])
        return task, ServiceRow(seed, found, plain, start, best, gain)


def tune_service(context: click.Context, path: str, options: Mapping[str, Any]) -> None:
    """Search for each seed, show a row each, and save what is best on its validation share."""
    from zo_bilevel.adapters.prompts.saved_prompt import save_prompt
    from zo_bilevel.support.json_data import to_json, to_plain

    if options["report"]:
        raise click.UsageError("--report is for soft prompts; --save writes a card in Markdown")
    is_given = context.get_parameter_source("max_calls") is not click.core.ParameterSource.DEFAULT
    bench = ServiceBench(path, {**options, "max_calls_given": is_given})
    seeds = range(options["seed"], options["seed"] + options["seeds"])
    rows = [bench.run(seed) for seed in seeds]
    task, best = max(rows, key=lambda row: row[1].found.score)
    scores = {
        "validation": best.found.score,
        "held_out": to_plain(best.best),
        "held_out_hand_written": to_plain(best.start),
        "held_out_no_prompt": to_plain(best.plain),
        "gain_over_hand_written": to_plain(best.difference),
    }
    if options["as_json"]:
        plain = [to_plain(row) for _, row in rows]
        click.echo(
            to_json({"rows": plain, "best_seed": best.seed, "spent": bench.chat.ledger.facts()})
        )
    else:
        click.echo(_table(bench, [row for _, row in rows]))
        click.echo(f"\nBest on its validation share (seed {best.seed}):\n\n{best.found.text}")
    if options["save"]:
        save_prompt(options["save"], task, best.found, scores)
        click.echo(f"saved: {options['save']}", err=True)
    bench.chat.close()


def _pairs(data: Any) -> Texts:  # noqa: ANN401 - as the file has it
    from zo_bilevel.tasks.prompt_data import from_rows

    for place, row in enumerate(data if isinstance(data, list) else [data]):
        if not (isinstance(row, list) and len(row) == 2 and all(isinstance(t, str) for t in row)):
            raise InputError(f"data must be a file or pairs [text, label], row {place} is {row!r}")
    return from_rows([(text, label) for text, label in data])


def _table(bench: ServiceBench, rows: list[ServiceRow]) -> str:
    from zo_bilevel.support.tables import Grid, number

    header = (
        "seed",
        "no prompt",
        "hand-written",
        "found",
        "found minus hand-written\n(95 % interval)",
        "answers",
        "cost",
    )
    cells = [
        (
            str(row.seed),
            *(f"{score.value:.3f}" for score in (row.plain, row.start, row.best)),
            str(row.difference),
            str(row.found.answers),
            number(row.found.cost),
        )
        for row in rows
    ]
    if len(rows) > 1:
        middle = [
            f"{np.median([getattr(row, name).value for row in rows]):.3f}"
            for name in ("plain", "start", "best")
        ]
        gain = float(np.median([row.difference.mean for row in rows]))
        cells.append(("median", *middle, f"{gain:+.3f}", "", ""))
    notes = (
        "Scores of held-out examples, which no search has seen; p by random changes of sign.",
        f"Answers and cost are the search's; all together: {number(bench.chat.ledger.spent.cost)}.",
    )
    return Grid(f"{bench.chat.model}, {bench.path}", header, tuple(cells), notes).text()
