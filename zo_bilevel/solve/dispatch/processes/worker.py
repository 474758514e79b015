"""The process that runs solves: reads jobs from one pipe, writes outcomes to another.

Started by `guard.py`; imports numpy and nothing heavier. Everything that travels is pickled
between this package's own processes, over pipes that nobody else can open; the user's code may
print, and may write to standard output and error from C, without touching them.
"""

import ctypes
import io
import os
import pickle
import signal
import struct
import sys
import time
from typing import Any, BinaryIO

import numpy.random  # noqa: F401 - numpy loads it late: the first solve's clock would pay for it

from zo_bilevel.problem.module_values import changed_value
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.errors import shown

FRAME_HEADER = struct.Struct("<8scQ")
"""One frame: the mark, a kind (one byte), the length of its body, the body."""
FRAME_MARK = b"\x93zo-frm\n"
"""A solver that writes to descriptors which are not its own may write into this pipe."""
SOLVER, JOB, READY, REFUSED, CHANGED, OUTCOME = b"S", b"J", b"R", b"X", b"C", b"O"
PR_SET_PDEATHSIG = 1


def main(request_fd: int, reply_fd: int, guard: int) -> None:
    """Answer frames until the request pipe is closed."""
    _end_with(guard)
    for fd in (request_fd, reply_fd):
        os.set_inheritable(fd, False)
    own = os.getpid()
    solve: Any = None
    with open(request_fd, "rb") as requests, open(reply_fd, "wb") as replies:
        while True:
            frame = read_frame(requests)
            if frame is None:
                return
            if frame[0] == SOLVER:
                solve, kind, body = _load(frame[1])
            else:
                kind, body = OUTCOME, _answer(solve, frame[1])
            if os.getpid() != own:
                os._exit(1)  # the user's solver forked and its child came back here
            replies.write(FRAME_HEADER.pack(FRAME_MARK, kind, len(body)) + body)
            replies.flush()


def _end_with(guard: int) -> None:
    """Have the kernel kill this process when the guard is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != guard:
        os._exit(1)


def read_frame(stream: BinaryIO) -> tuple[bytes, bytes] | None:
    """Read one frame, or `None` at the end of the stream."""
    header = stream.read(FRAME_HEADER.size)
    if len(header) < FRAME_HEADER.size:
        return None
    _, kind, length = FRAME_HEADER.unpack(header)
    body = stream.read(length)
    return None if len(body) < length else (kind, body)


def _load(body: bytes) -> tuple[Any, bytes, bytes]:
    """Take over the parent's `sys.argv`, load a solver; tell the parent if it cannot be had."""
    stream = io.BytesIO(body)
    try:
        sys.argv[:] = pickle.load(stream)
        solve = pickle.load(stream)
        changed = changed_value(pickle.load(stream))
        return (solve, READY, b"") if changed is None else (None, CHANGED, changed.encode())
    except BaseException as error:  # noqa: BLE001 - importing the user's modules may raise anything
        return None, REFUSED, say(error).encode()


def _answer(solve: Any, body: bytes) -> bytes:  # noqa: ANN401 - whatever `_load` gave
    job: Job = pickle.loads(body)
    return pickle.dumps(guarded(solve, job), protocol=pickle.HIGHEST_PROTOCOL)


def guarded(solve: Solve, job: Job) -> Outcome:
    """Run one job; whatever escapes `solve` (SystemExit, an odd `__array__`) becomes "failed"."""
    started = time.perf_counter()
    try:
        return solve(job)
    except BaseException as error:  # noqa: BLE001 - the boundary to the user's code
        seconds = time.perf_counter() - started
        return Outcome("failed", seconds=seconds, error=say(error), worker=str(os.getpid()))


def say(error: BaseException) -> str:
    """Name an exception, even one that cannot be printed."""
    return f"{type(error).__name__}: {shown(error)}"
