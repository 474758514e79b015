"""What many comparisons say together: profiles over all problems, and who was first on each."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.comparison.pairwise import paired_tests
from zo_bilevel.comparison.profiles import Case, cases_of
from zo_bilevel.comparison.statistics import FEWEST_SEEDS, PairedTest, corrected, paired_test
from zo_bilevel.report.bands import Chart
from zo_bilevel.report.charts import PROFILE_TAU, profile_charts, shared_axes
from zo_bilevel.report.words import conclusion
from zo_bilevel.support.tables import Grid, listed, number

DEFAULT_METHOD = "default"
"""The method people get when they name none."""
GROUPS_OF_SOLVES = (10, 50)
"""Budgets of a summary, in groups of N + 1 solves."""


@final
@dataclass(frozen=True, slots=True)
class Overview:
    """The first part of a page about many problems.

    Args:
        words: One paragraph for each group of problems.
        tables: One for each group: methods, the best first.
        problems: One row for each problem: who was first, who next.
        charts: Profiles by the name they have in the page's data.
    """

    words: tuple[str, ...]
    tables: tuple[Grid, ...]
    problems: Grid
    charts: Mapping[str, Chart]


def overview_of(comparisons: Sequence[Comparison]) -> Overview:
    """Sum up many comparisons, group by group."""
    groups: dict[tuple[str, tuple[str, ...]], list[Comparison]] = {}
    for found in comparisons:
        groups.setdefault((found.group, found.methods), []).append(found)
    words, tables, charts = [], [], {}
    for index, ((group, methods), members) in enumerate(groups.items()):
        cases = cases_of(members)
        name = group or "problems"
        tables.append(_table(name, methods, members, cases))
        words.append(group_words(name, tables[-1].rows[0][0], members))
        for by in shared_axes(max(members, key=lambda member: member.round_width)):
            for key, chart in profile_charts(cases, methods, by).items():
                charts[f"group-{index}-{key}"] = {**chart, "title": f"{name}: {chart['title']}"}
    return Overview(tuple(words), tuple(tables), _problems(comparisons), charts)


def _table(
    name: str, methods: Sequence[str], members: Sequence[Comparison], cases: Sequence[Case]
) -> Grid:
    counts = [(case, case.counts(PROFILE_TAU)) for case in cases]
    wins = Counter(_first(member) for member in members)
    rows = []
    for method in methods:
        shares = [
            _share_within([(c.get(method, math.inf), case.size) for case, c in counts], alpha)
            for alpha in (*GROUPS_OF_SOLVES, math.inf)
        ]
        rows.append((shares, method, wins[method]))
    rows.sort(key=lambda row: (-sum(row[0]), -row[2], row[1]))
    header = ("method", *(f"within\n{a} (N + 1)" for a in GROUPS_OF_SOLVES), "in the\nbudget")
    return Grid(
        f"{name}: share of {len(cases)} runs within {PROFILE_TAU:g} of the possible gain",
        (*header, "first on\nproblems"),
        tuple((m, *(f"{100 * share:.0f} %" for share in s), str(w)) for s, m, w in rows),
        (
            "The possible gain of a run: from the start to the lowest loss of any method. Budgets "
            "are in groups of N + 1 solves; the order is that of the mean of the three shares.",
        ),
    )


def _share_within(counts: Sequence[tuple[float, int]], alpha: float) -> float:
    reached = sum(math.isfinite(n) and n <= alpha * (size + 1) for n, size in counts)
    return reached / max(len(counts), 1)


def group_words(name: str, best: str, members: Sequence[Comparison]) -> str:
    """What a group of problems says, problem against problem, the bad about us included."""
    count = "1 problem" if len(members) == 1 else f"{len(members)} problems"
    if min(len(member.seeds) for member in members) < FEWEST_SEEDS:
        return f"{name} ({count}): with fewer than {FEWEST_SEEDS} seeds nothing follows."
    if len(members) == 1:
        return f"{name} ({count}): {conclusion(members[0])}"
    words = [f"{name} ({count}): {best} solves the largest share of the runs."]
    found = group_tests(best, members)
    if len(members) < FEWEST_SEEDS:
        words.append("These are too few problems to draw a conclusion.")
    elif found:
        words.append(f"It is ahead of {listed([_ahead(d) for d in found], most=20)}.")
    if DEFAULT_METHOD in members[0].methods:
        behind = [
            f"{m.problem} ({first})" for m in members if (first := _first(m)) != DEFAULT_METHOD
        ]
        words.append(
            f"{DEFAULT_METHOD} is first on {len(members) - len(behind)} of {len(members)}"
            + (f", not on {listed(behind, most=40)}." if behind else ".")
        )
    return " ".join(words)


def group_tests(best: str, members: Sequence[Comparison]) -> tuple[PairedTest, ...]:
    """One method against every other, problem by problem.

    Returns:
        Tests whose "seeds" are problems: who is better with more than half of the seeds. The
        p-values are corrected for their number; no conclusion follows from few problems.
    """
    shares: dict[str, list[float]] = {}
    for member in members:
        for found in paired_tests(member, best):
            shares.setdefault(found.second, []).append(found.probability)
    pairs = [
        paired_test([1.0 - share for share in found], found, (best, other))
        for other, found in shares.items()
    ]
    p_values = corrected([pair.p_value for pair in pairs])
    return tuple(replace(pair, p_value=p) for pair, p in zip(pairs, p_values, strict=True))


def _ahead(found: PairedTest) -> str:
    share = found.probability * found.num_seeds
    return f"{found.second} on {share:g} of {found.num_seeds} (p = {number(found.p_value, 2)})"


def _first(comparison: Comparison) -> str:
    summaries = comparison.summaries()
    return summaries[0].method if summaries and summaries[0].loss is not None else "nobody"


def _problems(comparisons: Sequence[Comparison]) -> Grid:
    rows = []
    for found in comparisons:
        ranked = [s for s in found.summaries() if s.loss is not None]
        cells = [
            "-" if k >= len(ranked) else f"{ranked[k].method}: {_short(found, k)}" for k in range(3)
        ]
        rows.append((found.problem, str(found.size or "-"), str(found.target or "-"), *cells))
    header = ("problem", "N", "target", "first", "second", "third")
    notes = ("ERT in solves where the target was reached, else the median loss.",)
    return Grid("Every problem", header, tuple(rows), notes, labels=6)


def _short(comparison: Comparison, place: int) -> str:
    summary = [s for s in comparison.summaries() if s.loss is not None][place]
    if summary.to_target is not None and summary.to_target.reached:
        return f"ERT {number(summary.to_target.expected)}"
    return "-" if summary.loss is None else f"loss {number(summary.loss[1])}"
