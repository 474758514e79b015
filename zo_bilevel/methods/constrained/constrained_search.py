"""A trust region that keeps constraints: those known before a solve always, others in the end.

The loss, or the whole inner solution where the outer objective is known, and each constraint on
outputs have a smooth model through the points solved. A step has the lowest loss of the model
among those within the region that keep the constraints, or break those on outputs least. Steps are
judged by the loss plus a penalty for the constraint that is broken most.

Source: the penalty that grows as steps need it, and geometry after bad steps: Powell (1994), "A
direct search optimization method that models the objective and constraint functions by linear
interpolation". The models and the step are this project's.
"""

from collections.abc import Sequence
from typing import final

import numpy as np

from zo_bilevel.methods.base import Rounds, Search
from zo_bilevel.methods.constrained.known_points import SHARE_OF_WAY, FailureEdge, KnownPoints
from zo_bilevel.methods.constrained.model_step import ModelStep, Prediction
from zo_bilevel.methods.constrained.smooth_model import SmoothModel
from zo_bilevel.methods.shared.endings import UNFORESEEN, ending
from zo_bilevel.methods.shared.foresight import Foresight
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.problem.constraints import FEASIBLE_VIOLATION
from zo_bilevel.problem.feasible_start import nearest_allowed
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

FIRST_RADIUS, LARGEST_RADIUS, SMALLEST_RADIUS = 0.5, 3.0, 1e-7
SURE_RADIUS = 1e-2
"""Where nothing is gained within so small a radius, nothing is gained at all."""
GOOD_AGREEMENT, POOR_AGREEMENT = 0.7, 0.1
"""Gain in shares of what the model promised, above and below which the radius changes."""
SHORT_STEP_RADII = 0.1
"""Steps of fewer radii than this ask for a smaller radius."""
TRUSTED_ERROR = 0.03
"""Where the last step gained what was promised but for this share, so does the next."""
CLEAR_SHARE = 1e-7
"""Share of all losses' range: what a step promised less of does not matter for the claim."""
HAIR_SHARE = 1e-4
NEAR_RADII = 2.0
"""Points within so many radii tell of the region."""
WELL_SPREAD = 0.1
"""They tell enough of a direction when they reach so many radii along it."""
LEAST_TILT = 0.05
"""Inwards, of steps along an edge of failures after one has failed; then twice as much."""
CLOSER_FACTOR = 0.3
"""Of the radius, when all points around the start failed."""
MOST_RESTARTS = 10
MOST_HALVINGS = 40


