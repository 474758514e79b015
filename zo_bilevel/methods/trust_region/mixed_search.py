"""Integers and choices in one search with the reals: a model over all of them, then descents.

A Gaussian process over all parameters proposes the setting of highest expected improvement. When
nothing has improved for a while, a trust region takes the reals of the best setting further.
Equation numbers: docs/methods/integers-and-choices.md.

Source: expected improvement: Jones, Schonlau, Welch (1998), "Efficient global optimization of
expensive black-box functions".
"""

from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from zo_bilevel.methods.base import Rounds, Search
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.bracket import BracketSearch
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart, LocalSearch
from zo_bilevel.methods.trust_region.features import (
    MOST_PARENTS,
    NARROWING_ROUNDS,
    Candidates,
    Features,
)
from zo_bilevel.methods.trust_region.mixed_model import MOST_POINTS, MixedModel
from zo_bilevel.methods.trust_region.region_search import SMALLEST_RADIUS, RegionSearch
from zo_bilevel.problem.space import HALF_RANGE
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray

IDLE_SOLVES, IDLE_SOLVES_A_FEATURE = 5, 2
"""Solves without gain, and as many more for each feature, before a descent."""
DESCENT_RADIUS, ROUGH_RADIUS = 0.5, 1e-3
"""First and last trust radius of the first descent at a setting."""
MOVES_A_SETTING = 12
"""From each of the best settings, when candidates are narrowed down."""
MOST_STALLS = 12
"""Stalls in a row, without any gain, after which the search ends."""
WIDE_INTEGER = 100
"""Values from which an integer is searched like a real by descents, and rounded."""
FINEST_UNITS = 2.0
"""Last trust radius where there are such, in units; then one unit at a time."""
MOST_UNITS = 8
"""Steps of one unit in a row: a descent ends that near to its minimum, or another follows."""
MOST_LISTED = 1000
"""Settings that are all solved, whatever they gain, where solves are not limited."""


