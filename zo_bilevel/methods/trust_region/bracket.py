"""One parameter: interpolation in the best bracket, and looks into the widest gaps.

Source: the safeguards around a parabola or cubic: Brent (1973), "Algorithms for Minimization
without Derivatives", chapter 5.
"""

from collections.abc import Iterable
from typing import final

import numpy as np

from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart, Losses
from zo_bilevel.methods.trust_region.noisy_parabola import NoisyParabola
from zo_bilevel.support.arrays import FloatArray

GOLDEN_SHARE = 0.381966
PROBE_SHARE = 1e-8
"""Distance of a probe of the noise, in shares of the range."""
GAP_LOOKS = 3
"""How often a local step that hardly helped is followed by a look into the widest gap."""
NEAR_SHARE = 0.02
STEP_TOLERANCE = 1e-8
"""Shortest step, in shares of the range: about the square root of the rounding of a loss."""
NARROWEST_GAP = 1.0 / 64
"""The search ends when it has converged and no gap is wider than this share of the range."""
FAILING = "solves fail right beside the best point"


@final
class BracketSearch:
    """A space-filling first round, then the best bracket, then the gaps.

    Args:
        part: The coordinate.
        may_look_elsewhere: Whether gaps are looked into.
        tolerance: Shortest step, in shares of the range.

    Attributes:
        smooth: Where the minimum is under noise; `None` as long as there is none.
    """

    def __init__(
        self,
        part: ContinuousPart,
        *,
        may_look_elsewhere: bool = True,
        tolerance: float = STEP_TOLERANCE,
    ) -> None:
        (low,), (high,) = part.box
        self._part, self._width = part, part.width
        self._may_look_elsewhere = may_look_elsewhere
        self._start, self._low, self._high = float(part.start[0]), float(low), float(high)
        self._known = Known(self._low, self._high, tolerance)
        self._known.tell([self._start], [part.best.loss])
        self.smooth: NoisyParabola | None = None

    def rounds(self) -> RoundsThen[None]:
        """Rounds until the minimum is bracketed and no gap is wide; under noise for ever."""
        known, width = self._known, self._width
        points = known.first_points(self._start, max(2, width))
        self._tell(points, (yield from self._ask(points)))
        looks, stalled = 0, False
        while self.smooth is None or looks < GAP_LOOKS:
            points = [] if stalled and looks < GAP_LOOKS else known.local_points(width)
            is_local = bool(points)
            if not is_local:
                if looks == 0:
                    self._judge_noise(*(yield from self._ask([self._beside_best()])))
                looks += 1
                is_narrow = known.widest_gap()[0] < NARROWEST_GAP * (self._high - self._low)
                ends = not self._may_look_elsewhere and self.smooth is None
                if ends or (not stalled and is_narrow):
                    self._part.doubt = FAILING if known.fails_beside_best else ""
                    return
            least = 0 if is_local else 1
            points = points + known.gap_points(points, max(least, width - len(points)))
            best, before = known.best, known.lowest
            near = is_local and known.is_near(points[0])
            values = yield from self._ask(points)
            self._tell(points, values)
            if near and values[0] is not None:
                places = np.array([best]), np.array(points[:1])
                self._part.judge_step(*places, before, values[0], float(values[0] < before))
            stalled = near and values[0] is not None and abs(before - values[0]) < 0.1 * abs(before)
            stalled &= self._may_look_elsewhere
        self.smooth.centre = known.best
        while True:  # fit a parabola to ever more points
            points = self.smooth.ask(width)
            known.tell(points, (yield from self._ask(points)))
            self.smooth.tell(*known.arrays())
            self._part.recommend(np.array([self.smooth.centre]))

    def _ask(self, points: list[float]) -> RoundsThen[Losses]:
        return self._part.ask([np.array([x]) for x in points], "trial")

    def _tell(self, points: list[float], values: Losses) -> None:
        self._known.tell(points, values)
        if self.smooth is not None:
            self._part.recommend(np.array([self.smooth.centre]))

    def _beside_best(self) -> float:
        """Almost the best point again: is there noise?"""
        best, jitter = self._known.best, PROBE_SHARE * (self._high - self._low)
        return best + jitter if best < 0.5 * (self._low + self._high) else best - jitter

    def _judge_noise(self, value: float | None) -> None:
        """What differs beside the best point by more than the steepest slope explains is noise."""
        known, best, lowest = self._known, self._known.best, self._known.lowest
        jitter = PROBE_SHARE * (self._high - self._low)
        known.tell([self._beside_best()], [value])
        if value is None:
            return
        difference = abs(value - lowest)
        if difference > 100 * jitter * known.steepness() + 1e-10 * abs(lowest):
            self.smooth = NoisyParabola(best, difference, self._low, self._high)
            self._part.recommend(np.array([best]))


