"""A run in its store from its beginning to its end, whatever that end is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from zo_bilevel.methods.base import Method
from zo_bilevel.problem.problem import Problem
from zo_bilevel.run.ledger import Ledger
from zo_bilevel.run.result import Result
from zo_bilevel.store.recorder import Recorder
from zo_bilevel.store.store import Store
from zo_bilevel.support.errors import (
    InnerSolverError,
    InputError,
    MissingPackageError,
    StoreError,
    UnsupportedProblemError,
)

Place: TypeAlias = Store | str | os.PathLike[str] | None
OpenRun: TypeAlias = Callable[[Store], Recorder]
INTERRUPTED = "interrupted"


@contextmanager
def noting_refusals(store: Place, open_run: OpenRun, method: Method) -> Iterator[None]:
    """Let the store know of a method that cannot even begin.

    Arguments that break a rule are no run, and nothing is opened before they are known to be good.

    Args:
        store: The store, its file, or `None`.
        open_run: Opens the run in it.
        method: The method that is about to begin.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if store is not None:
            with _opened(store) as opened:
                open_run(opened).end(*_ending(method, error))
        raise


@contextmanager
def recording(
    store: Place, open_run: OpenRun, method: Method, problem: Problem, ledger: Ledger
) -> Iterator[Recorder | None]:
    """Open the run in its store and note how it failed if it does.

    Args:
        store: The store, its file, or `None`.
        open_run: Opens the run in it.
        method: The method that searches.
        problem: The problem.
        ledger: Knows the best point so far, for the message when the store breaks.

    Yields:
        The run's recorder; `None` without a store.

    Raises:
        StoreError: If the store cannot be used, with the best point so far.
    """
    if store is None:
        yield None
        return
    with _opened(store) as opened:
        recorder = open_run(opened)
        try:
            yield recorder
        except StoreError as error:
            best = ledger.best
            found = (
                ""
                if best is None
                else (
                    f"; best so far: loss {best.loss:.6g} at {problem.space.decode(best.point.x)}"
                )
            )
            raise StoreError(f"{error}{found}") from error
        except BaseException as error:
            recorder.end(*_ending(method, error))
            raise


@contextmanager
def _opened(store: Store | str | os.PathLike[str]) -> Iterator[Store]:
    """The store, closed at the end if it was opened here."""
    if isinstance(store, Store):
        yield store
        return
    with Store(store) as opened:
        yield opened


def end(recorder: Recorder, method: Method, result: Result) -> None:
    """Note a result in the store.

    Args:
        recorder: Of the run.
        method: The method that searched; one that broke a rule has found nothing.
        result: What the run gave.
    """
    if method.violation:
        recorder.end("disqualified", method.violation)
        return
    status = INTERRUPTED if result.stop_reason == INTERRUPTED else "finished"
    found = result.x, result.loss, result.standard_error
    recorder.end(status, result.stop_reason, found)


def _ending(method: Method, error: BaseException) -> tuple[str, str]:
    """Status and reason of a run that an exception ended."""
    if method.violation:
        return "disqualified", method.violation
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, INTERRUPTED
    if isinstance(error, UnsupportedProblemError | MissingPackageError):
        return "refused", str(error)
    is_plain = isinstance(error, InnerSolverError | InputError)
    return "failed", str(error) if is_plain else f"{type(error).__name__}: {error}"
