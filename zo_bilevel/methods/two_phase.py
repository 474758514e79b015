"""Several methods one after the other, each from where the last one stopped.

Source: arXiv 2406.14095, section 3.3: a cheap biased estimator first, then (FG)2U.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, final

import numpy as np

from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.methods.gradient import GradientMethod
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

PHASE_KEY = 1 << 21


@final
@dataclasses.dataclass(frozen=True, slots=True)
class SignalToNoise:
    """Ends a phase when its hypergradients no longer agree on a direction.

    Over the last `window` hypergradients, `|mean|^2 / (total variance / window)` compares their
    mean with its own standard error; 1 is what noise alone gives.

    Args:
        below: The phase ends when the ratio falls below this, > 0.
        window: Hypergradients looked at, >= 2.
        max_solves: The phase ends after so many solves anyhow; `None` is no limit.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> SignalToNoise(2.0).ratio([np.array([1.0, 0.0]), np.array([1.0, 0.2])])
        101.0
    """

    below: float = 2.0
    window: int = 10
    max_solves: int | None = None

    def __post_init__(self) -> None:
        if not self.below > 0:
            raise InputError(f"below must be > 0, got {self.below}")
        if not isinstance(self.window, int) or self.window < 2:
            raise InputError(f"window must be a whole number >= 2, got {self.window!r}")
        if self.max_solves is not None:
            _check_solves(self.max_solves)

    def ratio(self, gradients: Sequence[FloatArray]) -> float:
        """Squared length of the mean in units of its squared standard error."""
        stacked = np.stack(gradients)
        mean = stacked.mean(axis=0)
        noise = float(stacked.var(axis=0, ddof=1).sum()) / len(stacked)
        signal = float(mean @ mean)
        return float(np.round(signal / noise, 12)) if noise > 0 else np.inf


Limit: TypeAlias = "int | SignalToNoise | None"


def _check_solves(limit: int) -> None:
    if not isinstance(limit, int | np.integer) or isinstance(limit, bool) or limit < 1:
        raise InputError(f"a phase's budget must be a whole number of solves >= 1, got {limit!r}")


@final
class TwoPhase(Method):
    """Phases of any methods; the next one starts at the best or the last point of the one before.

    Args:
        phases: Pairs of a method and when it ends: a number of solves, a `SignalToNoise` (for a
            `GradientMethod`), or `None` for the last phase, which takes what is left.
        start_from: "best" point so far by its loss, or "last" point of the phase, for losses too
            noisy to compare.

    Raises:
        InputError: If there is no phase, a limit breaks its rule, or a phase can never be reached.

    Example:
        >>> from zo_bilevel import FG2UZO, Problem, Real, Space, SquaredError, minimize
        >>> problem = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"] ** 2, SquaredError(4.0))
        >>> coarse, fine = GradientMethod(lr=0.5), GradientMethod(FG2UZO(1), lr=0.05)
        >>> result = minimize(problem, TwoPhase([(coarse, 20), (fine, None)]), max_solves=60)
        >>> result.method
        'zo-adam then zo-adam'
    """

    def __init__(
        self,
        phases: Sequence[tuple[Method, Limit]],
        *,
        start_from: Literal["best", "last"] = "best",
    ) -> None:
        if not phases:
            raise InputError("phases must hold at least one (method, budget), got none")
        if start_from not in ("best", "last"):
            raise InputError(f"start_from must be 'best' or 'last', got {start_from!r}")
        self.phases = list(phases)
        self.start_from = start_from
        for place, (method, limit) in enumerate(self.phases):
            self._check(place, method, limit)

    def _check(self, place: int, method: Method, limit: Limit) -> None:
        if not isinstance(method, Method):
            raise InputError(f"phase {place} must be a Method, got {type(method).__name__}")
        if isinstance(limit, SignalToNoise):
            if not isinstance(method, GradientMethod):
                raise InputError(
                    f"phase {place}: {method.name} tells no hypergradient, so SignalToNoise "
                    "cannot end it; give a number of solves"
                )
        elif limit is not None:
            _check_solves(limit)
        elif place < len(self.phases) - 1:
            raise InputError(f"phase {place} has no limit, so phase {place + 1} is never reached")

    @property
    def name(self) -> str:
        """The phases' names in order."""
        return " then ".join(method.name for method, _ in self.phases)

    def rounds(self, search: Search) -> Rounds:
        """One phase after the other.

        Args:
            search: Problem, start, seed, round width.

        Yields:
            The rounds of each phase.

        Returns:
            Why the last phase stopped.
        """
        best: Evaluation | None = None
        start, reason = search.start, ""
        for place, (method, limit) in enumerate(self.phases):
            phase = _Phase(place, method, limit, search, start)
            while points := phase.points:
                evaluations = yield points
                for evaluation in evaluations:
                    if evaluation.ok and (best is None or evaluation.loss < best.loss):
                        best = evaluation
                phase.tell(evaluations)
            reason = phase.reason
            start = phase.last
            if self.start_from == "best" and best is not None:
                start = best.point.x
        return reason