@final
class Known:
    """The points solved so far, in order."""

    def __init__(self, low: float, high: float, tolerance: float = STEP_TOLERANCE) -> None:
        self._low, self._high = low, high
        self._tolerance = tolerance * (high - low)
        self._losses: dict[float, float] = {}
        self._looks = 0

    @property
    def lowest(self) -> float:
        """The lowest loss."""
        return min(self._losses.values())

    @property
    def best(self) -> float:
        """The point of the lowest loss."""
        return min(self._losses, key=self._losses.__getitem__)

    @property
    def fails_beside_best(self) -> bool:
        """Whether a solve next to the best point has failed."""
        _, f = self.arrays()
        best = int(f.argmin())
        return bool(np.isinf(f[max(best - 1, 0) : best + 2]).any())

    def arrays(self) -> tuple[FloatArray, FloatArray]:
        """Points in order, and their losses."""
        x = np.array(sorted(self._losses))
        return x, np.array([self._losses[k] for k in x])

    def steepness(self) -> float:
        """Steepest slope between neighbours, not counting what is steep over short distances."""
        x, f = self._outline([])
        gaps = np.maximum(np.diff(x), 1e-3 * (self._high - self._low))
        return float(np.max(np.abs(np.diff(f)) / gaps)) + 1e-300

    def tell(self, points: list[float], losses: Iterable[float | None]) -> None:
        """Remember losses; `None` is a failed solve."""
        for point, loss in zip(points, losses, strict=True):
            self._losses[point] = np.inf if loss is None else float(loss)

    def is_near(self, point: float) -> bool:
        """Whether a point is so near to the best one that only digits are left to gain."""
        return abs(point - self.best) < NEAR_SHARE * (self._high - self._low)

    def first_points(self, start: float, count: int) -> list[float]:
        """The golden sections of the range, then whatever is farthest from the rest."""
        span = self._high - self._low
        golden = [self._low + GOLDEN_SHARE * span, self._high - GOLDEN_SHARE * span]
        points = [start]
        grid = np.linspace(self._low, self._high, 101)[8:93]
        for point in golden:
            if min(abs(point - other) for other in points) > 0.1 * span:
                points.append(point)
        while len(points) <= count:
            away = np.min(np.abs(grid[:, None] - np.array(points)), axis=1)
            points.append(float(grid[away.argmax()]))
        return points[1 : count + 1]

    def widest_gap(self) -> tuple[float, float]:
        """Length of the longest interval without a point, and its middle."""
        ends = np.unique([self._low, *self._losses, self._high])
        widest = int(np.diff(ends).argmax())
        return float(ends[widest + 1] - ends[widest]), float(ends[widest : widest + 2].mean())

    def gap_points(self, asked: list[float], count: int) -> list[float]:
        """The middles of gaps: in turns that with the lowest bound and the widest.

        The bound is that of a loss nowhere steeper than between the points known.

        Source: Piyavskii (1972), "An algorithm for finding the absolute extremum of a function".
        """
        points: list[float] = []
        for _ in range(count):
            x, f = self._outline([*asked, *points])
            gaps = np.diff(x)
            bounds = 0.5 * (f[1:] + f[:-1]) - 0.5 * self.steepness() * gaps
            self._looks += 1
            lowest = int(bounds.argmin() if self._looks % 2 else gaps.argmax())
            points.append(float(0.5 * (x[lowest] + x[lowest + 1])))
        return points

    def _outline(self, asked: list[float]) -> tuple[FloatArray, FloatArray]:
        """Points and losses over the whole range, flat where nothing is known."""
        x, f = self.arrays()
        finite = np.isfinite(f)
        f[~finite] = f[finite].max()
        grid = np.unique([self._low, *x, *asked, self._high])
        return grid, np.interp(grid, x, f)

    def local_points(self, width: int) -> list[float]:
        """Up to `width` points in the bracket of the best point; none where it has converged."""
        x, f = self.arrays()
        best = int(f.argmin())
        left = float(x[best - 1]) if best > 0 else self._low
        right = float(x[best + 1]) if best < len(x) - 1 else self._high
        if best in (0, len(x) - 1) and len(x) > 1:
            point = _at_the_edge(x, f, best, (left, right), self._tolerance)
        else:
            point = _inside(x, f, best, (left, right), self._tolerance)
        if point is None:
            return []
        near = max(abs(point - x[best]) * 0.3, self._tolerance)
        extras = [point - near, point + near, 0.5 * (left + x[best]), 0.5 * (x[best] + right)]
        fresh = [float(p) for p in extras if left < p < right and abs(p - x[best]) > 0.1 * near]
        return [point, *fresh[: width - 1]]


