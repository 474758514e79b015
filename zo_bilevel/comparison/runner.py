"""The runs of a comparison, one after the other, each under the same conditions."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, final

from zo_bilevel.comparison.observed_method import ObservedMethod
from zo_bilevel.comparison.rescoring import Judge, Repeats
from zo_bilevel.comparison.stored_runs import keep
from zo_bilevel.comparison.summaries import level
from zo_bilevel.comparison.uncallable_solver import guarded
from zo_bilevel.methods.base import Method
from zo_bilevel.problem.task import Task
from zo_bilevel.run.identity import facts_of_run
from zo_bilevel.run.lifecycle import opened
from zo_bilevel.run.loop import minimize
from zo_bilevel.run.result import Record, Result
from zo_bilevel.run.runs import Run
from zo_bilevel.solve.dispatch.base import Dispatcher, Solve
from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.support.errors import (
    InnerSolverError,
    InputError,
    MissingPackageError,
    StoreError,
    UnsupportedProblemError,
)

ComparisonCallback: TypeAlias = Callable[[str, int, Record], None]
"""Called with the method's label, the seed and the record of each solve, in order."""


@final
@dataclass
class ComparisonRunner:
    """Runs every method with every seed and keeps a row of each.

    Args:
        task: The problem, its starts and what is known about it.
        methods: Methods by label.
        max_solves: Budget of a run.
        tolerance: Loss at which a run stops.
        dispatcher: Runs the solves.
        store: Remembers them, or `None`.
        round_width: Solves that may run at once.
        callback: Called with label, seed and record of each solve.
        command: Words of the command line, for the store.
        judge_solves: Fresh solves of each final point; `None` where they are needed.

    Raises:
        InputError: If the dispatcher is none.
    """

    task: Task
    methods: dict[str, Method]
    max_solves: int
    tolerance: float | None
    dispatcher: Dispatcher
    store: AbstractStore | str | os.PathLike[str] | None
    round_width: int
    callback: ComparisonCallback | None
    command: Sequence[str] = ()
    judge_solves: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.dispatcher, Dispatcher):
            raise InputError(f"dispatcher must run rounds, got {type(self.dispatcher).__name__}")
        self.runs: list[Run] = []
        self.best: Result | None = None
        self.is_interrupted = False
        self.judge = Judge(self.task, self.dispatcher, self.judge_solves, self.max_solves)
        self._callback_error: Exception | None = None
        self._repeats = None if Solve(self.task.problem.inner).with_seed else Repeats()

    def check_starts(self, seeds: tuple[int, ...]) -> None:
        """Let bad input show before the first solve is paid for.

        Raises:
            InputError: If a start or a method breaks a rule.
        """
        for seed in seeds:
            start = self.task.start(seed)
            self.task.problem.space.placed_at(start).encode(start)
        problem, _ = guarded(self.task.problem)
        for method in self.methods.values():
            try:
                method.start(
                    problem,
                    seeds[0],
                    initial=self.task.start(seeds[0]),
                    round_width=self.round_width,
                ).close()
            except InputError:
                raise
            except Exception:  # noqa: BLE001 - it becomes a row when the method runs
                continue

    def run(self, seeds: tuple[int, ...]) -> None:
        """Seed by seed, method by method.

        Raises:
            StoreError: If the store cannot be used.
            Exception: What made the first method fail, when none found anything with the first
                seed: then it is not the method's fault.
        """
        try:
            self._run_all(seeds)
        finally:
            is_noisy = self._repeats is not None and self._repeats.differ
            self.runs = self.judge.by_fresh_solves(self.runs, is_noisy=is_noisy)
            self._keep_judged()

    def _keep_judged(self) -> None:
        """Let the store know what was judged after the runs had ended."""
        judged = [run for run in self.runs if run.judged_by or run.held_out_loss is not None]
        if self.store is None or not (judged or self.task.error):
            return
        with opened(self.store) as store:
            known = {run.identity: run for run in store.records()}
            for run in self.runs:
                keep(store, known.get(self._identity(run)), run)

    def _identity(self, run: Run) -> str:
        settings = {"round_width": self.round_width}
        facts = self.task.problem, run.method, run.seed, self.task.start, settings
        return facts_of_run(*facts).identity

    def _run_all(self, seeds: tuple[int, ...]) -> None:
        first_error: Exception | None = None
        for index, seed in enumerate(seeds):
            for label, method in self.methods.items():
                row, error = self._row(label, method, seed)
                first_error = first_error or error
                if row is not None:
                    self.runs.append(row)
                if self.is_interrupted:
                    return
            if index == 0 and first_error and not any(math.isfinite(r.loss) for r in self.runs):
                raise first_error

    def _row(self, label: str, method: Method, seed: int) -> tuple[Run | None, Exception | None]:
        """The run, unless interrupted before any result, and the error that made it fail."""
        traced = ObservedMethod(method, label, self.task.error, self._repeats)
        row, error = self._outcome(traced, seed)
        if traced.violation:
            return traced.ended(seed, "disqualified", traced.violation), None
        if row is None:
            return None, error
        return self.judge.by_facts(row, traced.points), error

    def _outcome(self, traced: ObservedMethod, seed: int) -> tuple[Run | None, Exception | None]:
        try:
            return self._solve(traced, seed), None
        except KeyboardInterrupt:
            self.is_interrupted = True
            return None, None
        except StoreError:
            raise
        except (UnsupportedProblemError, MissingPackageError) as error:
            return traced.ended(seed, "refused", str(error)), None
        except (InnerSolverError, InputError) as error:
            return traced.ended(seed, "failed", str(error)), error
        except Exception as error:  # one method's fault must not lose what others were paid for
            if error is self._callback_error:
                raise
            return traced.ended(seed, "failed", f"{type(error).__name__}: {error}"), error

    def _solve(self, traced: ObservedMethod, seed: int) -> Run:
        def observe(record: Record) -> None:
            traced.observe(record)
            if self.callback is None:
                return
            try:
                self.callback(traced.label, seed, record)
            except Exception as error:  # the caller's own, not the method's
                self._callback_error = error
                raise

        result = minimize(
            self.task.problem,
            traced,
            initial=self.task.start,
            max_solves=self.max_solves,
            tolerance=self.tolerance,
            seed=seed,
            dispatcher=self.dispatcher,
            store=self.store,
            round_width=self.round_width,
            callback=observe,
            command=self.command,
        )
        if self.best is None or _rank(result) < _rank(self.best):
            history = tuple(replace(record, phi={}, theta=None) for record in result.history)
            self.best = replace(result, history=history)
        row = traced.finished(result)
        self.is_interrupted = row.status == "interrupted"
        return row


def _rank(result: Result) -> tuple[float, int]:
    """Smaller is better."""
    return level(result.counted_loss), result.solves
