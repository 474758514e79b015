"""Where local searches of a scalar loss meet the loop: plain coordinates out, losses in."""

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.methods.base import Search
from zo_bilevel.methods.shared.exploration import scaled_directions
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray

Losses: TypeAlias = list[float | None]
"""One for each point asked, `None` where the solve failed."""
Known: TypeAlias = list[tuple[FloatArray, float]]
"""Solved points of the continuous coordinates, and their losses."""


class LocalSearch(Protocol):
    """A search over continuous coordinates."""

    def rounds(self) -> RoundsThen[None]:
        """Rounds until nothing is gained any more."""
        ...


Searches: TypeAlias = Iterator[LocalSearch]
"""Local searches, each made when the one before has ended."""


@final
class EdgeError(Exception):
    """Raised inside a local search half of whose last solves failed."""


@final
class ContinuousPart:
    """Some coordinates, the continuous ones where nothing else is said; the others stay.

    Args:
        search: The space, the seed, the round width.
        start: Where the others stay.
        free: Which, shape `(N,)`. An integer among them is rounded where it is solved.

    Attributes:
        best: The best solve so far.
        box: Lower and upper bounds, shape `(n,)` each.
        width: Solves that may run at once.
        is_asynchronous: Whether answers arrive one by one.
        stream: Random numbers of the next solves.
        solves: How many were made.
        known: What was solved since the list was last emptied.
        leaves_edges: Whether a search of whose last solves half have failed ends by an `EdgeError`.
        losses: Of all solves that were ok.
        doubt: Why a descent that ended at the best point does not know that it is a minimum, in
            words; `None` before any has ended.
    """

    def __init__(
        self, search: Search, start: Evaluation, free: NDArray[np.bool_] | None = None
    ) -> None:
        space = search.space
        self.best, self.stream, self.width = start, search.stream, search.round_width
        self.is_asynchronous = search.is_asynchronous
        self._search, self._full = search, start.point.x
        self._free = ~space.discrete if free is None else free
        self.start = self._full[self._free]
        self.box = space.lower[self._free], space.upper[self._free]
        self.known: Known = []
        self.solves = 0
        self.leaves_edges = False
        self.losses = [start.loss]
        self.doubt: str | None = None
        self._smoothed = np.inf
        self._latest: object = None

    @property
    def best_x(self) -> FloatArray:
        """Where that is, shape `(n,)`."""
        return self.best.point.x[self._free]

    @property
    def is_noisy(self) -> bool:
        """Whether a search under noise has recommended a point."""
        return self._latest is not None

    def is_within(self, share: float) -> bool:
        """Whether no more than this share of the solves is left, where their number is known."""
        limit = self._search.max_solves
        return limit is not None and self.solves >= (1.0 - share) * limit

    def directions(self) -> Iterator[FloatArray]:
        """Directions of the coordinates, the most important first."""
        return scaled_directions(self._search.space, self._free)

    def ask(
        self, points: Sequence[FloatArray], roles: str | Sequence[str], *, at_once: int = 0
    ) -> RoundsThen[Losses]:
        """Have points solved, in rounds as wide as may be: their losses, in their order.

        Args:
            points: Of shape `(n,)`.
            roles: What they are for, each or all.
            at_once: Points of a round, where not the round width.
        """
        each = [roles] * len(points) if isinstance(roles, str) else roles
        losses: Losses = []
        width = at_once or self.width
        for first in range(0, len(points), width):
            part = slice(first, first + width)
            asked = [self.point(x, role) for x, role in zip(points[part], each[part], strict=True)]
            losses += self.told(points[part], (yield asked))
            if self.leaves_edges and self._search.notes.is_at_edge:
                raise EdgeError
        return losses

    def point(self, x: FloatArray, role: str) -> Point:
        """A solve of continuous coordinates, of shape `(n,)`."""
        return Point(self._embedded(x), self.stream, role)

    def forget_failures(self) -> None:
        """As if none of the last solves had failed."""
        self._search.notes.last_ok.clear()

    def judge_step(
        self, x: FloatArray, moved_to: FloatArray, before: float, after: float, agreement: float
    ) -> None:
        """`Search.judge_step`, of continuous coordinates."""
        places = self._embedded(x), self._embedded(moved_to)
        self._search.judge_step(*places, before, after, agreement)

    def recommend(self, x: FloatArray) -> None:
        """Tell the loop that solves are noisy, and which point to report."""
        self._search.notes.noisy = True
        self._search.notes.recommended = self._embedded(x)

    def recommend_smoothed(self, x: FloatArray, level: float, source: object) -> None:
        """The same, unless another search has recommended a point of lower loss."""
        if level <= self._smoothed or source is self._latest:
            self._smoothed, self._latest = level, source
            self.recommend(x)

    def told(self, points: Sequence[FloatArray], evaluations: list[Evaluation]) -> Losses:
        """Take note of solves, in the order of their points; give back their losses."""
        losses: Losses = []
        self.solves += len(evaluations)
        for x, evaluation in zip(points, evaluations, strict=True):
            losses.append(evaluation.loss if evaluation.ok else None)
            if evaluation.ok:
                self.known.append((x, evaluation.loss))
                self.losses.append(evaluation.loss)
            if evaluation.ok and evaluation.loss < self.best.loss:
                self.best = evaluation
        return losses

    def _embedded(self, values: FloatArray) -> FloatArray:
        full = self._full.copy()
        full[self._free] = values
        return full


@final
class SingleSolve:
    """One solve, as a search of its own.

    Attributes:
        x: Where.
        loss: Of it, `None` before, and if it failed.
    """

    def __init__(self, part: ContinuousPart, x: FloatArray) -> None:
        self._part, self.x = part, x
        self.loss: float | None = None

    def rounds(self) -> RoundsThen[None]:
        """The one round."""
        (self.loss,) = yield from self._part.ask([self.x], "trial")


def lowest(known: Known) -> tuple[FloatArray, float]:
    """The point of the lowest loss."""
    return min(known, key=lambda pair: pair[1])
