"""Figures of a comparison: medians and quartiles against solves.

Figures are made without pyplot, so that no global state of matplotlib is touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zo_bilevel.comparison.bands import Band, Quantity, band
from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.run.runs import Improvement
from zo_bilevel.support.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart with any colour vision: Okabe and Ito, "Color Universal Design", 2008, without
its yellow, which is too faint for lines."""
LINE_STYLES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
FIGURE_SUFFIXES = (".pdf", ".png", ".svg")
DOTS_PER_INCH = 150


def check_plot_path(path: str | Path) -> Path:
    """Refuse a figure that could not be written, before anything is paid for.

    Raises:
        MissingPackageError: If matplotlib is not installed.
        InputError: If the suffix is no known format or the folder does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise InputError(f"plot must end in {', '.join(FIGURE_SUFFIXES)}, got {str(path)!r}")
    if not path.parent.is_dir():
        raise InputError(f"plot must lie in a folder that exists, got {str(path)!r}")
    try:
        import matplotlib.figure  # noqa: F401 - only asked whether it is there
    except ImportError as error:
        raise MissingPackageError(
            'plots need matplotlib: pip install "zo-bilevel[plot]"'
        ) from error
    return path


def plot_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Draw a comparison to a file.

    Raises:
        MissingPackageError: If matplotlib is not installed.
        InputError: If the path cannot be used, or no run found anything.
    """
    path = check_plot_path(path)
    comparison_figure(comparison).savefig(path, dpi=DOTS_PER_INCH)
    return path


def comparison_figure(comparison: Comparison) -> Figure:
    """Draw a comparison: the loss, and beside it the parameter or its error where known.

    Raises:
        InputError: If no run found anything.
    """
    second = _second_panel(comparison)
    count = len(comparison.seeds)
    over = f": median and quartiles of {count} seeds" if count > 1 else ""
    figure, panels = make_figure(1 if second is None else 2, f"{comparison.problem}{over}")
    draw_loss(panels[0], comparison)
    if second is not None:
        second(panels[1], comparison)
    add_legend(figure, panels[0])
    return figure


def make_figure(num_panels: int, title: str) -> tuple[Figure, list[Axes]]:
    """An empty figure of panels side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 4.5 * num_panels, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13)
    return figure, list(figure.subplots(1, num_panels, squeeze=False)[0])


def add_legend(figure: Figure, panel: Axes) -> None:
    """One legend for all panels, below them."""
    handles, labels = panel.get_legend_handles_labels()
    columns = max(1, min(len(labels), 2 * len(figure.axes) + 1))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def draw_loss(panel: Axes, comparison: Comparison) -> None:
    """Best loss so far against solves; `InputError` if no run found anything."""
    losses = [step.true_loss for run in comparison.runs for step in run.improvements]
    if not losses:
        raise InputError(f"nothing to plot: no run on {comparison.problem} found anything")
    draw_curves(panel, comparison, attrgetter("true_loss"), is_log=min(losses) >= 0)
    panel.set_ylabel("best loss so far")
    if comparison.target is not None and comparison.target.quantity == "loss":
        mark(panel, comparison.target.level, "target")


def draw_error(panel: Axes, comparison: Comparison, target: str = "target") -> None:
    """Relative error of the best point so far against solves, in per cent."""
    draw_curves(panel, comparison, attrgetter("error_in_percent"), is_log=True)
    panel.set_ylabel("relative error of the parameters, %")
    if comparison.target is not None and comparison.target.quantity == "relative error":
        mark(panel, 100 * comparison.target.level, target, " %")


def draw_parameter(panel: Axes, comparison: Comparison) -> None:
    """The one parameter at the best point so far against solves."""
    name = _only_parameter(comparison)

    def value(step: Improvement) -> float:
        return float(step.values[name])

    draw_curves(panel, comparison, value, is_log=name in comparison.log_parameters)
    panel.set_ylabel(f"{name} found")
    if comparison.truth and name in comparison.truth:
        mark(panel, float(comparison.truth[name]), "truth")


def draw_curves(panel: Axes, comparison: Comparison, quantity: Quantity, *, is_log: bool) -> None:
    """Median and quartiles of a quantity over the seeds, one line for each method."""
    bands = {}
    for method in comparison.methods:
        runs = [run for run in comparison.runs_of(method) if run.improvements]
        bands[method] = band(runs, "solves", quantity)
    floor = _smallest_positive(bands.values()) / 10 if is_log else -math.inf
    for index, (method, found) in enumerate(bands.items()):
        if found is None or not np.isfinite(found.median).any():
            panel.plot([], [], color="#999999", label=f"{method} (no result)")
            continue
        solves = np.append(found.positions, comparison.max_solves)
        parts = (np.append(part, part[-1]) for part in (found.lower, found.median, found.upper))
        colour, line = COLOURS[index % len(COLOURS)], LINE_STYLES[index % len(LINE_STYLES)]
        low, middle, high = (np.maximum(part, floor) for part in parts)
        panel.fill_between(solves, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
        panel.step(
            solves, middle, where="post", color=colour, linestyle=line, linewidth=1.8, label=method
        )
    if is_log:
        panel.set_yscale("log")
    _dress_solves(panel, comparison.max_solves)


def _dress_solves(panel: Axes, max_solves: int) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_xscale("log")
    panel.set_xlim(1, max(max_solves, 2))
    if max_solves < 1000:
        panel.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("solves")
    panel.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def mark(panel: Axes, level: float, label: str, unit: str = "") -> None:
    """Mark a known level by a thin line with its name.

    Args:
        panel: Where to draw.
        level: Its height; not drawn when a logarithmic axis cannot show it.
        label: What it is.
        unit: Written after its height.
    """
    if panel.get_yscale() == "log" and level <= 0:
        return
    panel.axhline(level, color="#555555", linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
    panel.annotate(
        f"{label} {level:.3g}{unit}",
        xy=(0.01, level),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8,
        color="#444444",
    )


def _second_panel(comparison: Comparison) -> Callable[[Axes, Comparison], None] | None:
    if _only_parameter(comparison):
        return draw_parameter
    steps = [step for run in comparison.runs for step in run.improvements]
    return draw_error if any(step.relative_error is not None for step in steps) else None


def _only_parameter(comparison: Comparison) -> str:
    """Name of the one parameter, when there is one and it is a number; else nothing."""
    run = next((run for run in comparison.runs if run.improvements), None)
    if run is None or len(run.phi) != 1:
        return ""
    name, value = next(iter(run.phi.items()))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return name if is_number and name in run.improvements[0].values else ""


def _smallest_positive(bands: Iterable[Band | None]) -> float:
    tables = [np.stack([b.lower, b.median, b.upper]) for b in bands if b is not None]
    return min((float(v) for table in tables for v in table.ravel() if v > 0), default=1.0)
