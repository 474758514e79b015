"""What goes on in a store at this moment, as tables: solves that run, and those that failed."""

from typing import Final

from zo_bilevel.store.abstract import ROWS_AT_ONCE, AbstractStore
from zo_bilevel.store.queue.activity import activity_of
from zo_bilevel.store.records import RUNNING
from zo_bilevel.support.tables import Grid

MOST_ROWS: Final = 50
MOST_FAILURES: Final = 10
MOST_ERROR: Final = 300


def activity_tables(store: AbstractStore) -> list[Grid]:
    """Solves that run, with workers and ages; the last failures of runs that have not ended."""
    return [*_running(store), *_failures(store)]


def _running(store: AbstractStore) -> list[Grid]:
    found = activity_of(store)
    if found is None:
        return []
    rows = tuple(
        (solve.problem, solve.worker, _age(solve.age), str(solve.claims))
        for solve in found.solves[:MOST_ROWS]
    )
    note = f"{found.waiting} wait for a worker; {found.workers} workers, {found.runs} runs"
    title = f"{len(found.solves)} solves run"
    return [Grid(title, ("problem", "worker", "for", "taken by"), rows, (note,), labels=2)]


def _failures(store: AbstractStore) -> list[Grid]:
    rows: list[tuple[str, ...]] = []
    for run in store.records():
        if run.status != RUNNING:
            continue
        numbers = [number for number, *_ in store.index(run.number)][-ROWS_AT_ONCE:]
        solves = store.read(numbers, with_theta=False)
        failed = [solves[n] for n in numbers if n in solves and solves[n].error]
        rows += [
            (
                f"run {run.number}, round {s.step}",
                s.judged or s.status,
                s.worker,
                s.error[:MOST_ERROR],
            )
            for s in failed[-MOST_FAILURES:]
        ]
    header = ("where", "status", "worker", "what it said")
    return [Grid("last failures", header, tuple(rows), labels=4)] if rows else []


def _age(seconds: float) -> str:
    """Seconds for people.

    Example:
        >>> _age(7.2), _age(200.0), _age(7300.0)
        ('7 s', '3 min', '2.0 h')
    """
    if seconds < 120.0:
        return f"{max(seconds, 0.0):.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 7200.0 else f"{seconds / 3600.0:.1f} h"
