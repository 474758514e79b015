"""A comparison out of what a store holds, finished or still running."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zo_bilevel.comparison import Comparison
from zo_bilevel.errors import InputError, unknown_name_message
from zo_bilevel.parameters import Log
from zo_bilevel.provenance import Environment, command_line
from zo_bilevel.runs import Improvement, Run, RunStatus, Target
from zo_bilevel.space import Space
from zo_bilevel.space_text import space_from_text
from zo_bilevel.store import Store
from zo_bilevel.stored_arrays import unpack_array
from zo_bilevel.stored_runs import Row, command_of
from zo_bilevel.tables import listed

_ENDED: dict[str, RunStatus] = {"failed": "failed", "interrupted": "interrupted"}
_SOLVES = (
    "SELECT id, step, role, judged, loss, seconds, cost FROM evaluations"
    " WHERE run = ? AND judged <> '' ORDER BY step, place, id"
)


def stored_comparisons(store: Store, *, is_live: bool = False) -> list[Comparison]:
    """Every problem in a store as a comparison.

    Args:
        store: The open store.
        is_live: Take runs that have not ended, too.

    Returns:
        One for each problem, in the order they were begun.

    Raises:
        InputError: As `stored_comparison`, and if the store holds no run.
    """
    names = dict.fromkeys(row["problem"] for row in store.runs())
    if not names:
        raise InputError(f"store {store.path} holds no runs, so there is nothing to report")
    return [stored_comparison(store, name, is_live=is_live) for name in names]


def stored_comparison(
    store: Store, problem: str | None = None, *, target: Target | None = None, is_live: bool = False
) -> Comparison:
    """The runs of one problem in a store.

    What a store does not know is left out: the truth, the task's target, judgements without
    noise. Seconds are those of the solves, one after the other.

    Args:
        store: The open store.
        problem: Its name; may be left out when there is only one.
        target: What counts as solved, where known.
        is_live: Take runs that have not ended, too.

    Returns:
        One run for each method and seed, the newest where there are several.

    Raises:
        InputError: If the store holds no run, none of this problem, runs that have not ended,
            or runs of one problem with different spaces.
        StoreError: If the store is damaged.
    """
    rows = _rows_of(store, problem)
    _check_spaces(store, rows)
    running = [row for row in rows if row["status"] == "running"]
    if running and not is_live:
        raise InputError(
            f"store {store.path} holds runs that have not ended: {_named(running)}; wait for them, "
            "or look at them by `zo-bilevel watch`"
        )
    space = space_from_text(rows[0]["space"])
    newest = {(row["method"], row["seed"]): row for row in rows}
    settings = [json.loads(row["settings"]) for row in newest.values()]
    runs = tuple(_run(store, row, space) for row in newest.values())
    budgets = [int(given["max_solves"]) for given in settings if given.get("max_solves")]
    words = next((found for row in rows if (found := command_of(row))), [])
    return Comparison(
        problem=rows[0]["problem"],
        methods=tuple(dict.fromkeys(method for method, _ in newest)),
        seeds=tuple(sorted({seed for _, seed in newest})),
        max_solves=max(budgets, default=max(run.solves for run in runs)),
        runs=tuple(sorted(runs, key=lambda run: run.seed)),
        target=target,
        log_parameters=tuple(n for n, p in space.parameters.items() if isinstance(p, Log)),
        round_width=max(int(given.get("round_width") or 1) for given in settings),
        is_interrupted=False,
        size=space.size,
        facts=Environment(command=command_line(words)),
    )


def _rows_of(store: Store, problem: str | None) -> list[Row]:
    rows = store.runs()
    if not rows:
        raise InputError(f"store {store.path} holds no runs, so there is nothing to report")
    names = list(dict.fromkeys(row["problem"] for row in rows))
    if problem is None:
        if len(names) > 1:
            raise InputError(
                f"store {store.path} holds several problems, name one: {listed(names)}"
            )
        return rows
    if problem not in names:
        message = unknown_name_message("problem", problem, names)
        raise InputError(f"store {store.path} is from another task: {message}")
    return [row for row in rows if row["problem"] == problem]


def _check_spaces(store: Store, rows: Sequence[Row]) -> None:
    spaces: dict[str, list[Row]] = {}
    for row in rows:
        spaces.setdefault(row["space"], []).append(row)
    if len(spaces) > 1:
        sides = " against ".join(_named(group) for group in spaces.values())
        raise InputError(
            f"runs of {rows[0]['problem']} in store {store.path} have different spaces and cannot "
            f"be compared: {sides}"
        )


def _named(rows: Sequence[Row]) -> str:
    return listed([f"{row['method']} seed {row['seed']} (run {row['id']})" for row in rows], most=6)


def _run(store: Store, row: Row, space: Space) -> Run:
    solves = store.query(_SOLVES, (row["id"],))
    steps, points = _improvements(store, solves, space)
    phi = {} if not points else space.decode(points[-1])
    failures: dict[str, int] = {}
    for solve in solves:
        if solve["judged"] != "ok":
            failures[solve["judged"]] = failures.get(solve["judged"], 0) + 1
    fresh = [s["loss"] for s in solves if s["role"] == "confirm" and s["loss"] is not None]
    lowest = steps[-1].loss if steps else math.inf
    many = len(fresh) > 1
    return Run(
        method=row["method"],
        seed=row["seed"],
        status=_ENDED.get(row["status"], "finished"),
        loss=float(np.mean(fresh)) if fresh else lowest,
        solves=len(solves),
        rounds=len({solve["step"] for solve in solves}),
        seconds=sum(solve["seconds"] for solve in solves),
        cost=row["cost"],
        stop_reason=row["stop_reason"] or row["status"],
        failures=failures,
        phi=phi,
        improvements=tuple(steps),
        standard_error=float(np.std(fresh, ddof=1) / math.sqrt(len(fresh))) if many else None,
    )


def _improvements(
    store: Store, solves: Sequence[Mapping[str, Any]], space: Space
) -> tuple[list[Improvement], list[Any]]:
    """The solves that were better than all before, and their points."""
    steps: list[Improvement] = []
    points, seconds, best = [], 0.0, math.inf
    for count, solve in enumerate(solves, start=1):
        seconds += solve["seconds"]
        loss = solve["loss"]
        if solve["judged"] != "ok" or solve["role"] == "confirm" or loss is None or loss >= best:
            continue
        best = loss
        (found,) = store.query("SELECT point FROM evaluations WHERE id = ?", (solve["id"],))
        points.append(unpack_array(found["point"]))
        phi = space.decode(points[-1])
        single = {name: value for name, value in phi.items() if np.ndim(value) == 0}
        steps.append(Improvement(count, solve["step"], seconds, loss, None, single))
    return steps, points
