"""Limits of a run."""

from __future__ import annotations

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
