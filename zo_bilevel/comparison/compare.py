"""Run the comparison: every method gets the same problem, start, seeds, budget, dispatcher."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.comparison.provenance import environment
from zo_bilevel.comparison.runner import ComparisonCallback, ComparisonRunner
from zo_bilevel.methods.base import Method
from zo_bilevel.methods.names import method_or_its_absence
from zo_bilevel.problem.parameters import Log
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.task import Task
from zo_bilevel.run.identity import Initial
from zo_bilevel.run.runs import Target
from zo_bilevel.solve.dispatch.base import Dispatcher
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.errors import InputError


def compare(
    problem: Problem | Task,
    methods: Mapping[str, Method | str] | Sequence[str],
    *,
    max_solves: int,
    seeds: Iterable[int] = range(5),
    initial: Initial = None,
    target_loss: float | None = None,
    target_error: float | None = None,
    tolerance: float | None = None,
    dispatcher: Dispatcher | None = None,
    store: AbstractStore | str | os.PathLike[str] | None = None,
    round_width: int = 1,
    callback: ComparisonCallback | None = None,
    command: Sequence[str] = (),
    judge_solves: int | None = None,
) -> Comparison:
    """Run several methods on one problem under the same conditions.

    Every method gets the same problem, and for each seed the same start, budget, dispatcher and
    round width. Seeds come first, so that an interrupted comparison is still a fair one.

    Args:
        problem: A problem, or a task, which also knows starts, a target and the truth.
        methods: By the label they have in tables, methods or their names on the command line
            ("optuna:TPE"); or a list of such names. Of a named one whose package is missing the row
            says so, where a constructor raises.
        max_solves: Solves that each run may spend, >= 1.
        seeds: Different whole numbers >= 0, at least one.
        initial: Start by name, or a function from a seed to one; default the task's starts, or
            the middle of the space.
        target_loss: Loss that counts as solved; runs go on beyond it.
        target_error: Relative error that counts as solved, of a task that knows the truth. The
            default of both is what the task says, its error before its loss.
        tolerance: Runs stop at or below this loss.
        dispatcher: Runs the solves; default `Serial()`. It is not closed.
        store: File that remembers every solve, for each method by its label.
        round_width: Solves that may run at once at no extra time, told to every method.
        callback: Called with label, seed and `Record` of each solve.
        command: Words of the command line, kept in the store with each run.
        judge_solves: Fresh solves of each run's final point, on the same seeds for every method,
            charged to no run. The default is a tenth of `max_solves`, at least 8, where solves are
            noisy: the inner solver takes a seed that matters, or gives two losses for one point;
            else 0. (0 with a seed: each run's own judgement counts, of as many draws as its search
            left; a task that knows the exact problem uses that.)

    Returns:
        One run for each method and seed. A method that refuses the problem, or fails on it, is a
        run that says why. On Ctrl-C, the runs until then.

    Raises:
        InputError: If an argument breaks its rule, before the first solve.
        InnerSolverError: If no method could do anything with the first seed.

    Example:
        >>> from zo_bilevel import GradientMethod, RandomSearch, Real, Space, SquaredError
        >>> problem = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"] ** 2, SquaredError(4.0))
        >>> methods = {"adam": GradientMethod(lr=0.2), "random": RandomSearch()}
        >>> comparison = compare(problem, methods, max_solves=30, seeds=range(5))
        >>> len(comparison.runs)
        10
    """
    task = _as_task(problem, initial)
    target = _target(task, target_loss, target_error)
    seeds = _checked_seeds(seeds)
    race = ComparisonRunner(
        task,
        _checked_methods(methods),
        whole_number("max_solves", max_solves, least=1),
        None if tolerance is None else finite_number("tolerance", tolerance),
        Serial() if dispatcher is None else dispatcher,
        store,
        round_width,
        callback,
        command,
        None if judge_solves is None else whole_number("judge_solves", judge_solves, least=0),
    )
    race.check_starts(seeds)
    race.run(seeds)
    return Comparison(
        problem=task.name,
        methods=tuple(race.methods),
        seeds=seeds,
        max_solves=race.max_solves,
        runs=tuple(race.runs),
        target=target,
        tolerance=race.tolerance,
        truth=task.truth,
        log_parameters=log_parameters(task.problem),
        round_width=round_width,
        dispatcher=repr(race.dispatcher),
        is_interrupted=race.is_interrupted,
        size=task.problem.space.size,
        judge_solves=race.judge.solves,
        facts=environment(
            command, [name for method in race.methods.values() for name in method.packages]
        ),
        best=race.best,
    )


def log_parameters(problem: Problem) -> tuple[str, ...]:
    """Names of the parameters that are searched on a logarithmic scale."""
    return tuple(n for n, p in problem.space.parameters.items() if isinstance(p, Log))


def as_task(subject: Problem | Task) -> Task:
    """A problem as a task without known facts; a task as it is; `InputError` if it is neither."""
    if isinstance(subject, Task):
        return subject
    if isinstance(subject, Problem):
        return Task(subject.name, "", subject)
    raise InputError(f"problem must be a zb.Problem or zb.Task, got {type(subject).__name__}")


def task_target(task: Task) -> Target | None:
    """What counts as solved on a task: its relative error before its loss."""
    if task.target_error is not None and task.error is not None:
        return Target("relative error", task.target_error)
    return None if task.target_loss is None else Target("loss", task.target_loss)


def _target(task: Task, loss: float | None, error: float | None) -> Target | None:
    if loss is not None and error is not None:
        raise InputError(f"target_loss={loss} and target_error={error} exclude each other")
    if loss is not None:
        return Target("loss", finite_number("target_loss", loss))
    if error is None:
        return task_target(task)
    if task.error is None:
        raise InputError(f"target_error={error} needs a task that knows the truth")
    return Target("relative error", finite_number("target_error", error))


def _as_task(subject: Problem | Task, initial: Initial) -> Task:
    task = as_task(subject)
    if initial is None:
        return task
    if callable(initial):
        return dataclasses.replace(task, start=initial)
    if not isinstance(initial, Mapping):
        raise InputError(
            f"initial must be a mapping or a function of the seed, got {type(initial).__name__}"
        )
    fixed = initial
    return dataclasses.replace(task, start=lambda _: fixed)


def _checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    if not isinstance(seeds, Iterable) or isinstance(seeds, str | bytes):
        raise InputError(f"seeds must be whole numbers such as range(5), got {seeds!r}")
    numbers = tuple(whole_number("each of seeds", seed, least=0) for seed in seeds)
    if not numbers:
        raise InputError("seeds must hold at least one seed, got none")
    for index, seed in enumerate(numbers):
        if seed in numbers[:index]:
            raise InputError(f"seeds must differ, got {seed} twice")
    return numbers


def _checked_methods(methods: Mapping[str, Method | str] | Sequence[str]) -> dict[str, Method]:
    if isinstance(methods, str) or not isinstance(methods, Mapping | Sequence):
        raise InputError(
            f"methods must be a dict of methods or a list of names, got {type(methods).__name__}"
        )
    if not methods:
        raise InputError("methods must hold at least one method, got none")
    named = methods if isinstance(methods, Mapping) else _by_name(methods)
    found: dict[str, Method] = {}
    for label, method in named.items():
        if not isinstance(label, str) or not label:
            raise InputError(f"methods must have names as keys, got {label!r}")
        if isinstance(method, str):
            method = method_or_its_absence(method)
        if not isinstance(method, Method):
            raise InputError(
                f"methods[{label!r}] must be a Method or a name, got {type(method).__name__}"
            )
        found[label] = method
    return found


def _by_name(names: Sequence[str]) -> dict[str, str]:
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise InputError(f"a list of methods must hold names, got {type(name).__name__}")
        if name in names[:index]:
            raise InputError(f"methods must differ, got {name!r} twice")
    return {name: name for name in names}
