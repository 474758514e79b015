"""One method from several starts, and the minima that it ends in."""

import dataclasses
from typing import final

import numpy as np

from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.methods.state import Minimum, Notes
from zo_bilevel.solve.evaluation import BestSoFar, Evaluation, Point
from zo_bilevel.solve.streams import PHASE_KEY, solve_seed
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

SAME_MINIMUM_DISTANCE = 0.05
"""Ends this close, in scaled units a root of N, are one minimum."""


@final
class MultiStart(Method):
    """A method from the start and from others that fill the space, each to its first minimum.

    As many starts run at once as solves may, `round_width`; the budget is shared evenly among
    those that are left. A start that does not solve is dropped. `result.minima` has the minima
    found, the best first.

    Args:
        method: Run from each start; it does not restart by itself where it can leave that.
        starts: How many, >= 1.

    Raises:
        InputError: If the method is none, or there is no start.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, TrustRegion, minimize
        >>> space = Space(a=Real(-2, 2), b=Real(-2, 2))
        >>> def two_valleys(phi):
        ...     return (phi["a"] ** 2 - 1) ** 2 + 0.1 * phi["a"] + phi["b"] ** 2
        >>> result = minimize(Problem(space, two_valleys), MultiStart(TrustRegion(), 6))
        >>> [round(found.phi["a"], 2) for found in result.minima]
        [-1.01, 0.99]
    """

    def __init__(self, method: Method, starts: int = 10) -> None:
        if not isinstance(method, Method):
            raise InputError(f"method must be a Method, got {type(method).__name__}")
        self.method, self.starts = method, whole_number("starts", starts, least=1)

    @property
    def name(self) -> str:
        """How many starts, and the method's name."""
        return f"{self.starts} starts of {self.method.name}"

    @property
    def packages(self) -> tuple[str, ...]:
        """Those of the method."""
        return self.method.packages

    @property
    def has_steps(self) -> bool:
        """Whether the method has."""
        return self.method.has_steps

    @property
    def constraints(self) -> str:
        """How the method keeps constraints, or that points outside are turned away."""
        return self.method.constraints

    def rounds(self, search: Search) -> Rounds:
        """The rounds of as many starts as run at once, put together."""
        at_once = min(search.round_width, self.starts)
        inner = dataclasses.replace(search, round_width=search.round_width // at_once)
        waiting = [_Start(self.method, inner, x, k) for k, x in enumerate(self._points(search))]
        begun: list[_Start] = []
        spent = 0
        while True:
            running = [start for start in begun if start.points]
            while waiting and len(running) < max(min(search.round_width, self.starts), 1):
                left = len(waiting) + len(running)
                start = waiting.pop(0)
                start.begin(
                    None if search.max_solves is None else (search.max_solves - spent) // left
                )
                begun.append(start)
                running += [start] if start.points else []
            if not running:
                break
            evaluations = yield [point for start in running for point in start.points]
            spent += sum(evaluation.point.solves for evaluation in evaluations)
            for start in running:
                own, evaluations = (
                    evaluations[: len(start.points)],
                    evaluations[len(start.points) :],
                )
                start.tell(own)
                search.notes.noisy |= start.notes.noisy
            search.notes.minima = _minima(search, begun)
        count = len(search.notes.minima)
        early = sum(not found.has_converged for found in search.notes.minima)
        failed = sum(start.best.evaluation is None for start in begun)
        lost = f", {failed} starts failed" if failed else ""
        minima = f"{count} {'minimum' if count == 1 else 'minima'}"
        open_ = f" ({early} not converged)" if early else ""
        return f"all {self.starts} starts have ended: {minima}{open_}{lost}"

    def _points(self, search: Search) -> list[FloatArray]:
        from scipy.stats import qmc  # slow to import, seldom needed

        space, feasible = search.space, search.problem.feasible
        sobol = qmc.Sobol(space.size, rng=search.rng(17))
        wanted = 1 << (8 * self.starts).bit_length()  # constraints may forbid most
        low, high = space.likely
        drawn = low + (high - low) * sobol.random(wanted)
        return [search.start, *[x for x in drawn if feasible.allows(x)][: self.starts - 1]]


@final
class _Start:
    """A method's rounds from one start, on random streams of their own."""

    def __init__(self, method: Method, search: Search, x: FloatArray, place: int) -> None:
        self._place, self.notes, self.best = place, Notes(), BestSoFar()
        rules = dataclasses.replace(search.rules, restarts=not method.has_steps)
        seed = search.seed if place == 0 else solve_seed(search.seed, (PHASE_KEY, place))
        self._search = dataclasses.replace(
            search, start=x, seed=seed, notes=self.notes, rules=rules, max_solves=None
        )
        self._method, self.points, self.solves = method, list[Point](), 0
        self.has_converged = False
        self._limit: int | None = None

    def begin(self, limit: int | None) -> None:
        """Ask for the first round, of so many solves in all."""
        self._limit = None if limit is None else max(limit, 1)
        self._search = dataclasses.replace(self._search, max_solves=self._limit)
        self._rounds = self._method.kept_rounds(self._search)
        self._take(next(self._rounds, None))

    def tell(self, evaluations: list[Evaluation]) -> None:
        """Hand over a round; a start that does not solve has ended with its first."""
        is_first = self.solves == 0
        self.solves += sum(evaluation.point.solves for evaluation in evaluations)
        for evaluation in evaluations:
            self.best.see(evaluation)
        is_dropped = is_first and not any(evaluation.ok for evaluation in evaluations)
        if is_dropped or self.notes.finished:
            self._end()
            return
        try:
            self._take(self._rounds.send(evaluations))
        except StopIteration:
            self._end()

    def _take(self, points: list[Point] | None) -> None:
        wanted = sum(point.solves for point in points or [])
        if not points or (self._limit is not None and self.solves + wanted > self._limit):
            self._end(converged=not points)
            return
        self.points = [
            dataclasses.replace(point, stream=(self._place, *point.stream))
            if self._place
            else point
            for point in points
        ]

    def _end(self, *, converged: bool = True) -> None:
        self._rounds.close()
        self.points, self.has_converged = [], converged


def _minima(search: Search, starts: list[_Start]) -> tuple[Minimum, ...]:
    """The ends of the starts, those close to each other as one, the best first."""
    ended = [(start.best.evaluation, start) for start in starts]
    known = sorted(
        ((found, start) for found, start in ended if found is not None), key=lambda e: e[0].rank
    )
    radius = SAME_MINIMUM_DISTANCE * np.sqrt(search.space.size)
    clusters: list[list[tuple[Evaluation, _Start]]] = []
    for found, start in known:
        near = (c for c in clusters if np.linalg.norm(c[0][0].point.x - found.point.x) <= radius)
        cluster = next(near, None)
        if cluster is None:
            clusters.append([(found, start)])
        else:
            cluster.append((found, start))
    return tuple(
        Minimum(
            phi=search.space.decode(cluster[0][0].point.x),
            loss=cluster[0][0].loss,
            starts=len(cluster),
            solves=sum(start.solves for _, start in cluster),
            has_converged=any(start.has_converged for _, start in cluster),
        )
        for cluster in clusters
    )
