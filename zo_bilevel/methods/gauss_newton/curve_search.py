"""One parameter: theta as a curve over the whole range, until it is clear where to descend.

A process with Matern's covariance interpolates all that was solved; where it comes closest to the
target, by the most optimistic reading of its doubt, is solved next. Source: Astudillo and Frazier
(2019), "Bayesian optimization of composite functions"; confidence bounds: Srinivas et al. (2010).
"""

from typing import final

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from zo_bilevel.methods.gauss_newton.probing import Probing, StepPlan
from zo_bilevel.methods.gauss_newton.restarts import UNEXPLAINED_SHARE, Start
from zo_bilevel.methods.shared.whole_rounds import one_round, whole
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray

OPTIMISM_DEVIATIONS = 0.5
"""Standard deviations of theta by which the target may be closer than expected."""
MOST_LOOKS = 12
"""Solves after which the best one is descended from, whatever is left."""
COVARIANCE_LENGTHS = np.geomspace(1 / 64, 2.0, 15)
"""Of the covariance, in shares of the range; the likeliest is taken."""
NOISE_VARIANCES = (1e-8, 1e-4, 1e-2)
"""Variance of noise, in variances of theta; the likeliest is taken."""
NUM_PLACES = 301
"""Where the least bound is sought, evenly spaced."""
CLOSER_SHARES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Then around it, in shares of the range."""
SOLVED_SHARE = 1e-7
"""Share of the range within which a point is solved already."""


@final
class Curve:
    """What is known of a theta that one parameter moves.

    Attributes:
        bound: How close theta may come to the target where it was asked for last, at best.
    """

    def __init__(self, low: float, high: float, target: FloatArray) -> None:
        self._low, self._high, self._target = low, high, target
        self.bound = 0.0
        self._failed: list[float] = []
        self._places: list[float] = []
        self._thetas: list[FloatArray] = []

    def tell(self, place: float, theta: FloatArray | None) -> None:
        """Take in a solve; `None` where it failed."""
        if theta is None:
            self._failed.append(place)
        else:
            self._places.append(place)
            self._thetas.append(theta)

    def ask(self, count: int) -> list[float]:
        """The next places, as if each gave what is expected of it."""
        ahead = Curve(self._low, self._high, self._target)
        ahead._failed, ahead._places = list(self._failed), list(self._places)
        ahead._thetas = list(self._thetas)
        found = []
        for _ in range(count):
            place, theta = ahead._next()
            ahead.tell(place, theta)
            found.append(place)
            self.bound = ahead.bound if len(found) == 1 else self.bound
        return found

    @property
    def promises_more(self) -> bool:
        """Whether theta may come closer to the target than so far, or has not moved at all."""
        thetas = np.array(self._thetas)
        nearest = float(self._away(thetas).min()) * np.sqrt(1.0 - UNEXPLAINED_SHARE)
        return self.bound < nearest or not np.ptp(thetas, axis=0).any()

    def _away(self, thetas: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(np.mean((thetas - self._target) ** 2, axis=-1)))

    def _next(self) -> tuple[float, FloatArray]:
        """Where the least bound is, and the theta expected there."""
        if len(self._places) == 1 and not self._failed:  # halfway to the farther end
            (place,) = self._places
            far = self._low if 2.0 * place > self._low + self._high else self._high
            return 0.5 * (place + far), self._thetas[0]
        known, mean = np.array(self._places), np.mean(self._thetas, axis=0)
        span, rows = self._high - self._low, np.array(self._thetas) - mean
        length, noise, variance = _likeliest(known / span, rows)
        factor = cho_factor(_matern(known / span, known / span, length) + noise * np.eye(len(rows)))
        weights = cho_solve(factor, rows)

        def look(places: FloatArray) -> int:
            near = _matern(places / span, known / span, length)
            left = 1.0 - np.einsum("ij,ji->i", near, cho_solve(factor, near.T))
            doubt = np.sqrt(variance * np.maximum(left, 0.0))
            bound = self._away(mean + near @ weights) - OPTIMISM_DEVIATIONS * doubt
            apart = np.abs(places[:, None] - known).min(axis=1)
            is_new = apart > SOLVED_SHARE * span
            if self._failed:  # nothing is expected to come back nearer to a failed solve
                is_new &= apart < np.abs(places[:, None] - np.array(self._failed)).min(axis=1)
            best = int(np.argmin(np.where(is_new, bound, np.inf)))
            self.bound = float(bound[best])
            return best

        places = np.linspace(self._low, self._high, NUM_PLACES)
        place = places[look(places)]
        for share in CLOSER_SHARES:
            around = place + share * span * np.linspace(-1.0, 1.0, 41)
            around = np.clip(around, self._low, self._high)
            place = around[look(around)]
        theta = mean + _matern(np.array([place]) / span, known / span, length)[0] @ weights
        return float(place), theta


def look_along(
    probing: Probing, seen: list[Evaluation], *, is_allowed: bool
) -> RoundsThen[tuple[Start, bool]]:
    """Solve along the only parameter, if it is one, until little is unexplained.

    Args:
        probing: Around a solved start.
        seen: Solves known already; those made here are added.
        is_allowed: Whether to leave the start.

    Returns:
        The best point, shape `(1,)`, and the modelled vector there; and whether another one may be
        better.
    """
    outer, best, first = probing.outer, probing.start, probing.best.loss
    if not (is_allowed and outer.is_quadratic and best[0].size == 1) or probing.is_exact:
        return best, is_allowed
    curve = Curve(float(probing.lower[0]), float(probing.upper[0]), outer.target)
    curve.tell(float(best[0][0]), best[1])
    for start in probing.known(seen):
        curve.tell(float(start[0][0]), start[1])
        best = min(best, start, key=lambda one: outer.loss(one[1], one[0]))
    looks = 0
    while looks < MOST_LOOKS and (
        outer.unexplained(outer.loss(best[1], best[0]), first) > UNEXPLAINED_SHARE
    ):
        plan = StepPlan(points=[np.array([place]) for place in curve.ask(probing.width)])
        if not curve.promises_more:
            return best, False
        found = yield from whole(probing.search, one_round(probing.points(plan)))
        answers = probing.answers(plan, found, None)
        seen += [evaluation for evaluation in found if evaluation.ok]
        for point, theta in zip(plan.points, answers.thetas, strict=True):
            curve.tell(float(point[0]), theta)
            if theta is not None and outer.loss(theta, point) < outer.loss(best[1], best[0]):
                best = point, theta
        looks += len(plan.points)
    return best, True


def _matern(places: FloatArray, known: FloatArray, length: float) -> FloatArray:
    """Matern's covariance of smoothness 5/2, shape `(places, known)`."""
    apart = np.sqrt(5.0) * np.abs(places[:, None] - known) / length
    return np.asarray((1.0 + apart + apart**2 / 3.0) * np.exp(-apart))


def _likeliest(known: FloatArray, rows: FloatArray) -> tuple[float, float, float]:
    """Length, share of noise and variance under which the rows are likeliest."""
    products, best = rows @ rows.T, (np.inf, 0.0, 0.0, 0.0)
    for length in COVARIANCE_LENGTHS:
        for noise in NOISE_VARIANCES:
            factor = cho_factor(_matern(known, known, length) + noise * np.eye(len(rows)))
            variance = float(np.trace(cho_solve(factor, products))) / rows.size + 1e-300
            logarithm = 2.0 * float(np.log(np.abs(factor[0].diagonal())).sum())
            score = logarithm + len(rows) * float(np.log(variance))
            best = min(best, (score, float(length), noise, variance))
    return best[1:]
