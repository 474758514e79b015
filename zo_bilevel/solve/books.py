"""What an inner solver that pays for its answers can ask of a run."""

from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class KeepsBooks(Protocol):
    """An inner solver whose limit on money holds across restarts and processes."""

    def keep_books(self, file: Path) -> None:
        """Write from now on into a file what is paid, and go on from what stands there."""
        ...
