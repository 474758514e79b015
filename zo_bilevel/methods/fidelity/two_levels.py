"""Gauss-Newton on cheap solves, corrected by what full ones say.

Around the best full solve, at x_k, the inner solution F(x) of the full level is modelled by that of
the cheap level, C(x):

    F(x) ~ F(x_k) + S (C(x) - C(x_k)),   S = I + (dF - dC) dC^+                          (1)

where dF and dC are the differences of full and cheap solutions between x_k and earlier full
solves. The model is right at those, and S carries the slopes of the full level along them. It is
searched by Gauss-Newton, whose every solve is a cheap one; a full solve where that ends is the
next x_k, if its loss is lower.

Source: manifold mapping, Echeverria, Hemker (2005), "Space mapping and defect correction"; first-
order model management, Alexandrov, Lewis (2001).
"""

import dataclasses
import math
from typing import final

import numpy as np

from zo_bilevel.methods.base import Search
from zo_bilevel.methods.fidelity.levels import at_level, fidelity_of, full_price
from zo_bilevel.methods.gauss_newton.gauss_newton import GaussNewton
from zo_bilevel.methods.state import Notes, RoundsThen
from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray

MOST_PAIRS = 8
"""Earlier full solves that the difference of the levels is learnt from."""
INDEPENDENT_SHARE = 0.05
"""Share of the largest singular value below which such solves say nothing new."""
CHEAP_GOAL = 1e-6
"""Share of the loss below which the model is not descended: it is not that good."""
MOST_CHEAP_COST = 2.0
"""Of one descent on the model, in full solves."""
MOST_IDLE = 3
"""Cheap rounds in a row, beside one for each parameter, in which a descent gains nothing."""
STUCK_SHARE = 0.05
"""Share of the loss left by the first descent, above which other descents are begun elsewhere."""
SMALL_GAIN = 0.01
"""Share of the loss of the model that counts as nothing."""
LEAST_GAIN = 0.5
"""Share of the loss that a full solve must gain, or the cheap level has told what it can."""


def descend_on_two_levels(search: Search, first: Evaluation) -> RoundsThen[Evaluation]:
    """Descend while cheap solves lead to better full ones."""
    fidelity, bound = fidelity_of(search), search.bind(first)
    (cheap,) = yield [at_level(first.point, fidelity.cheap, fidelity)]
    if not cheap.ok:
        return first
    price = full_price(fidelity, cheap, first)
    pairs = [_Pair(first, _theta(first), _theta(cheap))]
    most_cost, may_restart = MOST_CHEAP_COST * price, _may_restart(search)
    while True:
        best = pairs[-1].full
        model = _Model(bound, pairs[-1], pairs[:-1])
        found, loss = yield from _descent(search, model, most_cost, restarts=False)
        if len(pairs) == 1 and may_restart and loss > STUCK_SHARE * best.loss:
            found, loss = yield from _descent(search, model, 2.0 * most_cost, restarts=True)
        if found is None:
            return best
        (full,) = yield [search.point(found.point.x)]
        if not full.ok or full.loss >= best.loss:
            return best
        if full.loss > (1.0 - LEAST_GAIN) * best.loss:
            return full
        pairs = [*pairs[1 - MOST_PAIRS :], _Pair(full, _theta(full), _theta(found))]


def _may_restart(search: Search) -> bool:
    """Whether a loss that is left tells of a better place elsewhere: a misfit could be 0."""
    return search.rules.restarts and isinstance(search.problem.outer, SquaredError)


def _theta(evaluation: Evaluation) -> FloatArray:
    assert evaluation.theta is not None  # noqa: S101 - it is ok
    return evaluation.theta


@final
@dataclasses.dataclass(frozen=True, slots=True)
class _Pair:
    """One point at both levels: the full solve, and both inner solutions."""

    full: Evaluation
    exact: FloatArray
    cheap: FloatArray


@final
class _Model:
    """The full level as the cheap one tells it (1)."""

    def __init__(self, bound: BoundProblem, center: _Pair, others: list[_Pair]) -> None:
        self.center, self._bound = center, bound
        shape = len(others), center.cheap.size
        moves = np.array([pair.cheap - center.cheap for pair in others]).reshape(shape)
        gaps = np.array([pair.exact - center.exact for pair in others]).reshape(shape) - moves
        lengths = np.linalg.norm(moves, axis=1, keepdims=True)
        kept = lengths[:, 0] > 0.0
        moves, gaps = moves[kept] / lengths[kept], gaps[kept] / lengths[kept]
        self._gaps, self._inverse = gaps.T, np.linalg.pinv(moves.T, rcond=INDEPENDENT_SHARE)

    def theta(self, cheap: FloatArray) -> FloatArray:
        """Of the full level, from that of the cheap one."""
        moved = cheap - self.center.cheap
        return np.asarray(self.center.exact + moved + self._gaps @ (self._inverse @ moved))

    def told(self, point: Point, solved: Evaluation) -> Evaluation:
        """A cheap solve as one of the full level at the point that was asked for."""
        if not solved.ok:
            return dataclasses.replace(solved, point=point)
        theta = self.theta(_theta(solved))
        loss = self._bound.value(theta, point.x)
        if not math.isfinite(loss):
            return dataclasses.replace(solved, point=point, status="invalid", theta=None, loss=loss)
        return dataclasses.replace(solved, point=point, theta=theta, loss=loss)


def _descent(
    search: Search, model: _Model, most_cost: float, *, restarts: bool
) -> RoundsThen[tuple[Evaluation | None, float]]:
    """Search the model; the cheap solve that it likes best, if any, and what it says of that."""
    fidelity, start = fidelity_of(search), model.center.full
    rules = dataclasses.replace(search.rules, ftol=None, xtol=None, restarts=restarts)
    rounds = GaussNewton().continue_from(
        dataclasses.replace(search, rules=rules, notes=Notes()), start
    )
    best: Evaluation | None = None
    lowest, cost, idle = start.loss, 0.0, 0
    most_idle = math.inf if restarts else MOST_IDLE + search.space.size
    try:
        points = next(rounds)
        while cost < most_cost and lowest > CHEAP_GOAL * start.loss and idle < most_idle:
            solved = yield [at_level(point, fidelity.cheap, fidelity) for point in points]
            told = [model.told(*pair) for pair in zip(points, solved, strict=True)]
            cost += sum(evaluation.cost for evaluation in solved)
            before = lowest
            for cheap, evaluation in zip(solved, told, strict=True):
                if evaluation.ok and evaluation.loss < lowest:
                    best, lowest = cheap, evaluation.loss
            idle = 0 if lowest < (1.0 - SMALL_GAIN) * before else idle + 1
            points = rounds.send(told)
    except StopIteration:
        pass
    finally:
        rounds.close()
    return best, lowest
