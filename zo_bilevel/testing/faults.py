"""Fake inner solvers that fail the way real ones do, to test a set-up before a simulator does.

Each wraps a real inner solver and spoils some of its solves. Which ones is decided by a hash of
the point and the seed, never by a clock or a random stream: the same points fail at any number of
workers, in any order, in any process, and again on every retry.

Example:
    >>> from zo_bilevel.solve.dispatch.base import Solve
    >>> from zo_bilevel.solve.dispatch.joblib import Joblib
    >>> from zo_bilevel.solve.evaluation import Job
    >>> def solver(phi):
    ...     return phi["a"] ** 2
    >>> faulty = Crashing(Hanging(NotANumber(solver, 0.2), 0.2), 0.2)
    >>> jobs = [Job(k, {"a": float(k)}, seed=0) for k in range(8)]
    >>> with Joblib(n_jobs=2, timeout_s=0.5) as dispatcher:
    ...     outcomes = dict(dispatcher.run(Solve(faulty), jobs))
    >>> [outcomes[k].status for k in range(8)]  # doctest: +NORMALIZE_WHITESPACE
    ['timed_out', 'ok', 'ok', 'ok', 'crashed', 'crashed', 'ok', 'timed_out']
"""

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import numpy as np

from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.support.arguments import finite_number, one_of
from zo_bilevel.testing.fault_points import Phi, chance, check_share, digest

Inner: TypeAlias = Callable[..., Any]

_leaked: list[bytearray] = []


@final
@dataclass(frozen=True, slots=True)
class Crashing:
    """Its process dies at some points, without a Python exception.

    Never run it with `Serial`, threads or in a notebook's own process: it is that process it kills.

    Args:
        inner: Called at the other points.
        probability: Share of the points, in [0, 1].
        how: "segfault", "abort" (SIGABRT), "exit" (`os._exit`), or "kill" (SIGKILL, which is what
            the kernel does to a process that is out of memory).
    """

    inner: Inner
    probability: float
    how: Literal["segfault", "abort", "exit", "kill"] = "segfault"

    def __post_init__(self) -> None:
        check_share("probability", self.probability)
        one_of("how", self.how, ("segfault", "abort", "exit", "kill"))

    def __call__(self, phi: Phi, *, seed: int | None = None) -> Any:  # noqa: ANN401 - user's theta
        """Die, or solve."""
        if chance(phi, seed, f"crash-{self.how}") < self.probability:
            _crash(self.how)
        return _solve(self.inner, phi, seed)


@final
@dataclass(frozen=True, slots=True)
class Hanging:
    """Does not come back at some points.

    Args:
        inner: Called at the other points.
        probability: Share of the points, in [0, 1].
        how: "sleep"; "spin" (a loop in Python); "locked" (in C, holding the interpreter lock: no
            other thread of its process runs); "children" (waits for a program that it started in
            another session, as command-line solvers do).
        seconds: How long; then it solves after all.
    """

    inner: Inner
    probability: float
    how: Literal["sleep", "spin", "locked", "children"] = "sleep"
    seconds: float = 3600.0

    def __post_init__(self) -> None:
        check_share("probability", self.probability)
        one_of("how", self.how, ("sleep", "spin", "locked", "children"))

    def __call__(self, phi: Phi, *, seed: int | None = None) -> Any:  # noqa: ANN401 - user's theta
        """Hang, or solve."""
        if chance(phi, seed, f"hang-{self.how}") < self.probability:
            _hang(self.how, self.seconds)
        return _solve(self.inner, phi, seed)


@final
@dataclass(frozen=True, slots=True)
class Raising:
    """Raises at some points.

    Args:
        inner: Called at the other points.
        probability: Share of the points, in [0, 1].
        message: Text of the `ArithmeticError`.
    """

    inner: Inner
    probability: float
    message: str = "the linear system is singular"

    def __post_init__(self) -> None:
        check_share("probability", self.probability)

    def __call__(self, phi: Phi, *, seed: int | None = None) -> Any:  # noqa: ANN401 - user's theta
        """Raise, or solve."""
        if chance(phi, seed, "raise") < self.probability:
            raise ArithmeticError(self.message)
        return _solve(self.inner, phi, seed)


