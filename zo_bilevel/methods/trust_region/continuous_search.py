"""The search over continuous coordinates: which local search comes after which."""

from collections.abc import Generator
from itertools import islice
from typing import final

import numpy as np

from zo_bilevel.methods.base import Rounds, Search
from zo_bilevel.methods.constrained.constrained_search import ConstrainedSearch
from zo_bilevel.methods.shared.endings import ending
from zo_bilevel.methods.shared.whole_rounds import whole
from zo_bilevel.methods.trust_region.block_descent import BlockDescent
from zo_bilevel.methods.trust_region.block_directions import BlockDirections
from zo_bilevel.methods.trust_region.bracket import BracketSearch
from zo_bilevel.methods.trust_region.continuous_part import (
    ContinuousPart,
    EdgeError,
    LocalSearch,
    Searches,
    SingleSolve,
    lowest,
)
from zo_bilevel.methods.trust_region.global_search import Evolution
from zo_bilevel.methods.trust_region.kinks import past_kinks
from zo_bilevel.methods.trust_region.noisy_descent import NoisyDescent
from zo_bilevel.methods.trust_region.noisy_region import noisy_region
from zo_bilevel.methods.trust_region.region_arrivals import RegionArrivals
from zo_bilevel.methods.trust_region.region_search import (
    MOST_DIRECTIONS,
    SMALLEST_RADIUS,
    RegionSearch,
)
from zo_bilevel.methods.trust_region.restarts import MANY_RIPPLES, Restarts
from zo_bilevel.methods.trust_region.rugged_search import RuggedSearch
from zo_bilevel.methods.trust_region.separable_search import SeparableSearch, SumTest
from zo_bilevel.methods.trust_region.turns import Paused, Turns
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.solve.streams import OTHER_SEED_STREAM
from zo_bilevel.support.arrays import FloatArray

MANY_PARAMETERS = 40
"""From so many on, those without structure are searched in blocks first."""
MODEL_FREE_CYCLES = 5
"""Through all directions, before a model takes over that can hold them all."""
FEWEST_BEFORE_SUM = 10
"""Solves before a loss of few parameters is asked whether it is separable; else two for each."""
AHEAD_RADIUS = 0.1
"""First trust radius of a descent from where another search has come already."""
SEEDS_RADIUS = 0.3
"""First trust radius of a descent on another seed, from the minimum on the first."""
MOST_SEEDS = 200
UNMOVED_DISTANCE = 1e-4
"""Minima of two seeds this close in scaled units are the same."""
FEWEST_RACED, RACED_SIGMA = 10, 1.0
"""Parameters from which a descent takes turns with a population where solves draw random numbers;
the population's first scaled step."""