def _inside(
    x: FloatArray, f: FloatArray, best: int, bracket: tuple[float, float], tolerance: float
) -> float | None:
    """The minimum of the interpolant, kept away from the bracket's ends and the best point."""
    left, right = bracket
    middle = float(x[best])
    side = right if right - middle > middle - left else left
    if right - left < 3 * tolerance:
        return None
    point = _model_minimum(x, f, best, bracket)
    if point is None or min(point - left, right - point) < 1e-3 * (right - left):
        return middle + GOLDEN_SHARE * (side - middle)
    if abs(point - middle) < 0.5 * tolerance:
        if abs(side - middle) <= 1.5 * tolerance:
            return None
        return middle + float(np.copysign(tolerance, side - middle))
    return point


def _at_the_edge(
    x: FloatArray, f: FloatArray, best: int, bracket: tuple[float, float], tolerance: float
) -> float | None:
    """The best point is the outermost known: go on towards the bound, then close in on it."""
    middle = float(x[best])
    bound, inner = bracket if best == 0 else bracket[::-1]
    if abs(bound - middle) < 1e-12:
        return None if abs(inner - middle) < 100 * tolerance else middle + 0.1 * (inner - middle)
    room = bound - middle
    order = np.argsort(np.abs(x - middle))[:3]
    share = None
    if len(order) == 3 and np.isfinite(f[order]).all():
        u = (x[order] - middle) / room
        powers = u[1:, None] ** np.arange(1, 3)
        share = _stationary(np.linalg.solve(powers, f[order[1:]] - f[best]))
    if share is None or share < 0.1:
        return middle + GOLDEN_SHARE * room
    return bound if share >= 1.0 else middle + share * room


def _model_minimum(
    x: FloatArray, f: FloatArray, best: int, bracket: tuple[float, float]
) -> float | None:
    """The minimum of the cubic (or parabola) through the points nearest to the best."""
    left, right = bracket
    order = np.argsort(np.abs(x - x[best]))[:6]
    order = order[np.isfinite(f[order])]
    inside = [k for k in order if abs(k - best) <= 1]
    chosen = inside + [k for k in order if abs(k - best) > 1][:1]
    if len(chosen) < 3:
        return None
    u = (x[chosen] - x[best]) / (right - left)
    rise = f[chosen] - f[best]
    for degree in range(len(chosen) - 1, 1, -1):
        powers = u[1 : degree + 1, None] ** np.arange(1, degree + 1)
        point = _stationary(np.linalg.solve(powers, rise[1 : degree + 1]))
        if point is not None:
            point = float(x[best] + point * (right - left))
            if left < point < right:
                return point
    return None


def _stationary(coefficients: FloatArray) -> float | None:
    """The minimum nearest to 0 of `c1 u + c2 u^2 (+ c3 u^3)`."""
    slope, curvature = float(coefficients[0]), 2 * float(coefficients[1])
    third = 3 * float(coefficients[2]) if len(coefficients) > 2 else 0.0
    root = curvature**2 - 4 * third * slope
    if root < 0 or (third == 0.0 and curvature <= 0):
        return None
    # the root where the slope rises: 2 third u + curvature = sqrt(root) > 0
    denominator = curvature + float(np.sqrt(root))
    return -2 * slope / denominator if denominator > 0 else None
