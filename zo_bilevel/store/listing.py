"""A run of a store in a line, for lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, Protocol

from zo_bilevel.solve.evaluation import NEVER_BEST
from zo_bilevel.store.records import DAMAGED, StoredRun, StoredSolve
from zo_bilevel.support.errors import StoreError

APART: Final = ("start", "point", "found", "conditions", "identity", "number")
COUNTS: Final = ("solves", "rounds", "cost", "loss", "standard_error")


class HoldsSolves(Protocol):
    """What a list needs of a store."""

    def solves(self, run: StoredRun) -> Iterator[StoredSolve]:
        """The solves of a run in its order."""
        ...


def summary_of(store: HoldsSolves, run: StoredRun) -> dict[str, Any]:
    """What is known of a run, by name."""
    if run.status == DAMAGED:
        return {"id": run.number, "status": DAMAGED}
    fields = (name for name in StoredRun.__slots__ if name not in APART)
    facts = {"id": run.number, **{name: getattr(run, name) for name in fields}}
    return facts | (_of_ended(run) if run.found else _so_far(store, run))


def _of_ended(run: StoredRun) -> dict[str, Any]:
    try:
        found = json.loads(run.found)
        counts = {name: found[name] for name in COUNTS}
        lowest = min((step["loss"] for step in found["improvements"]), default=None)
        counts |= {"failures": sum(found["failures"].values()), "best_loss": lowest}
        if any(type(count) not in (int, float, type(None)) for count in counts.values()):
            raise TypeError(f"{counts} are no numbers")
        return counts
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(f"what run {run.number} found is damaged: {error!r}") from error


def _so_far(store: HoldsSolves, run: StoredRun) -> dict[str, Any]:
    solves = [solve for solve in store.solves(run) if solve.judged]
    losses = [
        solve.loss for solve in solves if solve.loss is not None and solve.role not in NEVER_BEST
    ]
    lowest = min(losses, default=None)
    return {
        "solves": sum(solve.charge for solve in solves),
        "rounds": len({solve.step for solve in solves}),
        "cost": sum(solve.cost for solve in solves),
        "loss": lowest,
        "standard_error": None,
        "failures": sum(solve.judged != "ok" for solve in solves),
        "best_loss": lowest,
    }
