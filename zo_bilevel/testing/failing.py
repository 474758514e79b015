"""Solvers that fail at some points in every way there is: runs end, count them, find their way.

Which points fail is decided by a hash of the point, as in `zo_bilevel.testing.faults`.

Example:
    >>> from zo_bilevel import DefaultMethod
    >>> check_survives(DefaultMethod(), "raises")
"""

import asyncio
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, final

import numpy as np

from zo_bilevel.methods.base import Method
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.problem import Problem
from zo_bilevel.run.loop import minimize
from zo_bilevel.solve.dispatch.base import Dispatcher
from zo_bilevel.support.errors import InputError, unknown_name_message
from zo_bilevel.testing.conformance import require
from zo_bilevel.testing.fault_points import chance
from zo_bilevel.testing.perversions import Perverse, oscillation

_MASKED: Any = np.ma.masked_greater(np.ones((3, 4)), 0.0)  # type: ignore[no-untyped-call]  # numpy
FAILING_SHARE = 0.2
"""Of the points that fail."""
FOUND_LOSS = 1e-6
"""A loss below which the minimum, 0, counts as found."""


class _Unprintable(Exception):  # noqa: N818 - it is a fault, not an error of this package
    def __str__(self) -> str:
        raise RuntimeError("no text")


def _raise(error: BaseException) -> NoReturn:
    raise error


_FAULTS: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        "raises": lambda: _raise(ArithmeticError("the linear system is singular")),
        "exits": lambda: sys.exit(3),
        "raises StopIteration": lambda: _raise(StopIteration()),
        "raises GeneratorExit": lambda: _raise(GeneratorExit()),
        "is cancelled": lambda: _raise(asyncio.CancelledError()),
        "raises what cannot be printed": lambda: _raise(_Unprintable()),
        "raises control characters": lambda: _raise(ValueError("\x1b[2J\0\udcff")),
        "runs out of memory": lambda: _raise(MemoryError()),
        "returns NaN": lambda: np.full((3, 4), np.nan),
        "returns infinity": lambda: np.full((3, 4), np.inf),
        "returns masked values": lambda: _MASKED.copy(),
        "returns too little": lambda: np.ones((2, 4)),
        "returns nothing": lambda: None,
        "returns an empty array": lambda: np.ones(0),
        "returns a text": lambda: "did not converge",
        "returns a lock": threading.Lock,
        "returns complex numbers": lambda: np.full((3, 4), 1j),
        "returns other names": lambda: {"wave": np.ones((3, 4))},
    }
)
FAULTS: tuple[str, ...] = tuple(_FAULTS)
"""What a solve can come to, by name."""


@final
class Failing:
    """The solver of `perversions` that fails at every fifth point, by a hash, never at the start.

    Args:
        kind: One of `FAULTS`.
        draw: Which points fail: another number, other points.

    Raises:
        InputError: If there is no such fault.
    """

    def __init__(self, kind: str, draw: int = 0) -> None:
        if kind not in _FAULTS:
            raise InputError(unknown_name_message("fault", kind, _FAULTS))
        self.kind = kind
        self.draw = draw
        self.name = f"failing: {kind}"

    def __call__(self, phi: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever it likes
        """Solve, or fail."""
        is_start = phi["stiffness"] == 1.0
        if not is_start and chance(phi, self.draw, "fault") < FAILING_SHARE:
            return _FAULTS[self.kind]()
        return oscillation(phi)["wave"]

    def problem(self) -> Problem:
        """The problem of finding the parameters behind a measured oscillation."""
        target = oscillation({"stiffness": 1.1, "damping": 0.4})["wave"]
        return Problem(Perverse().problem().space, self, SquaredError(target), name=self.name)


def check_survives(
    method: Method,
    kind: str,
    dispatcher: Dispatcher | None = None,
    *,
    with_store: bool = False,
    max_solves: int = 60,
) -> None:
    """Check that a run with failing solves ends, counts them, and finds what it finds without.

    Args:
        method: Searches.
        kind: One of `FAULTS`.
        dispatcher: Runs the solves; default `Serial()`.
        with_store: Whether the run has a store, from which it is then repeated.
        max_solves: Budget.

    Raises:
        AssertionError: Naming the rule that is broken.
    """
    plain = minimize(Perverse().problem(), method, max_solves=max_solves)
    problem = Failing(kind).problem()
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "runs.sqlite") if with_store else None
        options: dict[str, Any] = {"dispatcher": dispatcher, "store": store}
        found = minimize(problem, method, max_solves=max_solves, **options)
        again = minimize(problem, method, max_solves=max_solves, **options)
    failed = sum(record.status != "ok" for record in found.history)
    require(sum(found.failures.values()) == failed > 0, f"{kind}: failed solves are counted")
    require(len(found.history) == found.solves <= max_solves, f"{kind}: all solves are counted")
    require(bool(found.stop_reason), f"{kind}: a run says why it stopped")
    start = found.history[0].loss
    goal = FOUND_LOSS if plain.loss < FOUND_LOSS**2 else start
    require(found.loss <= goal, f"{kind}: loss {found.loss:g}, without faults {plain.loss:g}")
    same = [r.loss for r in again.history] == [r.loss for r in found.history]
    require(same, f"{kind}: the same run again gives the same numbers")
