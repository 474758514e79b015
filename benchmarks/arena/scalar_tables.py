"""The tables of the scalar, mixed, slot and policy arenas, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

from benchmarks.arena.case import Case
from benchmarks.arena.racing import Trace
from benchmarks.arena.shares import median_loss, pairs_and_targets, ranks, wins

Traces = Mapping[tuple[str, str], Sequence[Trace]]
"""Runs of all seeds by case and method."""


def coco_table(cases: Sequence[Case], methods: Sequence[str], traces: Traces) -> Table:
    """Share of pairs and of targets at the end, a row for each method, a column for each budget.

    Args:
        cases: All that were run.
        methods: Names.
        traces: The runs.
    """
    columns: dict[tuple[str, int], list[Case]] = {}
    for case in cases:
        columns.setdefault((case.group, case.max_solves), []).append(case)
    table = Table("method", title="share of pairs / share of targets at the end")
    for (group, budget), members in columns.items():
        table.add_column(f"{group}, {budget}\n{len(members)} functions", justify="right")
    for method in methods:
        cells = [
            _shares([traces[str(case), method] for case in members], budget)
            for (_, budget), members in columns.items()
        ]
        table.add_row(method, *cells)
    return table


def _shares(runs: Sequence[Sequence[Trace]], budget: int) -> str:
    if any(trace.status == "refused" for seeds in runs for trace in seeds):
        return "refused"
    area, end = np.mean([pairs_and_targets(seeds, budget) for seeds in runs], axis=0)
    return f"{area:.3f} / {end:.3f}"


def function_table(cases: Sequence[Case], methods: Sequence[str], traces: Traces) -> Table:
    """The same for each function: a row for each case, a column for each method.

    Args:
        cases: All that were run.
        methods: Names.
        traces: The runs.
    """
    table = Table("case", *methods, title="share of pairs / share of targets at the end")
    for case in cases:
        cells = [_shares([traces[str(case), method]], case.max_solves) for method in methods]
        table.add_row(str(case), *cells)
    return table


def median_table(cases: Sequence[Case], methods: Sequence[str], traces: Traces) -> Table:
    """Medians, a row for each case; mean rank, wins and losses of the first method below.

    Args:
        cases: All that were run.
        methods: Names.
        traces: The runs.
    """
    table = Table("case", title="median of the loss reported (lower is better)")
    for method in methods:
        table.add_column(method, justify="right")
    medians = [
        {method: median_loss(traces[str(case), method]) for method in methods} for case in cases
    ]
    for case, row in zip(cases, medians, strict=True):
        best = min(row.values())
        cells = [
            f"[bold]{value:.4g}[/bold]" if value == best else f"{value:.4g}"
            for value in row.values()
        ]
        table.add_row(str(case), *cells)
    table.add_section()
    places = [ranks(row) for row in medians]
    table.add_row("mean rank", *(f"{np.mean([p[m] for p in places]):.2f}" for m in methods))
    first = methods[0]
    against = ["" if m == first else "{}:{}".format(*wins(medians, first, m)) for m in methods]
    table.add_row(f"cases that {first} wins : loses", *against)
    return table


def gain_table(cases: Sequence[Case], methods: Sequence[str], traces: Traces) -> Table:
    """Share of the possible gain, 1 minus the loss: means over cases and seeds.

    Args:
        cases: All that were run.
        methods: Names.
        traces: The runs.
    """
    table = Table("group", "solves", title="share of the possible gain, +- a standard error")
    for method in methods:
        table.add_column(method, justify="right")
    for group, budget in dict.fromkeys((case.group, case.max_solves) for case in cases):
        members = [str(c) for c in cases if (c.group, c.max_solves) == (group, budget)]
        cells = []
        for method in methods:
            shares = [1 - trace.loss for name in members for trace in traces[name, method]]
            error = np.std(shares) / np.sqrt(len(shares))
            cells.append(f"{np.mean(shares):.3f} +- {error:.3f}")
        table.add_row(group, str(budget), *cells)
    return table


def time_table(cases: Sequence[Case], methods: Sequence[str], traces: Traces) -> Table:
    """Processor time and troubles, a row for each method.

    Args:
        cases: All that were run.
        methods: Names.
        traces: The runs.
    """
    table = Table("method", "runs", "ms a solve", "refused", "failed", "first words", title="runs")
    for method in methods:
        runs = [trace for case in cases for trace in traces[str(case), method]]
        solves = sum(trace.solves for trace in runs)
        milliseconds = 1e3 * sum(trace.processor_seconds for trace in runs) / max(solves, 1)
        words = next((trace.error for trace in runs if trace.error), "")
        counts = [sum(trace.status == status for trace in runs) for status in ("refused", "failed")]
        table.add_row(method, str(len(runs)), f"{milliseconds:.2f}", *map(str, counts), words[:80])
    return table