@final
class ConstrainedSearch:
    """From one start to a minimum that keeps the constraints, or from others where none does.

    Args:
        search: Problem, seed, round width; no integers or choices.
        first: The solved start, ok.
        is_vector: Whether the inner solution is modelled, rather than the loss alone.
    """

    def __init__(self, search: Search, first: Evaluation, *, is_vector: bool) -> None:
        self._search, self._space, self._feasible = search, search.space, search.problem.feasible
        self._bound, self._is_vector = search.bind(first), is_vector
        self._rng = search.rng(12)
        self._edge, self._is_at_edge, self._tilt = FailureEdge(), False, 0.0
        self._losses: list[float] = []
        self._begin(first)

    def _begin(self, first: Evaluation) -> None:
        self._known = KnownPoints(self._feasible, is_vector=self._is_vector)
        self._radius, self._agreement = FIRST_RADIUS, 0.0
        self._foresight = Foresight(self._space.size)
        self._take([first])

    def rounds(self) -> Rounds:
        """Descend; where that ends outside the constraints, begin elsewhere."""
        for _ in range(MOST_RESTARTS):
            yield from self._descend()
            if self._known.is_any_feasible:
                is_sure = self._is_foreseen or not self._foresight.is_poor
                doubt = "" if is_sure else UNFORESEEN
                return ending(self._losses, self._space.size, doubt, "constraints")
            if not self._search.rules.restarts:
                break
            drawn = self._rng.uniform(*self._space.likely)
            start = self._allowed(drawn)
            if start is not None:
                (found,) = yield [self._search.point(start, "restart")]
                if found.ok:
                    self._begin(found)
        return "converged: no point was found that keeps the constraints"

    # ---- the loop

    def _descend(self) -> RoundsThen[None]:
        yield from self._begin_model()
        lost = 0
        while self._radius > SMALLEST_RADIUS:
            self._known.choose_center()
            model = self._known.model()
            step = self._step(model)
            here, there = (self._predict(model, s) for s in (np.zeros_like(step), step))
            if self._known.weigh(here, there):
                continue
            gain, least = self._known.gain(here, there), self._known.least_gain()
            # a center that breaks a constraint by a hair is worth a step that mends it
            is_near = FEASIBLE_VIOLATION < self._known.center.violation < HAIR_SHARE
            if gain <= least and not (is_near and step.any()):
                if (yield from self._is_over()):
                    return
                continue
            count, before = len(self._known), self._known.merit(self._known.place)
            points = self._around(step)
            yield from self._ask(points, "trial")
            lost = 0 if len(self._known) > count else lost + 1
            self._tilt = min(max(2.0 * self._tilt, LEAST_TILT), 1.0) if lost else 0.3 * self._tilt
            if 0 < lost <= step.size:
                continue  # the edge is known better now: try along it before looking closer
            after = min(map(self._known.merit, range(count, len(self._known))), default=np.inf)
            promised, length = max(gain, least, 1e-300), float(np.abs(step).max())
            ratio = self._agreement = (before - after) / promised
            if self._losses and promised > CLEAR_SHARE * np.ptp(self._losses):
                self._foresight.judge(before, after, promised, length)
            if ratio > 0.0:
                self._search.judge_step(self._x, self._within(step), before, after, ratio)
            yield from self._judge(ratio, length)

    def _begin_model(self) -> RoundsThen[None]:
        """One point along each direction; the other way, then closer, while all of them fail."""
        ways = np.eye(self._space.size)
        while self._radius > SMALLEST_RADIUS:
            yield from self._ask([self._towards(way) for way in ways], "sketch")
            if len(self._known) > 1:
                return
            against = [self._inside(self._within(-self._radius * way) - self._x) for way in ways]
            yield from self._ask([self._within(move) for move in against if move.any()], "sketch")
            if len(self._known) > 1:
                return
            self._radius *= CLOSER_FACTOR

    @property
    def _is_foreseen(self) -> bool:
        """Whether the last step gained what was promised."""
        return abs(self._agreement - 1.0) < TRUSTED_ERROR

    def _is_over(self) -> RoundsThen[bool]:
        """Whether nothing is gained, as the model has it; where that is in doubt, look closer."""
        if self._is_foreseen:
            return True
        gap = self._gap()
        if gap is not None:
            yield from self._mend(gap)
            return False
        is_sure = self._radius < SURE_RADIUS
        self._radius *= 0.1
        return is_sure

    def _judge(self, ratio: float, length: float) -> RoundsThen[None]:
        """Trust the model further, or mend its geometry, or trust it less."""
        if ratio > GOOD_AGREEMENT:
            self._radius = min(max(self._radius, 2.0 * length), LARGEST_RADIUS)
        if self._is_at_edge:  # steps are short across the edge, and free along it
            self._radius *= 1.0 if ratio >= POOR_AGREEMENT else 0.5
            return
        is_short = length < SHORT_STEP_RADII * self._radius
        if ratio >= POOR_AGREEMENT and not is_short:
            return
        gap = self._gap()
        if gap is None and ratio >= POOR_AGREEMENT:
            self._radius = max(0.5 * self._radius, 2.0 * length)
        elif gap is None:
            self._radius = min(0.5 * self._radius, length)
        else:
            yield from self._mend(gap)

    def _mend(self, gap: FloatArray) -> RoundsThen[None]:
        count = len(self._known)
        yield from self._ask([gap], "sketch")
        if len(self._known) == count:  # it failed: look closer
            self._radius *= 0.5

    def _ask(self, points: Sequence[FloatArray | None], role: str) -> RoundsThen[None]:
        wanted, width = [point for point in points if point is not None], self._search.round_width
        for first in range(0, len(wanted), width):
            part = wanted[first : first + width]
            self._take((yield [self._search.point(point, role) for point in part]))

    def _take(self, found: Sequence[Evaluation]) -> None:
        for evaluation in found:
            if evaluation.is_feasible:
                self._losses.append(evaluation.loss)
            if not self._known.add(evaluation):
                self._edge.add(evaluation.point.x)

    # ---- models and steps

    def _predict(self, model: SmoothModel, step: FloatArray) -> Prediction:
        count, values, slopes = self._known.num_outputs, model.values(step), model.slopes(step)
        if not self._is_vector:
            return Prediction(float(values[-1]), slopes[-1], values[:count], slopes[:count])
        theta, x = values[count:], self._x + step
        in_theta, in_x = self._bound.gradient(theta, x)
        gradient = slopes[count:].T @ in_theta + in_x
        return Prediction(self._bound.value(theta, x), gradient, values[:count], slopes[:count])

    def _step(self, model: SmoothModel) -> FloatArray:
        plane = self._edge.plane(self._x, self._known.points, self._radius)
        self._is_at_edge = plane is not None
        tilt = self._tilt * (0.0 if plane is None else float(np.linalg.norm(plane)))

        def beyond(step: FloatArray) -> FloatArray:
            if plane is None:
                return np.zeros(0)
            return np.atleast_1d(plane @ step + tilt * np.linalg.norm(step) - SHARE_OF_WAY)

        def beyond_slopes(step: FloatArray) -> FloatArray:
            if plane is None:
                return np.zeros((0, step.size))
            return (plane + tilt * step / (np.linalg.norm(step) + 1e-300))[None]

        room = self._space.lower - self._x, self._space.upper - self._x
        program = ModelStep(
            lambda step: self._predict(model, step),
            (
                lambda step: np.append(self._feasible.before(self._within(step)), beyond(step)),
                lambda step: np.vstack(
                    [self._feasible.slopes_before(self._within(step)), beyond_slopes(step)]
                ),
            ),
            room,
            self._radius,
        )
        return self._inside(program.best())

    # ---- points

    @property
    def _x(self) -> FloatArray:
        return self._known.center.point.x

    def _within(self, step: FloatArray) -> FloatArray:
        return np.asarray(np.clip(self._x + step, self._space.lower, self._space.upper))

    def _inside(self, step: FloatArray) -> FloatArray:
        """A step, cut until it keeps what is known before a solve."""
        if self._feasible.allows(self._within(step)):
            return step
        share, width = 0.0, 0.5
        for _ in range(MOST_HALVINGS):
            share += width * self._feasible.allows(self._within((share + width) * step))
            width *= 0.5
        return share * step

    def _around(self, step: FloatArray) -> list[FloatArray]:
        """The step's point; where more may run at once, also shorter, longer and others."""
        ways = self._rng.uniform(-1.0, 1.0, (self._search.round_width, step.size))
        others = [0.3 * step, 2.0 * step, *(step + 0.5 * self._radius * way for way in ways)]
        wanted = [step, *others][: self._search.round_width]
        return [self._within(self._inside(move)) for move in wanted]

    def _towards(self, way: FloatArray) -> FloatArray | None:
        """A point one radius along a direction, or against it where that has more room, if any."""
        unit = way / np.linalg.norm(way)
        moves = [self._inside(self._within(s * self._radius * way) - self._x) for s in (1.0, -1.0)]
        ahead, behind = (abs(float(move @ unit)) for move in moves)
        if max(ahead, behind) >= WELL_SPREAD * self._radius:
            return self._within(moves[0] if ahead >= min(behind, 0.5 * self._radius) else moves[1])
        found = self._allowed(self._within(self._radius * way))
        is_far = found is not None and abs((found - self._x) @ unit) >= WELL_SPREAD * self._radius
        return found if is_far else None

    def _gap(self) -> FloatArray | None:
        """A point along the direction of which those within the region tell too little."""
        away = self._known.points - self._x
        near = away[np.abs(away).max(axis=1) <= NEAR_RADII * self._radius] / self._radius
        values, ways = np.linalg.eigh(near.T @ near)
        if values[0] >= WELL_SPREAD**2:
            return None
        return self._towards(ways[:, 0] / np.abs(ways[:, 0]).max())

    def _allowed(self, x: FloatArray) -> FloatArray | None:
        try:
            return nearest_allowed(self._space, self._feasible, x)
        except InputError:
            return None
