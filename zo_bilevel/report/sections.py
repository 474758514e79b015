"""What a report says: tables, words and charts of comparisons, before they become a page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from zo_bilevel.comparison.columns import method_table
from zo_bilevel.comparison.comparison import LUCKY_DRAWS_NOTE, Comparison
from zo_bilevel.comparison.pairwise import is_repeated, paired_tests
from zo_bilevel.comparison.profiles import cases_of
from zo_bilevel.comparison.statistics import FEWEST_SEEDS
from zo_bilevel.comparison.summaries import quartiles
from zo_bilevel.report.bands import Chart
from zo_bilevel.report.charts import charts_of, profile_charts, shared_axes
from zo_bilevel.report.result_figure import drawn_result
from zo_bilevel.report.runs import MOST_PARAMETERS, groups_of
from zo_bilevel.report.words import conclusion
from zo_bilevel.run.runs import Run
from zo_bilevel.support.tables import Grid, listed, number, percent, spread


@final
@dataclass(frozen=True, slots=True)
class Section:
    """One comparison as a part of a page.

    Args:
        anchor: Name of the part within the page.
        title: Its heading.
        words: The conclusion.
        warnings: What limits it, each a sentence.
        ranking: Methods, the best first.
        tables: Further tables of the comparison.
        charts: By the name they have in the page's data.
        parameters: What was found, beside the truth where known.
        stops: Why runs stopped and solves failed.
        facts: Settings, versions, command: names and values.
        groups: The runs of each method.
        curves: One a run, by the name it has in the page's data.
        picture: Data and fit of the best run, an SVG in base64; empty where there are none.
    """

    anchor: str
    title: str
    words: str
    warnings: tuple[str, ...]
    ranking: Grid
    tables: tuple[Grid, ...]
    charts: Mapping[str, Chart]
    parameters: Grid | None
    stops: Grid
    facts: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, tuple[dict[str, Any], ...]], ...]
    curves: Mapping[str, dict[str, Any]]
    picture: str = ""


def section_of(comparison: Comparison, anchor: str, *, has_picture: bool = False) -> Section:
    """One comparison as a part of a page, with data and fit of its best run if wanted."""
    charts = charts_of(comparison)
    cases = cases_of([comparison])
    if cases and len(comparison.methods) > 1:
        for by in shared_axes(comparison):
            charts |= profile_charts(cases, comparison.methods, by)
    groups, curves = groups_of(comparison, anchor)
    return Section(
        anchor=anchor,
        title=comparison.problem,
        words=conclusion(comparison),
        warnings=_warnings(comparison),
        ranking=ranking(comparison),
        tables=comparison.tables,
        charts={f"{anchor}-{name}": chart for name, chart in charts.items()},
        parameters=_parameters(comparison),
        stops=_stops(comparison),
        facts=_facts(comparison),
        groups=groups,
        curves=curves,
        picture=_picture(comparison) if has_picture else "",
    )


def _picture(comparison: Comparison) -> str:
    """Data and fit of the best run, where there are data and something to draw with."""
    best = comparison.best
    if best is None or best.objective is None:
        return ""
    try:
        return drawn_result(best)
    except ImportError:  # of matplotlib
        return ""


def ranking(comparison: Comparison) -> Grid:
    """Methods in order, each with what it reached and how it stands against the first."""
    summaries = comparison.summaries()
    against = paired_tests(comparison, summaries[0].method) if summaries else ()
    header, rows = method_table(comparison, against, is_long=True)
    notes = [
        "ERT: expected running time, the solves spent by all runs before the target, over the "
        "number of runs that reached it (COCO).",
        "p: exact paired signed-rank test against the first, over seeds, corrected after Holm.",
    ]
    notes += [f"{s.method}: {error}" for s in summaries for error in s.errors]
    return Grid("Ranking", header, rows, tuple(notes), labels=2)


def _warnings(comparison: Comparison) -> tuple[str, ...]:
    found = []
    if comparison.seeds_made[1] < FEWEST_SEEDS:
        found.append(f"Fewer than {FEWEST_SEEDS} seeds: nothing follows from these numbers.")
    if comparison.is_interrupted:
        total = len(comparison.methods) * len(comparison.seeds)
        found.append(f"Interrupted: {len(comparison.runs)} of {total} runs.")
    going = sum(run.stop_reason == "running" for run in comparison.runs)
    if going:
        found.append(f"Runs still going, or killed: {going}. Nothing here is final.")
    found += [f"{r.method}, seed {r.seed}: {r.error}" for r in comparison.runs if _is_violation(r)]
    found += [f"{note[0].upper()}{note[1:]}." for note in [comparison.reused_note()] if note]
    same = [m for m in comparison.methods if is_repeated(comparison, m)]
    if same:
        found.append(
            f"The same run with every seed, so that seeds are no evidence: {listed(same)}."
        )
    judged = {run.judged_by for run in comparison.runs} - {""}
    if "exact" in judged:
        found.append("Solves are noisy; losses are those without noise, which no method saw.")
    if "fresh solves" in judged:
        found.append(
            "Solves are noisy; final points were judged by the mean of fresh solves "
            f"({comparison.judge_solves} in all, charged to no run)."
        )
    if comparison.has_lucky_draws:
        found.append(
            f"Curves show the lowest noisy draw so far; {LUCKY_DRAWS_NOTE}. Profiles are left out."
        )
    return (*found, *comparison.notes)


def _is_violation(run: Run) -> bool:
    return run.status == "disqualified"


def _parameters(comparison: Comparison) -> Grid | None:
    """Found values: median and quartiles of numbers, relative errors of fields."""
    truth = comparison.truth or {}
    counted = [run for run in comparison.runs if run.is_counted and run.phi]
    if not counted:
        return None
    names = list(counted[0].phi)[:MOST_PARAMETERS]
    labels = [m for m in comparison.methods if any(run.method == m for run in counted)]
    rows = []
    for name in names:
        found = {
            m: [r.phi[name] for r in counted if r.method == m and name in r.phi] for m in labels
        }
        cells = [_found_cell(found[method], truth.get(name)) for method in labels]
        rows.append((name, _truth_cell(truth.get(name)), *cells))
    left_out = len(counted[0].phi) - len(names)
    notes = ["Numbers: median (quartiles). Fields: median relative error."]
    notes += [f"{left_out} more parameters are not shown."] if left_out else []
    return Grid("Parameters found", ("parameter", "truth", *labels), tuple(rows), tuple(notes))


def _truth_cell(truth: Any) -> str:  # noqa: ANN401 - any parameter value
    if truth is None:
        return "-"
    array = np.asarray(truth)
    if array.ndim:
        return f"{array.size} values"
    return number(float(truth), 5) if array.dtype.kind in "fi" else str(truth)


def _found_cell(values: Sequence[Any], truth: Any) -> str:  # noqa: ANN401 - any parameter value
    if not values:
        return "-"
    first = np.asarray(values[0])
    if first.dtype.kind not in "fiu":
        return listed([f"{value} ({n})" for value, n in Counter(map(str, values)).most_common(3)])
    if first.ndim == 0:
        low, middle, high = quartiles([float(value) for value in values])
        return f"{number(middle, 5)} ({spread(low, high)})"
    known = None if truth is None else np.asarray(truth, dtype=float)
    if known is None or known.shape != first.shape or not np.linalg.norm(known):
        low, _, high = quartiles([float(np.linalg.norm(value)) for value in values])
        return f"norm {spread(low, high)}"
    errors = [float(np.linalg.norm(v - known) / np.linalg.norm(known)) for v in values]
    return percent(quartiles(errors)[1])


def _stops(comparison: Comparison) -> Grid:
    rows = []
    for method in comparison.methods:
        runs = comparison.runs_of(method)
        reasons = Counter(run.ending for run in runs)
        failures: Counter[str] = Counter()
        for run in runs:
            failures.update(run.failures)
        failed = ", ".join(f"{count} {status}" for status, count in failures.items())
        stopped = "; ".join(f"{count}x {reason}" for reason, count in reasons.most_common())
        rows.append((method, stopped or "no run", failed or "none"))
    header = ("method", "runs stopped because", "failed solves")
    return Grid("Stop reasons and failures", header, tuple(rows), labels=3)


def _facts(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    facts = comparison.facts
    seeds = listed([str(seed) for seed in comparison.seeds], most=20)
    found = [
        ("command", facts.command or "called from Python: zo_bilevel.compare(...)"),
        ("problem", f"{comparison.problem}, N = {comparison.size or 'not known'}"),
        ("methods", listed(list(comparison.methods), most=40)),
        ("solves a run", str(comparison.max_solves)),
        ("seeds", seeds),
        ("round width", str(comparison.round_width)),
        ("dispatcher", comparison.dispatcher),
        ("target", str(comparison.target or "none")),
        ("runs stop at loss", number(comparison.tolerance)),
        ("versions", ", ".join(f"{name} {version}" for name, version in facts.versions.items())),
        ("machine", facts.machine),
        ("made", facts.created),
    ]
    return tuple(fact for fact in found if fact[1] and fact[1] != "-")
