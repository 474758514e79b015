"""Directories of solves whose process is gone: found by name and lock, removed.

Standard library only, as the guard of a worker is.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "zo-bilevel-solve-"
MIN_AGE_TO_SWEEP_S = 60.0


def make_folder(root: Path) -> Path:
    """A new directory, named after this process."""
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}_", dir=root))


def sweep(root: Path) -> None:
    """Remove directories whose process was killed before it could: nobody holds their lock."""
    _remove_unlocked(root, "*", MIN_AGE_TO_SWEEP_S)


def remove_folders_of(process: int) -> None:
    """Remove what a process, which is dead, left in the temporary directory."""
    _remove_unlocked(Path(tempfile.gettempdir()), f"{process}_*", 0.0)


def _remove_unlocked(root: Path, names: str, least_age: float) -> None:
    for path in root.glob(f"{PREFIX}{names}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < least_age:
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
