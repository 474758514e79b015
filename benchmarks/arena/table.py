"""The scores as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.arena.best import smallest_loss
from benchmarks.arena.problem import ArenaProblem, FloatArray
from benchmarks.arena.running import ArenaRun
from benchmarks.arena.scores import BUDGETS, TAUS, Judged, area, groups_to_solve, shares

MARGIN = 0.02
"""How far below the best peer a share may lie before it is shown as behind."""


def print_group(console: Console, title: str, tables: Mapping[str, FloatArray]) -> None:
    """One table a group: methods by tau, columns by budget; the best share of a column is bold.

    Args:
        console: Where to.
        title: Group, half, number of problems.
        tables: Groups to solve by method, see `scores.share_table`.
    """
    found = {name: shares(table) for name, table in tables.items() if table.size}
    table = Table(title=title, title_justify="left")
    table.add_column("tau")
    table.add_column("method")
    for budget in BUDGETS:
        table.add_column(str(budget), justify="right")
    table.add_column("area", justify="right")
    for row, tau in enumerate(TAUS):
        best = [max(f[row, k] for f in found.values()) for k in range(len(BUDGETS))]
        for name, share in found.items():
            cells = [
                f"[bold]{value:.2f}[/bold]" if value >= top else f"{value:.2f}"
                for value, top in zip(share[row], best, strict=True)
            ]
            own = area(tables[name][:, [row]])
            table.add_row(
                f"{tau:.0e}" if name == next(iter(found)) else "", name, *cells, f"{own:.3f}"
            )
        table.add_section()
    console.print(table)


def print_problems(
    console: Console,
    problems: Sequence[ArenaProblem],
    runs: Mapping[str, Mapping[tuple[str, int], ArenaRun]],
    judged: Judged,
) -> None:
    """A line a problem: groups of N + 1 solves to each tau, by method.

    Args:
        console: Where to.
        problems: Of one group.
        runs: By method, then problem and seed.
        judged: See `scores.groups_to_solve`.
    """
    table = Table(title=f"groups of N + 1 solves to {', '.join(f'{tau:.0e}' for tau in TAUS)}")
    table.add_column("problem")
    for name in runs:
        table.add_column(name)
    for problem in problems:
        cells = []
        for done in runs.values():
            run = done.get((problem.name, 0))
            counts = [] if run is None else [groups_to_solve(problem, run, t, judged) for t in TAUS]
            cells.append(" ".join("-" if c == float("inf") else f"{c:.3g}" for c in counts))
        table.add_row(problem.name, *cells)
    console.print(table)


def print_summary(
    console: Console, own: str, groups: Mapping[str, Mapping[str, FloatArray]]
) -> None:
    """How a method stands against the best peer of each cell and in the area.

    Args:
        console: Where to.
        own: The method; all others in a group are its peers.
        groups: By group, groups to solve by method.
    """
    table = Table(title=f"{own} against the best peer of each cell", title_justify="left")
    for name in ("group", "runs", "area", "best peer's", "ratio", "behind by > 0.02", "worst cell"):
        table.add_column(name, justify="left" if name == "group" else "right")
    for group, tables in groups.items():
        rivals = {name: rival for name, rival in tables.items() if name != own and rival.size}
        if own not in tables or not rivals or not tables[own].size:
            continue
        mine = shares(tables[own])
        tops = {name: shares(rival) for name, rival in rivals.items()}
        gaps = {
            (tau, budget): (max(top[r, c] for top in tops.values()) - mine[r, c])
            for r, tau in enumerate(TAUS)
            for c, budget in enumerate(BUDGETS)
        }
        behind = sum(gap > MARGIN + 1e-9 for gap in gaps.values())
        (tau, budget), worst = max(gaps.items(), key=lambda pair: pair[1])
        peer, peer_area = max(((n, area(t)) for n, t in rivals.items()), key=lambda pair: pair[1])
        ratio = area(tables[own]) / max(peer_area, 1e-9)
        table.add_row(
            group,
            str(len(tables[own])),
            f"{area(tables[own]):.3f}",
            f"{peer_area:.3f} {peer}",
            f"{ratio:.2f}",
            f"{behind} of {len(gaps)}",
            f"{worst:+.2f} at {tau:.0e}, {budget}",
        )
    console.print(table)


def print_stops(
    console: Console,
    title: str,
    problems: Sequence[ArenaProblem],
    runs: Mapping[str, Mapping[tuple[str, int], ArenaRun]],
) -> None:
    """When methods stop by themselves, of runs to the end.

    Args:
        console: Where to.
        title: Of the table.
        problems: Counted ones.
        runs: By method, then problem and seed; ratios are to the first method.
    """
    table = Table(title=title, title_justify="left")
    for name in (
        "method",
        "stops itself",
        "median solves then",
        "of the first's",
        "gain left then",
    ):
        table.add_column(name, justify="left" if name == "method" else "right")
    known = {problem.name: problem for problem in problems}
    first = next(iter(runs.values()))
    for method, done in runs.items():
        counted = {key: run for key, run in done.items() if key[0] in known and run.solves}
        if not counted:
            continue
        ended = [run.solves < known[key[0]].max_solves for key, run in counted.items()]
        solves = [run.solves for run in counted.values()]
        ratios = [run.solves / first[key].solves for key, run in counted.items() if key in first]
        gains = [_gain_left(known[key[0]], run) for key, run in counted.items()]
        table.add_row(
            method,
            f"{np.mean(ended):.2f}",
            f"{np.median(solves):.0f}",
            f"{np.median(ratios):.2f}" if ratios else "",
            f"{np.median(gains):.1e}",
        )
    console.print(table)


def _gain_left(problem: ArenaProblem, run: ArenaRun) -> float:
    lowest = smallest_loss(problem)
    return max(run.returned - lowest, 0.0) / (problem.start_loss - lowest)
