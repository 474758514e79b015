"""`zo-bilevel prompt`: tune a soft prompt on a few labelled texts, next to what others find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from zo_bilevel.cli.command_line_words import words_to_store
from zo_bilevel.cli.options import INTERRUPTED_EXIT, POSITIVE
from zo_bilevel.cli.progress import make_progress
from zo_bilevel.run.progress import Progress

if TYPE_CHECKING:
    from zo_bilevel.cli.prompt_bench import SoftPromptBench
    from zo_bilevel.cli.prompt_table import Found
    from zo_bilevel.methods.base import Method

OURS = "gauss-newton"
METHODS = ("random", "cma", OURS)
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
@click.option(
    "--max-test", type=POSITIVE, help="Held-out texts to score on; default all, 100 of a .toml."
)
@click.option("--seeds", type=POSITIVE, default=1, help="So many seeds, counted from --seed.")
@click.option("--validation", type=float, help="Share of the examples that choose what is kept.")
@click.option("--folds", type=click.IntRange(min=0), help="Cross-validation, where shots are few.")
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
        from zo_bilevel.cli.prompt_service_view import tune_service

        tune_service(context, options["data"], options)
        return
    names = [name.strip() for name in options["methods"].split(",") if name.strip()]
    methods = {name: _method(name) for name in dict.fromkeys(names)}
    if options["save"] and OURS not in methods:
        raise click.UsageError(f"--save writes what {OURS} found: add it to --methods")
    if options["store"]:
        raise click.UsageError(
            "--store is for the answers of a chat model: DATA must be a .toml file"
        )
    if options["save"]:
        from zo_bilevel.adapters.prompts.saved_prompt import check_folder

        check_folder(options["save"])
    if options["report"]:
        from zo_bilevel.report.page import check_report_path

        check_report_path(options["report"])
    with make_progress(is_silent=options["as_json"]) as progress:
        benches, found = _measured(options, methods, progress)
    _show(context, benches, found)
    if _was_interrupted(found[-1][-1]):
        context.exit(INTERRUPTED_EXIT)


def _measured(
    options: dict[str, Any], methods: dict[str, Method], progress: Progress
) -> tuple[list[SoftPromptBench], list[list[Found]]]:
    """Every method for every seed, until somebody stops it."""
    from zo_bilevel.cli.prompt_bench import SoftPromptBench

    benches: list[SoftPromptBench] = []
    found: list[list[Found]] = []
    for seed in range(options["seed"], options["seed"] + options["seeds"]):
        bench = SoftPromptBench(options, seed, benches[0].model if benches else None)
        benches.append(bench)
        found.append([bench.hand_written(), *bench.others()])
        for place, (name, method) in enumerate(methods.items()):
            found[-1].append(bench.run(name, method, progress, place, len(methods)))
            if _was_interrupted(found[-1][-1]):
                return benches, found
    return benches, found


def _show(context: click.Context, benches: list[SoftPromptBench], found: list[list[Found]]) -> None:
    """Print the tables, or write what was asked for."""
    from zo_bilevel.cli.prompt_bench import POPULATION_SIZE
    from zo_bilevel.cli.prompt_table import comparison, grid, medians

    options, title = benches[0].options, benches[0].title
    if options["as_json"]:
        click.echo(_json(benches, found))
    else:
        for bench, rows in zip(benches, found, strict=True):
            click.echo(grid(bench.title, rows).text())
        if len(found) > 1:
            click.echo(medians(found).text())
    if options["save"]:
        benches[0].save(found[0], options["save"])
        click.echo(f"saved: {options['save']}", err=True)
    if options["report"]:
        sizes = (options["max_calls"], POPULATION_SIZE, options["latent"])
        page = comparison(title, found, *sizes, words_to_store(context))
        click.echo(f"report: {page.to_html(options['report'])}", err=True)


def _method(name: str) -> Method:
    from zo_bilevel.methods.gauss_newton.gauss_newton import GaussNewton
    from zo_bilevel.methods.names import method_from_name

    return GaussNewton() if name == OURS else method_from_name(name)


def _was_interrupted(found: Found) -> bool:
    return found.run.status == "interrupted"


def _json(benches: list[SoftPromptBench], found: list[list[Found]]) -> str:
    from zo_bilevel.support.json_data import to_json, to_plain

    documents = []
    for bench, rows in zip(benches, found, strict=True):
        methods = [
            {
                "method": row.run.method,
                "calls": row.run.solves,
                "seconds": row.run.seconds,
                "train_loss": row.run.loss,
                "scores": to_plain(row.scores),
                "gain": to_plain(row.gain),
            }
            for row in rows
        ]
        facts = {
            "model": bench.model.name,
            "kind": bench.model.kind,
            "classes": bench.ours.classes,
            "shots": bench.options["shots"],
            "validation": 0 if bench.validation is None else len(bench.validation),
            "folds": bench.folds,
            "seed": bench.seed,
            "held_out": len(bench.split.test),
            "truncated": bench.ours.truncated,
        }
        documents.append({**facts, "methods": methods})
    return to_json(documents[0] if len(documents) == 1 else documents)
