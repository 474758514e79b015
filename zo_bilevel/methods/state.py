"""Where a method stands, and what it tells the loop beside the points it asks for."""

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, final

from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

Found = TypeVar("Found")
RoundsThen: TypeAlias = Generator[list[Point], list[Evaluation], Found]
"""Yields rounds, receives their evaluations in the same order, returns what it found."""
Rounds: TypeAlias = RoundsThen[str]
"""The same, and returns the reason to stop."""
LAST_SOLVES = 10
"""When half of so many at the end failed, a search ended at the edge of failures."""


@final
@dataclass(frozen=True, slots=True)
class Slopes:
    """How the inner solution changes around a point, as far as a method knows.

    Args:
        x: The point, scaled, shape `(N,)`.
        jacobian: Derivatives of theta, `(m, N)`, scaled; NaN for outputs without weight.
        doubt: Covariance of the derivatives of an output of mean weight, `(N, N)`.
    """

    x: FloatArray
    jacobian: FloatArray
    doubt: FloatArray


@final
@dataclass(frozen=True, slots=True)
class Minimum:
    """Where starts of `MultiStart` ended.

    Args:
        phi: The best point there by name.
        loss: Its loss.
        starts: How many ended there.
        solves: That they took together.
        has_converged: Whether any of them ended by itself, rather than by the budget.
    """

    phi: Mapping[str, Any]
    loss: float
    starts: int
    solves: int
    has_converged: bool


@final
@dataclass(slots=True)
class Notes:
    """What a method tells the loop beside the points it asks for.

    Args:
        recommended: Point to report when solves are noisy, scaled, shape `(N,)`: the lowest
            loss seen would be the luckiest draw. `None`: the lowest loss.
        noisy: Whether the method found solves to be noisy.
        certainty: Probability that the recommended setting is the best of all solved, as far as
            the method knows.
        full_price: Of the full solve that a recommendation of cheap ones is to be judged by, 0
            where solves are not cheap ones.
        finished: Why a rule of `StopRules` ends the run, in words.
        broken: What was raised by a library that broke off, in words; empty where none did.
        slopes: Around the best point, of methods that model the inner solution, once they end.
        last_ok: Whether each of the last ten solves was ok.
        unseen: Differences that changed nothing at the best point, where a search ended with loss
            left: it does not know that it has converged.
        is_flat: Whether the objective's gradient is 0 at the start, with loss left, and no point
            that was looked at is better.
        obstacle: Why else it does not know that, in words.
        has_slid: Whether the search has gone on along an edge of failures.
        returns: Restarts that came back to the lowest minimum.
        minima: Found from several starts, the best first.
    """

    recommended: FloatArray | None = None
    noisy: bool = False
    certainty: float | None = None
    full_price: float = 0.0
    finished: str = ""
    broken: str = ""
    slopes: Slopes | None = None
    unseen: int = 0
    is_flat: bool = False
    obstacle: str = ""
    has_slid: bool = False
    returns: int = 0
    minima: tuple[Minimum, ...] = ()
    last_ok: deque[bool] = field(default_factory=lambda: deque(maxlen=LAST_SOLVES))

    @property
    def is_at_edge(self) -> bool:
        """Whether at least half of the last solves failed."""
        return len(self.last_ok) == LAST_SOLVES and 2 * sum(self.last_ok) <= LAST_SOLVES


@final
class State:
    """Where a method stands: the round it asks for, or why it stopped.

    A state is used once: `tell` moves it on and gives it back.
    """

    __slots__ = ("_rounds", "is_asynchronous", "is_over", "notes", "points", "stop_reason")

    def __init__(
        self,
        rounds: Rounds,
        notes: Notes | None = None,
        *,
        is_asynchronous: bool = False,
    ) -> None:
        self._rounds, self.is_asynchronous, self.is_over = rounds, is_asynchronous, False
        self.notes = Notes() if notes is None else notes
        self.points: list[Point] = []
        self.stop_reason = ""
        self._advance(None)

    def _advance(self, evaluations: list[Evaluation] | None) -> None:
        try:
            points = next(self._rounds) if evaluations is None else self._rounds.send(evaluations)
        except StopIteration as stop:
            self.points, self.is_over = [], True
            self.stop_reason = "" if stop.value is None else str(stop.value)
            return
        if not isinstance(points, list) or not all(isinstance(p, Point) for p in points):
            raise InputError(f"a method must yield lists of zb.Point, got {type(points).__name__}")
        self.points = points

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Hand over the evaluations of the round asked for, in its order, or the next arrival."""
        if self.is_over and self.is_asynchronous:
            return  # it left solves running when it stopped
        if len(evaluations) != len(self.points) and not self.is_asynchronous:
            raise InputError(
                f"evaluations must match the {len(self.points)} points asked, "
                f"got {len(evaluations)}"
            )
        self.notes.last_ok.extend(evaluation.ok for evaluation in evaluations)
        self._advance(list(evaluations))

    def close(self) -> None:
        """Stop the method where it stands."""
        self._rounds.close()
