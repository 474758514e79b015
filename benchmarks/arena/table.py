"""The scores as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.arena.problem import FloatArray
from benchmarks.arena.scores import BUDGETS, TAUS, area, shares

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


def print_summary(
    console: Console, own: str, peers: Sequence[str], groups: Mapping[str, Mapping[str, FloatArray]]
) -> None:
    """How a method stands against the best peer of each cell and in the area.

    Args:
        console: Where to.
        own: The method.
        peers: Those it is held against.
        groups: By group, groups to solve by method.
    """
    table = Table(title=f"{own} against the best peer of each cell", title_justify="left")
    for name in ("group", "runs", "area", "best peer's", "ratio", "behind by > 0.02", "worst cell"):
        table.add_column(name, justify="left" if name == "group" else "right")
    for group, tables in groups.items():
        rivals = {name: tables[name] for name in peers if name in tables and tables[name].size}
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