@final
class _Phase:
    """A method's rounds up to a limit, on random streams of their own."""

    def __init__(
        self, place: int, method: Method, limit: Limit, search: Search, start: FloatArray
    ) -> None:
        self.limit = limit
        self.place = place
        window = limit.window if isinstance(limit, SignalToNoise) else 1
        self.gradients: deque[FloatArray] = deque(maxlen=window)
        sequence = np.random.SeedSequence(search.seed, spawn_key=(PHASE_KEY, place))
        seed = search.seed if place == 0 else int(sequence.generate_state(1)[0])
        inner = dataclasses.replace(search, start=start, seed=seed, watch=self._watch(search))
        self.rounds = method.rounds(inner)
        self.solves = 0
        self.last = start
        self.reason = ""
        self.points: list[Point] = []
        self._asked(next(self.rounds, None))

    def _watch(self, search: Search) -> Callable[[FloatArray], None]:
        def watch(gradient: FloatArray) -> None:
            self.gradients.append(gradient)
            if search.watch is not None:
                search.watch(gradient)

        return watch

    def _asked(self, points: list[Point] | None) -> None:
        if not points:
            self.points = []
            return
        self.last = points[0].x
        if self._is_over():
            self.rounds.close()
            self.points = []
            return
        wanted = sum(point.solves for point in points)
        if isinstance(self.limit, int) and self.solves + wanted > self.limit:
            if self.solves == 0 and self.place == 0:
                raise InputError(
                    f"phase 0 has a budget of {self.limit} solves, "
                    f"but its first round needs {wanted}"
                )
            # a round cut short would mislead its method: what is left goes to the next phase
            self.rounds.close()
            self.points = []
            self.reason = f"phase budget of {self.limit} solves: no room for another round"
            return
        self.points = [
            dataclasses.replace(point, stream=(self.place, *point.stream)) if self.place else point
            for point in points
        ]

    def tell(self, evaluations: list[Evaluation]) -> None:
        """Hand over a round."""
        self.solves += sum(evaluation.point.solves for evaluation in evaluations)
        try:
            self._asked(self.rounds.send(evaluations))
        except StopIteration as stop:
            self.reason, self.points = str(stop.value), []

    def _is_over(self) -> bool:
        limit = self.limit
        if isinstance(limit, SignalToNoise):
            if limit.max_solves is not None and self.solves >= limit.max_solves:
                self.reason = f"phase budget of {limit.max_solves} solves spent"
            elif len(self.gradients) == limit.window:
                ratio = limit.ratio(list(self.gradients))
                if ratio < limit.below:
                    self.reason = f"signal-to-noise {ratio:.3g} fell below {limit.below:g}"
        elif limit is not None and self.solves >= limit:
            self.reason = f"phase budget of {limit} solves spent"
        return bool(self.reason)
