"""Every run of a comparison as its drill-down shows it."""

from typing import Any

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.report.charts import run_chart
from zo_bilevel.run.runs import Run
from zo_bilevel.support.intervals import mean_in_words
from zo_bilevel.support.tables import deviation, number, shown

MOST_PARAMETERS = 30


def groups_of(
    comparison: Comparison, anchor: str
) -> tuple[tuple[tuple[str, tuple[dict[str, Any], ...]], ...], dict[str, dict[str, Any]]]:
    """The runs of each method as the template shows them, and their curves by name."""
    groups, curves = [], {}
    for index, method in enumerate(comparison.methods):
        shown = []
        for run in comparison.runs_of(method):
            name = f"{anchor}-run-{index}-{run.seed}"
            if run.improvements:
                curves[name] = run_chart(run)
            shown.append(_shown_run(run, comparison, name))
        if shown:
            groups.append((method, tuple(shown)))
    return tuple(groups), curves


def _fresh(run: Run) -> str:
    return mean_in_words(run.loss, run.interval, run.draws) if run.draws else ""


def _shown_run(run: Run, comparison: Comparison, name: str) -> dict[str, Any]:
    truth = comparison.truth or {}
    step = None if comparison.target is None else run.first_at(comparison.target)
    reached = "" if step is None else f"target after {step.solve} solves"
    if comparison.target is not None and step is None:
        reached = "target not reached"
    facts = [
        ("stopped", run.ending),
        ("solves", run.effort),
        ("failed solves", ", ".join(f"{n} {status}" for status, n in run.failures.items())),
        ("judged on fresh seeds", _fresh(run)),
        ("reported by the run", "" if run.reported_loss is None else number(run.reported_loss)),
        ("held-out loss", "" if run.held_out_loss is None else number(run.held_out_loss)),
        ("cost", number(run.cost) if run.cost else ""),
    ]
    for key, value in list(run.phi.items())[:MOST_PARAMETERS]:
        known = truth.get(key)
        beside = (
            "" if known is None else f" (truth {shown(known)}, error {deviation(value, known)})"
        )
        facts.append((key, f"{shown(value)}{beside}"))
    return {
        "name": name if run.improvements else "",
        "seed": run.seed,
        "status": run.status,
        "loss": number(run.loss),
        "reached": reached,
        "facts": [fact for fact in facts if fact[1]],
    }
