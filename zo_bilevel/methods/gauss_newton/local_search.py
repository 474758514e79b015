"""One local search: a trial step as soon as the model promises enough, until then differences."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.answer_model import SHORTEST_VALUE, AnswerModel, Quadratic
from zo_bilevel.methods.gauss_newton.explorer import Explorer
from zo_bilevel.methods.gauss_newton.noise_watch import NoiseWatch
from zo_bilevel.methods.gauss_newton.probing import Probing
from zo_bilevel.methods.gauss_newton.step_plan import Answers, StepPlan
from zo_bilevel.methods.gauss_newton.trust_step import FIRST_RADIUS, POOR, Trust, trial_step
from zo_bilevel.methods.shared.exploration import orthogonal_part
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray

PROMISE = 0.7
"""Try a step when the model promises to gain this share of the loss or more."""
MOST_DIFFERENCES = 8
"""So many differences after a trial step, the next is due."""
STALE, STALE_IN_WIDE_ROUNDS = 0.3, 0.1
"""Difference along the step that no doubt would allow, when doubt costs this share of its gain."""
DOUBTFUL = 1e-6
"""Doubt that is a smaller share of the curvature along a step holds nothing back."""
DISAPPOINTED = 3
"""Disappointing trial steps in a row after which slopes in doubt are measured anew."""
UNSURE = 1e-6
"""Variance of a slope that is worth that, in variances of one of which nothing is known."""
RENEWED = 4
"""Of more than 16 slopes a share of one in so many is renewed at a time."""
CAUTION, CAUTION_IN_WIDE_ROUNDS = 0.1, 1.0
"""Of unknown curvature along a step, in what is expected of it: shortens the step."""
BASIS_SHARE = 16
"""One difference a round for every so many directions known."""
MIN_WIDTH_FOR_VARIANTS = 8
"""From so wide a round on, bolder steps are tried beside the careful one."""
STEP_SCALES = (2.0, 0.5, 0.25, 4.0, 1.4, 0.7, 0.12, 8.0)
"""Multiples of the step that idle workers try when all directions are known."""
MOST_IDLE = 6
"""Trial steps in a row without gain after which a search is finished."""
IDLE_GAIN = 1e-12
"""Share of the loss below which a gain is none."""
LEAST_RADIUS = 1e-14
"""Trust radius at which a search is finished, scaled."""
LEAST_PREDICTED_GAIN = 1e-13
"""Share of the loss that is not worth a solve."""
SOLVED = 1e-28
"""Loss that is zero to rounding, in mean squares of theta."""
LEAST_REVIVAL = 0.01
"""Share of the loss that reviving a search must have gained to be tried again."""
SURE = 3.0
"""Standard deviations of the measured loss by which a trial step may look worse and be taken."""
DROWNED = 0.01
"""Predicted gain, in standard deviations of a measured loss, that noise drowns."""


@final
class LocalSearch:
    """From one start until nothing is left to gain.

    Args:
        probing: Turns plans into rounds of points.
        center: The start, shape `(N,)`.
        theta: Modelled vector there, shape `(m,)`.
    """

    def __init__(self, probing: Probing, center: FloatArray, theta: FloatArray) -> None:
        self.model = AnswerModel(probing.outer, center, theta)
        self.noise = NoiseWatch(
            probing.outer.spread(theta), probing.rounding(theta), probing.radius
        )
        self.explorer = Explorer(probing.lower, probing.upper, probing.directions)
        self.trust = Trust(FIRST_RADIUS * math.sqrt(center.size))
        self._probing, self._width = probing, probing.width
        self._differences = self._disappointments = self._idle = self._renewals = 0
        self._has_converged = False
        self._revived_at = np.inf

    # ---- the loop ----------------------------------------------------------------------------

    def run(self) -> Generator[list[Point], list[Evaluation], None]:
        """Ask for rounds until nothing is left to gain here.

        Yields:
            Rounds of points.
        """
        probing, model = self._probing, self.model
        while not self._is_solved:
            repeat = self.noise.wants_repeat
            plan = self._repeat() if repeat else self._plan()
            if self._is_finished or not plan.points + plan.probes:
                if self._has_converged or not self._revive():
                    return
                continue
            if self.noise.found:
                probing.recommend(model.center)
            answers = probing.answers(plan, (yield probing.points(plan)), model.theta)
            if repeat:
                self._learn_repeat(answers)
            else:
                self._learn(plan, answers)

    @property
    def _is_solved(self) -> bool:
        theta, model = self.model.theta, self.model
        if not model.outer.is_quadratic:
            in_theta, in_x = model.outer.gradient(theta, model.center)
            return not (in_theta.any() or in_x.any())
        return model.loss <= SOLVED * (1e-300 + float(theta @ theta) / theta.size)

    @property
    def _is_finished(self) -> bool:
        most = MOST_IDLE + (self.model.size if self.noise.found else 0)
        is_stuck = self._idle >= most or self.trust.radius < LEAST_RADIUS
        return self._has_converged or is_stuck

    def _revive(self) -> bool:
        """Forget the differences and trust anew, unless that brought nothing last time."""
        loss = self.model.loss
        least = LEAST_REVIVAL * abs(self._revived_at) if np.isfinite(self._revived_at) else 0.0
        if self.noise.found or self._revived_at - loss < least:
            return False
        self._revived_at = loss
        self.noise.widen()
        self.model.forget(values=True)
        self._start_over()
        return True

    def _start_over(self) -> None:
        """Explore all directions again, with first trust in a model that starts over too."""
        self._differences = self._disappointments = self._idle = self._renewals = 0
        self._has_converged = False
        self.explorer.restart()
        self.trust = Trust(FIRST_RADIUS * math.sqrt(self.model.center.size))

    # ---- what to solve next ------------------------------------------------------------------

    def _repeat(self) -> StepPlan:
        nearby = self.explorer.clip(self.noise.nearby(self.model.center))
        return StepPlan(points=[nearby], role="sketch")

    def _plan(self) -> StepPlan:
        quadratic = self.model.quadratic()
        if not np.isfinite(quadratic.hessian).all():  # answers so far away that squares overflow
            self.model.forget(values=True)
            self._start_over()
            quadratic = self.model.quadratic()
        if not quadratic.doubt.size:
            return self._explore(max(1, self._width))
        if self._width > 1:
            return self._wide_plan(quadratic)
        step = self._step(quadratic, doubt=True)
        plan = self._renew(quadratic) if self._renewals > 0 else StepPlan()
        gain = -quadratic.change(step, doubt=True)
        if not plan.probes and gain >= PROMISE * abs(self.model.loss):
            return self._try([step])
        if not plan.probes and self._differences < MOST_DIFFERENCES and self.explorer.left:
            plan = self._explore(max(1, self.model.size // BASIS_SHARE))
        return plan if plan.probes else self._step_or_doubt(quadratic, step, gain)

    def _step_or_doubt(self, quadratic: Quadratic, step: FloatArray, gain: float) -> StepPlan:
        """The trial step, unless doubt holds it back or there is nothing left to gain."""
        bold = self._step(quadratic, doubt=False)
        bold_gain = -quadratic.change(bold)
        if not self.explorer.left and max(gain, bold_gain) <= self._least_gain():
            if not self.noise.found:
                self._has_converged = True
                return StepPlan()
            return self._look_closer(quadratic)
        if bold_gain - gain > STALE * bold_gain and self._is_doubtful(quadratic, bold):
            probe = self._probe(bold, self.model.center)
            if probe is not None:
                return StepPlan(base=self.model.center, probes=[probe])
        return self._try([step])

    def _renew(self, quadratic: Quadratic) -> StepPlan:
        """Differences along the slopes most in doubt, as long as much of them is."""
        values, vectors = np.linalg.eigh(quadratic.doubt)
        count = min(self._renewals, max(1, self.model.size // BASIS_SHARE))
        stale = [k for k in range(-1, -1 - count, -1) if values[k] > UNSURE * quadratic.ignorance]
        self._renewals = self._renewals - count if len(stale) == count else 0
        found = (self._probe(vectors[:, k], self.model.center) for k in stale)
        return StepPlan(base=self.model.center, probes=[p for p in found if p is not None])

    def _look_closer(self, quadratic: Quadratic) -> StepPlan:
        """Where noise drowns what is left: a difference along the slope most in doubt."""
        self._idle += 1
        self._has_converged = self._idle >= MOST_IDLE + self.model.size
        direction = np.linalg.eigh(quadratic.doubt)[1][:, -1] * (-1.0) ** self._idle
        probe = self._probe(direction, self.model.center)
        return StepPlan() if probe is None else StepPlan(base=self.model.center, probes=[probe])

    def _least_gain(self) -> float:
        """Predicted gain that is not worth a solve."""
        least = LEAST_PREDICTED_GAIN * abs(self.model.loss)
        return max(least, DROWNED * self._loss_noise()) if self.noise.found else least

    def _loss_noise(self) -> float:
        """Standard deviation of the difference of two measured losses."""
        model = self.model
        in_theta, _ = model.outer.gradient(model.smooth_theta, model.center)
        bend = model.outer.trace(model.smooth_theta, model.center) / math.sqrt(in_theta.size)
        deviation = math.sqrt(model.noise)
        return math.sqrt(2.0) * deviation * (float(np.linalg.norm(in_theta)) + deviation * bend)

    def _is_doubtful(self, quadratic: Quadratic, step: FloatArray) -> bool:
        doubt = float(step @ quadratic.doubt @ step)
        limit = 2 * self.model.size + MOST_DIFFERENCES
        least = DOUBTFUL * abs(float(step @ quadratic.hessian @ step))
        return doubt > least and self._differences < limit

    def _step(self, quadratic: Quadratic, *, doubt: bool, caution: float = CAUTION) -> FloatArray:
        model, explorer = self.model, self.explorer
        hessian = quadratic.hessian + quadratic.doubt if doubt else quadratic.hessian
        room = (explorer.lower - model.center, explorer.upper - model.center)
        radius = self.trust.radius
        step = trial_step(quadratic.gradient, hessian, model.basis, room, radius)
        if not doubt:
            return step
        unknown = caution * model.unknown_curvature(step)
        quartic = unknown * quadratic.ignorance / model.length**2  # (4)
        return trial_step(quadratic.gradient, hessian, model.basis, room, radius, quartic)

    def _try(self, steps: list[FloatArray]) -> StepPlan:
        model = self.model
        points = [self.explorer.clip(model.center + model.basis @ step) for step in steps]
        if np.array_equal(points[0], model.center):
            self._has_converged = not self.explorer.left
            plan = self._explore(1)
            return plan if self.explorer.left else StepPlan()
        return StepPlan(points=points)

    def _explore(self, count: int, base: FloatArray | None = None) -> StepPlan:
        """Differences along new directions."""
        origin = self.model.center if base is None else base
        fresh = self.explorer.fresh(count, self.model.basis, origin, self.noise.radius)
        return StepPlan(base=origin, probes=[probe for _, probe in fresh])

    def _probe(self, step: FloatArray, base: FloatArray) -> FloatArray | None:
        """The displacement of a difference along a step, as far as the bounds allow."""
        length = math.sqrt(step @ step)
        if length == 0.0:
            return None
        return self.explorer.inside(self.model.basis @ (step / length), base, self.noise.radius)

    def _wide_plan(self, quadratic: Quadratic) -> StepPlan:
        """A trial step, and differences around it that serve the step after it."""
        model = self.model
        step = self._step(quadratic, doubt=True, caution=CAUTION_IN_WIDE_ROUNDS)
        steps = [step]
        if self._width >= MIN_WIDTH_FOR_VARIANTS:
            steps += [self._step(quadratic, doubt=doubt) for doubt in (True, False)]
        if model.size == model.center.size:
            steps += [
                scale * step
                for scale in STEP_SCALES[: max(self._width - len(steps) - model.size, 0)]
            ]
        plan = self._try(steps)
        if not plan.points:
            return plan
        base, slots = plan.points[0], self._width - len(plan.points)
        plan.base = base
        for direction in self._doubtful_directions(quadratic, step, (slots + 1) // 2):
            probe = self._probe(direction, base)
            plan.probes += [] if probe is None else [probe]
        wanted = max(slots - len(plan.probes), 0)
        plan.probes += self._explore(wanted, base).probes if wanted else []
        return plan

    def _doubtful_directions(
        self, quadratic: Quadratic, step: FloatArray, most: int
    ) -> list[FloatArray]:
        """Where doubt holds a step back most: along one without doubt, and so on (Krylov)."""
        bold = self._step(quadratic, doubt=False)
        gain, best = -quadratic.change(step, doubt=True), -quadratic.change(bold)
        if best - gain <= STALE_IN_WIDE_ROUNDS * best and self.explorer.left:
            return []
        found = np.empty((bold.size, 0))
        for _ in range(most):
            new = orthogonal_part(bold, found)
            length = math.sqrt(new @ new)
            if length <= 1e-12 * math.sqrt(bold @ bold) or found.shape[1] >= bold.size:
                break
            found = np.column_stack([found, new / length])
            bold = quadratic.doubt @ new
        return list(found.T)

    # ---- what a round teaches ----------------------------------------------------------------

    def _learn_repeat(self, answers: Answers) -> None:
        model, moved = self.model, self.model.steepness * self.noise.radius
        if not self.noise.measure(model, answers.thetas[0]):
            return
        if self.noise.found:
            model.noise, model.is_noisy = self.noise.variance, True
        elif self.noise.is_coarse:
            model.noise = moved**2  # by about one unit of the rounding
        model.forget()
        self._start_over()

    def _learn(self, plan: StepPlan, answers: Answers) -> None:
        if plan.points:
            self._differences = 0
            self._learn_trials(plan.points, answers.thetas)
        for probe, change in zip(plan.probes, answers.changes, strict=True):
            self._differences += 1
            if change is None or self.noise.is_too_short(change.change):
                self.explorer.retry(probe)
            elif not self._keeps_values and plan.base is not None:
                share = change.noise_share
                self.model.add_derivative(plan.base, change.displacement, change.change, share)
        if self._keeps_values:
            for point, theta in answers.nearby:
                self.model.add_value(point, theta)
        noise, model = self.noise, self.model
        rounding = self._probing.rounding(model.theta)
        noise.follow(rounding, model.outer.spread(model.theta))
        noise.fit(model)
        model.least_noise = rounding**2
        model.noise = max(model.noise, model.least_noise)
        noise.suspect(model, self._disappointments)

    @property
    def _keeps_values(self) -> bool:
        """Whether differences are so long that they are solves like any other."""
        return self.noise.radius >= SHORTEST_VALUE

    def _learn_trials(self, points: list[FloatArray], thetas: list[FloatArray | None]) -> None:
        model, outer = self.model, self.model.outer
        losses = [
            np.inf if theta is None else outer.loss(theta, point)
            for point, theta in zip(points, thetas, strict=True)
        ]
        best = int(np.argmin(losses))
        point, theta = points[best], thetas[best]
        step = model.basis.T @ (point - model.center)
        gain = -model.quadratic().change(step, doubt=True)
        before, length = model.loss, math.sqrt(step @ step)
        looks_worse = losses[best] - outer.loss(model.theta, model.center)
        for place, answer in zip(points, thetas, strict=True):
            if answer is not None and np.isfinite(outer.loss(answer, place)):
                model.add_value(place, answer)
        if theta is None or not np.isfinite(losses[best]):
            self.trust.adapt(0.0, length, accepted=False)
            return
        after = losses[best]
        if self.noise.found:
            smooth = model.predict(model.basis.T @ (point - model.center))
            after, before = outer.loss(smooth, point), model.loss
            after = np.inf if looks_worse > SURE * self._loss_noise() else after
        agreement = (before - after) / max(gain, 1e-300)
        accepted = after < before
        if accepted:
            model.move(point, theta)
        self.trust.adapt(agreement, length, accepted=accepted)
        if self.noise.found:
            self.trust.radius = max(self.trust.radius, self.noise.radius)
        self._disappointments = self._disappointments + 1 if agreement < POOR else 0
        if self._disappointments >= DISAPPOINTED and not self.noise.found:
            self._disappointments = 0
            self._renewals = model.size if model.size <= BASIS_SHARE else model.size // RENEWED
        self._idle = self._idle + 1 if before - after <= IDLE_GAIN * abs(before) else 0
