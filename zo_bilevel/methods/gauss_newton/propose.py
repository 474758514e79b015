"""What to solve next: a trial step as soon as the model promises enough, until then differences."""

import math

import numpy as np

from zo_bilevel.methods.gauss_newton.local_state import CAUTION_IN_WIDE_ROUNDS, LocalState
from zo_bilevel.methods.gauss_newton.loss_model import Quadratic
from zo_bilevel.methods.gauss_newton.probing import StepPlan
from zo_bilevel.methods.shared.exploration import orthogonal_part
from zo_bilevel.support.arrays import FloatArray

PROMISED_SHARE = 0.7
"""Try a step when the model promises to gain this share of the loss or more."""
MOST_DIFFERENCES = 8
"""So many differences after a trial step, the next is due."""
STALE_SHARE, STALE_IN_WIDE_ROUNDS = 0.3, 0.1
"""Difference along the step that no doubt would allow, when doubt costs this share of its gain."""
DOUBTFUL_SHARE = 1e-6
"""Doubt that is a smaller share of the curvature along a step holds nothing back."""
UNSURE_VARIANCE = 1e-6
"""Variance of a slope that is worth that, in variances of one of which nothing is known."""
BASIS_SHARE = 16
"""One difference a round for every so many directions known."""
MIN_WIDTH_FOR_VARIANTS, VARIANT_LENGTHS = 8, (0.1, 0.3, 3.0, 10.0)
"""From so wide a round on, steps of less and of more caution are tried beside the first."""
STEP_SCALES = (0.5, 0.25, 2.0)
"""Multiples of the step that idle workers try when all directions are known."""
MOST_IDLE = 6
"""Rounds in a row without gain after which a search is finished."""


def propose(state: LocalState, width: int) -> StepPlan:
    """The next round; no points when nothing is left to gain."""
    if state.again:
        probes, state.again = state.again, []
        return StepPlan(base=state.model.center, probes=probes)
    quadratic = state.model.quadratic()
    if not quadratic.is_finite:  # answers so far away that squares overflow
        state.model.forget(values=True)
        state.start_over()
        quadratic = state.model.quadratic()
    if not quadratic.doubt.size:
        return state.explore(width)
    if width > 1:
        return _wide_plan(state, quadratic, width)
    step = state.step(quadratic, doubt=True)
    plan = _renew(state, quadratic) if state.renewals > 0 else StepPlan()
    gain = -quadratic.change(step, doubt=True)
    if not plan.probes and gain >= PROMISED_SHARE * abs(state.model.loss):
        return state.try_steps([step])
    may_explore = state.differences < MOST_DIFFERENCES and state.explorer.left
    if not plan.probes and may_explore and gain <= state.next_promise(quadratic):
        plan = state.explore(max(1, state.model.size // BASIS_SHARE))
    return plan if plan.probes else _step_or_doubt(state, quadratic, step, gain)


def _step_or_doubt(
    state: LocalState, quadratic: Quadratic, step: FloatArray, gain: float
) -> StepPlan:
    """The trial step, unless doubt holds it back or there is nothing left to gain."""
    bold = state.step(quadratic, doubt=False)
    bold_gain = -quadratic.change(bold)
    if _is_spent(state, max(gain, bold_gain)):
        return _look_closer(state, quadratic) if state.noise.found else StepPlan()
    if bold_gain - gain > STALE_SHARE * bold_gain and _is_doubtful(state, quadratic, bold):
        probe = state.probe(bold, state.model.center)
        if probe is not None:
            return StepPlan(base=state.model.center, probes=[probe])
    return state.try_steps([step])


def _is_spent(state: LocalState, gain: float) -> bool:
    """Whether no step promises anything; without noise the search has then converged."""
    is_spent = not state.explorer.left and gain <= state.least_gain()
    state.has_converged = is_spent and not state.noise.found
    return is_spent


def _renew(state: LocalState, quadratic: Quadratic) -> StepPlan:
    """Differences along the slopes most in doubt, as long as much of them is."""
    values, vectors = np.linalg.eigh(quadratic.doubt)
    count = min(state.renewals, max(1, state.model.size // BASIS_SHARE))
    stale = [
        k for k in range(-1, -1 - count, -1) if values[k] > UNSURE_VARIANCE * quadratic.ignorance
    ]
    state.renewals = state.renewals - count if len(stale) == count else 0
    found = (state.probe(vectors[:, k], state.model.center) for k in stale)
    return StepPlan(base=state.model.center, probes=[p for p in found if p is not None])


def _look_closer(state: LocalState, quadratic: Quadratic) -> StepPlan:
    """Where noise drowns what is left: a difference along the slope most in doubt."""
    state.idle += 1
    state.has_converged = state.idle >= MOST_IDLE + state.model.size
    direction = np.linalg.eigh(quadratic.doubt)[1][:, -1] * (-1.0) ** state.idle
    probe = state.probe(direction, state.model.center)
    return StepPlan() if probe is None else StepPlan(base=state.model.center, probes=[probe])


def _is_doubtful(state: LocalState, quadratic: Quadratic, step: FloatArray) -> bool:
    doubt = float(step @ quadratic.doubt @ step)
    limit = 2 * state.model.size + MOST_DIFFERENCES
    least = DOUBTFUL_SHARE * abs(float(step @ quadratic.hessian @ step))
    return doubt > least and state.differences < limit


def _wide_plan(state: LocalState, quadratic: Quadratic, width: int) -> StepPlan:
    """A trial step, and differences around it that serve the step after it."""
    model = state.model
    step = state.step(quadratic, doubt=True, caution=CAUTION_IN_WIDE_ROUNDS)
    bold = state.step(quadratic, doubt=False)
    gain = max(-quadratic.change(step, doubt=True), -quadratic.change(bold))
    if _is_spent(state, gain) and not state.noise.found:
        return StepPlan()
    steps = [step]
    if width >= MIN_WIDTH_FOR_VARIANTS:
        steps += [state.step(quadratic, doubt=True, caution=caution) for caution in VARIANT_LENGTHS]
    if model.size == model.center.size:
        steps += [scale * step for scale in STEP_SCALES[: max(width - len(steps) - model.size, 0)]]
    plan = state.try_steps(steps)
    if not plan.points:
        return plan
    base, slots = plan.points[0], width - len(plan.points)
    plan.base = base
    for direction in doubtful_directions(state, quadratic, step, (slots + 1) // 2):
        probe = state.probe(direction, base)
        plan.probes += [] if probe is None else [probe]
    wanted = max(slots - len(plan.probes), 0)
    plan.probes += state.explore(wanted, base).probes if wanted else []
    return plan


def doubtful_directions(
    state: LocalState, quadratic: Quadratic, step: FloatArray, most: int
) -> list[FloatArray]:
    """Where doubt holds a step back most: along one without doubt, and so on (Krylov)."""
    bold = state.step(quadratic, doubt=False)
    gain, best = -quadratic.change(step, doubt=True), -quadratic.change(bold)
    if best - gain <= STALE_IN_WIDE_ROUNDS * best and state.explorer.left:
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
