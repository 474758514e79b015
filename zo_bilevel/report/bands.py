"""Medians with their bands as plain data of a chart."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from zo_bilevel.comparison.bands import Quantity, band
from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.run.runs import Axis
from zo_bilevel.support.arrays import FloatArray

Chart: TypeAlias = dict[str, Any]

CHART_DIGITS = 6
BY_TITLES: Mapping[Axis, str] = {
    "solves": "solves",
    "rounds": "rounds (solves at once count as one)",
    "seconds": "seconds of wall-clock time",
}


def plain_number(value: float) -> float | None:
    """A number for JSON with as many digits as a screen can show; `None` unless finite."""
    return float(f"{value:.{CHART_DIGITS}g}") if math.isfinite(value) else None


def plain_numbers(values: Sequence[float] | FloatArray) -> list[float | None]:
    """The same for many."""
    return [plain_number(float(value)) for value in values]


def band_chart(comparison: Comparison, by: Axis, quantity: Quantity, *, is_log: bool) -> Chart:
    """Median and quartiles of a quantity, one line for each method that found something."""
    lines = []
    for method in comparison.methods:
        runs = [run for run in comparison.runs_of(method) if run.is_counted]
        found = band(runs, by, quantity) if runs else None
        if found is None or not np.isfinite(found.median).any():
            continue
        parts = {"x": found.positions, "y": found.median, "low": found.lower, "high": found.upper}
        lines.append({"method": method, **{k: plain_numbers(v) for k, v in parts.items()}})
    if is_log:
        _lift(lines)
    return {
        "x": {"title": BY_TITLES[by], "type": "log"},
        "y": {"title": "", "type": "log" if is_log else "linear"},
        "lines": lines,
        "levels": [],
        "is_step": True,
    }


def _lift(lines: list[dict[str, Any]]) -> None:
    """Zeros get a tenth of the smallest positive value, or a logarithmic axis would lose them."""
    values = [v for line in lines for k in ("y", "low", "high") for v in line[k] if v]
    floor = min((v for v in values if v > 0), default=1.0) / 10
    for line in lines:
        for part in ("y", "low", "high"):
            line[part] = [None if v is None else max(v, floor) for v in line[part]]
