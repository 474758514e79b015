"""Integers and choices where solves draw random numbers: settings are raced, draw by draw.

A solve is one draw, a mini-batch of examples for instance, at the cheapest level where there are
levels; how many a setting gets is decided here. A draw of all losses that the model deems possible
proposes the next setting (Thompson sampling): new ones at first, those that may still be the best
more and more often, at last a few finalists on the same draws.

Source: Thompson (1933); common random numbers: Law, Kelton (2000), "Simulation Modeling and
Analysis", chapter 11.
"""

from typing import final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.methods.base import Rounds, Search
from zo_bilevel.methods.fidelity.levels import at_level, full_price
from zo_bilevel.methods.trust_region.features import (
    MOST_PARENTS,
    NARROWING_ROUNDS,
    Candidates,
    Features,
)
from zo_bilevel.methods.trust_region.mixed_model import MixedModel
from zo_bilevel.problem.fidelity import Fidelity
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.solve.streams import MIXED_STREAM
from zo_bilevel.support.arrays import FloatArray

NUM_FINALISTS, FINAL_SHARE = 6, 0.3
"""The last share of the budget is spent on so many settings of lowest mean."""
COMPARED_SETTINGS = 100
"""Those that may be the best, from which the next moves start."""
CERTAINTY_DRAWS = 2000
"""Of the losses of all settings solved, that show how often the one recommended is the best."""
MOST_SETTINGS = 300
"""The model is fitted to so many: half of them the best, half the latest."""
COMPRESSED_SHARE = 0.1
"""Of all losses, the highest: brought nearer, so that penalties do not hide the rest."""


@final
class RacingSearch:
    """The search over spaces with integers or choices, where a solve takes a seed.

    Args:
        search: Problem, seed, round width, budget.
        first: The solved start.
        fidelity: Of the problem, if draws shall be cheap ones.
    """

    def __init__(self, search: Search, first: Evaluation, fidelity: Fidelity | None = None) -> None:
        self._search, self._features = search, Features(search.space)
        self._rng = search.rng(7)
        self._candidates = Candidates(self._features, self._rng)
        self._model = MixedModel(self._features.is_option, is_noisy=True)
        self._draws, self._first, self._fidelity = SettingDraws(), first, fidelity
        self._solves, self._cost, self._round = 0, 0.0, 0
        self._final_draws: dict[bytes, int] = {}

    def rounds(self) -> Rounds:
        """Rounds for ever: more draws always tell more."""
        drawn = [self._first]
        if self._fidelity is not None:
            self._cost = self._first.cost
            drawn = yield [at_level(self._first.point, self._fidelity.cheap, self._fidelity)]
        self._learn(drawn)
        asked = self._on_fresh_draws(
            self._candidates.first(self._search.max_solves, self._search.round_width)
        )
        while True:
            self._learn((yield asked))
            asked = self._propose()

    def _learn(self, drawn: list[Evaluation]) -> None:
        notes = self._search.notes
        for evaluation in drawn:
            if self._fidelity is not None and evaluation.ok and not notes.full_price:
                notes.full_price = full_price(self._fidelity, evaluation, self._first)
            loss = evaluation.loss if evaluation.ok else np.inf
            self._draws.add(self._features.row(evaluation.point.x), loss)
            self._cost += evaluation.cost
        self._solves += len(drawn)

    @property
    def _is_final(self) -> bool:
        """Whether only the last share of the budget is left."""
        search, kept = self._search, self._search.notes.full_price
        cost = search.max_cost and max(search.max_cost - kept, kept)
        spent = [(self._solves, search.max_solves), (self._cost, cost)]
        return any(limit and part >= (1.0 - FINAL_SHARE) * limit for part, limit in spent)

    def _propose(self) -> list[Point]:
        rows, means, counts, squares = self._draws.data()
        self._model.learn(rows, means, counts, squares)
        order = np.argsort(self._model.predict(rows)[0], kind="stable")
        width, is_final = self._search.round_width, self._is_final
        self._recommend(rows, order, is_final=is_final)
        if is_final:
            finalists = rows[order[:NUM_FINALISTS]]
            return [self._on_common_draw(self._lowest_of(finalists)) for _ in range(width)]
        return self._on_fresh_draws(
            np.array([self._lowest_of(self._contenders(rows[order])) for _ in range(width)])
        )

    def _lowest_of(self, rows: FloatArray) -> FloatArray:
        """The row of lowest loss in one draw of all losses that the model deems possible."""
        return np.asarray(rows[int(self._model.sample(rows, self._rng).argmin())])

    def _contenders(self, rows: FloatArray) -> FloatArray:
        """Settings that may be the best, solved or not; those solved come in order."""
        found = self._candidates.around(rows, np.arange(len(rows)))
        found = np.vstack([found, rows[:MOST_PARENTS]])
        for _ in range(NARROWING_ROUNDS):
            mean, deviation = self._model.predict(found)
            order = np.argsort(mean - 2.0 * deviation, kind="stable")[:COMPARED_SETTINGS]
            found = np.vstack([found[order], self._candidates.moves(found[order])])
            found = np.unique(found, axis=0)
        return found

    # ---- draws

    def _on_fresh_draws(self, rows: FloatArray) -> list[Point]:
        """One draw for all rows of a round; another where a row comes again."""
        self._round += 1
        seen: dict[bytes, int] = {}
        points = []
        for row in rows:
            again = seen[row.tobytes()] = seen.get(row.tobytes(), -1) + 1
            stream = (MIXED_STREAM, self._round, *(again,) * (again > 0))
            points.append(self._point(row, stream))
        return points

    def _on_common_draw(self, row: FloatArray) -> Point:
        """The same draws for each finalist, in order."""
        key = row.tobytes()
        count = self._final_draws[key] = self._final_draws.get(key, 0) + 1
        return self._point(row, (MIXED_STREAM, 0, count))

    def _point(self, row: FloatArray, stream: tuple[int, ...]) -> Point:
        point, fidelity = Point(self._features.point(row), stream, "trial"), self._fidelity
        return point if fidelity is None else at_level(point, fidelity.cheap, fidelity)

    def _recommend(self, rows: FloatArray, order: NDArray[np.intp], *, is_final: bool) -> None:
        """The solved setting of lowest modelled loss."""
        notes = self._search.notes
        notes.noisy, notes.recommended = True, self._features.point(rows[order[0]])
        if is_final:
            draws = self._model.samples(
                rows[order[: 2 * NUM_FINALISTS]], CERTAINTY_DRAWS, self._rng
            )
            notes.certainty = float(np.mean(draws.argmin(axis=1) == 0))