@final
@dataclass(frozen=True, slots=True)
class NotANumber:
    """Returns a solution of the right shape with a NaN in it at some points.

    Args:
        inner: Called at every point.
        probability: Share of the points, in [0, 1].
    """

    inner: Inner
    probability: float

    def __post_init__(self) -> None:
        check_share("probability", self.probability)

    def __call__(self, phi: Phi, *, seed: int | None = None) -> Any:  # noqa: ANN401 - user's theta
        """Solve, and spoil the first number."""
        theta = _solve(self.inner, phi, seed)
        if chance(phi, seed, "nan") >= self.probability:
            return theta
        flat, layout = flatten_theta(theta)
        flat = flat.copy()
        flat[0] = np.nan
        return layout.pack(flat)


@final
@dataclass(frozen=True, slots=True)
class Unpicklable:
    """Returns something that is no number and cannot leave its process at some points.

    Args:
        inner: Called at the other points.
        probability: Share of the points, in [0, 1].
    """

    inner: Inner
    probability: float

    def __post_init__(self) -> None:
        check_share("probability", self.probability)

    def __call__(self, phi: Phi, *, seed: int | None = None) -> Any:  # noqa: ANN401 - user's theta
        """Return a lock, or solve."""
        if chance(phi, seed, "unpicklable") < self.probability:
            return threading.Lock()
        return _solve(self.inner, phi, seed)


@final
@dataclass(frozen=True, slots=True)
class Leaking:
    """Keeps memory at every solve, and is killed for it in the end.

    When that happens depends on how many solves its process has run, so this is the one fault that
    hits other points at another number of workers; with `retries=1` the results are the same all
    the same, for the retry has a fresh process.

    Args:
        inner: Called at every point.
        megabytes: Kept at each solve.
        limit_megabytes: The process kills itself, as the kernel would, beyond this.
    """

    inner: Inner
    megabytes: float = 10.0
    limit_megabytes: float = 1000.0

    def __call__(self, phi: Phi, *, seed: int | None = None) -> Any:  # noqa: ANN401 - user's theta
        """Leak, then solve."""
        _leaked.append(bytearray(int(self.megabytes * 2**20)))
        if sum(map(len, _leaked)) > self.limit_megabytes * 2**20:
            _crash("kill")
        return _solve(self.inner, phi, seed)


@final
@dataclass(frozen=True, slots=True)
class HeavyTailedNoise:
    """Adds Student t noise, whose rare values are far out.

    Args:
        inner: Called at every point.
        scale: Of the noise, in the unit of theta, >= 0.
        degrees: Of freedom, > 0: below 2 the variance is infinite, below 1 there is no mean.
        common: Whether the noise depends on the seed alone, as in a simulator whose random stream
            is independent of phi; otherwise every point has its own.

    Example:
        >>> noisy = HeavyTailedNoise(lambda phi: np.zeros(2), scale=1.0)
        >>> bool(np.all(noisy({"a": 1.0}, seed=3) == noisy({"a": 1.0}, seed=3)))
        True
    """

    inner: Inner
    scale: float
    degrees: float = 1.5
    common: bool = False

    def __post_init__(self) -> None:
        finite_number("scale", self.scale, ">= 0")
        finite_number("degrees", self.degrees, "> 0")

    def __call__(self, phi: Phi, *, seed: int | None = None) -> Any:  # noqa: ANN401 - user's theta
        """Solve, then add noise."""
        flat, layout = flatten_theta(_solve(self.inner, phi, seed))
        entropy = digest({} if self.common else phi, seed, "noise")
        generator = np.random.default_rng(int.from_bytes(entropy, "big"))
        noise = generator.standard_t(self.degrees, size=flat.shape)
        return layout.pack(flat + self.scale * noise)


def _solve(inner: Inner, phi: Phi, seed: int | None) -> Any:  # noqa: ANN401 - user's theta
    return inner(phi, seed=seed) if takes_seed(inner) else inner(phi)


def _crash(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "abort":
        os.abort()
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _hang(how: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    if how == "children":
        command = [sys.executable, "-I", "-S", "-c", f"import time; time.sleep({seconds})"]
        subprocess.run(command, start_new_session=True, check=True)
    elif how == "locked":
        ctypes.PyDLL(None).sleep(math.ceil(seconds))
    elif how == "spin":
        while time.monotonic() < deadline:
            pass
    else:
        time.sleep(seconds)
