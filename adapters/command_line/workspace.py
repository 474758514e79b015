"""An empty directory for every solve; those of failed solves may be kept, up to a limit."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Self, final

from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.solve_folders import make_folder, sweep


@final
class Workspace:
    """Where the directories of an adapter's solves are made and kept.

    Args:
        root: Existing directory to make them in; `None` for the system's temporary directory.
        keep_failures: How many directories of failed solves are kept, over all processes.

    Raises:
        InputError: If the root is no directory or the number is negative.

    Example:
        >>> workspace = Workspace(None, keep_failures=0)
        >>> with workspace.folder() as folder:
        ...     folder.work.is_dir(), list(folder.work.iterdir())
        (True, [])
    """

    def __init__(self, root: str | os.PathLike[str] | None, keep_failures: int) -> None:
        if root is not None and not Path(root).is_dir():
            raise InputError(f"folder must be an existing directory, got {str(root)!r}")
        self.root = None if root is None else Path(root).resolve()
        self.keep_failures = whole_number("keep_failures", keep_failures, least=0)
        self._token = uuid.uuid4().hex[:8]

    @property
    def failures(self) -> Path:
        """Where directories of failed solves are kept."""
        return self._root() / f"zo-bilevel-failed-{self._token}"

    def folder(self) -> SolveFolder:
        """An empty directory, for a `with` block."""
        path, lock = POOL.borrow(self._root())
        return SolveFolder(path, lock, self)

    def _root(self) -> Path:
        return Path(tempfile.gettempdir()) if self.root is None else self.root


@final
class SolveFolder:
    """The directory of one solve: `work` is the program's own, beside it what is known of it.

    Args:
        path: The directory, holding nothing but `work`, which is empty.
        lock: File descriptor that says it is in use.
        workspace: Where it belongs.
    """

    def __init__(self, path: Path, lock: int, workspace: Workspace) -> None:
        self.path = path
        self.work = path / "work"
        self._lock: int | None = lock
        self._workspace = workspace

    def keep(self) -> Path | None:
        """Move the directory to those of failed solves.

        Returns:
            Where it is now, or `None` when as many as allowed are kept already.
        """
        if self._lock is None or not self._workspace.keep_failures:
            return None
        failures = self._workspace.failures
        failures.mkdir(mode=0o700, exist_ok=True)
        for number in range(self._workspace.keep_failures):
            kept = failures / f"{number:03d}"
            try:
                kept.mkdir()  # only one process gets each number
            except FileExistsError:
                continue
            os.rename(self.path, kept)
            self.path, self.work = kept, kept / "work"
            os.close(self._lock)
            self._lock = None
            return kept
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            POOL.give_back(self.path, self._lock)
            self._lock = None


@final
class FolderPool:
    """This process's directories, emptied between solves instead of made anew.

    Making is cheap, but on some file systems removing a directory takes 4 ms, as long as a short
    solve. A lock on each, which the kernel drops with the process, tells directories in use from
    those that a killed process left behind; the latter are removed at the next opportunity.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """In a forked copy of this process: the directories are the original's."""
        self._mutex = threading.Lock()
        self._idle: dict[Path, list[tuple[Path, int]]] = {}

    def borrow(self, root: Path) -> tuple[Path, int]:
        """An empty directory below `root` and its lock."""
        with self._mutex:
            is_new = root not in self._idle
            idle = self._idle.setdefault(root, [])
            while idle:
                path, lock = idle.pop()
                if (path / "work").is_dir():  # nobody has tidied it away
                    return path, lock
                os.close(lock)
        if is_new:
            sweep(root)
        path = make_folder(root)
        lock = os.open(path, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        (path / "work").mkdir()
        return path, lock

    def give_back(self, path: Path, lock: int) -> None:
        """Empty a directory for the next solve, or remove it where that fails."""
        try:
            _empty(path / "work")
            _empty(path, keep="work")
        except OSError:
            _remove(path, lock)
            return
        with self._mutex:
            self._idle.setdefault(path.parent, []).append((path, lock))

    def close(self) -> None:
        """Remove all directories that are not in use."""
        with self._mutex:
            idle = [entry for entries in self._idle.values() for entry in entries]
            self._idle.clear()
        for path, lock in idle:
            _remove(path, lock)


def _empty(folder: Path, keep: str = "") -> None:
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.name == keep:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


POOL = FolderPool()
atexit.register(POOL.close)
os.register_at_fork(after_in_child=POOL.forget)
