"""Where a program that runs the same steps again stands, so that they draw the same numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import final


@final
@dataclass(slots=True)
class Position:
    """How many draws a repeatable run has made."""

    seed: int
    draws: int = 0

    def next(self) -> tuple[int, int]:
        """A key for one draw: the same at the same place of each run of one seed."""
        self.draws += 1
        return self.seed, self.draws


_POSITION: ContextVar[Position | None] = ContextVar("position", default=None)


def position() -> Position | None:
    """Where the repeatable run stands that this is part of; `None` outside of any."""
    return _POSITION.get()


@contextmanager
def repeatable(seed: int) -> Iterator[Position]:
    """Run a block whose draws are the same whenever it is run with this seed.

    Example:
        >>> with repeatable(3) as first:
        ...     keys = [first.next(), first.next()]
        >>> keys
        [(3, 1), (3, 2)]
    """
    token = _POSITION.set(Position(seed))
    try:
        found = _POSITION.get()
        assert found is not None  # noqa: S101 - set above
        yield found
    finally:
        _POSITION.reset(token)
