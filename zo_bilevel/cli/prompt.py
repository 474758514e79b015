"""`zo-bilevel prompt`: tune a soft prompt on a few labelled texts, next to what others find."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import click

from zo_bilevel.cli.command_line_words import words_to_store
from zo_bilevel.cli.options import INTERRUPTED, POSITIVE
from zo_bilevel.cli.progress import make_progress
from zo_bilevel.run.progress import Progress

if TYPE_CHECKING:
    from zo_bilevel.adapters.prompts.frozen_transformer import FrozenTransformer
    from zo_bilevel.adapters.prompts.language_model import LanguageModel
    from zo_bilevel.adapters.prompts.soft_prompt import SoftPrompt
    from zo_bilevel.cli.prompt_table import Found
    from zo_bilevel.methods.base import Method
    from zo_bilevel.run.result import Record
    from zo_bilevel.tasks.prompt_data import Split
    from zo_bilevel.tasks.scoring import Scores

OURS, HAND_WRITTEN = "gauss-newton", "hand-written"
METHODS = ("random", "cma", OURS)
POPULATION = 20
PRECISIONS = ("float32", "float64", "bfloat16", "float16")
KINDS = ("encoder", "classifier", "causal", "masked")


@click.command("prompt")
@click.argument("data", required=False, metavar="[DATA]")
@click.option("--model", help="Folder, hub name or package; default a packaged MiniLM.")
@click.option("--kind", type=click.Choice(KINDS), help="Default by the model's configuration.")
@click.option("--shots", type=POSITIVE, default=16, help="Examples of each class to tune on.")
@click.option("--max-calls", type=POSITIVE, default=300, help="Prompts a method may try.")
@click.option("--prompt", "words", help="The hand-written prompt, from which tuning starts.")
@click.option("--tokens", type=POSITIVE, help="Length of the soft prompt; default the words'.")
@click.option("--latent", type=POSITIVE, default=200, help="Numbers that are tuned.")
@click.option("--template", default="", help='Around a text: "{text}", "{mask}" where it answers.')
@click.option("--word", "label_words", multiple=True, metavar="CLASS=WORD", help="Label word.")
@click.option("--text-column", default="text", help="Column of the texts.")
@click.option("--label-column", default="label", help="Column of the labels.")
@click.option("--methods", default=",".join(METHODS), help="Separated by commas.")
@click.option("--max-test", type=POSITIVE, help="Held-out texts to score on; default all.")
@click.option("--seeds", type=POSITIVE, default=1, help="So many seeds, counted from --seed.")
@click.option("--validation", type=float, help="Share of the examples that choose what is kept.")
@click.option("--store", metavar="STORE", help="Keep bill and answers beside it, to go on from.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Same seed, same numbers.")
@click.option("--device", default="cpu", help="Torch device.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32")
@click.option("--report", metavar="FILE.html", help="Write a page with figures and scores.")
@click.option("--save", metavar="DIR", help="Write the soft prompt that gauss-newton found.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, no progress.")
@click.pass_context
def prompt_command(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401
    """Tune a soft prompt of a frozen language model on the texts of DATA.

    DATA is a .csv or .jsonl file with columns text and label; without it, first lines of Python's
    docstrings are classified by topic. Held-out texts are never tuned on.

    A .toml file describes a chat model (behind an API or on this machine), a template and a metric
    instead: `zo-bilevel init prompt-api` writes one. Then --max-calls is a number of answers.
    """
    if (options["data"] or "").endswith(".toml"):
        from zo_bilevel.cli.prompt_service import tune_service

        tune_service(context, options["data"], options)
        return
    names = [name.strip() for name in options["methods"].split(",") if name.strip()]
    methods = {name: _method(name) for name in dict.fromkeys(names)}
    if options["save"] and OURS not in methods:
        raise click.UsageError(f"--save writes what {OURS} found: add it to --methods")
    if options["report"]:
        from zo_bilevel.report.page import check_report_path

        check_report_path(options["report"])
    with make_progress(is_silent=options["as_json"]) as progress:
        bench = _Bench(options)
        found = [bench.hand_written()]
        for place, (name, method) in enumerate(methods.items()):
            found.append(bench.run(name, method, progress, place, len(methods)))
            if _was_interrupted(found[-1]):
                break
    _show(context, bench, found)
    if _was_interrupted(found[-1]):
        context.exit(INTERRUPTED)


def _show(context: click.Context, bench: _Bench, found: list[Found]) -> None:
    """Print the table, or write what was asked for."""
    options = bench.options
    click.echo(_json(bench, found) if options["as_json"] else bench.table(found))
    if options["save"]:
        bench.save(found, options["save"])
        click.echo(f"saved: {options['save']}", err=True)
    if options["report"]:
        click.echo(f"report: {bench.report(found, words_to_store(context))}", err=True)


def _method(name: str) -> Method:
    from zo_bilevel.methods.gauss_newton.gauss_newton import GaussNewton
    from zo_bilevel.methods.names import method_from_name

    return GaussNewton() if name == OURS else method_from_name(name)


@final
class _Bench:
    """The data, the model, and the same examples for every method."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        from zo_bilevel.adapters.prompts.soft_prompt import SoftPrompt
        from zo_bilevel.cli.loading import parse_settings
        from zo_bilevel.tasks import prompts
        from zo_bilevel.tasks.prompt_data import read_texts, split_shots

        self.options = options
        columns = {name: options[name] for name in ("text_column", "label_column")}
        texts = read_texts(options["data"], **columns) if options["data"] else prompts.load_texts()
        self.split: Split = split_shots(
            texts, options["shots"], options["seed"], max_test=options["max_test"]
        )
        given = parse_settings("--word", options["label_words"])
        self.words = {**prompts.label_words(texts), **{k: str(v) for k, v in given.items()}}
        self.prompt: SoftPrompt = SoftPrompt(
            options["words"] or prompts.DEFAULT_WORDS,
            options["tokens"],
            options["latent"],
            seed=options["seed"],
        )
        self.model = self._load(options["model"] or prompts.DEFAULT_MODEL)
        self.ours = self._solver(self.prompt)

    def _load(self, source: str) -> LanguageModel:
        from zo_bilevel.adapters.prompts.language_model import LanguageModel

        asked = {name: self.options[name] for name in ("device", "precision")}
        return LanguageModel(source, self.options["kind"], **asked)

    def _solver(self, prompt: SoftPrompt) -> FrozenTransformer:
        from zo_bilevel.adapters.prompts.frozen_transformer import FrozenTransformer

        train, template = self.split.train, self.options["template"]
        return FrozenTransformer(
            self.model, train.texts, train.labels, self.words, prompt=prompt, template=template
        )

    @property
    def title(self) -> str:
        """What the table is about."""
        train, test = self.split.train, self.split.test
        return (
            f"{self.options['shots']} examples of each of {len(train.classes)} classes, "
            f"{len(test)} held-out texts, {self.model.name}"
        )

    def hand_written(self) -> Found:
        """The prompt that tuning starts from."""
        import numpy as np

        from zo_bilevel.cli.prompt_table import Found
        from zo_bilevel.run.runs import Improvement, Run

        theta = self.ours({"latent": np.zeros(self.options["latent"])})
        loss = self.ours.problem().outer.loss(np.asarray(theta, dtype=np.float64).ravel())
        scores, seed = self._scores(self.ours, None), self.options["seed"]
        run = Run(
            HAND_WRITTEN,
            seed,
            loss=float(loss),
            solves=1,
            rounds=1,
            stop_reason="not tuned",
            improvements=(Improvement(1, 1, 0.0, float(loss)),),
        )
        return Found(run, scores)

    def _scores(self, solver: FrozenTransformer, phi: Mapping[str, Any] | None) -> Scores:
        from zo_bilevel.tasks.prompts import held_out

        return held_out(solver, phi, self.split.test)

    def run(self, name: str, method: Method, progress: Progress, place: int, count: int) -> Found:
        """One method, on the same examples and calls as the others."""
        from zo_bilevel.cli.prompt_table import Found
        from zo_bilevel.comparison.observed_method import ObservedMethod
        from zo_bilevel.run.loop import minimize
        from zo_bilevel.solve.dispatch.batched import Batched
        from zo_bilevel.tasks.prompts import DRAWN_BOUND

        calls = self.options["max_calls"]
        is_ours = name == OURS
        drawn = dataclasses.replace(self.prompt, bound=DRAWN_BOUND)
        solver = self.ours if is_ours else self._solver(drawn)

        traced = ObservedMethod(method, name)

        def observe(record: Record) -> None:
            traced.observe(record)
            share = (place + record.solve / calls) / count
            progress.update(share, f"{name}: {record.solve} of {calls} calls", record.best_loss)

        result = minimize(
            solver.problem(),
            traced,
            max_solves=calls,
            seed=self.options["seed"],
            dispatcher=Batched(),
            round_width=1 if is_ours else POPULATION,
            callback=observe,
        )
        return Found(traced.finished(result), self._scores(solver, result.phi), result)

    def table(self, found: list[Found]) -> str:
        """What the terminal shows."""
        from zo_bilevel.cli.prompt_table import grid

        return grid(self.title, found).text()

    def report(self, found: list[Found], command: list[str]) -> Path:
        """Write the page."""
        from zo_bilevel.cli.prompt_table import comparison

        options = self.options
        sizes = (options["max_calls"], POPULATION, options["latent"])
        return comparison(self.title, found, *sizes, command).to_html(options["report"])

    def save(self, found: list[Found], folder: str) -> None:
        """Write what our method found, if it came so far."""
        from zo_bilevel.support.json_data import to_plain

        for row in found:
            if row.run.method == OURS and row.result is not None:
                scores = to_plain({"train_loss": row.run.loss, "held_out": row.scores})
                self.ours.prompted(row.result.phi).save(folder, row.result, scores)


def _was_interrupted(found: Found) -> bool:
    return found.run.status == "interrupted"


def _json(bench: _Bench, found: list[Found]) -> str:
    from zo_bilevel.support.json_data import to_json, to_plain

    rows = [
        {
            "method": row.run.method,
            "calls": row.run.solves,
            "seconds": row.run.seconds,
            "train_loss": row.run.loss,
            "scores": to_plain(row.scores),
        }
        for row in found
    ]
    facts = {
        "model": bench.model.name,
        "kind": bench.model.kind,
        "classes": bench.ours.classes,
        "shots": bench.options["shots"],
        "seed": bench.options["seed"],
        "held_out": len(bench.split.test),
        "truncated": bench.ours.truncated,
        "methods": rows,
    }
    return to_json(facts)
