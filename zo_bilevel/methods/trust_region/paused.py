"""A local search that stops after so many solves, and may go on later."""

from __future__ import annotations

from typing import final

from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart, EdgeError, LocalSearch
from zo_bilevel.solve.evaluation import Point


@final
class Paused:
    """A local search in parts.

    Args:
        local: The search.
        part: Its coordinates.
        may_fail: Whether it merely ends where its last solves have all failed.

    Attributes:
        has_ended: Whether it has nothing left to do.
    """

    def __init__(self, local: LocalSearch, part: ContinuousPart, *, may_fail: bool = False) -> None:
        self._rounds, self._part, self._limit = local.rounds(), part, 0.0
        self._ends = (StopIteration, EdgeError) if may_fail else StopIteration
        self._asked: list[Point] | None = None
        self.has_ended = False

    def until(self, solves: float) -> LocalSearch:
        """The part up to so many solves of all searches on these coordinates."""
        self._limit = solves
        return self

    def rounds(self) -> RoundsThen[None]:
        """Rounds until the limit is reached or the search has ended."""
        if self.has_ended:
            return
        try:
            self._asked = self._asked or next(self._rounds)
            while self._part.solves < self._limit:
                self._asked = self._rounds.send((yield self._asked))
        except self._ends:
            self.has_ended = True
