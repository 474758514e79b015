"""The scores as one HTML page: data profiles of every group, both halves where both were run."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.arena.case import Half
from benchmarks.arena.problem import FloatArray
from benchmarks.arena.scores import AREA_GROUPS, BUDGETS, TAUS, area, profile, shares

COLORS, IN_A_ROW = 10, 8
"""Colours that matplotlib has, and names in a row of a legend."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)))
"""Seven of them beside ten colours: 70 methods look different."""
Tables = Mapping[str, FloatArray]
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "td,th{padding:.1rem .6rem;text-align:right}"
    "td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}div{overflow-x:auto}"
    "tr.first td{border-top:1px solid #bbb}td.top{font-weight:700}svg{width:100%;height:auto}"
)


def write_page(file: Path, halves: Mapping[Half, Mapping[str, Tables]]) -> None:
    """Write the page.

    Args:
        file: Where to.
        halves: By half, then group, then method: groups to solve, see `scores.share_table`.
    """
    parts = [
        '<!doctype html><html lang="en"><meta charset=utf-8><title>Arena</title>',
        '<meta name=viewport content="width=device-width">',
        f"<style>{STYLE}</style><h1>Arena: share of problems solved</h1>",
        "<p>Solved to tau: at most that share of the possible gain is left, without noise. "
        "Columns and axes count groups of N + 1 solves. (Moré and Wild, 2009.) Bold: the best at "
        "a tau. Area: the mean share over the axis of the figure, evenly in its logarithm.</p>",
    ]
    for half, groups in halves.items():
        parts.append(f"<h2>Half: {html.escape(half)}</h2>")
        for group, tables in groups.items():
            count = max(len(table) for table in tables.values())
            parts.append(f"<h3>{html.escape(group)}, {count} runs a method</h3>")
            parts += [_figure(tables), _html_table(tables)]
    file.write_text("\n".join(parts), encoding="utf-8")


def _figure(tables: Tables) -> str:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(TAUS), figsize=(15, 3.2), sharey=True)
    for place, (tau, axis) in enumerate(zip(TAUS, axes, strict=True)):
        for index, (name, table) in enumerate(tables.items()):
            if table.size:
                axis.step(
                    AREA_GROUPS,
                    profile(table[:, place]),
                    label=name,
                    linewidth=2.2 if index == 0 else 1.3,
                    color=f"C{index % COLORS}",
                    linestyle=DASHES[index % len(DASHES)],
                )
        axis.set(xscale="log", title=f"tau = {tau:.0e}", ylim=(0, 1.02), xlim=AREA_GROUPS[[0, -1]])
        axis.set_xlabel("groups of N + 1 solves")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share solved")
    lines, names = axes[0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.05 + 0.06 * math.ceil(len(names) / IN_A_ROW), 1, 1))
    figure.legend(lines, names, loc="lower center", ncols=IN_A_ROW, frameon=False)
    text = io.StringIO()
    figure.savefig(text, format="svg")
    pyplot.close(figure)
    return text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]


def _html_table(tables: Tables) -> str:
    head = "".join(f"<th>{budget}</th>" for budget in BUDGETS)
    rows = [f"<div><table><tr><th>tau</th><th>method</th>{head}<th>area</th></tr>"]
    found = {name: shares(table) for name, table in tables.items() if table.size}
    for place, tau in enumerate(TAUS):
        top = np.max([share[place] for share in found.values()], axis=0)
        areas = {name: area(tables[name][:, [place]]) for name in found}
        for row, (name, share) in enumerate(found.items()):
            cells = "".join(
                f"<td{' class=top' if value >= best else ''}>{value:.2f}</td>"
                for value, best in zip(share[place], top, strict=True)
            )
            best_area = " class=top" if areas[name] >= max(areas.values()) else ""
            first = " class=first" if row == 0 else ""
            rows.append(
                f"<tr{first}><td>{tau:.0e}</td><td>{html.escape(name)}</td>{cells}"
                f"<td{best_area}>{areas[name]:.3f}</td></tr>"
            )
    return "".join([*rows, "</table></div>"])
