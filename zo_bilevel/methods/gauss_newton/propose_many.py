"""What to solve next when workers would else be idle: several trial steps and differences at once.

The differences are taken around the first trial point, so that they serve the step after it.
"""

from __future__ import annotations

import numpy as np

from zo_bilevel.methods.gauss_newton.damped_step import Quadratic
from zo_bilevel.methods.gauss_newton.local_state import LocalState
from zo_bilevel.methods.gauss_newton.step_plan import StepPlan
from zo_bilevel.methods.shared.exploration import orthogonal_part
from zo_bilevel.support.arrays import FloatArray

STALE = 0.1
"""Refresh when doubt costs this share of the gain: less than one at a time, for it is free."""
REFRESH = 0.5
"""Share of the differences for that."""
VARIANTS = ((0.03, 0.5), (0.03, 1.0))
"""Further trial steps: their share of the damping, and of the basis."""
MIN_WIDTH_FOR_VARIANTS = 8
SCALES = (2.0, 0.5, 0.25, 4.0, 1.4, 0.7, 0.12, 8.0)
"""Multiples of the step that idle workers try when all directions are known."""
LEAST_FRESH = 3
"""New directions in a round, if that many are wanted at all."""


def propose_wide(state: LocalState) -> StepPlan:
    """The next round of a width above 1.

    Args:
        state: With at least one direction known.
    """
    quadratic = state.model.quadratic()
    step, _ = state.choose_step(quadratic, doubt=True)
    plan = state.trial(_trial_steps(state, quadratic, step))
    slots = max(state.width - len(plan.points), 0)
    extra = state.differences_plan(
        slots,
        base=plan.points[0],
        refresh=_doubtful_directions(state, quadratic, step, slots),
        most_fresh=max(LEAST_FRESH, slots // 2),
    )
    plan.probes, plan.units, plan.base = extra.probes, extra.units, extra.base
    plan.points += extra.points
    return plan


def _trial_steps(state: LocalState, quadratic: Quadratic, step: FloatArray) -> list[FloatArray]:
    steps = [step]
    if state.width >= MIN_WIDTH_FOR_VARIANTS:
        for caution, share in VARIANTS:
            trust = state.bolder(caution)
            bold, _ = state.choose_step(
                quadratic, doubt=True, trust=trust, caution=caution, share=share
            )
            steps.append(bold)
    affine = state.model.affine
    if affine.size == affine.center.size:
        spare = state.width - len(steps) - affine.size
        steps += [scale * step for scale in SCALES[: max(spare, 0)]]
    return steps


def _doubtful_directions(
    state: LocalState, quadratic: Quadratic, step: FloatArray, slots: int
) -> list[FloatArray]:
    """Where doubt holds the step back most: along the step without doubt, and so on (Krylov)."""
    model = state.model
    bold, _ = state.choose_step(quadratic, doubt=False)
    promised = model.promised_loss(step, quadratic)
    best = model.promised_loss(bold, quadratic)
    if promised - best < STALE * (model.loss - best):
        return []
    spread = model.affine.spread[1:, 1:]
    found = np.empty((bold.size, 0))
    for _ in range(int(np.ceil(slots * REFRESH))):
        new = orthogonal_part(bold, found)
        length = float(np.linalg.norm(new))
        if length <= 1e-12 * float(np.linalg.norm(bold)) or found.shape[1] >= bold.size:
            break
        found = np.column_stack([found, new / length])
        bold = spread @ new
    return list(found.T)
