"""What the solves of a run were: losses in their order, and along each parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from zo_bilevel.problem.constraints import FEASIBLE_VIOLATION
from zo_bilevel.problem.parameters import Log
from zo_bilevel.report.figures import COLOURS
from zo_bilevel.run.result import Record, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw: TypeAlias = Callable[["Axes"], None]

MOST_SLICES = 4
"""Parameters whose values are drawn against the loss where there are no data."""
FIT, LOST = COLOURS[:2]


def dressed(
    panel: Axes, title: str, across: str = "", up: str = "", *, is_log: bool = False
) -> None:
    """Give a panel its title, labels and grid."""
    if is_log:
        panel.set_xscale("log")
    panel.set_title(title, fontsize=11)
    panel.set_xlabel(across)
    panel.set_ylabel(up)
    panel.grid(visible=True, color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def convergence(panel: Axes, result: Result) -> None:
    """The loss of each solve, and the best so far."""
    solved = [record for record in result.history if record.status == "ok"]
    ok = [record for record in solved if record.violation <= FEASIBLE_VIOLATION]
    broken = [record for record in solved if record.violation > FEASIBLE_VIOLATION]
    failed = [record.solve for record in result.history if record.status != "ok"]
    losses = np.array([record.loss for record in solved])
    best = [(r.solve, r.best_loss) for r in result.history if math.isfinite(r.best_loss)]
    if losses.size and losses.min() > 0:
        panel.set_yscale("log")
    panel.plot(*_points(ok), ".", color="#aaaaaa", ms=4, label="solves")
    if broken:
        panel.plot(*_points(broken), "o", mfc="none", color=LOST, ms=4, label="break constraints")
    if best:  # none where no solve kept the constraints
        panel.step(*zip(*best, strict=True), where="post", color=FIT, lw=1.6, label="best so far")
    if failed:
        height = np.ones(len(failed))
        where = panel.get_xaxis_transform()
        panel.plot(failed, height, "x", color=LOST, ms=5, transform=where, label="failed")
    panel.legend(frameon=False, fontsize=8)
    dressed(panel, "Convergence", "solves", "loss")


def _points(records: list[Record]) -> tuple[list[int], list[float]]:
    return [record.solve for record in records], [record.loss for record in records]


def slices(result: Result) -> list[Draw]:
    """The loss against each parameter, of all solves, where there are no data to draw."""
    free = result.phi if result.space is None else result.space.parameters
    names = [name for name in free if not np.shape(result.phi[name])][:MOST_SLICES]
    ok = [r for r in result.history if r.status == "ok" and r.phi]

    def draw(panel: Axes, name: str) -> None:
        tried = [record.phi[name] for record in ok]
        is_number = all(isinstance(value, int | float) for value in tried)
        across = tried if is_number else [str(value) for value in tried]
        losses = np.array([record.loss for record in ok])
        if losses.size and losses.min() > 0:
            panel.set_yscale("log")
        edges = [LOST if record.violation > FEASIBLE_VIOLATION else "none" for record in ok]
        order = [record.solve for record in ok]
        panel.scatter(across, losses, c=order, cmap="Blues", s=14, vmin=-len(ok), edgecolors=edges)
        found = result.phi[name] if is_number else str(result.phi[name])
        panel.plot([found], [result.loss], "*", color=LOST, ms=11)
        if isinstance(free[name], Log):
            panel.set_xscale("log")
        dressed(panel, f"Solves along {name}", name, "loss")

    return [partial(draw, name=name) for name in names]
