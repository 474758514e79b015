"""Progress while solves arrive: a bar on a terminal, a few plain lines elsewhere."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self, final

MOST_LINES = 20
"""A log file must not grow with the budget."""
SECONDS_BETWEEN_LINES = 1.0


class Progress(ABC):
    """Tells a person how far a command has come; use it in a `with` block."""

    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def update(self, share: float, text: str, loss: float) -> None:
        """Take note of one solve."""

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Leave the terminal in order."""


@final
class SilentProgress(Progress):
    """Says nothing."""

    def update(self, share: float, text: str, loss: float) -> None:
        """Nothing."""


@final
class LineProgress(Progress):
    """A line at the first solve, then at most `MOST_LINES`, none within a second."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._first = self._last = (0.0, 0.0)
        self._reached = -1

    def update(self, share: float, text: str, loss: float) -> None:
        """Write a line when another twentieth of the budget is spent."""
        now, reached = time.perf_counter(), math.floor(share * MOST_LINES)
        if self._reached < 0:
            self._first = (now, share)
        elif reached <= self._reached or now - self._last[0] < SECONDS_BETWEEN_LINES:
            return
        self._reached, self._last = reached, (now, share)
        self._write(f"{text}, loss {loss:.3g}{self._time_left(now, share)}")

    def _time_left(self, now: float, share: float) -> str:
        spent, done = now - self._first[0], share - self._first[1]
        return f", about {spent * (1 - share) / done:.0f} s left" if done > 0 else ""


@final
class BarProgress(Progress):
    """A bar on the terminal: what is being done, loss, time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar: Any = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("loss {task.fields[loss]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
        )
        self._job = self._bar.add_task("starting", total=1.0, loss="-")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def update(self, share: float, text: str, loss: float) -> None:
        """Move the bar."""
        self._bar.update(self._job, completed=share, description=text, loss=f"{loss:.3g}")

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()
