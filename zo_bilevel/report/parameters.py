"""Charts of the parameters found, beside the truth where it is known."""

import math
from typing import Any

import numpy as np

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.report.bands import Chart, band_chart, plain_numbers
from zo_bilevel.run.runs import Improvement
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.tables import number

MOST_PARAMETER_CHARTS = 4
MOST_FIELD_VALUES = 2000


def parameter_charts(comparison: Comparison) -> dict[str, Chart]:
    """A chart for each parameter, where there are few or they are fields."""
    found = {f"parameter-{n}": parameter_chart(comparison, n) for n in single_names(comparison)}
    return found | {f"field-{n}": field_chart(comparison, n) for n in field_names(comparison)}


def single_names(comparison: Comparison) -> list[str]:
    """Parameters that are single numbers, when there are few."""
    steps = (step for run in comparison.runs for step in run.improvements[:1])
    values = next((step.values for step in steps), {})
    names = [n for n, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)]
    return names if len(names) <= MOST_PARAMETER_CHARTS else []


def parameter_chart(comparison: Comparison, name: str) -> Chart:
    """One parameter at the best point so far, against solves."""

    def value(step: Improvement) -> float:
        found = step.values.get(name)
        return math.inf if found is None else float(found)

    chart = band_chart(comparison, "solves", value, is_log=name in comparison.log_parameters)
    chart["title"] = f"{name} found"
    chart["y"]["title"] = name
    truth = (comparison.truth or {}).get(name)
    if isinstance(truth, int | float):
        chart["levels"] = [{"y": float(truth), "label": f"truth {number(float(truth))}"}]
    return chart


def field_names(comparison: Comparison) -> list[str]:
    """Parameters that are lines of numbers."""
    phi = next((run.phi for run in comparison.runs if run.phi), {})
    arrays = {name: np.asarray(value) for name, value in phi.items()}
    return [
        name
        for name, array in arrays.items()
        if array.ndim == 1 and array.dtype.kind in "fi" and 1 < array.size <= MOST_FIELD_VALUES
    ][:MOST_PARAMETER_CHARTS]


def field_chart(comparison: Comparison, name: str) -> Chart:
    """A field found by the median run of each method, beside the truth."""
    lines = []
    for method in comparison.methods:
        runs = [r for r in comparison.runs_of(method) if r.is_counted and name in r.phi]
        if runs:
            middle = sorted(runs, key=lambda run: run.loss)[(len(runs) - 1) // 2]
            values = np.asarray(middle.phi[name], dtype=float)
            lines.append({"method": method, **_indexed(values)})
    truth = (comparison.truth or {}).get(name)
    if truth is not None and lines:
        lines.insert(0, {"method": "truth", **_indexed(np.asarray(truth, dtype=float))})
    return {
        "title": f"{name} found by the median run of each method",
        "x": {"title": "index", "type": "linear"},
        "y": {"title": name, "type": "linear"},
        "lines": lines,
        "levels": [],
        "is_step": False,
    }


def _indexed(values: FloatArray) -> dict[str, Any]:
    return {"x": list(range(values.size)), "y": plain_numbers(values)}