@final
class MixedSearch:
    """The search over spaces with integers or choices."""

    def __init__(self, search: Search, first: Evaluation) -> None:
        self._search, self._best = search, first
        self._features = Features(search.space)
        self._rng = search.rng(7)
        self._candidates = Candidates(self._features, self._rng)
        self._model = MixedModel(self._features.is_option, is_noisy=False)
        self._rows = [self._features.row(first.point.x)]
        self._losses = [first.loss]
        self._solved = {self._rows[0].tobytes()}
        self._idle = self._stalls = 0
        self._descended: set[tuple[float, bytes]] = set()
        levels = 2 * HALF_RANGE * search.space.unit
        self._is_wide = search.space.is_integer & (levels >= WIDE_INTEGER)

    def rounds(self) -> Rounds:
        """Rounds until every setting is solved, or nothing is gained for long."""
        search, settings = self._search, self._features.settings
        drawn = self._candidates.first(search.max_solves, search.round_width)
        distinct = {row.tobytes(): row for row in drawn}.values()
        points = self._candidates.unsolved(distinct, self._solved, len(drawn))[: len(drawn)]
        while points:
            self._learn((yield [search.point(self._features.point(row)) for row in points]))
            if len(self._solved) >= settings:
                break
            if self._idle > IDLE_SOLVES + IDLE_SOLVES_A_FEATURE * self._features.size:
                self._idle, self._stalls = 0, self._stalls + 1
                if self._stalls > MOST_STALLS and settings > (search.max_solves or MOST_LISTED):
                    return f"no better setting was found in {MOST_STALLS} looks elsewhere"
                descent = self._descent()
                if descent is not None:
                    part, local = descent
                    yield from local.rounds()
                    self._learn_descent(part)
                    yield from self._single_units()
            points = self._propose()
        unusable = len(self._losses) - int(np.isfinite(self._losses).sum())
        why = "failed or are forbidden" if search.problem.feasible else "failed"
        but = f", but for {unusable} that {why}" if unusable else ""
        return f"converged: every setting of the integers and choices is solved{but}"

    # ---- learning

    def _learn(self, evaluations: list[Evaluation]) -> None:
        self._idle += len(evaluations)
        for evaluation in evaluations:
            self._rows.append(self._features.row(evaluation.point.x))
            self._solved.add(self._rows[-1].tobytes())
            self._losses.append(evaluation.loss if evaluation.ok else np.inf)
            if evaluation.ok and evaluation.loss < self._best.loss:
                self._best, self._idle, self._stalls = evaluation, 0, 0

    def _learn_descent(self, part: ContinuousPart) -> None:
        """Its best solve is a point of the model; none of its solves is made again."""
        best = part.best
        self._solved |= {self._features.row(part.point(x, "").x).tobytes() for x, _ in part.known}
        if best.loss < self._best.loss:
            self._best, self._stalls = best, 0
        self._rows.append(self._features.row(best.point.x))
        self._losses.append(best.loss)

    def _data(self) -> tuple[FloatArray, FloatArray]:
        """The points that the model is fitted to, and their losses, high ones brought nearer."""
        rows, losses = np.array(self._rows), np.array(self._losses)
        if len(losses) > MOST_POINTS:
            kept = np.argsort(losses, kind="stable")[: MOST_POINTS // 2]
            recent = np.arange(len(losses) - MOST_POINTS // 2, len(losses))
            kept = np.unique(np.concatenate([kept, recent]))
            rows, losses = rows[kept], losses[kept]
        finite = np.isfinite(losses)
        losses = np.where(finite, losses, losses[finite].max())
        return rows, _compressed(losses)

    # ---- the next round

    def _propose(self) -> list[FloatArray]:
        """Unsolved rows, as many as a round has places, or as there are left."""
        width = self._search.round_width
        if self._stalls > MOST_STALLS:  # the model has nothing more to say of those left
            return self._candidates.unsolved([], self._solved, width)[:width]
        rows, losses = self._data()
        self._model.learn(rows, losses)
        chosen: list[FloatArray] = []
        solved = self._solved.copy()
        while (row := self._most_promising(rows, losses, solved)) is not None:
            chosen.append(row)
            if len(chosen) == width:
                break
            solved.add(row.tobytes())
            # what the model expects there stands in for the loss of a solve under way
            believed = self._model.predict(row[None])[0]
            rows, losses = np.vstack([rows, row]), np.append(losses, believed)
            self._model.learn(rows, losses)
        return chosen

    def _most_promising(
        self, rows: FloatArray, losses: FloatArray, solved: set[bytes]
    ) -> FloatArray | None:
        """The unsolved row of highest expected improvement, if any is left."""
        best = float(losses.min())
        found = self._candidates.around(rows, np.argsort(losses, kind="stable"))
        for left in range(NARROWING_ROUNDS, -1, -1):
            fresh = self._candidates.unsolved(found, solved)
            if not fresh:
                return None
            found = np.array(fresh)
            mean, deviation = self._model.predict(found)
            order = np.argsort(-_log_improvement(best - mean, deviation), kind="stable")
            found = found[order[:MOST_PARENTS]]
            if left:
                moved = self._candidates.moves(np.repeat(found, MOVES_A_SETTING, axis=0))
                found = np.vstack([found, moved])
        return np.asarray(found[0])

    def _descent(self) -> tuple[ContinuousPart, LocalSearch] | None:
        """At the best setting over reals and wide integers, roughly; then over reals to the end."""
        reals = ~self._search.space.discrete
        for free, first, last in (
            (reals | self._is_wide, DESCENT_RADIUS, ROUGH_RADIUS),
            (reals, 10 * ROUGH_RADIUS, SMALLEST_RADIUS),
        ):
            which = last, self._setting(self._best, free)
            if not free.any() or which in self._descended:
                continue
            self._descended.add(which)
            part = ContinuousPart(self._search, self._best, free)
            wide = self._search.space.unit[free & self._is_wide]
            if len(part.start) == len(wide) == 1:
                unit = 1.0 / float(2 * HALF_RANGE * wide[0])
                return part, BracketSearch(part, may_look_elsewhere=False, tolerance=unit)
            if len(wide):
                last = max(last, FINEST_UNITS / float(wide.max()))
            start, loss = part.start, part.best.loss
            local = RegionSearch(part, start, loss, self._rng, radius=first, smallest_radius=last)
            return part, local
        return None

    def _single_units(self) -> RoundsThen[None]:
        """Wide integers by one unit from where a descent has ended, as long as that helps."""
        search, width = self._search, self._search.round_width
        steps = np.diag(1.0 / search.space.unit)[self._is_wide]
        for _ in range(MOST_UNITS if len(steps) else 0):
            known, moved = self._best, self._best.point.x + np.vstack([steps, -steps])
            inside = moved[(np.abs(moved) <= HALF_RANGE).all(axis=1)]
            rows = self._candidates.unsolved(map(self._features.row, inside), self._solved, 0)
            for first in range(0, len(rows), width):
                asked = rows[first : first + width]
                self._learn((yield [search.point(self._features.point(row)) for row in asked]))
            if self._best is known:
                return

    def _setting(self, evaluation: Evaluation, free: NDArray[np.bool_]) -> bytes:
        return self._features.row(np.where(free, 0.0, evaluation.point.x)).tobytes()


def _compressed(losses: FloatArray) -> FloatArray:
    """Losses above the median brought nearer, by the logarithm of how far above (eq. 3)."""
    best, middle = float(losses.min()), float(np.median(losses))
    height = (losses - best) / (middle - best) if middle > best else losses - best
    return np.where(height > 1.0, 1.0 + np.log(np.maximum(height, 1.0)), height)


def _log_improvement(gain: FloatArray, deviation: FloatArray) -> FloatArray:
    """Logarithm of the expected improvement, from the mean gain and its deviation (eq. 4)."""
    z = gain / deviation
    density = np.exp(-(z**2) / 2.0) / np.sqrt(2.0 * np.pi)
    clear = density + z * ndtr(z)
    far = -(z**2) / 2.0 - np.log(np.sqrt(2.0 * np.pi)) - 2.0 * np.log(np.maximum(-z, 1.0))
    return np.asarray(np.log(deviation) + np.where(z > -6.0, np.log(clear + 1e-300), far))
