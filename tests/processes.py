"""Finding the processes that a test started, grandchildren in other sessions included."""

import contextlib
import time
from pathlib import Path


def marked(word: bytes) -> list[int]:
    """Process ids with this word in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and word in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def gone_within(word: bytes, seconds: float) -> bool:
    """Whether they are all gone before so many seconds are over."""
    deadline = time.monotonic() + seconds
    while marked(word):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
