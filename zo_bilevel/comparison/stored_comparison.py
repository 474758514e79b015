"""A comparison out of what a store holds, finished or still running."""

from collections.abc import Sequence

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.comparison.provenance import Environment, command_line
from zo_bilevel.comparison.stored_groups import Group, difference, groups_of
from zo_bilevel.comparison.stored_runs import command_of, found_by, settings_of
from zo_bilevel.problem.parameters import Log
from zo_bilevel.problem.space_text import space_from_text
from zo_bilevel.run.runs import Run, Target
from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.store.records import RUNNING, STOPPING, StoredRun
from zo_bilevel.support.errors import InputError, unknown_name_message
from zo_bilevel.support.tables import listed

A_PROGRAM = "a Python program"
MOST_COMMANDS = 10


def stored_comparisons(
    store: AbstractStore,
    problem: str | None = None,
    *,
    target: Target | None = None,
    is_live: bool = False,
) -> list[Comparison]:
    """What a store holds as comparisons, each of runs that were made under the same conditions.

    What a store does not know is left out: the truth and the task's target. Of runs that have not
    ended, seconds are those of the solves, one after the other.

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
    rows = store.records()
    if not rows:
        raise InputError(f"store {store.name} holds no runs, so there is nothing to report")
    for row in rows:
        store.check_run(row)
    names = list(dict.fromkeys(row.problem for row in rows))
    if problem is None:
        if target is not None and len(names) > 1:
            raise _several(store, names)
    elif problem not in names:
        message = unknown_name_message("problem", problem, names)
        raise InputError(f"store {store.name} is from another task: {message}")
    else:
        names = [problem]
    found: list[Comparison] = []
    for name in names:
        members = [row for row in rows if row.problem == name]
        _check_ended(store, members, is_live=is_live)
        groups = groups_of(members)
        notes = [note] if (note := difference(name, groups)) else []
        found += [_comparison(store, group, target, notes) for group in groups]
    return found


def stored_comparison(
    store: AbstractStore,
    problem: str | None = None,
    *,
    target: Target | None = None,
    is_live: bool = False,
) -> Comparison:
    """The one comparison that a store holds of a problem.

    Raises:
        InputError: As `stored_comparisons`, if there are several problems, or runs of the problem
            that cannot be compared.
        StoreError: If the store is damaged.
    """
    found = stored_comparisons(store, problem, target=target, is_live=is_live)
    names = list(dict.fromkeys(row.problem for row in store.records()))
    if problem is None and len(names) > 1:
        raise _several(store, names)
    if len(found) > 1:
        raise InputError(f"store {store.name} holds {len(found)} comparisons: {found[0].notes[0]}")
    return found[0]


def _several(store: AbstractStore, names: Sequence[str]) -> InputError:
    return InputError(f"store {store.name} holds several problems, name one: {listed(names)}")


def _check_ended(store: AbstractStore, runs: Sequence[StoredRun], *, is_live: bool) -> None:
    running = [run for run in runs if not run.found]
    if running and not is_live:
        named = [f"{run.method} seed {run.seed} (run {run.number})" for run in running]
        raise InputError(
            f"store {store.name} holds runs that have not ended: {listed(named, most=6)}; wait for "
            "them, or look at them by `zo-bilevel watch`"
        )


def _comparison(
    store: AbstractStore, group: Group, target: Target | None, notes: Sequence[str]
) -> Comparison:
    first = group.runs[0]
    space = space_from_text(first.space)
    methods = tuple(dict.fromkeys(run.method for run in group.runs))
    newest = {(run.method, run.seed): run for run in group.runs}
    runs = sorted(
        (found_by(store, run) for run in newest.values()),
        key=lambda run: (run.seed, methods.index(run.method)),
    )
    settings = settings_of(first)
    title = f"{first.problem} ({group.words})" if group.words else first.problem
    return Comparison(
        problem=title,
        methods=methods,
        seeds=tuple(sorted({run.seed for run in group.runs})),
        max_solves=int(settings.get("max_solves") or max(run.solves for run in runs)),
        runs=tuple(runs),
        target=target,
        log_parameters=tuple(n for n, p in space.parameters.items() if isinstance(p, Log)),
        round_width=int(settings.get("round_width") or 1),
        size=space.size,
        facts=Environment(command=_commands(group.runs)),
        group=title if group.words else "",  # several of one problem are no independent evidence
        notes=(*notes, *_doubts(store, group, runs)),
    )


def _commands(runs: Sequence[StoredRun]) -> str:
    """The commands that made the runs, each once; empty when only Python did."""
    found = list(dict.fromkeys(command_line(command_of(run)) for run in runs))
    if found == [""]:
        return ""
    named = [command or A_PROGRAM for command in found[:MOST_COMMANDS]]
    left_out = len(found) - len(named)
    return "; ".join([*named, f"and {left_out} more"] if left_out else named)


def _doubts(store: AbstractStore, group: Group, runs: Sequence[Run]) -> list[str]:
    """What a store does not know but the ranking depends on."""
    ended = [run for run in runs if run.is_counted and run.stop_reason not in (RUNNING, STOPPING)]
    lowest = [run for run in ended if run.standard_error is None and not run.judged_by]
    unjudged = [run for run in lowest if run.improvements]
    if not unjudged or (len(unjudged) == len(ended) and not _is_noisy(store, group)):
        return []
    methods = listed(list(dict.fromkeys(run.method for run in unjudged)))
    return [
        "Solves are noisy, and the store holds no fresh solves of the final points of "
        f"{methods}: those losses are lowest draws, too low, and no ranking follows from them."
    ]


def _is_noisy(store: AbstractStore, group: Group) -> bool:
    """Whether the inner solver takes a seed, or gave two losses for one point."""
    asked: dict[bytes, list[int]] = {}
    for run in group.runs:
        for place, (number, _, _, key) in enumerate(store.index(run.number)):
            asked.setdefault(key if place else b"", []).append(number)
    first = store.read(asked.pop(b"", []), with_theta=False).values()
    if any(solve.seed for solve in first):
        return True
    for numbers in asked.values():
        if len(numbers) > 1:
            solves = store.read(numbers, with_theta=False).values()
            if len({solve.loss for solve in solves if solve.judged == "ok"}) > 1:
                return True
    return False