@final
class ContinuousSearch:
    """Descents, then restarts, at one setting of the integers and choices.

    Args:
        search: Problem, seed, round width.
        start: A solve that is ok.
        key: Which search of the run it is; sets its random numbers.
        may_restart: Whether to look elsewhere when a descent has ended.
    """

    def __init__(self, search: Search, start: Evaluation, key: int, *, may_restart: bool) -> None:
        self._search, self._part = search, ContinuousPart(search, start)
        self._rng = search.rng(8, key)
        self._may_restart = may_restart
        self._has_correlation = search.space.has_correlation
        self._restarts = Restarts(self._part, self._rng, self._descent)
        self._races = (
            may_restart
            and len(self._part.start) >= FEWEST_RACED
            and not self._part.is_asynchronous
            and takes_seed(search.problem.inner)
        )

    @property
    def _may_be_sum(self) -> bool:
        """Whether to ask if the loss is a sum of functions of one coordinate each."""
        return len(self._part.start) < MANY_PARAMETERS and not self._part.is_asynchronous

    @property
    def best(self) -> Evaluation:
        """The best solve so far."""
        return self._part.best

    def rounds(self) -> Rounds:
        """Search until nothing is left to gain."""
        self._part.leaves_edges = self._may_restart and len(self._part.start) > 1
        try:
            for local in self._searches():
                if self._part.is_asynchronous and isinstance(local, RegionSearch):
                    yield from RegionArrivals(local, self._part).rounds()
                else:
                    yield from whole(self._search, local.rounds())
        except EdgeError:
            if not self._part.is_noisy:
                self._search.notes.has_slid = True
                sliding = ConstrainedSearch(self._search, self.best, is_vector=False)
                yield from whole(self._search, sliding.rounds())
        is_in_steps = self._search.bind(self.best).outer.is_in_steps
        doubt = "the outer objective changes in steps" if is_in_steps else self._part.doubt
        return ending(self._part.losses, len(self._part.start), doubt or "")

    def _searches(self) -> Searches:
        part = self._part
        size = len(part.start)
        if size == 1:
            yield BracketSearch(part, may_look_elsewhere=self._may_restart)
            return
        yield from self._descent(part.start, part.best.loss, 1.0)
        if not self._may_restart:
            return
        if not part.is_noisy and size < MANY_PARAMETERS:
            yield from self._over_seeds(part.best_x)
        yield from self._restarts.searches()

    def _over_seeds(self, end: FloatArray) -> Searches:
        """Where the minimum moves with the seed: descents on other seeds, whose mean is better."""
        part = self._part
        ends, spread, first, known = [end], SEEDS_RADIUS, part.stream, part.best.loss
        for seed in range(1, MOST_SEEDS + 1):
            part.stream = (OTHER_SEED_STREAM, seed)
            solve = SingleSolve(part, np.mean(ends, axis=0))
            yield solve
            if solve.loss is None:
                continue
            if len(ends) == 1 and solve.loss == known:
                break  # seeds change nothing
            local = self._region(solve.x, solve.loss, spread, smallest_radius=0.05 * spread)
            yield local
            ends.append(lowest(part.known)[0])
            away = np.linalg.norm(ends - np.mean(ends, axis=0), axis=1)
            spread = float(np.sqrt(np.mean(away**2)))
            if local.drowned or spread < UNMOVED_DISTANCE:
                break  # noise that seeds do not repeat; or one that moves no minimum
            spread = min(spread, 1.0)
            part.recommend(np.mean(ends, axis=0))
        part.stream = first

    def _descent(
        self, start: FloatArray, value: float, radius: float, rival: float = np.inf
    ) -> Searches:
        """With a model, or in blocks where no direction matters more than others."""
        part = self._part
        many = len(start) >= MANY_PARAMETERS and not self._has_correlation
        restarts = self._restarts
        is_first = self._may_restart and restarts.would_be_first(radius)
        local = self._region(start, value, radius, leaves=many, rival=rival)
        local.ripples.most_overrating = MANY_RIPPLES if is_first else np.inf
        if self._races and not restarts.minima:
            if not (yield from self._leads(local)):
                return
        elif is_first and self._may_be_sum:
            local = yield from self._unless_separable(local, start, value)
        yield from past_kinks(part, local, self._rng)
        restarts.note(local.ripples, radius)
        if local.ripples.are_followed:
            return
        too_many = len(start) > MOST_DIRECTIONS
        if local.is_plain or (too_many and (many or not local.drowned)):
            left = yield from self._in_blocks(radius, local.model.noise)
            if left is None:
                return
            local = self._region(*left)
            yield from past_kinks(part, local, self._rng)
        restarts.minima.append(lowest(part.known))
        if local.drowned:
            source = islice(part.directions(), local.model.size, None)
            yield noisy_region(part, local, source, self._rng)

    def _unless_separable(
        self, local: RegionSearch, start: FloatArray, value: float
    ) -> Generator[LocalSearch, None, RegionSearch]:
        """A descent; where the loss is a sum, that of its parts, and another is to follow."""
        part = self._part
        descent = Paused(local, part)
        yield descent.until(part.solves + max(2 * len(start), FEWEST_BEFORE_SUM))
        best = lowest(part.known)
        test = SumTest(part, best, (start, value), self._rng)
        yield test
        if test.is_sum:
            yield SeparableSearch(part, test, best[1])
            return self._region(*lowest(part.known), AHEAD_RADIUS)
        local.foresight.may_pause = True
        yield descent.until(np.inf)
        return local

    def _leads(self, local: RegionSearch) -> Generator[LocalSearch, None, bool]:
        """A descent and a population in turns: whether the descent is ahead in the end."""
        part, self._races = self._part, False
        fewest = self._restarts.fewest
        evolution = Evolution(part, part.start, RACED_SIGMA, fewest, self._rng, has_model=False)
        turns = Turns(part, local, evolution)
        yield from turns.searches()
        if turns.is_rugged:
            yield RuggedSearch(part, evolution, local.model.x, self._rng)
        if not turns.population_leads:
            return True
        yield from self._descent(evolution.best, evolution.lowest, AHEAD_RADIUS)
        return False

    def _region(
        self,
        start: FloatArray,
        value: float,
        radius: float,
        *,
        leaves: bool = False,
        smallest_radius: float = SMALLEST_RADIUS,
        rival: float = np.inf,
    ) -> RegionSearch:
        """A search with a model of the loss; what it solves is `known` afterwards."""
        self._part.known = [(start, value)]
        return RegionSearch(
            self._part,
            start,
            value,
            self._rng,
            radius=radius,
            leaves=leaves,
            smallest_radius=smallest_radius,
            rival=rival,
        )

    def _in_blocks(
        self, radius: float, noise: float
    ) -> Generator[LocalSearch, None, tuple[FloatArray, float, float] | None]:
        """Searches without a model; give back where a model should go on, if anywhere."""
        part = self._part
        directions = BlockDirections(part.directions, part.box, self._rng, part.width)
        x, value = lowest(part.known)
        few = len(x) <= MOST_DIRECTIONS
        if noise == 0.0:
            cycles = MODEL_FREE_CYCLES if few else 0
            descent = BlockDescent(part, x, value, directions, length=radius, cycles=cycles)
            yield descent
            x, value, noise = descent.x, descent.value, descent.noise
            if few and not descent.converged:
                return x, value, radius if noise > 0.0 else 3.0 * descent.length
        if noise > 0.0:
            yield NoisyDescent(part, x, value, noise, directions)
        self._restarts.minima.append((x, value))
        return None
