"""Keeps two processes, or two threads, from working on one run of one store file.

Whoever works on run N holds a lock on byte N of the file `<store>.lock`. The system gives the lock
back when the process ends, however it ends, and a forked child does not inherit it. Such locks do
not keep out another thread of the same process, and closing any handle of the file would drop them
all, so this process opens it once and keeps its own list.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final

try:
    import fcntl
except ImportError:  # Windows: threads are kept apart, processes are not
    fcntl = None  # type: ignore[assignment]


@dataclass(slots=True)
class _LockFile:
    descriptor: int
    process: int
    held: set[int] = field(default_factory=set)


_FILES: Final[dict[str, _LockFile]] = {}
_GUARD: Final = Lock()


def lock_run(path: Path, run: int) -> bool:
    """Take a run for this process and this caller."""
    with _GUARD:
        file = _FILES.get(str(path))
        if file is None or file.process != os.getpid():  # a forked child has locks of its own
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            file = _FILES[str(path)] = _LockFile(descriptor, os.getpid())
        if run in file.held:
            return False
        if fcntl is not None:
            try:
                fcntl.lockf(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, run)
            except BlockingIOError:
                return False
            except PermissionError:  # EACCES: POSIX allows either
                return False
        file.held.add(run)
        return True


def unlock_run(path: Path, run: int) -> None:
    """Give a run back."""
    with _GUARD:
        file = _FILES.get(str(path))
        if file is None or run not in file.held or file.process != os.getpid():
            return
        file.held.discard(run)
        if fcntl is not None:
            fcntl.lockf(file.descriptor, fcntl.LOCK_UN, 1, run)
        if not file.held:
            os.close(file.descriptor)
            del _FILES[str(path)]
