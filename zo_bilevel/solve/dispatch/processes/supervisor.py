"""The parent's side of one worker process: start it, hand it jobs, end it with its whole tree.

    this process  --requests-->  worker  --replies-->  this process
         |  lifeline (stdin)       ^
         +--------------------> guard  --events-->  this process

Three pipes and a lifeline; closing the lifeline, by `kill` or by this process's own death, makes
the guard end the tree. `subprocess` starts everything: nothing is forked from this process's
memory, so threads, OpenMP and CUDA state here are safe, and a script needs no `__main__` guard.
"""

import fcntl
import os
import pickle
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, final

from zo_bilevel.solve.dispatch.processes import guard
from zo_bilevel.solve.dispatch.processes.worker import (
    CHANGED,
    FRAME_HEADER,
    FRAME_MARK,
    JOB,
    OUTCOME,
    REFUSED,
    SOLVER,
)
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.errors import InnerSolverError, InputError
from zo_bilevel.support.process_tree import script_command

START_LIMIT_S = 300.0
"""A worker that has not loaded the solver by then never will."""
END_LIMIT_S = 1.0
"""How long a worker may take to end in good order, and its guard to clear up."""
CHUNK_BYTES = 1 << 16
THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
BOOTSTRAP = (
    "import sys; request, reply, guard = map(int, sys.argv[1:4]); sys.path[:] = sys.argv[4:]; "
    "sys.argv[1:] = []; "
    "from zo_bilevel.solve.dispatch.processes.worker import main; main(request, reply, guard)"
)


class WorkerDiedError(Exception):
    """The worker is gone, with how it ended."""


class WorkerTooSlowError(Exception):
    """The worker did not answer in time; it still runs."""


@final
@dataclass(frozen=True, slots=True)
class Shipment:
    """A solver ready to travel.

    Args:
        digest: Names the solver, so that a worker is sent it once.
        body: `sys.argv`, pickled, and behind it the solver, pickled by cloudpickle.
        path: `sys.path` of the process that made it.
        folder: Its working directory.
    """

    digest: bytes
    body: bytes
    path: tuple[str, ...]
    folder: str


