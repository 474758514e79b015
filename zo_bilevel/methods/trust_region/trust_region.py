"""The default method for scalar losses: a growing trust region, then global restarts."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any, TypeAlias, TypeVar, final

import numpy as np

from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.methods.shared.exploration import scaled_directions
from zo_bilevel.methods.shared.mixed import Descent, mixed_search
from zo_bilevel.methods.shared.starts import find_start
from zo_bilevel.methods.trust_region.block_descent import BlockDescent
from zo_bilevel.methods.trust_region.block_directions import BlockDirections
from zo_bilevel.methods.trust_region.bracket import BracketSearch
from zo_bilevel.methods.trust_region.global_search import Evolution
from zo_bilevel.methods.trust_region.noisy_descent import NoisyDescent
from zo_bilevel.methods.trust_region.noisy_region import NoisyRegion, noisy_region
from zo_bilevel.methods.trust_region.region_search import (
    MOST_DIRECTIONS,
    SMALLEST_RADIUS,
    RegionSearch,
)
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray

Values: TypeAlias = Generator[list[Point], list[Evaluation], list[float | None]]
Asked = TypeVar("Asked")
Part: TypeAlias = Generator[list[Point], list[Evaluation], None]
Known: TypeAlias = list[tuple[FloatArray, float]]
Driven: TypeAlias = Generator[list[Point], list[Evaluation], Known]
Left: TypeAlias = tuple[FloatArray, float, float]

MOST_RESTARTS = 20
"""Every other one with a population twice that of the last such (Hansen 2009, BIPOP-CMA-ES)."""
MANY_PARAMETERS = 40
"""From so many on, those without structure are searched in blocks first."""
CYCLES = 5
"""Through all directions, before a model takes over that can hold them all."""
EVOLUTION_SIGMA = 1.5
POLISH_RADIUS = 0.1
SEEDS_RADIUS = 0.3
"""First trust radius of a descent on another seed, from the minimum on the first."""
SEEDS_STREAM = 1 << 16
MOST_SEEDS = 200
UNMOVED = 1e-4
"""Minima of two seeds this close in scaled units are the same."""
SAME_BASIN = 0.2
"""Scaled distance from the end of an earlier descent within which none is begun again."""


@final
class TrustRegion(Method):
    """A quadratic model of the loss, in directions taken up one by one.

    Sees nothing but the loss. Fields with a correlation length are searched along their smooth
    modes first. From 40 parameters on, when no direction matters more than others, all of them are
    gone through in blocks, several times, before a model is made. One continuous parameter is
    bracketed instead. When the trust region has converged, an evolution strategy looks elsewhere,
    with a population that doubles each time.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, minimize
        >>> space = Space(a=Real(-2, 2), b=Real(-2, 2))
        >>> def loss(phi):
        ...     return (1 - phi["a"]) ** 2 + 10 * (phi["b"] - phi["a"] ** 2) ** 2
        >>> result = minimize(Problem(space, loss), TrustRegion(), max_solves=120)
        >>> result.loss < 1e-9
        True

    Source:
        Powell (2006), "The NEWUOA software for unconstrained optimization without
        derivatives"; Nesterov (2012), "Efficiency of coordinate descent methods on huge-scale
        optimization problems"; Hansen (2016), arXiv 1604.00772. The growing set of directions,
        the pair of models and the metric learnt from the model's curvature are this project's.
    """

    @property
    def name(self) -> str:
        """Name in tables and on the command line."""
        return "trust-region"

    def rounds(self, search: Search) -> Rounds:
        """Local searches, restarts, and steps to discrete neighbours.

        Args:
            search: Problem, start, seed, round width.

        Yields:
            The start; then steps, new directions, restarts.

        Returns:
            Why nothing is left to gain.
        """
        (first,) = yield [search.point(search.start, "start")]
        return (yield from self.continue_from(search, first))

    def continue_from(self, search: Search, first: Evaluation) -> Rounds:
        """The same, from a start that is solved already.

        Args:
            search: Problem, start, seed, round width.
            first: The solved start, ok or not.
        """
        search, first = yield from find_start(search, first)
        if not first.ok:
            return "no point was found that solves"
        count = 0

        def descend(start: Evaluation, *, may_restart: bool) -> Descent:
            nonlocal count
            count += 1
            return _Continuous(search, start, count).run(may_restart=may_restart)

        return (yield from mixed_search(search, first, descend))


@final
class _Continuous:
    """The search over continuous coordinates at one setting of the discrete ones."""

    def __init__(self, search: Search, start: Evaluation, key: int) -> None:
        space = search.space
        self._search, self._best, self._start = search, start, start.point.x
        self._free = ~space.discrete
        self._box = space.lower[self._free], space.upper[self._free]
        self._rng = search.rng(8, key)
        self._smoothed = np.inf
        self._latest: NoisyRegion | NoisyDescent | None = None
        self._minima: list[FloatArray] = []
        self._stream = search.stream

    def run(self, *, may_restart: bool) -> Descent:
        """Search; give back the best solve."""
        start = self._start[self._free]
        if start.size == 1:
            yield from self._bracket(float(start[0]))
            return self._best
        yield from self._local(start, self._best.loss, 1.0)
        if may_restart and self._latest is None and start.size < MANY_PARAMETERS:
            yield from self._over_seeds(self._minima[0])
        fewest = max(self._search.round_width, 4 + int(3 * np.log(start.size)))
        for restart in range(MOST_RESTARTS if may_restart else 0):
            # large and small populations in turn: narrow basins need the small
            population = fewest * (2 ** (restart // 2) if restart % 2 == 0 else 1)
            mean = self._rng.uniform(*self._box)
            evolution = Evolution(mean, self._box, EVOLUTION_SIGMA, population, self._rng)
            while not evolution.finished:
                evolution.tell((yield from self._solve(evolution.ask(), ["restart"] * population)))
            if np.isfinite(evolution.lowest) and not self._is_known(evolution.best):
                yield from self._local(evolution.best, evolution.lowest, POLISH_RADIUS)
        return self._best

    def _over_seeds(self, end: FloatArray) -> Part:
        """Where the minimum moves with the seed: descents on other seeds, whose mean is better."""
        ends, spread, first = [end], SEEDS_RADIUS, self._stream
        known = self._best.loss
        for seed in range(1, MOST_SEEDS + 1):
            self._stream = (SEEDS_STREAM, seed)
            start = np.mean(ends, axis=0)
            (value,) = yield from self._solve([start], ["trial"])
            if value is None:
                continue
            if len(ends) == 1 and value == known:
                break  # seeds change nothing
            local, seen = yield from self._with_model(start, value, spread, least=0.05 * spread)
            ends.append(_lowest(seen)[0])
            away = np.linalg.norm(ends - np.mean(ends, axis=0), axis=1)
            spread = float(np.sqrt(np.mean(away**2)))
            if local.drowned or spread < UNMOVED:
                break  # noise that seeds do not repeat; or one that moves no minimum
            spread = min(spread, 1.0)
            self._recommend(np.mean(ends, axis=0))
        self._stream = first

    def _is_known(self, x: FloatArray) -> bool:
        """Whether a descent from here would end where one has ended already."""
        return any(float(np.linalg.norm(x - end)) < SAME_BASIN for end in self._minima)

    def _bracket(self, start: float) -> Part:
        low, high = float(self._box[0][0]), float(self._box[1][0])
        width = self._search.round_width
        bracket = BracketSearch(start, self._best.loss, low, high, width)
        solver = bracket.rounds()
        points = next(solver, None)
        while points is not None:
            asked = [np.array([x]) for x in points]
            values = yield from self._solve(asked, ["trial"] * len(asked))
            points = _answer(solver, values)
            if bracket.smooth is not None:
                self._recommend(np.array([bracket.smooth.centre]))

    def _local(self, start: FloatArray, value: float, radius: float) -> Part:
        """One descent: with a model, or in blocks where no direction matters more than others."""
        many = len(start) >= MANY_PARAMETERS and not self._search.space.has_correlation
        local, known = yield from self._with_model(start, value, radius, leaves=many)
        too_many = len(start) > MOST_DIRECTIONS
        if local.is_plain or (too_many and (many or not local.drowned)):
            left = yield from self._in_blocks(known, radius, local.model.noise)
            if left is None:
                return
            local, known = yield from self._with_model(*left)
        self._minima.append(_lowest(known)[0])
        if local.drowned:
            box, width = self._box, self._search.round_width
            source = islice(self._directions(), local.model.size, None)
            yield from self._average(noisy_region(local, known, box, source, self._rng, width))

    def _with_model(
        self,
        start: FloatArray,
        value: float,
        radius: float,
        *,
        leaves: bool = False,
        least: float = SMALLEST_RADIUS,
    ) -> Generator[list[Point], list[Evaluation], tuple[RegionSearch, Known]]:
        """A search with a model of the loss; give back it and all that it has seen."""
        source, width = self._directions(), self._search.round_width
        local = RegionSearch(
            start,
            value,
            self._box,
            source,
            self._rng,
            width=width,
            radius=radius,
            leaves=leaves,
            least=least,
        )
        known = yield from self._drive(local.rounds())
        return local, [(start, value), *known]

    def _in_blocks(
        self, known: Known, radius: float, noise: float
    ) -> Generator[list[Point], list[Evaluation], Left | None]:
        """A search without a model; give back where a model should go on, if anywhere."""
        width = self._search.round_width
        directions = BlockDirections(self._directions, self._box, self._rng, width)
        x, value = _lowest(known)
        few = len(x) <= MOST_DIRECTIONS
        if noise == 0.0:
            descent = BlockDescent(
                x, value, directions, width=width, length=radius, cycles=CYCLES if few else 0
            )
            yield from self._drive(descent.rounds())
            x, value, noise = descent.x, descent.value, descent.noise
            if few and not descent.converged:
                return x, value, radius if noise > 0.0 else 3.0 * descent.length
        if noise > 0.0:
            yield from self._average(NoisyDescent(x, value, noise, directions, width))
        self._minima.append(x)
        return None

    def _drive(self, solver: Generator[list[Any], list[float | None], None]) -> Driven:
        """Solve what a search proposes; give back what was solved."""
        known: Known = []
        proposed = next(solver, None)
        while proposed is not None:
            roles = ["trial" if p.kind == "step" else "sketch" for p in proposed]
            values = yield from self._solve([p.x for p in proposed], roles)
            known += [(p.x, v) for p, v in zip(proposed, values, strict=True) if v is not None]
            proposed = _answer(solver, values)
        return known

    def _average(self, noisy: NoisyRegion | NoisyDescent) -> Part:
        """Under noise: many points count; what their model recommends is recommended."""
        solver = noisy.rounds()
        points = next(solver, None)
        while points is not None:
            values = yield from self._solve(points, ["trial"] * len(points))
            points = _answer(solver, values)
            if noisy.level <= self._smoothed or noisy is self._latest:
                self._smoothed, self._latest = noisy.level, noisy
                self._recommend(noisy.recommended)

    def _recommend(self, x: FloatArray) -> None:
        self._search.notes.noisy = True
        self._search.notes.recommended = self._embed(x)

    def _solve(self, points: list[FloatArray], roles: list[str]) -> Values:
        """Have points of the free coordinates solved; `None` for each that failed."""
        stream = self._stream
        asked = [Point(self._embed(x), stream, r) for x, r in zip(points, roles, strict=True)]
        evaluations = yield asked
        for evaluation in evaluations:
            if evaluation.ok and evaluation.loss < self._best.loss:
                self._best = evaluation
        return [evaluation.loss if evaluation.ok else None for evaluation in evaluations]

    def _embed(self, values: FloatArray) -> FloatArray:
        full = self._start.copy()
        full[self._free] = values
        return full

    def _directions(self) -> Iterator[FloatArray]:
        return scaled_directions(self._search.space, self._free)


def _lowest(known: Known) -> tuple[FloatArray, float]:
    return min(known, key=lambda pair: pair[1])


def _answer(
    solver: Generator[Asked, list[float | None], None], values: list[float | None]
) -> Asked | None:
    """Hand values to a search; what it asks next, or `None` when it has ended."""
    try:
        return solver.send(values)
    except StopIteration:
        return None
