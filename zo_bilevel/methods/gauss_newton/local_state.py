"""What one local search knows and how far it trusts it; the steps and differences it can take."""

import math
from dataclasses import dataclass, field
from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.answer_model import AnswerModel
from zo_bilevel.methods.gauss_newton.explorer import Explorer
from zo_bilevel.methods.gauss_newton.kinked_step import ModelledLoss
from zo_bilevel.methods.gauss_newton.loss_model import Quadratic
from zo_bilevel.methods.gauss_newton.noise_watch import NoiseWatch
from zo_bilevel.methods.gauss_newton.probing import StepPlan
from zo_bilevel.methods.gauss_newton.trust_step import FIRST_RADIUS, TrialSteps, Trust
from zo_bilevel.support.arrays import FloatArray

CAUTION_SHARE, CAUTION_IN_WIDE_ROUNDS = 0.1, 1.0
"""Of unknown curvature along a step, in what is expected of it: shortens the step."""
LEAST_PREDICTED_GAIN = 1e-13
"""Share of the loss that is not worth a solve."""
DROWNED_GAIN = 0.01
"""Predicted gain, in standard deviations of a measured loss, that noise drowns."""


@final
@dataclass(slots=True)
class LocalState:
    """State of one local search.

    Attributes:
        trust: How far the model is trusted.
        differences: Since the last trial step.
        disappointments: Trial steps in a row that gained far less than predicted.
        idle: Trial steps in a row that gained nothing.
        renewals: Slopes still to be measured anew before the next trial step.
        again: Differences that come before anything else.
        has_converged: Whether no step promises any gain.
    """

    model: AnswerModel
    noise: NoiseWatch
    explorer: Explorer
    trust: Trust = field(init=False)
    differences: int = 0
    disappointments: int = 0
    idle: int = 0
    renewals: int = 0
    again: list[FloatArray] = field(default_factory=list)
    has_converged: bool = False
    _careful: tuple[Quadratic, FloatArray] | None = None

    def __post_init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Explore all directions again, with first trust in a model that starts over too."""
        self.differences = self.disappointments = self.idle = self.renewals = 0
        self.has_converged = False
        self.explorer.restart()
        self.trust = Trust(FIRST_RADIUS * math.sqrt(self.model.center.size))

    def step(
        self, quadratic: Quadratic, *, doubt: bool, caution: float = CAUTION_SHARE
    ) -> FloatArray:
        """The step of the model, in coordinates of the basis, shape `(b,)`.

        Args:
            quadratic: Of the model.
            doubt: Whether to shy away from slopes and curvature that are not known.
            caution: How much from curvature.
        """
        model, explorer = self.model, self.explorer
        hessian = quadratic.hessian + quadratic.doubt if doubt else quadratic.hessian
        room = (explorer.lower - model.center, explorer.upper - model.center)
        steps = TrialSteps(quadratic.gradient, hessian, model.basis, room, self.trust.radius)
        step, quartic = steps.step(), 0.0
        if doubt:
            unknown = caution * model.unknown_curvature(step)
            quartic = unknown * quadratic.ignorance / model.length**2  # (4)
            step = steps.step(quartic)
        objective = quadratic.kinked(step)
        if objective is None:
            return step
        slope, reach = float(np.linalg.norm(quadratic.gradient)), self.trust.radius
        weight = quadratic.doubt if doubt else np.zeros_like(quadratic.doubt)
        loss = ModelledLoss(objective.change, weight, quartic, model.basis, room, reach, slope)
        known, careful = self._careful or (None, step)
        starts = [np.zeros(model.size), step if doubt or known is not quadratic else careful]
        step = loss.least(starts, objective.inverse_squares)
        if doubt:
            self._careful = quadratic, step
        return step

    def try_steps(self, steps: list[FloatArray]) -> StepPlan:
        """A round of trial points, the main one first; differences when they lead nowhere."""
        model = self.model
        points = [self.explorer.reached(model.center, model.basis @ step) for step in steps]
        if np.array_equal(points[0], model.center):
            self.has_converged = not self.explorer.left
            plan = self.explore(1)
            return plan if self.explorer.left else StepPlan()
        return StepPlan(points=[p for p in points if not np.array_equal(p, model.center)])

    def explore(self, count: int, base: FloatArray | None = None) -> StepPlan:
        """Differences along new directions."""
        origin = self.model.center if base is None else base
        fresh = self.explorer.fresh(count, self.model.basis, origin, self.noise.radius)
        return StepPlan(base=origin, probes=[probe for _, probe in fresh])

    def probe(self, step: FloatArray, base: FloatArray) -> FloatArray | None:
        """The displacement of a difference along a step, as far as the bounds allow."""
        length = math.sqrt(step @ step)
        if length == 0.0:
            return None
        return self.explorer.inside(self.model.basis @ (step / length), base, self.noise.radius)

    def probe_as_long(self, way: FloatArray) -> FloatArray | None:
        """A displacement taken elsewhere, from the center, as the bounds allow."""
        length = math.sqrt(way @ way)
        return self.explorer.inside(way / length, self.model.center, length)

    def next_promise(self, quadratic: Quadratic) -> float:
        """Of the loss, what the next direction may explain as its prior has it; else infinite."""
        variance = self.explorer.next_variance()
        return 0.5 * quadratic.ignorance * variance if variance < math.inf else variance

    def least_gain(self) -> float:
        """Predicted gain that is not worth a solve."""
        least = LEAST_PREDICTED_GAIN * abs(self.model.loss)
        return max(least, DROWNED_GAIN * self.loss_noise()) if self.noise.found else least

    def loss_noise(self) -> float:
        """Standard deviation of the difference of two measured losses."""
        model = self.model
        in_theta, _ = model.outer.gradient(model.smooth_theta, model.center)
        deviation = math.sqrt(model.noise)
        bend = model.outer.bend(model.smooth_theta, model.center, deviation)
        bend /= math.sqrt(in_theta.size)
        return math.sqrt(2.0) * deviation * (float(np.linalg.norm(in_theta)) + deviation * bend)
