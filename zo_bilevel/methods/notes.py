"""What a method tells the loop beside the points it asks for."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from zo_bilevel.support.arrays import FloatArray

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
        finished: Why a rule of `StopRules` ends the run, in words.
        slopes: Around the best point, of methods that model the inner solution, once they end.
        last_ok: Whether each of the last ten solves was ok.
        unseen: Differences that changed nothing at the best point, where a search ended with loss
            left: it does not know that it has converged.
        returns: Restarts that came back to the lowest minimum.
        minima: Found from several starts, the best first.
    """

    recommended: FloatArray | None = None
    noisy: bool = False
    certainty: float | None = None
    finished: str = ""
    slopes: Slopes | None = None
    unseen: int = 0
    returns: int = 0
    minima: tuple[Minimum, ...] = ()
    last_ok: deque[bool] = field(default_factory=lambda: deque(maxlen=LAST_SOLVES))

    @property
    def is_at_edge(self) -> bool:
        """Whether at least half of the last solves failed."""
        return len(self.last_ok) == LAST_SOLVES and 2 * sum(self.last_ok) <= LAST_SOLVES

    @property
    def is_lost(self) -> bool:
        """Whether all of them failed."""
        return len(self.last_ok) == LAST_SOLVES and not any(self.last_ok)
