"""Suites: tasks x dimension x noise x scalar or vector, the same fair comparison on each."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, final

from zo_bilevel.comparison.compare import compare
from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.methods.base import Method
from zo_bilevel.methods.names import MissingMethod, method_from_name
from zo_bilevel.problem.task import Task
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.errors import InputError, MissingPackageError, unknown_name_message
from zo_bilevel.tasks import load
from zo_bilevel.tasks.bbob import bbob_task
from zo_bilevel.tasks.more_garbow_hillstrom import PROBLEMS, least_squares_task

MakeTask: TypeAlias = Callable[[], Task]

VECTOR = ("default", "scipy:least_squares", "dfols")
"""Methods that see the inner solution."""
FIELD = ("default", "scipy:least_squares", "dfols", "dfols:prior", "esmda")
"""The same for fields with a prior: methods that offer it get it."""
SCALAR_SMALL = (
    "default",
    "nevergrad:CMA",
    "nevergrad:OnePlusOne",
    "nevergrad:Cobyla",
    "scipy:L-BFGS-B",
)
SCALAR_FULL = (
    *SCALAR_SMALL,
    "nevergrad:TBPSA",
    "nevergrad:TwoPointsDE",
    "nevergrad:PSO",
    "nevergrad:NGOpt",
    "nevergrad:NgIohTuned",
    "cma",
    "scipy:BFGS",
    "scipy:COBYQA",
    "random",
)
SCALAR_LARGE = (
    "default",
    "nevergrad:CMA",
    "nevergrad:OnePlusOne",
    "nevergrad:TwoPointsDE",
    "scipy:L-BFGS-B",
)
"""Methods whose own time allows 1,000 parameters."""
GROUPS = {
    VECTOR: "vector",
    FIELD: "vector fields",
    SCALAR_SMALL: "scalar",
    SCALAR_FULL: "scalar",
    SCALAR_LARGE: "scalar",
}
SMALL_LEAST_SQUARES = ("rosenbrock", "bard", "box", "powell-singular", "osborne-1", "watson")
SMALL_FUNCTIONS = (1, 6, 8, 10, 15, 21)
LARGE_FUNCTIONS = (1, 6, 8, 10, 14)


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One problem of a suite.

    Args:
        make: Makes the task.
        methods: Names of the methods, as on the command line.
        max_solves: Solves a run.
        is_scalar: Whether methods see the loss only.
        round_width: Solves that may run at once.
        is_noisy: Whether solves are noisy, which makes it another group.
        target_loss: True loss that counts as solved; `None` for the task's own.
    """

    make: MakeTask
    methods: tuple[str, ...]
    max_solves: int
    is_scalar: bool = False
    round_width: int = 1
    is_noisy: bool = False
    target_loss: float | None = None

    def task(self) -> Task:
        """The task as its methods see it."""
        task = self.make()
        if self.target_loss is not None:
            task = dataclasses.replace(task, target_loss=self.target_loss)
        if not self.is_scalar:
            return task
        return dataclasses.replace(
            task, name=f"{task.name}, loss only", problem=task.problem.scalar
        )

    @property
    def group(self) -> str:
        """Problems of one group are summed up together."""
        name = GROUPS[self.methods]
        wide = f", {self.round_width} at once" if self.round_width > 1 else ""
        return f"{name}{', noisy' if self.is_noisy else ''}{wide}"


def _named(name: str, **options: object) -> Task:
    """A task of the package, with its options in its name."""
    task = load(name, **options)
    shown = ", ".join(f"{option} {value}" for option, value in options.items())
    return dataclasses.replace(task, name=f"{name}, {shown}" if shown else name)


def _small() -> tuple[Entry, ...]:
    entries = [Entry(partial(least_squares_task, n), VECTOR, 80) for n in SMALL_LEAST_SQUARES]
    entries += [
        Entry(partial(_named, "burgers-two"), VECTOR, 60),
        Entry(partial(_named, "quadratic", size=20), VECTOR, 80),
        Entry(partial(_named, "heat-field", size=64), FIELD, 150),
        Entry(partial(_named, "heat-field", size=64, noise=0.01), FIELD, 150, is_noisy=True),
    ]
    for size in (2, 10):
        budget = 40 * (size + 1)
        entries += [
            Entry(partial(bbob_task, f, size), SCALAR_SMALL, budget, is_scalar=True)
            for f in SMALL_FUNCTIONS
        ]
    entries += [
        Entry(partial(bbob_task, f, 5, noise=0.1), SCALAR_SMALL, 200, is_scalar=True, is_noisy=True)
        for f in (1, 8)
    ]
    entries.append(Entry(partial(_named, "quadratic", size=20), SCALAR_SMALL, 400, is_scalar=True))
    return tuple(entries)


