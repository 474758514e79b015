"""A comparison out of what a store holds, finished or still running."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.comparison.provenance import Environment, command_line
from zo_bilevel.comparison.runs import Improvement, Run, RunStatus, Target
from zo_bilevel.comparison.stored_groups import Group, difference, groups_of
from zo_bilevel.comparison.stored_runs import Row, command_of, decoded, found_by
from zo_bilevel.problem.parameters import Log
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.space_text import space_from_text
from zo_bilevel.store.store import Store
from zo_bilevel.support.errors import InputError, unknown_name_message
from zo_bilevel.support.tables import listed

A_PROGRAM = "a Python program"
MOST_COMMANDS = 10
_ENDED: dict[str, RunStatus] = {
    "failed": "failed",
    "interrupted": "interrupted",
    "refused": "refused",
    "disqualified": "disqualified",
}
_SOLVES = (
    "SELECT id, step, role, judged, loss, seconds, cost FROM evaluations"
    " WHERE run = ? AND judged <> '' ORDER BY step, place, id"
)


def stored_comparisons(
    store: Store,
    problem: str | None = None,
    *,
    target: Target | None = None,
    is_live: bool = False,
) -> list[Comparison]:
    """What a store holds as comparisons, each of runs that were made under the same conditions.

    What a store does not know is left out: the truth, the task's target, judgements beside the
    runs. Seconds are those of the solves, one after the other.

    Args:
        store: The open store.
        problem: Only this one.
        target: What counts as solved, where known; of one problem only.
        is_live: Take runs that have not ended, too.

    Returns:
        One for each problem, in the order they were begun; several for a problem whose runs
        differ in more than method and seed, which their notes say.

    Raises:
        InputError: If the store holds no run, none of this problem, runs that have not ended, or
            several problems with a target.
        StoreError: If the store is damaged.
    """
    rows = store.runs()
    if not rows:
        raise InputError(f"store {store.path} holds no runs, so there is nothing to report")
    names = list(dict.fromkeys(row["problem"] for row in rows))
    if problem is None:
        if target is not None and len(names) > 1:
            raise _several(store, names)
    elif problem not in names:
        message = unknown_name_message("problem", problem, names)
        raise InputError(f"store {store.path} is from another task: {message}")
    else:
        names = [problem]
    found: list[Comparison] = []
    for name in names:
        members = [row for row in rows if row["problem"] == name]
        _check_ended(store, members, is_live=is_live)
        groups = groups_of(members)
        notes = [note] if (note := difference(name, groups)) else []
        found += [_comparison(store, group, target, notes) for group in groups]
    return found


def stored_comparison(
    store: Store, problem: str | None = None, *, target: Target | None = None, is_live: bool = False
) -> Comparison:
    """The one comparison that a store holds of a problem.

    Args:
        store: The open store.
        problem: Its name; may be left out when there is only one.
        target: What counts as solved, where known.
        is_live: Take runs that have not ended, too.

    Returns:
        One run for each method and seed.

    Raises:
        InputError: As `stored_comparisons`, if there are several problems, or runs of the problem
            that cannot be compared.
        StoreError: If the store is damaged.
    """
    found = stored_comparisons(store, problem, target=target, is_live=is_live)
    names = list(dict.fromkeys(row["problem"] for row in store.runs()))
    if problem is None and len(names) > 1:
        raise _several(store, names)
    if len(found) > 1:
        raise InputError(f"store {store.path} holds {len(found)} comparisons: {found[0].notes[0]}")
    return found[0]


def _several(store: Store, names: Sequence[str]) -> InputError:
    return InputError(f"store {store.path} holds several problems, name one: {listed(names)}")


def _check_ended(store: Store, rows: Sequence[Row], *, is_live: bool) -> None:
    running = [row for row in rows if row["status"] == "running"]
    if running and not is_live:
        raise InputError(
            f"store {store.path} holds runs that have not ended: {_named(running)}; wait for them, "
            "or look at them by `zo-bilevel watch`"
        )


def _comparison(
    store: Store, group: Group, target: Target | None, notes: Sequence[str]
) -> Comparison:
    first = group.rows[0]
    space = space_from_text(first["space"])
    newest = {(row["method"], row["seed"]): row for row in group.rows}
    methods = tuple(dict.fromkeys(row["method"] for row in group.rows))
    runs = sorted(
        (_run(store, row, space) for row in newest.values()),
        key=lambda run: (run.seed, methods.index(run.method)),
    )
    settings = json.loads(first["settings"])
    title = f"{first['problem']} ({group.words})" if group.words else first["problem"]
    return Comparison(
        problem=title,
        methods=methods,
        seeds=tuple(sorted({row["seed"] for row in group.rows})),
        max_solves=int(settings.get("max_solves") or max(run.solves for run in runs)),
        runs=tuple(runs),
        target=target,
        log_parameters=tuple(n for n, p in space.parameters.items() if isinstance(p, Log)),
        round_width=int(settings.get("round_width") or 1),
        is_interrupted=False,
        size=space.size,
        facts=Environment(command=_commands(group.rows)),
        group=title if group.words else "",  # several of one problem are no independent evidence
        notes=(*notes, *_doubts(store, group, runs)),
    )


def _commands(rows: Sequence[Row]) -> str:
    """The commands that made the runs, each once; empty when only Python did."""
    found = list(dict.fromkeys(command_line(command_of(row)) for row in rows))
    if found == [""]:
        return ""
    named = [command or A_PROGRAM for command in found[:MOST_COMMANDS]]
    left_out = len(found) - len(named)
    return "; ".join([*named, f"and {left_out} more"] if left_out else named)


def _doubts(store: Store, group: Group, runs: Sequence[Run]) -> list[str]:
    """What a store does not know but the ranking depends on."""
    found = []
    if any(row.get("start") is None or row.get("objective") is None for row in group.rows):
        found.append(
            "Runs of an older version: the store does not know whether they had the same start "
            "and outer objective."
        )
    ended = [run for run in runs if run.is_counted and run.stop_reason != "running"]
    unjudged = [run for run in ended if run.standard_error is None and run.improvements]
    if unjudged and (len(unjudged) < len(ended) or _is_noisy(store, group)):
        methods = listed(list(dict.fromkeys(run.method for run in unjudged)))
        found.append(
            "Solves are noisy, and the store holds no fresh solves of the final points of "
            f"{methods}: those losses are lowest draws, too low, and no ranking follows from them."
        )
    return found


def _is_noisy(store: Store, group: Group) -> bool:
    """Whether the inner solver takes a seed, or gave two losses for one point."""
    runs = ", ".join(str(row["id"]) for row in group.rows)
    differ = (
        f"SELECT 1 AS found FROM evaluations WHERE run IN ({runs}) AND judged = 'ok'"
        " GROUP BY key HAVING MAX(seed) > 0 OR MIN(loss) < MAX(loss) LIMIT 1"
    )
    return bool(store.query(differ))


def _named(rows: Sequence[Row]) -> str:
    return listed([f"{row['method']} seed {row['seed']} (run {row['id']})" for row in rows], most=6)


def _run(store: Store, row: Row, space: Space) -> Run:
    solves = store.query(_SOLVES, (row["id"],))
    steps = _improvements(store, solves, space)
    found = found_by(store, row)
    failures: dict[str, int] = {}
    for solve in solves:
        if solve["judged"] != "ok":
            failures[solve["judged"]] = failures.get(solve["judged"], 0) + 1
    status = _ENDED.get(row["status"], "finished")
    reason = row["stop_reason"] or row["status"]
    has_error = status in ("failed", "refused", "disqualified")
    return Run(
        method=row["method"],
        seed=row["seed"],
        status=status,
        loss=found.loss if found else math.inf,
        solves=len(solves),
        rounds=len({solve["step"] for solve in solves}),
        seconds=sum(solve["seconds"] for solve in solves),
        cost=row["cost"],
        stop_reason=status if has_error else reason,
        failures=failures,
        error=reason if has_error else "",
        phi=found.phi if found else {},
        improvements=tuple(steps),
        standard_error=found.standard_error if found else None,
    )


def _improvements(
    store: Store, solves: Sequence[Mapping[str, Any]], space: Space
) -> list[Improvement]:
    """The solves that were better than all before."""
    steps: list[Improvement] = []
    seconds, best = 0.0, math.inf
    for count, solve in enumerate(solves, start=1):
        seconds += solve["seconds"]
        loss = solve["loss"]
        if solve["judged"] != "ok" or solve["role"] == "confirm" or loss is None or loss >= best:
            continue
        best = loss
        (found,) = store.query("SELECT point FROM evaluations WHERE id = ?", (solve["id"],))
        phi = decoded(space, found["point"])
        single = {name: value for name, value in phi.items() if np.ndim(value) == 0}
        steps.append(Improvement(count, solve["step"], seconds, loss, None, single))
    return steps
