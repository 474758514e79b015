"""A run in its store from its beginning to its end, whatever that end is."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol, TypeAlias, runtime_checkable

from zo_bilevel.methods.base import Method
from zo_bilevel.run.budget import Budget
from zo_bilevel.run.ledger import Ledger
from zo_bilevel.run.result import Result
from zo_bilevel.run.run_text import run_to_text
from zo_bilevel.run.runs import Improvement, Run, RunStatus
from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.store.arrays import pack_array
from zo_bilevel.store.places import open_store
from zo_bilevel.store.recorder import Recorder
from zo_bilevel.store.sqlite import SQLiteStore
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import (
    InnerSolverError,
    InputError,
    MissingPackageError,
    StoreError,
    UnsupportedProblemError,
)

Place: TypeAlias = AbstractStore | str | os.PathLike[str] | None
OpenRun: TypeAlias = Callable[[AbstractStore], Recorder]
INTERRUPTED: Final = "interrupted"


@contextmanager
def opened(store: AbstractStore | str | os.PathLike[str]) -> Iterator[AbstractStore]:
    """A store, closed at the end if it was opened here; `InputError` if it is neither."""
    if isinstance(store, AbstractStore):
        yield store
        return
    if not isinstance(store, str | os.PathLike):
        raise InputError(f"store must be a file or an open store, got {type(store).__name__}")
    with open_store(store) as found:
        yield found


@contextmanager
def noting_refusals(store: Place, open_run: OpenRun, method: Method, seed: int) -> Iterator[None]:
    """Let the store know of a method that cannot even begin.

    Arguments that break a rule are no run, and nothing is opened before they are known to be good.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if store is not None:
            with opened(store) as found:
                _fail(open_run(found), method, seed, Ledger(Budget()), error)
        raise


@contextmanager
def recording(
    store: Place, open_run: OpenRun, method: Method, seed: int, ledger: Ledger
) -> Iterator[Recorder | None]:
    """Open the run in its store and note how it failed if it does.

    Yields:
        The run's recorder; `None` without a store.

    Raises:
        StoreError: If the store cannot be used, with the best point so far.
    """
    if store is None:
        yield None
        return
    with opened(store) as found:
        recorder = open_run(found)
        try:
            yield recorder
        except StoreError as error:
            raise StoreError(f"{error}{_best_so_far(ledger)}") from error
        except BaseException as error:
            _fail(recorder, method, seed, ledger, error)
            raise
        finally:
            found.release(recorder.run.number)


def begin(recorder: Recorder, ledger: Ledger) -> None:
    """Replay what is on record first, and heed who steers the run."""
    recorder.steered = ledger.steer
    if recorder.on_record:
        ledger.time.replay(recorder.spent)
        recorder.takes_others = not ledger.has_ended


@runtime_checkable
class KeepsBooks(Protocol):
    """An inner solver whose limit on money holds across restarts and processes."""

    def keep_books(self, file: Path) -> None:
        """Write from now on into a file what is paid, and go on from what stands there."""
        ...


def keep_books(store: AbstractStore, inner: object) -> None:
    """Let an inner solver that pays keep its bill beside the store, for restarts and processes."""
    if isinstance(store, SQLiteStore) and isinstance(inner, KeepsBooks):
        file = store.path.resolve()
        inner.keep_books(file.with_name(f"{file.name}.bill"))


def _best_so_far(ledger: Ledger) -> str:
    if ledger.best is None:
        return ""
    return f"; best so far: loss {ledger.best.loss:.6g} at {ledger.phi_of(ledger.best)}"


def end(
    recorder: Recorder, method: Method, result: Result, ledger: Ledger, broken: str = ""
) -> None:
    """Note a result in the store.

    Args:
        recorder: Of the run.
        method: The method that searched; one that broke a rule has found nothing.
        result: What the run gave.
        ledger: Knows how its best point came about.
        broken: As in `run_of`.
    """
    run = run_of(result, method, ledger.improvements, broken)
    if reason := method.violation:
        run = replace(run, status="disqualified", stop_reason="disqualified", error=reason)
    recorder.spent = max(recorder.spent, ledger.spent)
    _keep(recorder, run, reason or result.stop_reason, result.x, is_whole=not reason)


def run_of(
    result: Result, method: Method, improvements: Sequence[Improvement], broken: str = ""
) -> Run:
    """A result as a row, without its final point; `broken`: what a library raised, in words."""
    status: RunStatus = "broke off" if broken else "finished"
    return Run(
        method=method.name,
        seed=result.seed,
        status="interrupted" if result.stop_reason == INTERRUPTED else status,
        loss=result.counted_loss,
        solves=result.solves,
        rounds=result.rounds,
        seconds=result.seconds,
        cost=result.cost,
        stop_reason=result.stop_reason,
        failures=dict(result.failures),
        error=broken,
        improvements=tuple(improvements),
        standard_error=result.standard_error,
        interval=result.interval,
        draws=result.draws,
        violation=result.violation,
        constraints="" if result.violation is None else method.constraints,
        reused=result.reused,
    )


def _fail(
    recorder: Recorder, method: Method, seed: int, ledger: Ledger, error: BaseException
) -> None:
    """Note in the store that an exception ended the run, and what it had found until then."""
    status, reason = _ending(method, error)
    best = ledger.best
    run = Run(
        method=method.name,
        seed=seed,
        status=status,
        loss=ledger.best_loss,
        solves=ledger.solves,
        rounds=ledger.rounds,
        seconds=ledger.seconds,
        cost=ledger.cost,
        stop_reason=status,
        failures=dict(ledger.failures),
        error="" if status == INTERRUPTED else reason,
        improvements=tuple(ledger.improvements),
        reused=recorder.replayed,
    )
    recorder.spent = max(recorder.spent, ledger.spent)
    _keep(recorder, run, reason, None if best is None else best.point.x, is_whole=False)


def _keep(
    recorder: Recorder, run: Run, reason: str, x: FloatArray | None, *, is_whole: bool
) -> None:
    point = b"" if x is None else pack_array(x)
    ending = (run.status, reason, run_to_text(run), point)
    if run.status != INTERRUPTED:
        recorder.end(*ending, is_whole=is_whole)
        return
    try:
        with recorder.store.unwaited():
            recorder.end(*ending, is_whole=is_whole)
    except StoreError as error:  # what was found is worth more than a note of how it ended
        warnings.warn(f"how the run ended is not on record: {error}", RuntimeWarning, stacklevel=2)


def _ending(method: Method, error: BaseException) -> tuple[RunStatus, str]:
    """Status and reason of a run that an exception ended."""
    if method.violation:
        return "disqualified", method.violation
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, INTERRUPTED
    if isinstance(error, UnsupportedProblemError | MissingPackageError):
        return "refused", str(error)
    is_plain = isinstance(error, InnerSolverError | InputError)
    return "failed", str(error) if is_plain else f"{type(error).__name__}: {error}"