def _large() -> tuple[Entry, ...]:
    entries = []
    for width in (1, 16):
        entries += [
            Entry(partial(bbob_task, f, 40), SCALAR_LARGE, 1640, is_scalar=True, round_width=width)
            for f in LARGE_FUNCTIONS
        ]
        for noise in (0.0, 0.01):
            told = {"noise": noise} if noise > 0 else {}
            for name, size, budget, target in (
                ("quadratic", 100, 2000, 1e-3),
                ("quadratic", 1000, 5000, 1e-2),
                ("heat-field", 1024, 1000, 1e-4),
            ):
                entries.append(
                    Entry(
                        partial(_named, name, size=size, **told),
                        SCALAR_LARGE,
                        budget,
                        is_scalar=True,
                        is_noisy=noise > 0,
                        round_width=width,
                        target_loss=target,
                    )
                )
    return tuple(entries)


def _full() -> tuple[Entry, ...]:
    entries = [Entry(partial(least_squares_task, n), VECTOR, 200) for n in PROBLEMS]
    entries += [
        Entry(partial(_named, "burgers-two"), VECTOR, 60),
        Entry(partial(_named, "ridge-penalties"), VECTOR, 1000),
    ]
    for noise in (0.0, 0.01):
        is_noisy = noise > 0
        told = {"noise": noise} if is_noisy else {}
        for size in (16, 64, 256):
            field = partial(_named, "heat-field", size=size, **told)
            entries.append(Entry(field, FIELD, 300, is_noisy=is_noisy))
            entries.append(Entry(field, SCALAR_FULL, 1000, is_scalar=True, is_noisy=is_noisy))
        for size in (20, 100):
            quadratic = partial(_named, "quadratic", size=size, **told)
            entries.append(Entry(quadratic, VECTOR, 3 * size, is_noisy=is_noisy))
            scalar = Entry(quadratic, SCALAR_FULL, 20 * size, is_scalar=True, is_noisy=is_noisy)
            entries += [scalar, dataclasses.replace(scalar, round_width=16)]
    for size in (2, 5, 10, 20, 40):
        budget = 100 * (size + 1)
        for function in range(1, 25):
            plain = partial(bbob_task, function, size)
            entries.append(Entry(plain, SCALAR_FULL, budget, is_scalar=True))
        for function in (1, 6, 8, 10, 15, 21):
            noisy = partial(bbob_task, function, size, noise=0.1)
            entries.append(Entry(noisy, SCALAR_FULL, budget, is_scalar=True, is_noisy=True))
            wide = partial(bbob_task, function, size)
            entries.append(Entry(wide, SCALAR_FULL, budget, is_scalar=True, round_width=16))
    return tuple(entries)


SUITES: Mapping[str, Callable[[], tuple[Entry, ...]]] = {
    "small": _small,
    "large": _large,
    "full": _full,
}
SEEDS: Mapping[str, int] = {"small": 5, "large": 5, "full": 10}


def entries_of(suite: str) -> tuple[Entry, ...]:
    """The problems of a suite; `InputError` if there is no such suite, with the nearest names."""
    if suite not in SUITES:
        raise InputError(unknown_name_message("suite", suite, SUITES))
    return SUITES[suite]()


def run_entry(entry: Entry, seeds: tuple[int, ...]) -> Comparison:
    """Compare the methods of one problem."""
    methods = {name: _method(name) for name in entry.methods}
    found = compare(
        entry.task(),
        methods,
        max_solves=entry.max_solves,
        seeds=seeds,
        round_width=entry.round_width,
    )
    return dataclasses.replace(found, group=entry.group)


def _method(name: str) -> Method:
    try:
        return method_from_name(name)
    except MissingPackageError as error:
        return MissingMethod(name, error)


def run_suite(
    suite: str, *, seeds: tuple[int, ...] | None = None, workers: int = 1
) -> Iterator[tuple[int, Comparison]]:
    """Run a suite, problem by problem.

    Args:
        suite: "small", "large" (40 to 1,000 parameters, the loss alone) or "full".
        seeds: Seeds of the runs; default 0 to 9 for "full", 0 to 4 for the others.
        workers: Problems to work on at once, each in a process of its own.

    Raises:
        InputError: If there is no such suite, no seed, or the number of workers is below 1.
        MissingPackageError: If coco-experiment is not installed.
    """
    entries = entries_of(suite)
    seeds = tuple(range(SEEDS[suite])) if seeds is None else seeds
    if not seeds:
        raise InputError("seeds must hold at least one seed, got none")
    whole_number("workers", workers, least=1)
    entries[-1].make()  # a missing package shows before the first solve
    bbob_task(1, 2)
    if workers == 1:
        for place, entry in enumerate(entries):
            yield place, run_entry(entry, seeds)
        return
    from joblib import Parallel, delayed

    jobs = [delayed(_placed)(place, entry, seeds) for place, entry in _longest_first(entries)]
    yield from Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)(jobs)


def _placed(place: int, entry: Entry, seeds: tuple[int, ...]) -> tuple[int, Comparison]:
    return place, run_entry(entry, seeds)


def _longest_first(entries: tuple[Entry, ...]) -> list[tuple[int, Entry]]:
    """So that no worker is left with a long one at the end."""
    work = [entry.max_solves * math.sqrt(len(entry.methods)) for entry in entries]
    return sorted(enumerate(entries), key=lambda pair: -work[pair[0]])
