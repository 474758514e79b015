"""Integers and choices in one search with the reals: a model over all of them, then descents.

A Gaussian process over all parameters proposes the setting of highest expected improvement; where
solves draw random numbers, a draw of its losses (Thompson sampling) proposes instead. When nothing
has improved for a while, a trust region takes the reals of the best setting further. Equation
numbers: docs/methods/integers-and-choices.md.

Source: expected improvement: Jones, Schonlau, Welch (1998), "Efficient global optimization of
expensive black-box functions"; Thompson (1933).
"""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from zo_bilevel.methods.base import Rounds, Search
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart
from zo_bilevel.methods.trust_region.features import Features
from zo_bilevel.methods.trust_region.mixed_model import MOST_POINTS, MixedModel
from zo_bilevel.methods.trust_region.region_search import SMALLEST_RADIUS, RegionSearch
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.solve.streams import MIXED_STREAM
from zo_bilevel.support.arrays import FloatArray

FEWEST_FIRST = 4
"""Settings drawn at random before there is a model; one more than there are features, if that is
more."""
FIRST_SHARE = 0.15
"""They are at most this share of the budget."""
CANDIDATES, IMPROVED, BEST_KEPT = 400, 3, 8
"""Settings compared by the model; rounds of moves from the best of them; how many those are."""
FINALISTS, FINAL_SHARE = 6, 0.3
"""Under noise the last share of the budget is spent on the best few settings alone."""
PATIENCE, PATIENCE_EACH = 5, 2
"""Solves without gain, and as many more for each feature, before a descent."""
DESCENT_RADIUS, ROUGH_RADIUS = 0.5, 1e-3
"""First and last trust radius of the first descent at a setting."""
MOST_STALLS = 12
"""Stalls in a row, without any gain, after which the search ends."""


