"""Gauss-Newton on a growing sketch, from one start until nothing is left to gain."""

from __future__ import annotations

from collections.abc import Generator
from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.damped_step import Trust
from zo_bilevel.methods.gauss_newton.explorer import Explorer
from zo_bilevel.methods.gauss_newton.local_model import LocalModel
from zo_bilevel.methods.gauss_newton.local_state import LocalState
from zo_bilevel.methods.gauss_newton.noise_watch import NoiseWatch
from zo_bilevel.methods.gauss_newton.probing import Probing
from zo_bilevel.methods.gauss_newton.propose_many import propose_wide
from zo_bilevel.methods.gauss_newton.propose_one import propose
from zo_bilevel.methods.gauss_newton.step_plan import Answers, StepPlan
from zo_bilevel.methods.gauss_newton.update import learn
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray

FEW_TO_SEARCH = 4
"""With so few parameters a space-filling round is cheap."""
MOST_SLOW = 2
"""Slow trial steps in a row after which a search may look hopeless."""
UNEXPLAINED = 1e-2
"""It does while more than this share of theta's variance is unexplained."""
MOST_IDLE = 6
"""Trial steps in a row without gain after which a search is finished."""
LEAST_RADIUS = 1e-9
"""Trust radius at which it is finished, scaled."""
SOLVED = 1e-28
"""Loss that is zero to rounding, in mean squares of theta."""
LEAST_GAIN = 0.01
"""Share of the loss that reviving a search must have gained to be tried again."""


@final
class LocalSearch:
    """One local search.

    Args:
        probing: Turns plans into rounds of points.
        center: The start, shape `(N,)`.
        theta: Modelled vector there, shape `(m,)`.
        explorer: Directions and bounds.
    """

    def __init__(
        self, probing: Probing, center: FloatArray, theta: FloatArray, explorer: Explorer
    ) -> None:
        self._probing, outer = probing, probing.model
        noise = NoiseWatch(theta, outer.rounding(theta), outer.radius)
        model = LocalModel(outer, center, theta)
        self.state = LocalState(model, explorer, probing.width, noise, Trust())
        self._revived_at = np.inf

    @property
    def loss(self) -> float:
        """Loss at the center."""
        return self.state.model.loss

    @property
    def center(self) -> FloatArray:
        """The best point so far, shape `(N,)`."""
        return self.state.model.affine.center

    @property
    def theta(self) -> FloatArray:
        """The modelled vector there, shape `(m,)`."""
        return self.state.model.affine.theta

    def run(self, *, may_give_up: bool) -> Generator[list[Point], list[Evaluation], None]:
        """Ask for rounds until nothing is left to gain here.

        Args:
            may_give_up: Whether to end as soon as the search looks hopeless.

        Yields:
            Rounds of points.
        """
        while not (may_give_up and self._is_hopeless):
            if self.is_finished and not self._revive():
                return
            plan = self._plan()
            affine = self.state.model.affine
            plan.center, plan.theta, plan.size = affine.center, affine.theta, affine.size
            if self.state.noise.found:
                self._probing.recommend(affine.center)
            self._learn(plan, self._probing.answers(plan, (yield self._probing.points(plan))))

    def _plan(self) -> StepPlan:
        state = self.state
        if state.noise.wants_repeat:
            nearby = state.explorer.clip(state.noise.nearby(self.center))
            return StepPlan(points=[nearby], repeat=True)
        if state.model.size == 0:
            return state.differences_plan(max(1, state.width))
        return propose(state) if state.width == 1 else propose_wide(state)

    def _learn(self, plan: StepPlan, answers: Answers) -> None:
        state = self.state
        if not plan.repeat:
            learn(state, plan, answers)
            state.noise.follow(state.model.outer.rounding(self.theta), self.theta)
            state.noise.suspect(state.model, state.disappointments)
            return
        theta, size = answers.trials[0], state.model.outer.inner(self.theta).size
        if state.noise.measure(state.model.affine, theta, size) and theta is not None:
            mean, variance = 0.5 * (theta + self.theta), 0.5 * state.noise.variance
            state.model = LocalModel(state.model.outer, self.center, mean, variance)
            state.differences = 0
            state.explorer.restart()

    def _revive(self) -> bool:
        """Doubt every column and trust anew, unless that brought nothing last time."""
        least = LEAST_GAIN * abs(self._revived_at) if np.isfinite(self._revived_at) else 0.0
        if self._is_solved or self._revived_at - self.loss < least:
            return False
        self._revived_at = self.loss
        self.state.noise.widen()
        self.state.model.affine.doubt()
        self.state.trust = Trust()
        self.state.idle = 0
        return True

    @property
    def _is_solved(self) -> bool:
        theta, model = self.theta, self.state.model
        if not model.outer.is_quadratic:
            return model.is_flat
        return self.loss <= SOLVED * (1e-300 + float(theta @ theta) / theta.size)

    @property
    def _is_hopeless(self) -> bool:
        """Whether progress is slow and much unexplained, where looking elsewhere is cheap."""
        cheap = self.center.size <= FEW_TO_SEARCH and not self.state.noise.found
        if not cheap or self.state.slow < MOST_SLOW:
            return False
        return self.loss > UNEXPLAINED * float(np.var(self.theta))

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to gain here."""
        if self._is_solved:
            return True
        is_stuck = self.state.idle >= MOST_IDLE or self.state.trust.radius < LEAST_RADIUS
        return is_stuck and not self.state.noise.found