@final
class SettingDraws:
    """Every loss seen, by setting."""

    def __init__(self) -> None:
        self._index: dict[bytes, int] = {}
        self._rows: list[FloatArray] = []
        self._of: list[int] = []
        self._losses: list[float] = []

    def add(self, row: FloatArray, loss: float) -> None:
        """Take in one solve; the loss is infinite where it failed."""
        key = row.tobytes()
        if key not in self._index:
            self._index[key] = len(self._rows)
            self._rows.append(row)
        self._of.append(self._index[key])
        self._losses.append(loss)

    def data(self) -> tuple[FloatArray, FloatArray, NDArray[np.intp], float]:
        """Settings `(m, d)`, mean losses `(m,)`, draws of each, and their squares around the means.

        Losses among the highest are compressed: the logarithm of how far they lie above the others.
        """
        losses, of = np.array(self._losses), np.array(self._of)
        finite = np.isfinite(losses)
        losses = np.where(finite, losses, max(losses[finite], default=0.0))
        best, high = float(losses.min()), float(np.quantile(losses, 1 - COMPRESSED_SHARE))
        if high > best:
            height = (losses - best) / (high - best)
            losses = np.where(height > 1.0, 1.0 + np.log(np.maximum(height, 1.0)), height)
        counts = np.bincount(of)
        means = np.bincount(of, losses) / counts
        kept = np.arange(len(counts))
        if len(counts) > MOST_SETTINGS:
            careful = (counts * means + losses.mean()) / (counts + 1)
            best_half = np.argsort(careful, kind="stable")[: MOST_SETTINGS // 2]
            kept = np.unique(np.concatenate([best_half, kept[-MOST_SETTINGS // 2 :]]))
        squares = np.bincount(of, np.square(losses - means[of]))
        rows = np.array(self._rows)[kept]
        return rows, means[kept], counts[kept], float(squares[kept].sum())
