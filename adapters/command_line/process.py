"""Runs one program in a process group of its own, which is gone when the call returns."""

import array
import atexit
import contextlib
import math
import mmap
import os
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, final

from zo_bilevel.adapters.command_line import lifeline
from zo_bilevel.support.process_tree import kill_group, kill_tree, script_command

HELPER_END_LIMIT_S = 2.0
NUM_SLOTS = 4096
"""Programs at once that the helper knows of; further ones run without its protection."""


@final
@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended.

    Args:
        status: Exit status; minus the signal's number when killed by one; `None` when it was
            stopped at its time limit.
        seconds: Wall-clock seconds it ran.
    """

    status: int | None
    seconds: float


def run_program(
    arguments: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    streams: tuple[IO[bytes] | int, IO[bytes], IO[bytes]],
    timeout_s: float | None,
) -> Ending:
    """Run a program, never through a shell, and leave none of its processes behind.

    Its whole process group is killed at the time limit, on Ctrl-C, when the program ends but
    leaves children running, and when this process itself is killed.

    Raises:
        OSError: If it cannot be started.

    Example:
        >>> with open(os.devnull, "r+b") as null:
        ...     run_program(
        ...         ["false"], folder=Path("/"), environment=os.environ,
        ...         streams=(null, null, null), timeout_s=5.0,
        ...     ).status
        1
    """
    started = time.perf_counter()
    slot = LIFELINE.take_slot()
    try:
        process = subprocess.Popen(
            list(arguments), cwd=folder, env=dict(environment), start_new_session=True,
            stdin=streams[0], stdout=streams[1], stderr=streams[2],
        )  # fmt: skip
        return _finish(process, slot, started, timeout_s)
    finally:
        LIFELINE.release(slot)


def _finish(
    process: subprocess.Popen[bytes], slot: int | None, started: float, timeout_s: float | None
) -> Ending:
    """Wait for a program, end what is left of its group, collect it."""
    ended = False
    try:
        LIFELINE.hold(slot, process.pid)
        ended = _wait(process, timeout_s)
    finally:
        if ended:
            kill_group(process.pid)
        else:
            kill_tree(process.pid)
        process.wait()
    return Ending(process.returncode if ended else None, time.perf_counter() - started)


def _wait(process: subprocess.Popen[bytes], timeout_s: float | None) -> bool:
    """Wait for the end without collecting it, so that its group's number stays its own."""
    try:
        handle = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, or not allowed here
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
        return process.returncode is not None
    try:
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        return bool(poller.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)))
    finally:
        os.close(handle)


@final
class Lifeline:
    """This process's helper that outlives it and ends the programs it leaves behind."""

    def __init__(self) -> None:
        self._as_new()

    def _as_new(self) -> None:
        self._lock = threading.Lock()
        self._helper: subprocess.Popen[bytes] | None = None
        self._memory: IO[bytes] | None = None
        self._slots: memoryview | None = None
        self._free: list[int] = []

    def take_slot(self) -> int | None:
        """A place for a program about to start, with the helper running by then.

        Returns:
            What `hold` and `release` take; `None` when all places are taken.
        """
        with self._lock:
            if self._slots is None:
                self._share_memory()
            if self._helper is None or self._helper.poll() is not None:
                self._start_helper()
            if not self._free or self._slots is None:
                return None
            return self._free.pop()

    def hold(self, slot: int | None, group: int) -> None:
        """Have a process group killed if this process dies."""
        with self._lock:
            if slot is not None and self._slots is not None:
                self._slots[slot] = group

    def release(self, slot: int | None) -> None:
        """Say that a process group has ended, or never began."""
        with self._lock:
            if slot is not None and self._slots is not None:
                self._slots[slot] = 0
                self._free.append(slot)

    def close(self) -> None:
        """Let the helper go; groups that still run are killed."""
        helper, self._helper = self._helper, None
        if helper is None or helper.stdin is None:
            return
        helper.stdin.close()
        try:
            helper.wait(HELPER_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            helper.kill()
            helper.wait()

    def forget(self) -> None:
        """In a forked copy of this process: the helper and the groups are the original's."""
        helper = self._helper
        if helper is not None and helper.stdin is not None:
            helper.stdin.close()  # or the helper would wait for this process too
            helper.returncode = 0  # another process's child: nothing to wait for here
        if self._memory is not None:
            self._memory.close()
        self._as_new()

    def _share_memory(self) -> None:
        self._memory = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this process
        size = NUM_SLOTS * array.array(lifeline.SLOT).itemsize
        self._memory.truncate(size)
        self._slots = memoryview(mmap.mmap(self._memory.fileno(), size)).cast(lifeline.SLOT)
        self._free = list(range(NUM_SLOTS))

    def _start_helper(self) -> None:
        self.close()  # collect one that somebody killed
        if self._memory is None:
            return
        fd = self._memory.fileno()
        self._helper = subprocess.Popen(
            [*script_command(lifeline.__name__), str(fd)],
            bufsize=0,
            cwd="/",
            pass_fds=(fd,),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


LIFELINE = Lifeline()
atexit.register(LIFELINE.close)
os.register_at_fork(after_in_child=LIFELINE.forget)
