"""The columns of a comparison: one list behind the terminal, Markdown, the page and pandas."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, final

from zo_bilevel.comparison.statistics import FEWEST_SEEDS, PairedTest
from zo_bilevel.comparison.summaries import MethodSummary, Quartiles, Reached
from zo_bilevel.run.runs import Run, Target
from zo_bilevel.support.tables import number, percent, spread

if TYPE_CHECKING:
    from zo_bilevel.comparison.comparison import Comparison

Cells: TypeAlias = tuple[tuple[str, ...], ...]


@final
@dataclass(frozen=True, slots=True)
class MethodRow:
    """One method of a comparison, as its columns see it.

    Args:
        summary: Its runs.
        place: From 1, the best first.
        against: How the best method stands against it, where that is known.
    """

    summary: MethodSummary
    place: int
    against: PairedTest | None = None

    @property
    def paired_test(self) -> PairedTest | None:
        """Against the best method, where there are seeds enough."""
        enough = self.against is not None and self.against.num_seeds >= FEWEST_SEEDS
        return self.against if enough else None

    @property
    def is_counted(self) -> bool:
        """Whether any run of it counts."""
        return self.summary.num_runs > 0


@final
@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Args:
        name: In tables; "{target}" stands for the comparison's target.
        value: From a row to its value, `None` where there is none.
        show: From a value to its cell.
        is_short: Whether the terminal shows it; the page shows all but the summary of `reached`.
        is_long: Whether the page shows it.
        needs: Whether a comparison has it at all.
    """

    name: str
    value: Callable[[MethodRow], Any]
    show: Callable[[Any], str] = str
    is_short: bool = True
    is_long: bool = True
    needs: Callable[[Comparison], bool] = lambda _: True


def _has_target(comparison: Comparison) -> bool:
    return comparison.target is not None


def _is_wide(comparison: Comparison) -> bool:
    return comparison.round_width > 1


def _is_cut_short(comparison: Comparison) -> bool:
    return any(run.is_cut_short for run in comparison.runs)


def _has(name: str) -> Callable[[Comparison], bool]:
    return lambda comparison: any(
        getattr(summary, name) is not None for summary in comparison.summaries()
    )


def _counted(name: str) -> Callable[[MethodRow], Any]:
    return lambda row: getattr(row.summary, name) if row.is_counted else None


def _reached(row: MethodRow) -> Reached | None:
    return row.summary.to_target


def _expected_rounds(row: MethodRow) -> float | None:
    rounds = row.summary.rounds_to_target
    return None if rounds is None else rounds.expected


def _show_median(reached: Reached) -> str:
    return f"{reached.median:g}" if math.isfinite(reached.median) else f">{reached.budget}"


def _show_error(error: Quartiles) -> str:
    return f"{percent(error[1])} ({spread(error[0], error[2], 'percent')})"


def _show_probability(test: PairedTest) -> str:
    ends = f"{100 * test.lower:.0f}..{100 * test.upper:.0f}"
    return f"{100 * test.probability:.0f} % ({ends})"


def _cut_short(row: MethodRow) -> str | None:
    count = row.summary.cut_short
    return f"{count} of {row.summary.num_runs}" if count else None


def _show_seconds(summary: MethodSummary) -> str:
    shown = f"{summary.seconds:.2f}"
    return shown if summary.is_timed else f"({shown})"


def _show_feasible(feasible: tuple[int, int, str]) -> str:
    count, runs, how = feasible
    return f"{count} of {runs}" + ("" if how == "kept" else f", {how}")


