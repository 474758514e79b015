"""The charts of a report as plain data: what to draw, not how.

The page's script turns them into plotly figures in the colours of the reader's theme, so that
this file knows nothing about colours. A chart is a dict with `title`, `x` and `y` (axis titles and
kinds), `lines` (one a method, with its band where it has one), `levels` (marked heights).
"""

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.comparison.profiles import Case, Profile, data_profiles, performance_profiles
from zo_bilevel.report.bands import BY_TITLES, Chart, band_chart, plain_numbers
from zo_bilevel.report.parameters import parameter_charts
from zo_bilevel.run.runs import Axis, Run, Target
from zo_bilevel.support.tables import number, percent

PROFILE_TAU = 1e-3


def charts_of(comparison: Comparison) -> dict[str, Chart]:
    """Every chart of one comparison, by a short name."""
    found = {f"loss-{by}": loss_chart(comparison, by) for by in axes_of(comparison)}
    if any(step.relative_error is not None for r in comparison.runs for step in r.improvements):
        found["error"] = error_chart(comparison)
    if comparison.target is not None:
        found |= {f"reached-{by}": reached_chart(comparison, by) for by in shared_axes(comparison)}
    found |= parameter_charts(comparison)
    return {name: chart for name, chart in found.items() if chart["lines"]}


def axes_of(comparison: Comparison) -> tuple[Axis, ...]:
    """What runs are counted in; rounds only where they are not the same as solves."""
    return (*shared_axes(comparison), "seconds")


def shared_axes(comparison: Comparison) -> tuple[Axis, ...]:
    """The same without seconds."""
    return ("solves", "rounds") if comparison.round_width > 1 else ("solves",)


def loss_chart(comparison: Comparison, by: Axis) -> Chart:
    """Best loss so far, median and quartiles."""
    losses = [step.true_loss for run in comparison.runs for step in run.improvements]
    chart = band_chart(
        comparison, by, attrgetter("true_loss"), is_log=all(loss >= 0 for loss in losses)
    )
    chart["title"] = f"Loss against {by}"
    chart["y"]["title"] = "best loss so far"
    target = comparison.target
    if target is not None and target.quantity == "loss":
        chart["levels"] = [{"y": target.level, "label": f"target {number(target.level)}"}]
    return chart


def error_chart(comparison: Comparison) -> Chart:
    """Relative error of the best point so far, in per cent."""
    chart = band_chart(comparison, "solves", attrgetter("error_in_percent"), is_log=True)
    chart["title"] = "Error of the parameters against solves"
    chart["y"]["title"] = "relative error, %"
    target = comparison.target
    if target is not None and target.quantity == "relative error":
        label = f"target {percent(target.level)}"
        chart["levels"] = [{"y": 100 * target.level, "label": label}]
    return chart


def reached_chart(comparison: Comparison, by: Axis) -> Chart:
    """Share of the runs that have reached the target."""
    lines = []
    for method in comparison.methods:
        runs = [run for run in comparison.runs_of(method) if run.is_counted]
        if runs and comparison.target is not None:
            lines.append({"method": method, **_share_reached(runs, comparison.target, by)})
    return {
        "title": f"Runs that reached the target, against {by}",
        "x": {"title": BY_TITLES[by], "type": "log"},
        "y": {"title": f"share of runs at {comparison.target}", "type": "share"},
        "lines": lines,
        "levels": [],
        "is_step": True,
    }


def _share_reached(runs: Sequence[Run], target: Target, by: Axis) -> dict[str, Any]:
    counts = sorted(
        run.solves_to(target) if by == "solves" else run.rounds_to(target) for run in runs
    )
    reached = [count for count in counts if math.isfinite(count)]
    end = max(float(getattr(run, by)) for run in runs)
    x = [1.0, *reached, max(end, *reached, 1.0)]
    y = [0.0, *((k + 1) / len(runs) for k in range(len(reached))), len(reached) / len(runs)]
    return {"x": plain_numbers(x), "y": plain_numbers(y)}


def profile_charts(
    cases: Sequence[Case], methods: Sequence[str], by: Axis = "solves", tau: float = PROFILE_TAU
) -> dict[str, Chart]:
    """A data profile and a performance profile."""
    unit = "solves / (N + 1)" if by == "solves" else by
    spent = [
        float(getattr(run, by)) / (case.size + 1 if by == "solves" else 1)
        for case in cases
        for run in case.runs
    ]
    return {
        f"data-profile-{by}": _profile_chart(
            f"Data profile over {len(cases)} runs by {by}, tau = {tau:g}",
            unit,
            data_profiles(cases, methods, tau, by),
            max(spent, default=1.0),
        ),
        f"performance-profile-{by}": _profile_chart(
            f"Performance profile over {len(cases)} runs by {by}, tau = {tau:g}",
            f"times the fewest {by} of any method",
            performance_profiles(cases, methods, tau, by),
            2.0,
        ),
    }


def _profile_chart(title: str, x_title: str, profiles: Sequence[Profile], end: float) -> Chart:
    """The profiles as steps that go on at least to `end`."""
    first = min((p.positions[0] for p in profiles if p.positions), default=1.0)
    last = max([end, *(p.positions[-1] for p in profiles if p.positions)])
    lines = [
        {
            "method": p.method,
            "x": plain_numbers([first, *p.positions, last]),
            "y": plain_numbers([p.at(first), *p.shares, p.shares[-1] if p.shares else 0.0]),
        }
        for p in profiles
    ]
    return {
        "title": title,
        "x": {"title": x_title, "type": "log"},
        "y": {"title": "share of problems solved", "type": "share"},
        "lines": lines,
        "levels": [],
        "is_step": True,
    }


def run_chart(run: Run) -> dict[str, Any]:
    """The curve of one run, for its drill-down."""
    solves, losses = run.curve()
    return {"method": run.method, "x": plain_numbers(solves), "y": plain_numbers(losses)}
