"""What to solve next when one solve runs at a time: a trial step, or a difference.

A step is taken as soon as the model promises enough; until then each solve buys a derivative:
along a new direction, or, when doubt about old columns is what holds the step back, along the step
that would be taken without doubt.
"""

from __future__ import annotations

import math

import numpy as np

from zo_bilevel.methods.gauss_newton.damped_step import Quadratic
from zo_bilevel.methods.gauss_newton.local_state import LocalState
from zo_bilevel.methods.gauss_newton.step_plan import StepPlan
from zo_bilevel.support.arrays import FloatArray

PROMISE = 0.3
"""Try a step when the model promises this share of the loss or less."""
MOST_DIFFERENCES = 8
"""At most so many differences between two trial steps."""
STALE, STALE_WHEN_COMPLETE = 0.4, 0.3
"""Refresh when doubt costs this share of the gain (directions are left; none is left)."""
SURE = 1e-6
"""Relative variance of a column below which differencing it again teaches nothing."""
NO_DOUBT = 1e-9
"""Doubt that is a smaller share of the curvature holds no step back."""
BASIS_SHARE = 16
"""One difference a plan for every so many directions known."""
SHORTEST = 1e-14
"""A step of this length leads nowhere: all known directions end on bounds."""
MANY = 16
"""With so many columns they grow old together: a trial step mends but one direction of them."""
DISAPPOINTED, OLD = 3, 0.02
"""Disappointing trial steps in a row, and median relative variance, that renew columns."""
RENEWED = 4
"""A share of 1 in so many columns is renewed at a time, those most in doubt."""
RENEWED_RADIUS = 0.03
"""Trust radius afterwards at the least: it had shrunk because of the columns."""
FEW_DIRECTIONS = 4
"""Enough directions to try a step again after the radius held the last one back."""


def propose(state: LocalState) -> StepPlan:
    """The next round of width 1.

    Args:
        state: With at least one direction known.
    """
    if state.model.size == state.model.affine.center.size:
        state.explorer.left = False
    _begin_renewal(state)
    if state.renewals > 0:
        plan = state.differences_plan(min(state.renewals, max(1, state.model.size // BASIS_SHARE)))
        state.renewals -= len(plan.probes)
        if plan.points:
            return plan
    quadratic = state.model.quadratic()
    step, held = state.choose_step(quadratic, doubt=True)
    if _is_worth_trying(state, quadratic, step, held):
        return state.trial([step])
    refresh = _refresh(state, quadratic, step)
    if refresh is not None:
        return StepPlan(probes=[refresh], points=[state.model.affine.center + refresh])
    if state.explorer.left:
        plan = state.differences_plan(max(1, state.model.size // BASIS_SHARE))
        if plan.points:
            return plan
    return state.trial([step])


def _begin_renewal(state: LocalState) -> None:
    """Measure many columns anew when all are known, but old, and steps disappoint."""
    affine = state.model.affine
    is_old = not state.explorer.left and affine.size >= MANY and not state.noise.found
    if not is_old or state.disappointments < DISAPPOINTED or state.renewals > 0:
        return
    doubt = affine.spread.diagonal()[1:] / (affine.powers + 1e-300)
    if float(np.median(doubt)) < OLD:
        return
    state.disappointments = 0
    state.renewals = affine.size // RENEWED
    state.trust.radius = max(state.trust.radius, RENEWED_RADIUS)


def _is_worth_trying(state: LocalState, quadratic: Quadratic, step: FloatArray, held: bool) -> bool:
    if state.explorer.left and not np.abs(step).max() > SHORTEST:
        return False
    promised = state.model.promised_loss(step, quadratic)
    if state.differences >= MOST_DIFFERENCES or 0.0 <= promised < PROMISE * state.model.loss:
        return True
    affine = state.model.affine
    return held and state.differences > 0 and affine.size >= min(affine.center.size, FEW_DIRECTIONS)


def _refresh(state: LocalState, quadratic: Quadratic, step: FloatArray) -> FloatArray | None:
    """The displacement along the step that no doubt would allow, when doubt costs much of it."""
    model = state.model
    if float(quadratic.doubt_hessian.diagonal().max()) <= NO_DOUBT * quadratic.unit:
        return None
    bold, _ = state.choose_step(quadratic, doubt=False)
    promised = model.promised_loss(step, quadratic)
    best = model.promised_loss(bold, quadratic)
    stale = (promised - best) / max(model.loss - best, 1e-300)
    length = math.sqrt(bold @ bold)
    if stale <= (STALE if state.explorer.left else STALE_WHEN_COMPLETE) or length == 0.0:
        return None
    affine, noise = model.affine, state.noise
    unit = bold / length
    doubt = float(unit @ affine.spread[1:, 1:] @ unit)
    smallest = SURE * float((affine.powers * unit) @ unit)
    if doubt < smallest + 2.0 * noise.variance / noise.radius**2:
        return None
    return state.explorer.inside(affine.basis @ unit, affine.center, noise.radius)
