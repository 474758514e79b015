"""A descent and a population in turns: no model foresees a loss that jumps from draw to draw.

A wide population bears such a loss, and goes on alone once that is known. Where the model foresees
its steps, the descent goes on alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np

from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart, EdgeError, LocalSearch
from zo_bilevel.methods.trust_region.global_search import Evolution
from zo_bilevel.methods.trust_region.region_search import RegionSearch
from zo_bilevel.methods.trust_region.ruggedness import Ruggedness
from zo_bilevel.solve.evaluation import Point

SLOW_GAIN = 0.03
"""Gains of less than this share of all so far count as none."""


@final
class Turns:
    """The two, until the loss is known as rugged, or one has ended: then the one that is ahead.

    Args:
        part: Their coordinates.
        descent: It has the first turn.
        population: Its first turn is one generation, and tells whether the loss is for it.

    Attributes:
        is_rugged: Whether the turns ended because only the population is for this loss.
    """

    def __init__(self, part: ContinuousPart, descent: RegionSearch, population: Evolution) -> None:
        self._part, self._descent, self._population = part, descent, population
        self._both = Paused(descent, part), Paused(population, part, may_fail=True)
        self._gains = [np.inf, np.inf]
        self._ruggedness = Ruggedness(part, descent, population)
        self.is_rugged = False

    @property
    def population_leads(self) -> bool:
        """Whether the population has found the lower loss."""
        return self._population.lowest < self._descent.model.value

    def searches(self) -> Iterator[LocalSearch]:
        """Turn by turn."""
        part, ratios, first = self._part, self._descent.ratios, self._part.best.loss
        kind = 1
        while not any(search.has_ended for search in self._both):
            kind, before = self._next(kind), part.best.loss
            is_probe = kind == 1 and self._gains[1] == np.inf
            ratios.clear()
            yield self._both[kind].until(part.solves + (1 if is_probe else len(part.start) + 1))
            gain = before - part.best.loss
            self._gains[kind] = gain if gain > SLOW_GAIN * (first - part.best.loss) else 0.0
            if kind == 0:
                self._ruggedness.note(ratios, has_gained=self._gains[0] > 0.0)
            self.is_rugged = yield from self._ruggedness.judge()
            if self.is_rugged:
                return
        yield self._both[self.population_leads].until(np.inf)

    def _next(self, last: int) -> int:
        """Whichever gained more in its last turn; where neither did, as the model foresees."""
        if self._gains[0] != self._gains[1]:
            return int(self._gains[1] > self._gains[0])
        if last == 0 and self._ruggedness.foresees and not self.population_leads:
            return 0
        return 1 - last


@final
class Paused:
    """A local search in parts.

    Args:
        local: The search.
        part: Its coordinates.
        may_fail: Whether it merely ends where half of its last solves have failed.

    Attributes:
        has_ended: Whether it has nothing left to do.
    """

    def __init__(self, local: LocalSearch, part: ContinuousPart, *, may_fail: bool = False) -> None:
        self._rounds, self._part, self._limit = local.rounds(), part, 0.0
        self._may_fail = may_fail
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
        except StopIteration:
            self.has_ended = True
        except EdgeError:
            if not self._may_fail:
                raise
            self._part.forget_failures()  # they tell of no edge where the other search is
            self.has_ended = True