METHOD_COLUMNS = (
    Column("", lambda row: row.place if row.is_counted else None, is_short=False),
    Column("method", lambda row: row.summary.method),
    Column(
        "reached\n{target}",
        _reached,
        lambda reached: f"{reached.reached} of {len(reached.counts)}",
        is_short=False,
        needs=_has_target,
    ),
    Column(
        "ERT,\nsolves",
        _reached,
        lambda reached: number(reached.expected),
        is_short=False,
        needs=_has_target,
    ),
    Column("median\nsolves", _reached, _show_median, is_short=False, needs=_has_target),
    Column(
        "ERT,\nrounds",
        _expected_rounds,
        number,
        is_short=False,
        needs=lambda c: _has_target(c) and _is_wide(c),
    ),
    Column("median\nloss", lambda row: row.summary.loss, lambda loss: number(loss[1])),
    Column("quartiles", lambda row: row.summary.loss, lambda loss: spread(loss[0], loss[2])),
    Column("feasible", lambda row: row.summary.feasible, _show_feasible, needs=_has("feasible")),
    Column("solves to\n{target}", _reached, is_long=False, needs=_has_target),
    Column(
        "error\n(quartiles)",
        lambda row: row.summary.relative_error,
        _show_error,
        is_long=False,
        needs=_has("relative_error"),
    ),
    Column(
        "held-out\nloss",
        lambda row: row.summary.held_out,
        number,
        is_short=False,
        needs=_has("held_out"),
    ),
    Column("first is\nbetter with", lambda row: row.paired_test, _show_probability, is_short=False),
    Column("p", lambda row: row.paired_test, lambda test: number(test.p_value, 2), is_short=False),
    Column("broke\noff", _cut_short, needs=_is_cut_short),
    Column("solves", _counted("solves"), lambda solves: f"{solves:g}", is_long=False),
    Column("rounds", _counted("rounds"), lambda rounds: f"{rounds:g}", True, False, _is_wide),
    Column("seconds", lambda row: row.summary if row.is_counted else None, _show_seconds),
    Column("failed\nsolves", _counted("failures"), is_short=False),
)
"""Of a method: all its runs together."""


def method_table(
    comparison: Comparison, against: Sequence[PairedTest] = (), *, is_long: bool = False
) -> tuple[tuple[str, ...], Cells]:
    """Header and cells, a row a method, the best first."""
    by_method = {test.second: test for test in against}
    rows = [
        MethodRow(summary, place, by_method.get(summary.method))
        for place, summary in enumerate(comparison.summaries(), start=1)
    ]
    columns = [
        column
        for column in METHOD_COLUMNS
        if (column.is_long if is_long else column.is_short) and column.needs(comparison)
    ]
    header = tuple(column.name.format(target=comparison.target) for column in columns)
    return header, tuple(tuple(_cell(column, row) for column in columns) for row in rows)


def _cell(column: Column, row: MethodRow) -> str:
    value = column.value(row)
    return "-" if value is None else column.show(value)


RUN_COLUMNS: Mapping[str, Callable[[Run], Any]] = {
    "method": lambda run: run.method,
    "seed": lambda run: run.seed,
    "status": lambda run: run.status,
    "loss": lambda run: run.loss,
    "standard_error": lambda run: run.standard_error,
    "held_out_loss": lambda run: run.held_out_loss,
    "relative_error": lambda run: run.relative_error,
    "violation": lambda run: run.violation,
    "solves": lambda run: run.solves,
    "rounds": lambda run: run.rounds,
    "seconds": lambda run: run.seconds,
    "cost": lambda run: run.cost,
    "failed_solves": lambda run: sum(run.failures.values()),
    "stop_reason": lambda run: run.ending,
}
"""Of one run."""


def run_values(run: Run, target: Target | None) -> dict[str, Any]:
    """One run by column, its single-valued meta-parameters last."""
    values = {name: value(run) for name, value in RUN_COLUMNS.items()}
    if target is not None:
        values["solves_to_target"] = run.solves_to(target)
    single = {n: value for n, value in run.phi.items() if not getattr(value, "shape", ())}
    names = apart_from(values, single)
    return values | dict(zip(names, single.values(), strict=True))


def apart_from(taken: Iterable[str], names: Iterable[str]) -> list[str]:
    """Names of meta-parameters as columns: `phi.loss` beside a column `loss`.

    Example:
        >>> apart_from(["loss", "solves"], ["nu", "loss"])
        ['nu', 'phi.loss']
    """
    others = set(taken)
    return [f"phi.{name}" if name in others else name for name in names]
