"""The default method for scalar losses: a growing trust region, then global restarts."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TypeAlias, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.evaluation import Evaluation, Point
from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.methods.bracket import BracketSearch
from zo_bilevel.methods.exploration import candidate_directions
from zo_bilevel.methods.global_search import Evolution
from zo_bilevel.methods.mixed import Descent, mixed_search
from zo_bilevel.methods.noisy_region import NoisyRegion, noisy_region
from zo_bilevel.methods.region_search import RegionSearch
from zo_bilevel.methods.starts import find_start

FloatArray: TypeAlias = NDArray[np.float64]
Values: TypeAlias = Generator[list[Point], list[Evaluation], list[float | None]]
Asked = TypeVar("Asked")
Part: TypeAlias = Generator[list[Point], list[Evaluation], None]

MOST_RESTARTS = 20
"""Every other one with a population twice that of the last such (Hansen 2009, BIPOP-CMA-ES)."""
FEW_PARAMETERS = 40
"""Up to so many parameters each is a direction of its own, unless they are a smooth field."""
SHORTEST = 1e-3
"""Modes of a field whose prior deviation is below this share of the first are left out."""
EVOLUTION_SIGMA = 1.5
POLISH_RADIUS = 0.1
SAME_BASIN = 0.2
"""Scaled distance from the end of an earlier descent within which none is begun again."""


@final
class TrustRegion(Method):
    """A quadratic model of the loss, in directions taken up one by one.

    Sees nothing but the loss. Fields with a correlation length are searched along their smooth
    modes first. One continuous parameter is bracketed instead. When the trust region has
    converged, an evolution strategy looks elsewhere, with a population that doubles each time.

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
        derivatives"; Hansen (2016), arXiv 1604.00772. The growing set of directions, the pair of
        models and the metric learnt from the model's curvature are this project's.
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
        (first,) = yield [Point(search.start, role="start")]
        return (yield from self.continue_from(search, first))

    def continue_from(self, search: Search, first: Evaluation) -> Rounds:
        """The same, from a start that is solved already.

        Args:
            search: Problem, start, seed, round width.
            first: The solved start, ok or not.
        """
        first = yield from find_start(search, first)
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
        self._latest: NoisyRegion | None = None
        self._minima: list[FloatArray] = []

    def run(self, *, may_restart: bool) -> Descent:
        """Search; give back the best solve."""
        start = self._start[self._free]
        if start.size == 1:
            yield from self._bracket(float(start[0]))
            return self._best
        yield from self._local(start, self._best.loss, 1.0)
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
        source, width = self._directions(), self._search.round_width
        local = RegionSearch(start, value, self._box, source, self._rng, width=width, radius=radius)
        known = [(start, value)]
        solver = local.rounds()
        trials = next(solver, None)
        while trials is not None:
            roles = ["trial" if trial.kind == "step" else "sketch" for trial in trials]
            values = yield from self._solve([trial.x for trial in trials], roles)
            known += [(t.x, v) for t, v in zip(trials, values, strict=True) if v is not None]
            trials = _answer(solver, values)
        self._minima.append(min(known, key=lambda pair: pair[1])[0])
        if local.drowned:
            yield from self._average(
                noisy_region(local, known, self._box, source, self._rng, width)
            )

    def _average(self, noisy: NoisyRegion) -> Part:
        """Under noise: many points count; the minimum of their model is recommended."""
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
        asked = [Point(self._embed(x), role=r) for x, r in zip(points, roles, strict=True)]
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
        """Directions of the free coordinates, the most important first."""
        space, count = self._search.space, int(self._free.sum())
        if not space.has_correlation and count <= FEW_PARAMETERS:
            yield from np.eye(count)
            return
        prior, longest = space.prior, 0.0
        for direction in candidate_directions(space):
            scaled = prior.apply_sqrt(direction)  # a mode times its deviation in the prior
            length = float(np.linalg.norm(scaled))
            longest = max(longest, length)
            if length > SHORTEST * longest:
                yield scaled[self._free]


def _answer(
    solver: Generator[Asked, list[float | None], None], values: list[float | None]
) -> Asked | None:
    """Hand values to a search; what it asks next, or `None` when it has ended."""
    try:
        return solver.send(values)
    except StopIteration:
        return None
