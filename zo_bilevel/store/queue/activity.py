"""What workers of a queue do at this moment, for people who watch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.store.queue.tables import ALIVE_S
from zo_bilevel.store.sql_store import SQLStore
from zo_bilevel.support.errors import StoreError

RUNNING: Final = (
    "SELECT label, worker, {now} - taken, attempts FROM (SELECT t.label AS label, c.worker AS"
    " worker, c.taken AS taken, (SELECT COUNT(*) FROM queue_claims o WHERE o.task = t.name) AS"
    " attempts FROM queue_claims c JOIN queue_tasks t ON c.task = t.name WHERE t.answer IS NULL"
    " AND c.until > {now}) AS live ORDER BY taken"
)
COUNTS: Final = (
    "SELECT (SELECT COUNT(*) FROM queue_workers WHERE until > {now}),"
    " (SELECT COUNT(*) FROM queue_tasks WHERE answer IS NULL AND NOT EXISTS (SELECT 1 FROM"
    " queue_claims WHERE task = name AND until > {now})),"
    " (SELECT COUNT(DISTINCT owner) FROM queue_tasks WHERE seen > {now} - ?)"
)


@final
@dataclass(frozen=True, slots=True)
class RunningSolve:
    """A solve that a worker has.

    Args:
        problem: What it is called.
        worker: Who has it.
        age: Seconds since it was taken, by the database's clock.
        claims: How many workers took it so far, those that were lost included.
    """

    problem: str
    worker: str
    age: float
    claims: int


@final
@dataclass(frozen=True, slots=True)
class Activity:
    """What goes on in a queue.

    Args:
        solves: That run, the oldest first.
        waiting: How many wait for a worker.
        workers: How many are there.
        runs: How many wait for answers.
    """

    solves: tuple[RunningSolve, ...]
    waiting: int
    workers: int
    runs: int


def activity_of(store: AbstractStore) -> Activity | None:
    """Look at the queue of a store: `None` where there never was a queue."""
    if not isinstance(store, SQLStore):
        return None
    clock = store.clock
    try:
        rows = store.ask(RUNNING.replace("{now}", clock))
        workers, waiting, runs = store.ask(COUNTS.replace("{now}", clock), (ALIVE_S,))[0]
    except StoreError:  # there are no such tables
        return None
    solves = tuple(RunningSolve(str(a), str(b), float(c), int(d)) for a, b, c, d in rows)
    return Activity(solves, int(waiting), int(workers), int(runs))
