"""What one local search knows: its model, how far it trusts it, what it has left to explore."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.damped_step import Quadratic, Trust, trial_step
from zo_bilevel.methods.gauss_newton.explorer import Explorer
from zo_bilevel.methods.gauss_newton.local_model import LocalModel
from zo_bilevel.methods.gauss_newton.noise_watch import NoiseWatch
from zo_bilevel.methods.gauss_newton.step_plan import StepPlan
from zo_bilevel.support.arrays import FloatArray

CAUTION = 0.1
"""Wide rounds: damping in proportion to the curvature met so far."""


@final
@dataclass(slots=True)
class LocalState:
    """State of one local search.

    Args:
        model: At the best point so far.
        explorer: Directions left, and the bounds.
        width: How many solves may run at once at no extra cost.
        noise: Noise and radius.
        trust: How far the model is trusted.
        differences: Differences since the last trial step.
        slow: Trial steps in a row that gained little.
        idle: Trial steps in a row that gained nothing.
        disappointments: Trial steps in a row that gained far less than predicted.
        renewals: Columns still to be measured anew before the next trial step.
    """

    model: LocalModel
    explorer: Explorer
    width: int
    noise: NoiseWatch
    trust: Trust
    differences: int = 0
    slow: int = 0
    idle: int = 0
    disappointments: int = 0
    renewals: int = 0

    def choose_step(
        self,
        quadratic: Quadratic,
        *,
        doubt: bool,
        trust: Trust | None = None,
        caution: float = 1.0,
        share: float = 1.0,
    ) -> tuple[FloatArray, bool]:
        """A step, and whether the trust radius held it back.

        Args:
            quadratic: Of the model.
            doubt: Whether to shy away from uncertain columns.
            trust: Instead of the search's own.
            caution: Multiple of the damping by curvature, wide rounds only.
            share: Of the basis, its first directions, to step in.

        Returns:
            Coordinates of shape `(b,)`.
        """
        affine = self.model.affine
        room = (self.explorer.lower - affine.center, self.explorer.upper - affine.center)
        count = max(min(affine.size, 4), int(share * affine.size))
        part = quadratic if count == affine.size else quadratic.leading(count)
        basis = affine.basis[:, :count]
        trust = trust or self.trust
        step, held = trial_step(part, basis, room, trust, doubt=doubt)
        if self.width > 1:
            power = float((affine.powers[:count] * step) @ step)
            floor = caution * CAUTION * affine.curvature * power * self.model.trace
            step, held = trial_step(part, basis, room, trust, doubt=doubt, floor=floor)
        return (step if count == affine.size else np.pad(step, (0, affine.size - count))), held

    def bolder(self, caution: float) -> Trust:
        """Trust for another trial step of the same round: less damping, and if bold more radius."""
        radius = self.trust.radius * (3.0 if caution < 1.0 else 1.0)
        return replace(self.trust, damping=self.trust.damping * caution, radius=radius, extra=1.0)

    def trial(self, steps: list[FloatArray]) -> StepPlan:
        """A plan that tries steps, as far as the bounds allow."""
        affine = self.model.affine
        wanted = [affine.center + affine.basis @ step for step in steps]
        points = [self.explorer.clip(point) for point in wanted]
        unclipped = all(
            np.array_equal(point, raw) for point, raw in zip(points, wanted, strict=True)
        )
        return StepPlan(steps=steps, points=points, unclipped=unclipped)

    def differences_plan(
        self,
        count: int,
        *,
        base: FloatArray | None = None,
        refresh: list[FloatArray] | None = None,
        most_fresh: int | None = None,
    ) -> StepPlan:
        """Differences along given directions, then new ones, then the columns most in doubt.

        Args:
            count: How many.
            base: Where, shape `(N,)`; `None` for the center.
            refresh: Unit vectors in coordinates of the basis, each of shape `(b,)`.
            most_fresh: At most so many new directions.
        """
        affine, radius = self.model.affine, self.noise.radius
        origin = affine.center if base is None else base
        plan = StepPlan(base=base)
        for unit in refresh or ():
            self._add_probe(plan, affine.basis @ unit, origin)
        wanted = count - len(plan.probes)
        wanted = wanted if most_fresh is None else min(wanted, most_fresh)
        for unit, probe in self.explorer.fresh(wanted, affine.basis, origin, radius):
            plan.units[len(plan.probes)] = unit
            plan.probes.append(probe)
        missing = min(count - len(plan.probes), affine.size)
        if missing > 0:
            doubt = affine.spread.diagonal()[1:] / (affine.powers + 1e-300)
            for index in np.argsort(-doubt, kind="stable")[:missing]:
                self._add_probe(plan, affine.basis[:, index], origin)
        plan.points = [origin + probe for probe in plan.probes]
        return plan

    def _add_probe(self, plan: StepPlan, direction: FloatArray, origin: FloatArray) -> None:
        probe = self.explorer.inside(direction, origin, self.noise.radius)
        if probe is not None:
            plan.probes.append(probe)