@final
class MixedSearch:
    """The search over spaces with integers or choices.

    Args:
        search: Problem, seed, round width.
        first: The solved start.
    """

    def __init__(self, search: Search, first: Evaluation) -> None:
        self._search, self._best = search, first
        self._features = Features(search.space)
        self._rng = search.rng(7)
        self._is_noisy = takes_seed(search.problem.inner)
        self._model = MixedModel(self._features.is_option, is_noisy=self._is_noisy)
        self._rows = [self._features.row(first.point.x)]
        self._losses = [first.loss]
        self._solves, self._idle, self._stalls, self._round = 1, 0, 0, 0
        self._descended: dict[bytes, float] = {}

    def rounds(self) -> Rounds:
        """Rounds until every setting is solved, or nothing is gained for long."""
        points = self._first_points()
        while True:
            self._learn((yield self._asked(points)))
            if not self._is_noisy and len(self._losses) >= self._features.settings:
                return "converged: every setting of the integers and choices is solved"
            if not self._is_noisy and self._idle > self._patience:
                self._idle, self._stalls = 0, self._stalls + 1
                if self._stalls > MOST_STALLS:
                    return "converged: no other setting of the parameters is better"
                descent = self._descent()
                if descent is not None:
                    part, local = descent
                    yield from local.rounds()
                    self._learn_descent(part)
            points = self._propose()

    @property
    def _patience(self) -> int:
        return PATIENCE + PATIENCE_EACH * self._features.size

    def _first_points(self) -> FloatArray:
        count = max(FEWEST_FIRST, self._features.size + 1)
        if self._search.max_solves is not None:
            count = min(count, int(FIRST_SHARE * self._search.max_solves))
        return self._features.draw(max(1, count, self._search.round_width), self._rng)

    def _asked(self, rows: FloatArray) -> list[Point]:
        self._round += 1
        stream = (MIXED_STREAM, self._round) if self._is_noisy else self._search.stream
        return [Point(self._features.point(row), stream, "trial") for row in rows]

    # ---- learning

    def _learn(self, evaluations: list[Evaluation]) -> None:
        self._solves += len(evaluations)
        self._idle += len(evaluations)
        for evaluation in evaluations:
            self._rows.append(self._features.row(evaluation.point.x))
            self._losses.append(evaluation.loss if evaluation.ok else np.inf)
            if evaluation.ok and evaluation.loss < self._best.loss:
                self._best, self._idle, self._stalls = evaluation, 0, 0

    def _learn_descent(self, part: ContinuousPart) -> None:
        """All of a descent's solves are counted; its best one is a point of the model."""
        self._solves += len(part.known)
        best = part.best
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

    def _propose(self) -> FloatArray:
        rows, losses = self._data()
        self._model.learn(rows, losses)
        chosen: list[FloatArray] = []
        for _ in range(self._search.round_width):
            row = self._best_draw(rows) if self._is_noisy else self._most_promising(rows, losses)
            chosen.append(row)
            if len(chosen) < self._search.round_width and not self._is_noisy:
                # what the model expects there stands in for the loss of a solve under way
                believed = self._model.predict(row[None])[0]
                rows, losses = np.vstack([rows, row]), np.append(losses, believed)
                self._model.learn(rows, losses)
        if self._is_noisy:
            self._recommend(rows)
        return np.array(chosen)

    def _candidates(self, rows: FloatArray, order: NDArray[np.intp]) -> FloatArray:
        """Moves from the best rows, and rows anywhere."""
        parents = rows[order[:BEST_KEPT]]
        picked = parents[np.minimum(self._rng.geometric(0.4, CANDIDATES) - 1, len(parents) - 1)]
        fresh = self._features.draw(CANDIDATES // 4, self._rng)
        return np.vstack([self._features.moves(picked, self._rng), fresh])

    def _most_promising(self, rows: FloatArray, losses: FloatArray) -> FloatArray:
        """The unsolved row of highest expected improvement."""
        known = {row.tobytes() for row in rows}
        best = float(losses.min())
        candidates = self._candidates(rows, np.argsort(losses, kind="stable"))
        for left in range(IMPROVED, -1, -1):
            fresh = np.array([row.tobytes() not in known for row in candidates])
            candidates = candidates[fresh] if fresh.any() else candidates
            mean, deviation = self._model.predict(candidates)
            order = np.argsort(-_log_improvement(best - mean, deviation), kind="stable")
            candidates = candidates[order[:BEST_KEPT]]
            if left:
                moved = self._features.moves(np.repeat(candidates, 12, axis=0), self._rng)
                candidates = np.vstack([candidates, moved])
        return np.asarray(candidates[0])

    def _best_draw(self, rows: FloatArray) -> FloatArray:
        """The row of lowest loss in one draw of all losses that the model deems possible."""
        solved = np.unique(rows, axis=0)
        mean, _ = self._model.predict(solved)
        order = np.argsort(mean, kind="stable")
        limit = self._search.max_solves
        if limit is not None and self._solves >= (1.0 - FINAL_SHARE) * limit:
            candidates = solved[order[:FINALISTS]]
        else:
            candidates = np.vstack([self._candidates(solved, order), solved[order[:BEST_KEPT]]])
            for _ in range(IMPROVED):
                candidates = self._narrowed(candidates)
        return np.asarray(candidates[int(self._model.sample(candidates, self._rng).argmin())])

    def _narrowed(self, candidates: FloatArray) -> FloatArray:
        """The rows that may be best, and moves from them."""
        mean, deviation = self._model.predict(candidates)
        order = np.argsort(mean - 2.0 * deviation, kind="stable")[: CANDIDATES // 4]
        moved = self._features.moves(candidates[order], self._rng)
        return np.unique(np.vstack([candidates[order], moved]), axis=0)

    def _recommend(self, rows: FloatArray) -> None:
        """Under noise: the solved row of lowest modelled loss."""
        mean, _ = self._model.predict(rows)
        self._search.notes.noisy = True
        self._search.notes.recommended = self._features.point(rows[int(mean.argmin())])

    def _descent(self) -> tuple[ContinuousPart, RegionSearch] | None:
        """Over the reals of the best setting: first roughly, then to the end."""
        if self._search.space.discrete.all():
            return None
        setting = self._setting(self._best)
        done = self._descended.get(setting, DESCENT_RADIUS)
        if done <= SMALLEST_RADIUS:
            return None
        last = ROUGH_RADIUS if done > ROUGH_RADIUS else SMALLEST_RADIUS
        self._descended[setting] = last
        part = ContinuousPart(self._search, self._best)
        radius = max(done, 10 * last) if done < DESCENT_RADIUS else DESCENT_RADIUS
        return part, RegionSearch(
            part, part.start, part.best.loss, self._rng, radius=radius, smallest_radius=last
        )

    def _setting(self, evaluation: Evaluation) -> bytes:
        x = evaluation.point.x
        return self._features.row(np.where(self._search.space.discrete, x, 0.0)).tobytes()


def _compressed(losses: FloatArray) -> FloatArray:
    """Losses above the median brought nearer, by the logarithm of how far above (eq. 3)."""
    best, middle = float(losses.min()), float(np.median(losses))
    height = (losses - best) / (middle - best) if middle > best else losses - best
    return np.where(height > 1.0, 1.0 + np.log(np.maximum(height, 1.0)), height)


def _log_improvement(gain: FloatArray, deviation: FloatArray) -> FloatArray:
    """Logarithm of the expected improvement, from the mean gain and its deviation (eq. 4)."""
    z = gain / deviation
    clear = norm.pdf(z) + z * norm.cdf(z)
    far = norm.logpdf(z) - 2.0 * np.log(np.maximum(-z, 1.0))
    return np.asarray(np.log(deviation) + np.where(z > -6.0, np.log(clear + 1e-300), far))
