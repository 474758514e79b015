"""The figure of one result: data and fit, residuals, convergence, parameters, correlations."""

from __future__ import annotations

import base64
import io
import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit

from zo_bilevel.problem.objectives.robust_error import RobustError
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.report.figures import COLOURS, DOTS_PER_INCH, check_plot_path
from zo_bilevel.report.solve_panels import FIT, Draw, convergence, dressed, slices
from zo_bilevel.run.confidence import Uncertainty, block_names
from zo_bilevel.run.fit import linearised
from zo_bilevel.run.result import Result
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.tables import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFIDENCE_LEVEL = 0.95
MOST_BARS, MOST_CORRELATED, MOST_WRITTEN = 15, 40, 8
"""Parameters drawn one a row; in the matrix of correlations; whose correlations are written."""
MOST_LINEAR = 300.0
"""Positions of outputs that span more than this factor are drawn on a logarithmic axis."""
MOST_RANGE, MOST_PANELS = 8.0, 4
"""Parts of the target have panels of their own where all span so many times what one spans."""
DATA = "#444444"


def result_figure(
    result: Result,
    path: str | os.PathLike[str] | None = None,
    *,
    x: Any = None,  # noqa: ANN401 - whatever numpy takes
    uncertainty: Uncertainty | None = None,
) -> Figure:
    """Draw a result; see `Result.plot`."""
    file = None if path is None else check_plot_path(os.fspath(path))
    known = known_uncertainty(result) if uncertainty is None else uncertainty
    panels = [*_data_panels(result, known, x), lambda panel: convergence(panel, result)]
    if not panels[1:]:
        panels += slices(result)
    if result.space is not None:
        panels.append(lambda panel: _parameters(panel, result, known))
    if known is not None and 1 < len(known.names) <= MOST_CORRELATED:
        panels.append(lambda panel: _correlations(panel, known))
    figure = _drawn(panels)
    if file is not None:
        figure.savefig(file, dpi=DOTS_PER_INCH)
    return figure


def drawn_result(result: Result, **options: Any) -> str:  # noqa: ANN401 - of `result_figure`
    """The figure as an SVG in base64."""
    drawn = io.BytesIO()
    result_figure(result, **options).savefig(drawn, format="svg")
    return base64.b64encode(drawn.getvalue()).decode("ascii")


def known_uncertainty(result: Result) -> Uncertainty | None:
    """What the run itself knew of it, at no solve; `None` where it was not sure."""
    if result.space is None:
        return None
    theta = flatten_theta(result.theta)[0]
    fit = linearised(result.space, result.objective, result.slopes, result.x, theta)
    return fit.uncertainty() if fit is not None and fit.is_sure else None


