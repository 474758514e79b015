"""What a round teaches: every trial step and every difference is an observation of the model."""

from __future__ import annotations

import numpy as np

from zo_bilevel.methods.gauss_newton.local_model import along, at_center
from zo_bilevel.methods.gauss_newton.local_state import LocalState
from zo_bilevel.methods.gauss_newton.step_plan import Answers, Finding, StepPlan
from zo_bilevel.support.arrays import FloatArray

KNOWN_BEND = 0.25
"""Share of the expected curvature that a rejected trial step's observation is blurred by."""
CHORD = 0.1
"""The same of an accepted one: the chord to the new center is not the tangent there."""
FEW_PARAMETERS, FEW_CHORD = 4, 1e-9
"""With so few, one solve at a time, the chord is as good: a difference costs as much as a step."""
SHRINK_AFTER_FAILURE = 0.25
"""Of the step, when the trial did not solve."""
POOR = 0.25
"""Share of the gain predicted below which a trial step disappoints."""
SLOW_GAIN, GOOD_GAIN = 0.95, 0.8
"""A trial step that leaves more of the loss than the one is slow, less than the other is not."""
IDLE_GAIN = 1e-6


def learn(state: LocalState, plan: StepPlan, answers: Answers) -> None:
    """Take in the outcome of a round.

    Args:
        state: Changed in place.
        plan: What was asked.
        answers: In the order of the plan.
    """
    if plan.steps:
        _learn_trials(state, plan, answers.trials)
        state.differences = 0
    known = plan.size if plan.size == state.model.size else -1
    for place, finding in enumerate(answers.findings):
        state.differences += 1
        if finding is None:
            state.explorer.retry(plan.probes[place])
        elif plan.units and state.noise.is_too_short(_change(state, finding)):
            state.explorer.retry(finding.displacement)
        else:
            unit = plan.units.get(place) if known >= 0 else None
            _learn_finding(state, plan, finding, unit)


def _change(state: LocalState, finding: Finding) -> FloatArray:
    """What the inner solver's answer changed by, at a first difference."""
    change = finding.value if finding.is_change else finding.value - state.model.affine.theta
    return state.model.outer.inner(change)


def _learn_finding(
    state: LocalState, plan: StepPlan, finding: Finding, unit: FloatArray | None
) -> None:
    model, affine = state.model, state.model.affine
    step = model.coordinates(finding.displacement, unit)
    variance = finding.noise_share * state.noise.variance
    if not finding.is_change:
        model.observe(at_center(step), finding.value, variance)
        return
    if plan.base is not None and plan.base is not affine.center:
        away = plan.base - affine.center
        variance += float(away @ away) * affine.bend(step) / max(float(step @ step), 1e-300)
    model.observe(along(step), finding.value, variance)


def _learn_trials(state: LocalState, plan: StepPlan, trials: list[FloatArray | None]) -> None:
    model = state.model
    displacements = [point - model.affine.center for point in plan.points[: len(plan.steps)]]
    losses = [np.inf if theta is None else model.outer.loss(theta) for theta in trials]
    losses = [loss if np.isfinite(loss) else np.inf for loss in losses]
    best = int(np.argmin(losses))
    for place in sorted(range(len(losses)), key=lambda index: -losses[index]):
        theta = trials[place]
        if place != best and theta is not None and np.isfinite(losses[place]):
            step = _coordinates(state, plan, place, displacements[place])
            blur = state.noise.variance + model.affine.bend(step)
            model.observe(at_center(step), theta, blur)
    theta = trials[best]
    if theta is None or not np.isfinite(losses[best]):
        length = float(np.abs(displacements[0]).max())
        state.trust.after_failure(SHRINK_AFTER_FAILURE, length)
        return
    step = _coordinates(state, plan, best, displacements[best])
    length = float(np.abs(displacements[best]).max())
    _judge(state, step, length, plan.points[best], theta)


def _coordinates(
    state: LocalState, plan: StepPlan, place: int, displacement: FloatArray
) -> FloatArray:
    """Coordinates of a trial step: those planned, unless a bound or a new direction interfered."""
    if plan.unclipped and plan.size == state.model.size:
        return plan.steps[place]
    return state.model.coordinates(displacement)


def _judge(
    state: LocalState, step: FloatArray, length: float, point: FloatArray, theta: FloatArray
) -> None:
    """Learn from the best trial step, move there if it is better, adapt the trust."""
    model, affine, noise = state.model, state.model.affine, state.noise.variance
    weights = at_center(step)
    known = affine.value(weights)
    old, predicted, value = model.loss, model.outer.loss(known), model.outer.loss(theta)
    surprise = theta - known
    affine.learn_curvature(
        float(surprise @ surprise) / theta.size, step, affine.uncertainty(weights), noise
    )
    if noise > 0.0:
        model.observe(weights, theta, noise + KNOWN_BEND * affine.bend(step), known)
        theta = affine.value(weights)
        value, old = model.outer.loss(theta), model.loss
    agreement = (old - value) / max(old - predicted, 1e-300)
    state.disappointments = state.disappointments + 1 if agreement < POOR else 0
    if value < old:
        affine.drift(float(step @ step))
        if noise == 0.0:
            is_few = state.width == 1 and affine.center.size <= FEW_PARAMETERS
            blur = (FEW_CHORD if is_few else CHORD) * affine.bend(step)
            model.observe(weights, theta, blur, known)
        model.move(step, point, theta, exact=noise == 0.0)
        state.trust.after_success(agreement, length)
    else:
        if noise == 0.0:
            model.observe(weights, theta, KNOWN_BEND * affine.bend(step), known)
        slope = 2.0 * (old - predicted)
        state.trust.after_failure(slope / max(2.0 * (value - old + slope), 1e-300), length)
    state.slow = 0 if value < GOOD_GAIN * old else state.slow + (value > SLOW_GAIN * old)
    state.idle = state.idle + 1 if value > old * (1.0 - IDLE_GAIN) else 0