@final
class SupervisedWorker:
    """One worker process and its guard.

    Used by one thread at a time, but for `kill`, which any thread may call.

    Args:
        shipment: The first solver it will be sent; gives the working directory and `sys.path`.
    """

    def __init__(self, shipment: Shipment) -> None:
        self.digest = b""
        self._lock = threading.Lock()
        request_read, self._requests = _pipe()
        self._replies, reply_write = _pipe()
        self._events, event_write = _pipe()
        theirs = (event_write, request_read, reply_write)
        try:
            self._guard = subprocess.Popen(
                _command(theirs, shipment.path),
                stdin=subprocess.PIPE,
                pass_fds=theirs,
                start_new_session=True,
                cwd=shipment.folder,
                env=worker_environment(),
            )
        finally:
            for fd in theirs:
                os.close(fd)
        self._open = True
        os.set_blocking(self._requests, False)

    def load(self, shipment: Shipment) -> None:
        """Send the solver, unless it is there already.

        Raises:
            InputError: If it reads a value of a module that was changed after the import.
            InnerSolverError: If the worker cannot load it, with the worker's words.
            WorkerDiedError: If it died of it.
        """
        if shipment.digest == self.digest:
            return
        deadline = time.monotonic() + START_LIMIT_S
        self._send(SOLVER, shipment.body, deadline)
        kind, body = self._receive(deadline)
        if kind == REFUSED:
            raise InnerSolverError(
                f"a worker process cannot load the inner solver: {body.decode()}; it must be "
                "importable there as it is here"
            )
        if kind == CHANGED:
            name = body.decode()
            raise InputError(
                f"{name} has another value in a worker process, which imports its module afresh, "
                "than here, where it was changed after the import: give it to the solver as an "
                "argument or through phi, or send the module whole with "
                f"cloudpickle.register_pickle_by_value({name.rpartition('.')[0]})"
            )
        self.digest = shipment.digest

    def call(self, job: bytes, timeout_s: float | None) -> Outcome:
        """Run one job.

        Raises:
            WorkerDiedError: If the worker died before it answered.
            WorkerTooSlowError: If it did not answer in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._send(JOB, job, deadline)
        kind, body = self._receive(deadline)
        if kind != OUTCOME:
            raise WorkerDiedError(f"answered out of turn ({kind!r})")
        outcome: Outcome = pickle.loads(body)
        return outcome

    @property
    def alive(self) -> bool:
        """Whether the worker can take a job."""
        return self._open and not _poll({self._events: select.POLLIN}, time.monotonic())

    def kill(self) -> None:
        """Order the end of the worker's process tree; returns at once."""
        with self._lock:
            if self._guard.stdin is not None:
                self._guard.stdin.close()

    def ask_to_end(self) -> None:
        """Let an idle worker run its exit handlers and go; `end` then waits for it."""
        if self._open and self._requests >= 0:
            os.close(self._requests)
            self._requests = -1

    def end(self) -> str:
        """End the process tree, wait until it is gone, let go of the pipes."""
        if not self._open:
            return "ended before"
        self._open = False
        if self._requests < 0:
            _poll({self._events: select.POLLIN}, time.monotonic() + END_LIMIT_S)
        self.kill()
        if not _poll({self._events: select.POLLIN}, time.monotonic() + END_LIMIT_S):
            self._guard.kill()  # the kernel ends the worker with it
        how = os.read(self._events, 4096).decode(errors="replace")
        self._guard.wait()
        for fd in (self._requests, self._replies, self._events):
            if fd >= 0:
                os.close(fd)
        return how or "its guard died"

    def _send(self, kind: bytes, body: bytes, deadline: float | None) -> None:
        left = memoryview(FRAME_HEADER.pack(FRAME_MARK, kind, len(body)) + body)
        while left:
            self._wait(self._requests, select.POLLOUT, deadline)
            try:
                left = left[os.write(self._requests, left[:CHUNK_BYTES]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise WorkerDiedError(self._ending()) from None

    def _receive(self, deadline: float | None) -> tuple[bytes, bytes]:
        received = self._read(deadline)
        while len(received) < FRAME_HEADER.size:
            received += self._read(deadline)
        mark, kind, length = FRAME_HEADER.unpack_from(received)
        if mark != FRAME_MARK:
            raise WorkerDiedError("sent no answer: its solver wrote to a foreign descriptor")
        while len(received) < FRAME_HEADER.size + length:
            received += self._read(deadline)
        return kind, bytes(received[FRAME_HEADER.size :])

    def _read(self, deadline: float | None) -> bytearray:
        self._wait(self._replies, select.POLLIN, deadline)
        data = os.read(self._replies, CHUNK_BYTES)
        if not data:
            raise WorkerDiedError(self._ending())
        return bytearray(data)

    def _wait(self, fd: int, wanted: int, deadline: float | None) -> None:
        """Wait until `fd` is ready; a worker that is gone or too slow is an exception."""
        ready = _poll({fd: wanted, self._events: select.POLLIN}, deadline)
        if ready.get(fd, 0) & wanted:
            return
        if ready:
            raise WorkerDiedError(self._ending())
        raise WorkerTooSlowError

    def _ending(self) -> str:
        """Let the guard finish clearing up by itself, then collect how the worker ended."""
        _poll({self._events: select.POLLIN}, time.monotonic() + END_LIMIT_S)
        return self.end()


def worker_environment() -> dict[str, str]:
    """The environment of a worker: one thread per library unless the user set otherwise.

    One thread always, not "cores over workers": the number of threads may change the last bits of
    a sum, and results must not depend on the number of workers.
    """
    return {**dict.fromkeys(THREAD_LIMITS, "1"), **os.environ}


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are no standard descriptors, which this process may have closed."""
    ends = os.pipe()
    safe = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) if fd < 3 else fd for fd in ends)
    for fd in set(ends).difference(safe):
        os.close(fd)
    return safe[0], safe[1]


def pack_job(job: Job) -> bytes:
    """Pickle a job; values from `__main__`, lambdas and closures are fine too."""
    try:
        return pickle.dumps(job, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        import cloudpickle

        packed: bytes = cloudpickle.dumps(job)
        return packed


def _command(theirs: tuple[int, int, int], path: tuple[str, ...]) -> list[str]:
    """The command line of a guard, and behind it that of its worker."""
    numbers = [str(fd) for fd in theirs]
    options = ["-O"] * sys.flags.optimize + [f"-W{option}" for option in sys.warnoptions]
    worker = [sys.executable, *options, "-c", BOOTSTRAP, *numbers[1:], "GUARD", *path]
    return [*script_command(guard.__name__), *numbers, *worker]


def _poll(wanted: dict[int, int], deadline: float | None) -> dict[int, Any]:
    """Wait for any of some descriptors; an empty answer means that time is up."""
    poller = select.poll()
    for fd, events in wanted.items():
        poller.register(fd, events)
    if deadline is None:
        return dict(poller.poll())
    milliseconds = max(0.0, deadline - time.monotonic()) * 1000
    return dict(poller.poll(milliseconds))
