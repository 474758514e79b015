"""What every baseline library runs behind: its import, its limits, its thread, its silence.

A library runs in a thread of its own, because many can only call back. The thread and its caller
take turns, never at the same time, so that runs are deterministic. While the library has its
turn, and only then, warnings and prints are silenced and numpy's global random numbers are the
run's own.
"""

import dataclasses
import io
import sys
import threading
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, ClassVar, TextIO, final

import numpy as np

from zo_bilevel.methods.base import Arrivals, Method, Rounds, Search
from zo_bilevel.methods.baselines.coordinates import Coordinates, CoordinatesName, check_coordinates
from zo_bilevel.methods.baselines.failure_values import (
    refuse_discrete,
    refuse_many_solves,
    residuals_of,
)
from zo_bilevel.methods.baselines.solves import ClosedError, GiveUpError, Solves
from zo_bilevel.methods.shared.starts import find_start
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.errors import UnsupportedProblemError, ZoBilevelError
from zo_bilevel.support.packages import import_optional

CLOSING_SECONDS = 10.0


class _NoStartError(Exception):
    """Raised where nothing that a library asks for first is solved."""

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__(evaluation.error)
        self.evaluation = evaluation


class Baseline(Method):
    """A method of another library: same problem, scale, bounds, start, budget as ours.

    Args:
        coordinates: "scaled" or "prior".

    Raises:
        InputError: If it is neither.
        MissingPackageError: If the library is not installed.
    """

    package: ClassVar[tuple[str, str]] = ("scipy", "")
    """What is imported, and the extra that brings it."""
    is_asynchronous: ClassVar[bool] = False
    """Whether `drive` does nothing but `serve`, which needs no rounds."""
    needs_residuals: ClassVar[bool] = False
    why_no_discrete: ClassVar[str] = ""
    """Why there may be no integers or choices, in words; empty where there may."""
    most_solves: ClassVar[int | None] = None
    """That its Gaussian process can carry."""

    def __init__(self, coordinates: str = "scaled") -> None:
        self.coordinates: CoordinatesName = check_coordinates(coordinates)
        self.library()

    @final
    def library(self, module: str = "") -> Any:  # noqa: ANN401 - a module without types
        """The package, or one of its modules; `MissingPackageError` if it is not installed."""
        name, extra = self.package
        return import_optional(module or name, type(self).__name__, extra)

    @property
    @abstractmethod
    def label(self) -> str:
        """Name without the coordinates."""

    @property
    @final
    def name(self) -> str:
        """Name in tables and on the command line."""
        return self.label if self.coordinates == "scaled" else f"{self.label}:{self.coordinates}"

    @property
    def packages(self) -> tuple[str, ...]:
        """The library."""
        return (self.package[0],)

    @property
    def constraints(self) -> str:
        """How the method keeps constraints."""
        return "penalized"

    def refuse(self, search: Search) -> None:
        """Raise when the method cannot work on this problem.

        Raises:
            UnsupportedProblemError: With the reason.
        """
        if self.needs_residuals:
            residuals_of(search, self.label)
        if self.why_no_discrete:
            refuse_discrete(search, self.label, self.why_no_discrete)
        if self.most_solves is not None:
            refuse_many_solves(search, self.label, self.most_solves)

    @abstractmethod
    def drive(self, solves: Solves) -> str:
        """Run the library to its end, in its own thread."""

    @final
    def rounds(self, search: Search) -> Rounds:
        """Each call of the library is a round."""
        self.refuse(search)
        try:
            return (yield from self._coroutine(search, must_start=True))
        except _NoStartError as unsolved:
            search, start = yield from find_start(search, unsolved.evaluation)
        if start.ok:
            search = dataclasses.replace(search, start=start.point.x)
        return (yield from self._coroutine(search))

    @final
    def arrivals(self, search: Search) -> Arrivals:
        """The library's candidates, each told when it arrives."""
        if not self.is_asynchronous:
            return super().arrivals(search)
        self.refuse(search)
        return self._coroutine(search)

    def _coroutine(self, search: Search, *, must_start: bool = False) -> Rounds:
        solves = Solves(search, Coordinates(search.space, search.start, self.coordinates))
        thread = threading.Thread(target=_work, args=(self, solves), name=self.name, daemon=True)
        random = np.random.RandomState(search.rng(0).integers(2**32, dtype=np.uint32))
        try:
            with _turn_of_library(random, thread):
                thread.start()
                message = solves.asked.get()
            while isinstance(message, list):
                evaluations = yield message
                # differences around a start that failed do not make up for it
                if must_start and not any(e.ok and e.point.role != "sketch" for e in evaluations):
                    raise _NoStartError(evaluations[0])
                must_start = False
                with _turn_of_library(random, thread):
                    solves.answers.put(evaluations)
                    message = solves.asked.get()
        finally:
            solves.answers.put(None)
            if not sys.is_finalizing():  # a thread cannot end any more then: do not wait for it
                thread.join(CLOSING_SECONDS)
        if isinstance(message, Exception):
            return self._broken(message, solves)
        return f"{self.label}: {message}"

    def _broken(self, error: Exception, solves: Solves) -> str:
        if isinstance(error, ZoBilevelError):
            raise error
        words = f"{type(error).__name__}: {error}"
        if solves.count == 0:
            raise UnsupportedProblemError(
                f"{self.label} cannot work on this problem: {words}"
            ) from error
        solves.search.notes.broken = words
        return f"{self.label} broke off with {words}"


def _work(method: Baseline, solves: Solves) -> None:
    try:
        solves.asked.put(" ".join(method.drive(solves).split()))
    except GiveUpError as error:
        solves.asked.put(str(error))
    except ClosedError:
        return
    except Exception as error:  # noqa: BLE001 - the library's own; the run ends with its words
        solves.asked.put(error)


@final
class _SilentThread(io.TextIOBase):
    """Standard output but for one thread, whose words are lost."""

    def __init__(self, thread: threading.Thread, outside: TextIO) -> None:
        self._thread, self._outside = thread, outside

    def write(self, text: str) -> int:
        """Pass on what other threads print."""
        is_silent = threading.current_thread() is self._thread
        return len(text) if is_silent else self._outside.write(text)

    def flush(self) -> None:
        """Flush what is behind."""
        self._outside.flush()


_TURN = threading.Lock()
"""Output, warnings and numpy's generator belong to the process: one library at a time has them."""


@contextmanager
def _turn_of_library(random: np.random.RandomState, thread: threading.Thread) -> Iterator[None]:
    with _TURN:
        outside = np.random.get_state()  # noqa: NPY002 - libraries draw from the global generator
        np.random.set_state(random.get_state())  # noqa: NPY002
        silent = _SilentThread(thread, sys.stdout)
        try:
            with warnings.catch_warnings(), redirect_stdout(silent):
                warnings.simplefilter("ignore")
                yield
        finally:
            random.set_state(np.random.get_state())  # noqa: NPY002
            np.random.set_state(outside)  # noqa: NPY002
