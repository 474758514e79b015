"""A population alone, for a loss that jumps from draw to draw, as a policy's return does.

The lowest loss on one draw is a lucky one. So the draw changes every few generations, and the last
solves of the budget are for those that may be best: the distribution's means, and winners of
generations, each on the same fresh draws, the worse half left out again and again.
"""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np

from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart
from zo_bilevel.methods.trust_region.global_search import Evolution
from zo_bilevel.solve.streams import FINALIST_STREAM, GENERATION_STREAM
from zo_bilevel.support.arrays import FloatArray

FINAL_SHARE = 0.2
"""Of the budget, for those that may be best; what judges the final point is part of it."""
NUM_WINNERS = 4
"""Of generations, that may be best."""
AVERAGED_MEANS = 4
"""Whose mean may be best too."""
DRAWS_BETWEEN = 2
"""Draws of all that are left, before the worse half is left out."""
SMALLEST_STEP = 0.01
"""Scaled step at which a population begins anew with twice the size."""


class _Winner(NamedTuple):
    """The best of a generation, and its loss on that generation's draw."""

    loss: float
    x: FloatArray


@final
class RuggedSearch:
    """One local search; goes on as long as it is asked.

    Args:
        part: The coordinates.
        population: Goes on where it stands.
        rival: The best point of another search, shape `(N,)`, for the final comparison.
        rng: Random numbers of populations that begin anew.
    """

    def __init__(
        self,
        part: ContinuousPart,
        population: Evolution,
        rival: FloatArray,
        rng: np.random.Generator,
    ) -> None:
        self._part, self._population, self._rng = part, population, rng
        self._rival = rival
        self._means: list[FloatArray] = [population.mean]
        self._winners: list[_Winner] = []

    def rounds(self) -> RoundsThen[None]:
        """Rounds without end."""
        part, turn = self._part, 0
        part.leaves_edges = False  # a population bears failures
        while not part.is_within(FINAL_SHARE):
            turn += 1
            part.stream = GENERATION_STREAM, turn
            yield from self._turn(part.solves + len(part.start) + 1)
            part.recommend(self._means[-1])
            if self._population.has_stalled(SMALLEST_STEP):
                self._population = self._population.again(part.start, self._rng)
        yield from self._compare()

    def _turn(self, limit: int) -> RoundsThen[None]:
        """Generations on one draw, up to so many solves."""
        part = self._part
        while part.solves < limit and not part.is_within(FINAL_SHARE):
            points = self._population.ask()
            values = yield from part.ask(points, "restart", at_once=len(points))
            self._population.tell(values)
            self._means = [*self._means[1 - AVERAGED_MEANS :], self._population.mean]
            found = [_Winner(v, x) for v, x in zip(values, points, strict=True) if v is not None]
            if found:
                self._winners.append(min(found, key=lambda winner: winner.loss))
                self._winners.sort(key=lambda winner: winner.loss)
                del self._winners[NUM_WINNERS:]

    def _compare(self) -> RoundsThen[None]:
        """Draw by draw, all of a draw at once, for ever."""
        part = self._part
        means = [self._means[-1], np.mean(self._means, axis=0)]
        left = np.array([*means, *(winner.x for winner in self._winners), self._rival])
        sums, draw = np.zeros(len(left)), 0
        while True:
            part.stream, draw = (FINALIST_STREAM, draw), draw + 1
            values = yield from part.ask(list(left), "trial", at_once=len(left))
            sums += [np.inf if value is None else value for value in values]
            order = np.argsort(sums, kind="stable")
            part.recommend(left[order[0]])
            if draw % DRAWS_BETWEEN == 0 and len(left) > 2:
                order = order[: max(2, (len(left) + 1) // 2)]
                left, sums = left[order], sums[order]
