"""Limits of a run, and the seconds that count against them."""

import math
from collections.abc import Callable
from typing import final

from zo_bilevel.support.arguments import finite_number, whole_number

DEFAULT_MAX_SOLVES = 1000


@final
class Budget:
    """Limits on solves, seconds and cost; `None` is no limit.

    Args:
        max_solves: Solves, >= 1; 0 where `is_zero_enough`.
        max_seconds: Wall-clock seconds, > 0. Checked after every solve.
        max_cost: Money in the unit the inner solver reports, > 0.
        is_zero_enough: Whether something is known before the first solve.

    Raises:
        InputError: If a limit is not positive.
    """

    __slots__ = ("max_cost", "max_seconds", "max_solves")

    def __init__(
        self,
        max_solves: int | None = None,
        max_seconds: float | None = None,
        max_cost: float | None = None,
        *,
        is_zero_enough: bool = False,
    ) -> None:
        if max_solves is not None:
            least = 0 if is_zero_enough else 1
            max_solves = whole_number("max_solves", max_solves, least=least)
        max_seconds, max_cost = (
            None if limit is None else finite_number(name, limit, "> 0")
            for name, limit in (("max_seconds", max_seconds), ("max_cost", max_cost))
        )
        if max_solves is None and max_seconds is None and max_cost is None:
            max_solves = DEFAULT_MAX_SOLVES
        self.max_solves = max_solves
        self.max_seconds = max_seconds
        self.max_cost = max_cost


@final
class PaidTime:
    """Seconds of all lives of a run; those in which it replays its record are not counted.

    Args:
        clock: Gives seconds.

    Attributes:
        before: Seconds of earlier lives.
        is_replaying: Whether its record has not ended yet.
        on_record: Seconds and answers of earlier lives that came to an end of their own, and the
            limit on seconds then, 0 without one.
    """

    __slots__ = ("_clock", "_since", "before", "is_replaying", "on_record")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._since = clock, clock()
        self.before, self.is_replaying = 0.0, False
        self.on_record = (0.0, 0, 0.0)

    @property
    def paid(self) -> float:
        """Seconds so far."""
        return self.before + self._clock() - self._since

    def left(self, limit: float | None) -> float:
        """Seconds until a limit; infinite without one, and as long as the record goes on."""
        return math.inf if limit is None or self.is_replaying else limit - self.paid

    def spent_before(self, seconds: float) -> None:
        """Count what solves of a life took that was killed, and tells no more than them."""
        self.before += seconds

    def replay(self, spent: tuple[float, int, float]) -> None:
        """Stop counting until the record ends; `spent`: what becomes `on_record`."""
        self.is_replaying, self.on_record = True, spent

    def go_on(self) -> None:
        """Count again: the record has ended."""
        if self.is_replaying:
            self.is_replaying, self._since = False, self._clock()
            self.before = max(self.before, self.on_record[0])