def _drawn(panels: list[Draw]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, draw in enumerate(panels, start=1):
        panel = figure.add_subplot(rows, columns, place)
        draw(panel)
    return figure


def _data_panels(result: Result, known: Uncertainty | None, x: Any) -> list[Draw]:  # noqa: ANN401
    if result.objective is None:
        return []
    data = result.objective
    data = data.squares if isinstance(data, RobustError) else data
    theta = flatten_theta(result.theta)[0]
    across = np.arange(1.0, theta.size + 1) if x is None else data.lined_up("x", x)
    label = "output" if x is None else "x"
    is_log = bool(across.min() > 0 and across.max() > MOST_LINEAR * across.min() and x is not None)
    used = np.flatnonzero(data.weights > 0)

    def draw_fit(panel: Axes, shown: list[tuple[str, Any]]) -> None:
        seen = np.intersect1d(used, np.concatenate([part for _, part in shown]))
        panel.plot(across[seen], data.target[seen], ".", color=DATA, ms=4, label="data", zorder=2)
        bands = _bands(data, known)
        for k, (name, part) in enumerate(shown):
            order = part[np.argsort(across[part], kind="stable")]
            colour = COLOURS[k % len(COLOURS)]
            panel.plot(across[order], theta[order], color=colour, lw=1.4, label=name, zorder=3)
            for half, alpha, words in bands:
                low, high = theta[order] - half[order], theta[order] + half[order]
                said = "" if k else words
                panel.fill_between(
                    across[order], low, high, color=colour, alpha=alpha, lw=0, label=said
                )
        panel.legend(frameon=False, fontsize=8)
        own = "" if len(shown) == len(_parts(data)) else f": {shown[0][0]}"
        dressed(panel, f"Data and fit{own}", label, is_log=is_log)

    def draw_residuals(panel: Axes) -> None:
        scaled = (np.sqrt(data.precisions) * (data.target - theta))[used]
        freedom = used.size - (0 if known is None else len(known.names))
        deviation = math.sqrt(float(scaled @ scaled) / max(freedom, 1)) or 1.0
        deviation = 1.0 if data.is_absolute else deviation
        panel.axhspan(-2, 2, color="#eeeeee", zorder=0)
        panel.axhline(0, color="#999999", lw=1.0)
        shown = np.full(theta.size, np.nan)
        shown[used] = scaled / deviation
        parts = _parts(data)
        for k, (_, part) in enumerate(parts):
            colour = COLOURS[k % len(COLOURS)] if len(parts) > 1 else DATA
            panel.plot(across[part], shown[part], ".", color=colour, ms=4)
        up = f"(data - fit) / {'sigma given' if data.is_absolute else 'standard deviation'}"
        dressed(panel, "Residuals", label, up, is_log=is_log)

    fits = [partial(draw_fit, shown=shown) for shown in _panels(data, theta)]
    return [*fits, draw_residuals]


def _panels(data: SquaredError, theta: FloatArray) -> list[list[tuple[str, Any]]]:
    """The parts of the target that are drawn together: all, or each where their sizes differ."""
    parts = _parts(data)
    ranges = [r for _, part in parts if (r := float(np.ptp(theta[part]))) > 0]
    differ = ranges and float(np.ptp(theta)) > MOST_RANGE * min(ranges)
    return [[part] for part in parts] if differ and len(parts) <= MOST_PANELS else [parts]


def _parts(data: SquaredError) -> list[tuple[str, Any]]:
    """The places of each named part of the target, in the flat one."""
    sizes = [math.prod(shape) for shape in data.layout.shapes]
    places = np.split(np.arange(data.target.size), np.cumsum(sizes)[:-1])
    return list(zip(data.layout.names or ("fit",), places, strict=True))


def _bands(data: SquaredError, known: Uncertainty | None) -> list[tuple[FloatArray, float, str]]:
    """Half widths of intervals, `(m,)`, how dark they are, and what they are called."""
    if known is None:
        return []
    reach = stdtrit(known.degrees_of_freedom, 0.5 + CONFIDENCE_LEVEL / 2)
    fitted = known.fitted_deviations()
    measured = np.hypot(np.sqrt(known.variances), fitted)
    measured = np.where(data.weights > 0, measured, np.nan)
    return [
        (reach * measured, 0.12, "95 % of measurements"),
        (reach * fitted, 0.35, "95 % of the fit"),
    ]


def _parameters(panel: Axes, result: Result, known: Uncertainty | None) -> None:
    if known is not None and len(known.names) <= MOST_BARS:
        return _error_bars(panel, known)
    return _places(panel, result, known)


def _error_bars(panel: Axes, known: Uncertainty) -> None:
    """Intervals in per cent of each parameter; grey from end to end where it is not determined."""
    sizes = np.where(known.values != 0, np.abs(known.values), 1.0)
    ends = np.stack(known.flat_intervals(CONFIDENCE_LEVEL)) - known.values
    is_open = np.isinf(known.deviations)
    share = np.where(is_open, [[-np.inf], [np.inf]], 100 * ends / sizes)
    end = 1.3 * min(max(np.abs(share[np.isfinite(share)]), default=100.0), 100.0)
    heights = np.arange(is_open.size)[::-1]
    drawn = np.clip(share, -2 * end, 2 * end)
    panel.hlines(heights, *drawn, color=np.where(is_open, "#cccccc", FIT), lw=3)
    panel.plot(np.zeros(heights.size), heights, "o", color=FIT, ms=5)
    for name, value, error, height in zip(
        known.names, known.values, known.deviations, heights, strict=True
    ):
        found = f"± {number(error, 3)}" if math.isfinite(error) else "is not determined"
        text = f"{name} = {number(value, 5)} {found}"
        panel.annotate(text, (-end, height), (2, 6), textcoords="offset points", fontsize=8)
    panel.set_yticks([])
    panel.set_xlim(-end, end)
    panel.set_ylim(-0.6, heights.size - 0.3)
    dressed(panel, "Parameters, 95 % intervals", "deviation, % of the value")


def _places(panel: Axes, result: Result, known: Uncertainty | None) -> None:
    """Where each number lies within its bounds, with its interval where that is known."""
    space = result.space
    assert space is not None  # noqa: S101 - asked before
    places = np.flatnonzero(~space.is_choice)
    width = (space.upper - space.lower)[places]
    share = (result.x - space.lower)[places] / width
    across = np.arange(1, places.size + 1)
    if known is not None:
        factor = stdtrit(known.degrees_of_freedom, 0.5 + CONFIDENCE_LEVEL / 2)
        reach = factor * known.deviations / np.abs(space.rates(result.x)) / width
        low, high = np.clip(share - reach, 0, 1), np.clip(share + reach, 0, 1)
        panel.fill_between(across, low, high, color=FIT, alpha=0.25, lw=0)
    panel.plot(across, share, ".-" if places.size > MOST_BARS else "o", color=FIT, lw=1.0)
    if places.size <= MOST_BARS:
        names = [n for b in space.blocks for n in block_names(b) if not space.is_choice[b.start]]
        panel.set_xticks(across, names, rotation=45, ha="right", fontsize=8)
    panel.set_ylim(-0.03, 1.03)
    dressed(panel, "Parameters", "", "place within the bounds")


def _correlations(panel: Axes, known: Uncertainty) -> None:
    count, matrix = len(known.names), known.correlation
    picture = panel.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    panel.figure.colorbar(picture, ax=panel, shrink=0.8)
    if count <= MOST_BARS:
        panel.set_xticks(range(count), known.names, rotation=45, ha="right", fontsize=8)
        panel.set_yticks(range(count), known.names, fontsize=8)
    for row, column in np.ndindex(matrix.shape) if count <= MOST_WRITTEN else ():
        value = matrix[row, column]
        if math.isfinite(value):
            colour = "white" if abs(value) > 0.6 else "black"
            text = f"{value:.2f}"
            panel.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    panel.set_title("Correlations", fontsize=11)
