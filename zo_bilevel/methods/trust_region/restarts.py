"""Where a search over continuous coordinates looks when a descent has ended.

A smooth loss with several minima is searched by descents from random points; one with ripples by
evolution strategies from the best point, which pass over them.

Source: populations large and small in turn: Hansen (2009), "Benchmarking a BI-population CMA-ES on
the BBOB-2009 function testbed", doi 10.1145/1570256.1570333.
"""

from collections.abc import Callable
from typing import TypeAlias, final

import numpy as np

from zo_bilevel.methods.trust_region.continuous_part import (
    ContinuousPart,
    Known,
    Searches,
    SingleSolve,
)
from zo_bilevel.methods.trust_region.global_search import Evolution
from zo_bilevel.methods.trust_region.ripples import FEW_RIPPLES, Ripples
from zo_bilevel.support.arrays import FloatArray

Descent: TypeAlias = Callable[[FloatArray, float, float, float], Searches]
"""From a point and its loss, with a first radius, as long as it may end below a rival."""

MOST_RESTARTS = 200
ELSEWHERE_SIGMA, RIPPLES_SIGMA = 1.5, 1.0
"""First scaled step of a population from a random mean, and of one on a loss with ripples."""
POLISH_RADIUS, ELSEWHERE_RADIUS = 0.3, 0.5
"""First trust radius of a descent after an evolution, at most, and from a random point."""
SAME_BASIN_DISTANCE = 0.2
"""Scaled distance from the end of an earlier descent within which none is begun again."""
MANY_RIPPLES = 14.0
"""By how much the model of the first descent overrates the losses around it where it is in vain."""


@final
class Restarts:
    """Local searches, one after the other, for ever.

    Args:
        part: Their coordinates.
        rng: Random numbers.
        descent: How to descend.

    Attributes:
        minima: Ends of all descents.
    """

    def __init__(self, part: ContinuousPart, rng: np.random.Generator, descent: Descent) -> None:
        self._part, self._rng, self._descent = part, rng, descent
        self.minima: Known = []
        self._overratings: list[float] = []
        self._evolutions = 0

    @property
    def fewest(self) -> int:
        """The smallest population."""
        return max(self._part.width, 4 + int(3 * np.log(len(self._part.start))))

    @property
    def has_ripples(self) -> bool:
        """Whether the loss has, as far as the descents tell."""
        return bool(self._overratings) and float(np.median(self._overratings)) >= FEW_RIPPLES

    def would_be_first(self, radius: float) -> bool:
        """Whether a descent of this first radius would be the first wide one."""
        return radius >= ELSEWHERE_RADIUS and not (self.minima or self._overratings)

    def note(self, ripples: Ripples, radius: float) -> None:
        """Take in what a descent of this first radius has learnt; narrow ones see too little."""
        if ripples.overrating is not None and radius >= ELSEWHERE_RADIUS:
            self._overratings.append(ripples.overrating)

    def searches(self) -> Searches:
        """Of two kinds, whichever has spent less."""
        near, random, far = self._evolve_here, self._descend_elsewhere, self._evolve_elsewhere
        spent = dict.fromkeys((near, random, far), 0)
        for _ in range(MOST_RESTARTS):
            kinds = (near if self.has_ripples else random, far)
            kind, before = min(kinds, key=spent.__getitem__), self._part.solves
            yield from kind()
            spent[kind] += self._part.solves - before

    def _descend_elsewhere(self) -> Searches:
        """From a random point, as long as it may end below the best."""
        part = self._part
        rival, solve = part.best.loss, SingleSolve(part, self._rng.uniform(*part.box))
        yield solve
        if solve.loss is not None:
            yield from self._descent(solve.x, solve.loss, ELSEWHERE_RADIUS, rival)

    def _evolve_elsewhere(self) -> Searches:
        """From a random mean.

        Populations are large, twice the last, and small in turn: narrow basins need the small.
        """
        count = self._evolutions
        self._evolutions += 1
        population = self.fewest * (2 ** (count // 2) if count % 2 == 0 else 1)
        return self._evolve(self._rng.uniform(*self._part.box), ELSEWHERE_SIGMA, population)

    def _evolve_here(self) -> Searches:
        """From the best point, over the ripples around it."""
        return self._evolve(self._part.best_x, RIPPLES_SIGMA, self.fewest)

    def _evolve(self, mean: FloatArray, sigma: float, population: int) -> Searches:
        """An evolution strategy, and a descent where it has ended."""
        rival = self._part.best.loss
        evolution = Evolution(self._part, mean, sigma, population, self._rng)
        yield evolution
        if not self._is_known(evolution.best, evolution.lowest):
            radius = min(POLISH_RADIUS, evolution.step)
            yield from self._descent(evolution.best, evolution.lowest, radius, rival)

    def _is_known(self, x: FloatArray, value: float) -> bool:
        """Whether a descent from here would end where one has ended already."""
        return not np.isfinite(value) or any(
            value >= least and float(np.linalg.norm(x - end)) < SAME_BASIN_DISTANCE
            for end, least in self.minima
        )
