"""The dispatcher protocol and the one function that runs a solve wherever it is."""

from __future__ import annotations

import inspect
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, Self, final, runtime_checkable

import numpy as np

from zo_bilevel.problem.content import DerivedName
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.solver_identity import solver_identity, solver_name
from zo_bilevel.problem.theta import Unmeasured, flatten_theta
from zo_bilevel.solve.derivative import WithDerivative
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.arrays import own
from zo_bilevel.support.errors import (
    InputError,
    InvalidSolutionError,
    SolveError,
    described,
    shown,
)
from zo_bilevel.support.packages import loaded


@runtime_checkable
class Dispatcher(Protocol):
    """Runs a round of independent solves; the only place that knows about machines."""

    def run(self, solve: Solve, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Run the jobs and give each outcome with its job's index, in any order.

        Args:
            solve: Runs one job; picklable when the inner solver is.
            jobs: The round. Every job is answered exactly once, failed solves included.
        """
        ...

    def close(self) -> None:
        """Let go of workers; the dispatcher may be used again afterwards."""
        ...


@runtime_checkable
class KillsLate(Protocol):
    """A dispatcher that can end a round, and what runs of it, at a given time."""

    def run_within(
        self, solve: Solve, jobs: Sequence[Job], seconds: float
    ) -> Iterator[tuple[int, Outcome]]:
        """As `run`, but jobs that are not done in so many seconds are killed and not answered."""
        ...


@runtime_checkable
class OutlivesRuns(Protocol):
    """A dispatcher whose solves go on when the run is killed."""

    def name_run(self, name: str) -> None:
        """Say which run asks from now on.

        Args:
            name: The same whenever the run goes on, and no other's. Nobody else works on it.
        """
        ...


class Stream(Protocol):
    """Solves that start and end one by one."""

    def submit(self, job: Job) -> None:
        """Start a job as soon as a worker is free."""
        ...

    def next(self, seconds: float) -> tuple[int, Outcome] | None:
        """The index and outcome of the job that ends next; none if that takes longer."""
        ...

    def close(self) -> None:
        """Stop what runs."""
        ...


def answers_until(stream: Stream, count: int, deadline: float) -> Iterator[tuple[int, Outcome]]:
    """Answers as they arrive, until all are there or time is up."""
    for _ in range(count):
        answer = stream.next(deadline - time.monotonic())
        if answer is None:
            return
        yield answer


@runtime_checkable
class Asynchronous(Protocol):
    """A dispatcher that need not wait for a whole round."""

    def stream(self, solve: Solve) -> Stream:
        """Give what runs solves one by one."""
        ...


class WithBlock(ABC):
    """A dispatcher that a `with` block closes."""

    @abstractmethod
    def close(self) -> None:
        """Let go of workers; the dispatcher may be used again afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def takes_seed(inner: Callable[..., Any]) -> bool:
    """Whether a callable accepts the keyword `seed`, by its signature or as it says itself."""
    given = getattr(inner, "takes_seed", None)
    if isinstance(given, bool):
        return given
    try:
        parameters = inspect.signature(inner).parameters
    except (TypeError, ValueError):
        return False
    if "seed" in parameters:
        return parameters["seed"].kind is not inspect.Parameter.POSITIONAL_ONLY
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


@final
class Solve:
    """One call of the inner solver, with every failure turned into an `Outcome`.

    Args:
        inner: Called as `inner(phi)`, or `inner(phi, seed=seed)` when it takes a seed.
        outer: The problem without its solver, for derivatives that go on to the outer objective.
        name: Name of the problem; default from `inner`.
        version: Version of the problem.
        unmeasured: Where an inner solution may be NaN.
    """

    __slots__ = ("inner", "name", "outer", "unmeasured", "version", "with_seed")

    def __init__(
        self,
        inner: Callable[..., Any],
        outer: Problem | None = None,
        name: str = "",
        version: str = "1",
        unmeasured: Unmeasured | None = None,
    ) -> None:
        self.inner = inner
        self.unmeasured = unmeasured
        self.outer = outer
        self.name = name or DerivedName(solver_name(inner))
        self.version = version
        self.with_seed = takes_seed(inner)

    def identity(self) -> str:
        """What tells the inner solver from others, the same text in every process.

        Raises:
            InputError: If nobody gave a name and the solver cannot be told from others.
        """
        return solver_identity(self.inner, self.name, self.version)

    def __call__(self, job: Job) -> Outcome:
        """Run one job in this process and thread."""
        started = time.perf_counter()
        try:
            with _own_settings():
                answer = self._answer(job)
            return outcome_of(answer, time.perf_counter() - started, self.unmeasured)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            return failed_outcome(error, time.perf_counter() - started)

    def _answer(self, job: Job) -> Any:  # noqa: ANN401 - the user's value
        phi = own(job.phi)  # a retry must find it as it was
        if job.derivative is not None:
            return job.derivative(self.inner, self.outer, phi, job.seed)
        more = {"seed": job.seed} if self.with_seed else {}
        return (
            self.inner(phi, **more)
            if job.warm is None
            else self.inner(phi, **more, warm=own(job.warm))
        )


@contextmanager
def _own_settings() -> Iterator[None]:
    """Undo what a solver does to numpy's error handling and torch's gradient mode."""
    torch = loaded("torch")
    before = torch is None or torch.is_grad_enabled()
    try:
        with np.errstate():
            yield
    finally:
        torch = loaded("torch")
        if torch is not None and torch.is_grad_enabled() != before:
            torch.set_grad_enabled(before)


def outcome_of(
    answer: Any,  # noqa: ANN401 - the user's value
    seconds: float,
    unmeasured: Unmeasured | None = None,
) -> Outcome:
    """Flatten what an inner solver returned; NaN and unusable types become "invalid"."""
    worker = str(os.getpid())
    cost, derivative = 0.0, None
    if isinstance(answer, WithDerivative):
        answer, derivative = answer.theta, answer.derivative
    if isinstance(answer, WithCost):
        answer, cost = answer.theta, answer.cost
    try:
        theta, layout = flatten_theta(answer)
    except (TypeError, ValueError) as error:
        return Outcome("invalid", seconds=seconds, cost=cost, error=str(error), worker=worker)
    if unmeasured is not None:
        theta = unmeasured.filled(theta, layout)
    finite = np.isfinite(theta)
    if not finite.all():
        bad = int(theta.size - np.count_nonzero(finite))
        error_text = (
            f"the inner solution of {layout.describe()} has {bad} values that are not finite "
            "(or masked; they may be so where the target is missing)"
        )
        return Outcome("invalid", None, layout, seconds, cost, error_text, worker)
    if derivative is not None and not np.isfinite(derivative).all():
        error_text = "the inner solution is finite, but its derivative is not"
        return Outcome("invalid", None, layout, seconds, cost, error_text, worker)
    return Outcome("ok", theta, layout, seconds, cost, "", worker, derivative)


def failed_outcome(error: BaseException, seconds: float) -> Outcome:
    """The outcome of a solve that raised: "failed", or the status its adapter knows it by."""
    worker, cost = str(os.getpid()), _paid(error)
    if isinstance(error, InvalidSolutionError):
        return Outcome("invalid", seconds=seconds, cost=cost, error=shown(error), worker=worker)
    status = error.status if isinstance(error, SolveError) else "failed"
    return Outcome(status, seconds=seconds, cost=cost, error=described(error), worker=worker)


def _paid(error: BaseException) -> float:
    try:
        return finite_number("cost", getattr(error, "cost", 0.0), ">= 0")
    except InputError:
        return 0.0


@final
class WithCost:
    """What an inner solver returns when a solve costs money: the solution and its price.

    Args:
        theta: The inner solution.
        cost: In the unit of `max_cost`, finite and >= 0.

    Raises:
        InputError: If the price is none.
    """

    __slots__ = ("cost", "theta")

    def __init__(self, theta: Any, cost: float) -> None:  # noqa: ANN401 - the user's value
        self.theta = theta
        self.cost = finite_number("cost", cost, ">= 0")
