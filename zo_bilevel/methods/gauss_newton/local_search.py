"""One local search: the loop, and what each round teaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.answer_model import (
    FARTHEST_LENGTHS,
    ROWS_PER_DIRECTION,
    SHORTEST_VALUE,
    SPARE_ROWS,
    AnswerModel,
)
from zo_bilevel.methods.gauss_newton.explorer import Explorer
from zo_bilevel.methods.gauss_newton.local_state import LocalState
from zo_bilevel.methods.gauss_newton.noise_watch import NoiseWatch
from zo_bilevel.methods.gauss_newton.probing import Answers, Probing, StepPlan
from zo_bilevel.methods.gauss_newton.propose import BASIS_SHARE, MOST_IDLE, propose
from zo_bilevel.methods.gauss_newton.trust_step import POOR_AGREEMENT
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray

DISAPPOINTMENTS_TO_RENEW = 3
"""Disappointing trial steps in a row after which slopes in doubt are measured anew."""
RENEWED_ONE_IN = 4
"""Of more than 16 slopes a share of one in so many is renewed at a time."""
IDLE_GAIN = 1e-12
"""Share of the loss below which a gain is none."""
LEAST_RADIUS = 1e-14
"""Trust radius at which a search is finished, scaled."""
SOLVED_LOSS = 1e-28
"""Loss that is zero to rounding, in mean squares of theta."""
LEAST_REVIVAL = 0.01
"""Share of the loss that reviving a search must have gained to be tried again."""
SAME_MINIMUM = 1e-3
"""Share of the loss by which two ends of one minimum differ at most, and the model between them:
far less than a standard error in each parameter."""
SURE_DEVIATIONS = 3.0
"""Standard deviations of the measured loss by which a trial step may look worse and be taken."""


@final
class LocalSearch:
    """From one start until nothing is left to gain."""

    def __init__(self, probing: Probing, center: FloatArray, theta: FloatArray) -> None:
        outer, self._probing = probing.outer, probing
        self.model = AnswerModel(outer, center, theta)
        self.noise = NoiseWatch(
            outer.spread(theta), probing.rounding(theta), probing.radius, probing.input_rounding
        )
        bounds, ways = (probing.lower, probing.upper), (probing.directions, probing.variance)
        explorer = Explorer(*bounds, *ways, probing.straight)
        self.state = LocalState(self.model, self.noise, explorer)
        self._revived_at = np.inf
        self._unseen: list[FloatArray] = []
        self._has_looked_again = False

    # ---- the loop ----------------------------------------------------------------------------

    def remember(self, evaluations: Sequence[Evaluation]) -> None:
        """Take in the nearest of the solves made before."""
        model, seen = self.model, []
        for point, theta in self._probing.known(evaluations):
            way = point - model.center
            distance = math.sqrt(way @ way)
            if 0.0 < distance <= FARTHEST_LENGTHS * model.length:
                seen.append((distance, way, theta))
        seen.sort(key=lambda row: row[0])
        for distance, way, theta in seen[: SPARE_ROWS + ROWS_PER_DIRECTION * model.center.size]:
            if distance < SHORTEST_VALUE:
                model.add_derivative(model.center, way, theta - model.theta, 2.0)
            else:
                model.add_value(model.center + way, theta)

    def run(self) -> RoundsThen[None]:
        """Ask for rounds until nothing is left to gain here."""
        probing, model = self._probing, self.model
        try:
            while not self.is_solved and not self.is_at_edge:
                repeat = self.noise.wants_repeat
                plan = self.repeat() if repeat else propose(self.state, probing.width)
                if self.is_finished or not plan.points + plan.probes:
                    if not self.goes_on():
                        return
                    continue
                self.recommend()
                answers = probing.answers(plan, (yield probing.points(plan)), model.theta)
                if repeat:
                    self.learn_repeat(answers)
                else:
                    self.learn(plan, answers)
        finally:
            probing.note_slopes(model)

    @property
    def unseen(self) -> int:
        """Differences that changed nothing: no derivatives of zero, unless no loss is left."""
        return 0 if self.is_solved else len(self._unseen)

    def ended_like(self, other: LocalSearch) -> bool:
        """Whether another search ended in the same minimum, as far as this model has it."""
        model, loss = self.model, self.model.loss
        step = model.basis.T @ (other.model.center - model.center)
        rise = 0.5 * float(step @ model.quadratic().hessian @ step)
        return max(abs(other.model.loss - loss), rise) <= SAME_MINIMUM * abs(loss)

    @property
    def is_at_edge(self) -> bool:
        """Whether most of the last solves failed: the search would only crawl."""
        is_lost = self._probing.search.notes.is_at_edge and self.model.center.size > 1
        return is_lost and not self.noise.found

    @property
    def is_solved(self) -> bool:
        """Whether the loss is as low as it gets."""
        theta, model = self.model.theta, self.model
        if not model.outer.is_quadratic:
            in_theta, in_x = model.outer.gradient(theta, model.center)
            return not (in_theta.any() or in_x.any())
        return model.loss <= SOLVED_LOSS * (1e-300 + float(theta @ theta) / theta.size)

    @property
    def is_finished(self) -> bool:
        """Whether steps gain nothing any more."""
        most = MOST_IDLE + (self.model.size if self.noise.found else 0)
        is_stuck = self.state.idle >= most or self.state.trust.radius < LEAST_RADIUS
        return self.state.has_converged or is_stuck

    def recommend(self) -> None:
        """Tell the loop which point to report where solves are noisy."""
        if self.noise.found:
            self._probing.recommend(self.model.center)

    def goes_on(self) -> bool:
        """Whether a search that has come to its end looks again, or begins anew."""
        return self._look_again() or (not self.state.has_converged and self._revive())

    def _look_again(self) -> bool:
        """Repeat here, once, the differences that changed nothing where they were taken."""
        state, noise = self.state, self.noise
        if not self._unseen or self._has_looked_again or noise.found or noise.is_still:
            return False
        self._has_looked_again = True
        again = (state.probe_as_long(way) for way in self._unseen)
        state.again = [way for way in again if way is not None]
        if len(state.again) < len(self._unseen):
            state.again = []
            return False
        self._unseen, state.has_converged, state.idle = [], False, 0
        state.trust.radius = max(state.trust.radius, noise.radius)
        return True

    def _revive(self) -> bool:
        """Forget the differences and trust anew, unless that brought nothing last time."""
        loss = self.model.loss
        least = LEAST_REVIVAL * abs(self._revived_at) if np.isfinite(self._revived_at) else 0.0
        if self.noise.found or self.noise.is_still or not self._revived_at - loss > least:
            return False
        self._revived_at = loss
        self.noise.widen()
        self.model.forget(values=True)
        self.state.start_over()
        return True

    def repeat(self) -> StepPlan:
        """A solve next to the center."""
        nearby = self.state.explorer.clip(self.noise.nearby(self.model.center))
        return StepPlan(points=[nearby], role="sketch")

    # ---- what a round teaches ----------------------------------------------------------------

    def learn_repeat(self, answers: Answers) -> None:
        """What the solve next to the center says of noise."""
        model, moved = self.model, self.model.steepness * self.noise.radius
        if not self.noise.measure(model, answers.thetas[0]):
            return
        if self.noise.found:
            model.noise, model.is_noisy = self.noise.variance, True
        elif self.noise.is_coarse:
            model.noise = moved**2  # by about one unit of the rounding
        model.forget()
        self.state.start_over()

    def learn(self, plan: StepPlan, answers: Answers, *, is_stale: bool = False) -> None:
        """Take in a round.

        Args:
            plan: What was asked.
            answers: What came back.
            is_stale: Whether the center has moved elsewhere since: a step that is no better then
                says nothing against the trust there is now.
        """
        if plan.points:
            self.state.differences = 0
            self._learn_trials(plan.points, answers.thetas, is_stale=is_stale)
        for probe, change in zip(plan.probes, answers.changes, strict=True):
            self.state.differences += 1
            if change is not None and not np.any(change.change):
                self._unseen.append(probe)
            if change is None or self.noise.is_too_short(change.change):
                self.state.explorer.retry(probe)
            elif not self._keeps_values and plan.base is not None:
                share = change.noise_share
                self.model.add_derivative(plan.base, change.displacement, change.change, share)
        if self._keeps_values and not self.noise.is_still:
            for point, theta in answers.nearby:
                self.model.add_value(point, theta)
        noise, model = self.noise, self.model
        rounding = self._probing.rounding(model.theta)
        noise.follow(rounding, model)
        noise.fit(model)
        model.least_noise = rounding**2
        model.noise = max(model.noise, model.least_noise)
        noise.suspect(model, self.state.disappointments)

    @property
    def _keeps_values(self) -> bool:
        """Whether differences are so long that they are solves like any other."""
        return self.noise.radius >= SHORTEST_VALUE

    def _learn_trials(
        self, points: list[FloatArray], thetas: list[FloatArray | None], *, is_stale: bool
    ) -> None:
        state, model, outer = self.state, self.model, self.model.outer
        losses = [
            np.inf if theta is None else outer.loss(theta, point)
            for point, theta in zip(points, thetas, strict=True)
        ]
        best = int(np.argmin(losses))
        point, theta = points[best], thetas[best]
        center, step = model.center, model.basis.T @ (point - model.center)
        gain = -model.quadratic().change(step, doubt=True)
        before, length = model.loss, math.sqrt(step @ step)
        looks_worse = losses[best] - outer.loss(model.theta, model.center)
        for place, answer in zip(points, thetas, strict=True):
            if answer is not None and np.isfinite(outer.loss(answer, place)):
                model.add_value(place, answer)
        is_usable = theta is not None and bool(np.isfinite(losses[best]))
        after = losses[best]
        if is_usable and self.noise.found:
            after, before = self._smooth_loss(point, looks_worse), model.loss
        accepted = is_usable and after < before
        if is_stale and not accepted:
            return
        if theta is None or not is_usable:
            state.trust.adapt(0.0, length, accepted=False)
            return
        agreement = (before - after) / max(gain, 1e-300)
        if accepted:
            model.move(point, theta)
        state.trust.adapt(agreement, length, accepted=accepted)
        if not state.explorer.left:
            self._probing.judge_step(center, point, before, after, agreement)
        self._judge_trust(before, after, agreement)

    def _judge_trust(self, before: float, after: float, agreement: float) -> None:
        """Whether slopes are to be measured anew, and whether anything is gained any more."""
        state, model = self.state, self.model
        if self.noise.found:
            state.trust.radius = max(state.trust.radius, self.noise.radius)
        state.disappointments = state.disappointments + 1 if agreement < POOR_AGREEMENT else 0
        if not state.disappointments:
            self.noise.see_promise_kept()
        if state.disappointments >= DISAPPOINTMENTS_TO_RENEW and not self.noise.found:
            state.disappointments = 0
            state.renewals = (
                model.size if model.size <= BASIS_SHARE else model.size // RENEWED_ONE_IN
            )
        state.idle = state.idle + 1 if before - after <= IDLE_GAIN * abs(before) else 0

    def _smooth_loss(self, point: FloatArray, looks_worse: float) -> float:
        """Of a point solved, freed of noise; infinite where it looks worse beyond doubt."""
        model = self.model
        smooth = model.predict(model.basis.T @ (point - model.center))
        doubt = SURE_DEVIATIONS * self.state.loss_noise()
        return np.inf if looks_worse > doubt else model.outer.loss(smooth, point)
