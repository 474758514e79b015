"""Large inner solutions in files of their own, named by what they hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from zo_bilevel.store.records import digest_of

LARGE_THETA_BYTES: Final = 1 << 20


def write_theta_file(folder: Path, data: bytes, digest: bytes) -> None:
    """Put an inner solution into its file; it is on the disk when this returns."""
    path = _path(folder, digest)
    if read_theta_file(folder, digest) is not None:
        return
    folder.mkdir(exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _sync_folder(folder)


def read_theta_file(folder: Path, digest: bytes) -> bytes | None:
    """An inner solution; `None` when its file is gone or damaged."""
    try:
        data = _path(folder, digest).read_bytes()
    except FileNotFoundError:
        return None
    return data if digest_of(data) == digest else None


def _path(folder: Path, digest: bytes) -> Path:
    return folder / f"{digest.hex()}.theta"


def _sync_folder(folder: Path) -> None:
    """A new name is safe from a power cut once its folder is written, too."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
