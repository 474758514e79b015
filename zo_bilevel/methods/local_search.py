"""Gauss-Newton on a growing sketch: a coroutine that asks for rounds of points.

A step is taken as soon as the model promises enough; until then each solve buys a derivative:
along a new direction, or, when doubt about old columns is what holds the step back, along the step
that would be taken without doubt. Wide rounds try several steps and, around the first of them,
difference the next directions.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import chain
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.methods.affine_model import AffineModel
from zo_bilevel.methods.exploration import FEW_PARAMETERS, orthogonal_part
from zo_bilevel.methods.outer_model import OuterModel
from zo_bilevel.methods.damped_step import Quadratic, Trust, trial_step
from zo_bilevel.methods.restarts import Restarts

Array = NDArray[np.float64]
Thetas = Sequence[Array | None]

PROMISE = 0.3  # try a step when the model promises this share of the loss or less
MOST_DIFFERENCES = 8  # at most so many differences between two trial steps (width 1)
STALE = (0.4, 0.3)  # refresh when doubt costs this share of the gain (directions left, none left)
WIDE_STALE = 0.1  # the same in wide rounds, where a refresh costs no time
REFRESH = 0.5  # share of a wide round's differences for that
CAUTION = 0.1  # wide rounds: damping in proportion to the curvature met so far
VARIANTS = ((0.03, 0.5), (0.03, 1.0))  # further trial steps: caution, share of the basis
SCALES = (2.0, 0.5, 0.25, 4.0, 1.4, 0.7, 0.12, 8.0)  # trial steps of idle workers when all directions are known
MIN_WIDTH_FOR_VARIANTS = 8
REPEAT_DISTANCE = 1e-8  # from the center, of the solve that tells noise from steepness
RADIUS = 1e-5  # of a deterministic difference, in units of a sixth of a parameter's range
NOISE_RADIUS = 6.0  # times sqrt(noise / spread of theta): the radius under noise
LARGEST_RADIUS = 0.4
SUSPICIOUS = 30.0  # a difference quotient of this many spreads of theta may be noise
FEW_TO_SEARCH = 4  # with so few parameters a space-filling round is cheap


@dataclass(slots=True)
class Plan:
    """One round: trial steps (the first is the main one), then differences around `base`."""

    steps: list[Array] = field(default_factory=list)
    probes: list[Array] = field(default_factory=list)  # displacements from the base point
    points: list[Array] = field(default_factory=list)
    base: Array | None = None  # None: the center
    repeat: bool = False
    center: Array | None = None  # of the affine model, and the value there
    theta: Array | None = None
    noisy: bool = False
    held: bool = False


class Search:
    """One local search from one start."""

    def __init__(
        self, outer: OuterModel, model: AffineModel, bounds: tuple[Array, Array], directions: Callable[[], Iterator[Array]], width: int
    ) -> None:
        """Start at the center of an affine model without directions."""
        self.outer, self.model, self.width = outer, model, width
        self.lower, self.upper = bounds
        self.directions = directions
        self.loss = outer.loss(model.theta)
        self.trust = Trust()
        self.noise = 0.0  # variance of one component of one solve
        self.radius = RADIUS
        self.checked_noise = False
        self.want_repeat = False
        self.rejected = 0
        self.differences = 0
        self.idle = 0
        self.slow = 0
        self._revived_at = np.inf
        self._restart_directions()

    def _restart_directions(self) -> None:
        self._candidates: Iterator[Array] = self.directions()
        self._left = True
        self._retries = 2 * self.model.center.size

    # ---- proposing -------------------------------------------------------------------------

    def plan(self) -> Plan:
        """The next round."""
        if self.want_repeat:
            return Plan(points=[self._nearby()], repeat=True)
        if self.model.size == 0:
            return self._differences(max(1, self.width), None)
        step, held = self._step(doubt=True)
        if self.width > 1:
            return self._wide(step, held)
        refresh = self._better_than_trial(step, held)
        if refresh is None:
            return self._trial([step], held)
        if refresh.size:
            return Plan(probes=[refresh], points=[self.model.center + refresh])
        plan = self._differences(max(1, self.model.size // 16), None)
        return plan if plan.points else self._trial([step], held)

    def _nearby(self) -> Array:
        """A point so close to the center that only noise can tell them apart."""
        away = np.where(self.model.center > 0.0, -REPEAT_DISTANCE, REPEAT_DISTANCE)
        return self._clip(self.model.center + away)

    def _better_than_trial(self, step: Array, held: bool) -> Array | None:
        """None: try the step; an empty array: explore; else: the displacement to refresh along."""
        promised = self.outer.loss(self.model.predict(step))
        if self.differences >= MOST_DIFFERENCES or promised < PROMISE * self.loss:
            return None
        if held and self.differences > 0 and self.model.size >= min(self.model.center.size, 4):
            return None
        bold, _ = self._step(doubt=False)
        best = self.outer.loss(self.model.predict(bold))
        stale = (promised - best) / max(self.loss - best, 1e-300)
        if stale > STALE[0 if self._left else 1]:
            probe = self._refresh(bold)
            if probe is not None:
                return probe
        return np.empty(0) if self._left else None

    def _refresh(self, step: Array) -> Array | None:
        length = float(np.linalg.norm(step))
        if length == 0.0:
            return None
        unit = step / length
        doubt = unit @ self.model.spread[1:, 1:] @ unit
        if doubt < 1e-6 * (self.model.powers * unit) @ unit + 2.0 * self.noise / self.radius**2:
            return None
        return self._inside(self.model.basis @ unit, self.model.center)

    def _wide(self, step: Array, held: bool) -> Plan:
        steps = [step]
        for caution, share in (VARIANTS if self.width >= MIN_WIDTH_FOR_VARIANTS else ()):
            trust = Trust(self.trust.damping * caution, self.trust.radius * (3.0 if caution < 1.0 else 1.0))
            steps.append(self._step(doubt=True, trust=trust, caution=caution, share=share)[0])
        if self.model.size == self.model.center.size:
            spare = self.width - len(steps) - self.model.size
            steps += [scale * step for scale in SCALES[: max(spare, 0)]]
        plan = self._trial(steps, held)
        slots = self.width - len(plan.points)
        extra = self._differences(slots, plan.points[0], self._doubtful_directions(step, slots))
        plan.probes, plan.base = extra.probes, extra.base
        plan.points = plan.points + extra.points
        return plan

    def _doubtful_directions(self, step: Array, slots: int) -> list[Array]:
        """Where doubt holds the step back most: along the step that no doubt would allow, and so on."""
        bold, _ = self._step(doubt=False)
        promised = self.outer.loss(self.model.predict(step))
        best = self.outer.loss(self.model.predict(bold))
        if promised - best < WIDE_STALE * (self.loss - best):
            return []
        found = np.empty((bold.size, 0))
        spread = self.model.spread[1:, 1:]
        for _ in range(int(np.ceil(slots * REFRESH))):
            new = orthogonal_part(bold, found)
            length = float(np.linalg.norm(new))
            if length <= 1e-12 * float(np.linalg.norm(bold)) or found.shape[1] >= bold.size:
                break
            found = np.column_stack([found, new / length])
            bold = spread @ new
        return list(found.T)

    def _trial(self, steps: list[Array], held: bool) -> Plan:
        points = [self._clip(self.model.center + self.model.basis @ step) for step in steps]
        return Plan(steps=steps, points=points, held=held)

    def _differences(self, count: int, base: Array | None, refresh: Sequence[Array] = ()) -> Plan:
        """Differences along new directions, then along the columns most in doubt."""
        origin = self.model.center if base is None else base
        plan = Plan(base=base)
        for unit in refresh:
            probe = self._inside(self.model.basis @ unit, origin)
            if probe is not None:
                plan.probes.append(probe)
                plan.points.append(origin + probe)
        fresh = np.empty((origin.size, 0))
        while len(plan.points) < count and self._left and (base is None or fresh.shape[1] < max(3, count // 2)):
            candidate = next(self._candidates, None)
            if candidate is None:
                self._left = False
                break
            new = orthogonal_part(orthogonal_part(candidate, self.model.basis), fresh)
            length = np.linalg.norm(new)
            if length < 1e-8 * np.linalg.norm(candidate):
                continue
            probe = self._inside(new / length, origin)
            if probe is not None:
                fresh = np.column_stack([fresh, new / length])
                plan.probes.append(probe)
                plan.points.append(origin + probe)
        self._fill_with_doubtful(plan, count, origin)
        return plan

    def _fill_with_doubtful(self, plan: Plan, count: int, origin: Array) -> None:
        missing = min(count - len(plan.points), self.model.size)
        if missing <= 0:
            return
        doubt = np.diag(self.model.spread)[1:] / (self.model.powers + 1e-300)
        for index in np.argsort(-doubt, kind="stable")[:missing]:
            probe = self._inside(self.model.basis[:, index], origin)
            if probe is not None:
                plan.probes.append(probe)
                plan.points.append(origin + probe)

    def _inside(self, direction: Array, origin: Array) -> Array | None:
        """The longer of the two displacements +-radius * direction that the bounds leave."""
        both = [self._clip(origin + sign * self.radius * direction) - origin for sign in (1.0, -1.0)]
        forward, backward = both
        best = backward if np.linalg.norm(backward) > 1.01 * np.linalg.norm(forward) else forward
        return best if np.linalg.norm(best) > 0.1 * self.radius else None

    def _clip(self, point: Array) -> Array:
        return np.clip(point, self.lower, self.upper)

    def _step(self, *, doubt: bool, trust: Trust | None = None, caution: float = 1.0, share: float = 1.0) -> tuple[Array, bool]:
        model = self.model
        room = (self.lower - model.center, self.upper - model.center)
        k = max(min(model.size, 4), int(share * model.size))
        quadratic = self._quadratic()
        if k < model.size:
            quadratic = Quadratic(
                quadratic.gradient[:k], quadratic.hessian[:k, :k], quadratic.doubt_gradient[:k], quadratic.doubt_hessian[:k, :k], quadratic.unit
            )
        basis = model.basis[:, :k]
        step, held = trial_step(quadratic, basis, room, trust or self.trust, doubt=doubt)
        if self.width > 1:
            power = float((model.powers[:k] * step) @ step)
            floor = caution * CAUTION * model.curvature * power * self._trace
            quadratic = replace(quadratic, floor=floor)
            step, held = trial_step(quadratic, basis, room, trust or self.trust, doubt=doubt)
        return np.pad(step, (0, model.size - k)), held

    def _quadratic(self) -> Quadratic:
        model, outer = self.model, self.outer
        gradient = model.jacobian.T @ outer.gradient(model.theta)
        if outer.constant_hessian is not None:
            hessian = outer.constant_hessian * model.gram()
            trace = outer.constant_hessian * model.theta.size
        else:
            hessian = model.jacobian.T @ outer.hessian_product(model.theta, model.jacobian)
            signs = np.where(np.arange(model.theta.size) % 2, 1.0, -1.0)
            trace = float(signs @ outer.hessian_product(model.theta, signs[:, None])[:, 0])
        self._trace = trace
        spread = trace * model.spread
        unit = max(float(np.diag(hessian).max()), 1e-300)
        return Quadratic(gradient, hessian, spread[1:, 0], spread[1:, 1:], unit)

    # ---- learning --------------------------------------------------------------------------

    def learn(self, plan: Plan, thetas: Thetas) -> None:
        """Take in the outcome of a round."""
        if plan.repeat:
            self._measure_noise(thetas[0])
            return
        trials, probes = thetas[: len(plan.steps)], thetas[len(plan.steps) :]
        if plan.steps:
            self._learn_trials(plan, trials)
            self.differences = 0
        at_center = plan.base is None or np.array_equal(plan.base, self.model.center)
        for probe, theta in zip(plan.probes, probes, strict=False):
            self.differences += 1
            if theta is None:
                self._try_again(probe)
                continue
            if at_center:
                self._learn_probe(probe, theta, None, 0.0)
            elif trials and trials[0] is not None:
                distance = float(np.sum((plan.base - self.model.center) ** 2))
                self._learn_probe(probe, theta, trials[0], distance)
        if not self.checked_noise and self.model.size and plan.probes:
            self._suspect_noise()

    def _try_again(self, probe: Array) -> None:
        """Put the direction of a failed difference last in the queue, a limited number of times."""
        if self._retries > 0:
            self._retries -= 1
            self._candidates = chain(self._candidates, [probe / np.linalg.norm(probe)])
            self._left = True

    def _learn_probe(self, probe: Array, theta: Array, base: Array | None, distance: float) -> None:
        step = self._extend(probe)
        if base is None:
            self.model.observe(np.concatenate([[1.0], step]), theta, self.noise)
            return
        bend = self.model.curvature * distance * float((self.model.powers * step) @ step)
        self.model.observe(np.concatenate([[0.0], step]), theta - base, 2.0 * self.noise + bend)

    def _extend(self, displacement: Array) -> Array:
        """Coordinates of a displacement, with one more basis direction when it needs one."""
        rest = orthogonal_part(displacement, self.model.basis)
        length = float(np.linalg.norm(rest))
        if length > 1e-3 * float(np.linalg.norm(displacement)) and self.model.size < displacement.size:
            self.model.add_direction(rest / length, self._unseen_variance())
        return self.model.basis.T @ displacement

    def _unseen_variance(self) -> float:
        if self.model.size:
            return float(np.mean(self.model.powers[-8:])) + 1e-12
        return 1e4 * (float(np.var(self.model.theta)) + self.loss + 1e-300)

    def _learn_trials(self, plan: Plan, trials: Thetas) -> None:
        displacements = [p - self.model.center for p in plan.points[: len(plan.steps)]]
        losses = [np.inf if t is None else self.outer.loss(t) for t in trials]
        losses = [v if np.isfinite(v) else np.inf for v in losses]
        best = int(np.argmin(losses))
        for i in sorted(range(len(losses)), key=lambda j: -losses[j]):
            if i != best and np.isfinite(losses[i]):
                step = self._extend(displacements[i])
                self.model.observe(np.concatenate([[1.0], step]), trials[i], self.noise + self.model.bend(step))
        if not np.isfinite(losses[best]):
            self.trust.after_failure(0.25, float(np.abs(displacements[0]).max()))
            self.rejected += 1
            return
        self._judge(displacements[best], plan.points[best], trials[best])

    def _judge(self, displacement: Array, point: Array, theta: Array) -> None:
        model, old = self.model, self.loss
        step = self._extend(displacement)
        predicted = self.outer.loss(model.predict(step))
        length = float(np.abs(displacement).max())
        error = float(np.mean((theta - model.predict(step)) ** 2))
        model.learn_curvature(error, step, self.noise)
        weights = np.concatenate([[1.0], step])
        value = self.outer.loss(theta)
        if self.noise > 0.0:
            model.observe(weights, theta, self.noise + 0.25 * model.bend(step))
            value = self.outer.loss(model.predict(step))
            old = self.outer.loss(model.theta)
        agreement = (old - value) / max(old - predicted, 1e-300)
        if value < old:
            self._accept(step, point, theta)
            self.trust.after_success(agreement, length)
        else:
            if self.noise == 0.0:
                model.observe(weights, theta, 0.25 * model.bend(step))
            self.loss = old
            self.rejected += 1
            slope = 2.0 * (old - predicted)
            self.trust.after_failure(slope / max(2.0 * (value - old + slope), 1e-300), length)
        self.slow = 0 if value < 0.8 * old else self.slow + (value > 0.95 * old)
        self.idle = self.idle + 1 if value > old * (1.0 - 1e-6) else 0

    def _accept(self, step: Array, point: Array, theta: Array) -> None:
        model = self.model
        model.drift(float(step @ step))
        if self.noise == 0.0:
            model.observe(np.concatenate([[1.0], step]), theta, 0.0)
        model.move(step, point)
        if self.noise == 0.0:
            model.theta[:] = theta
        self.loss = self.outer.loss(model.theta)
        self.rejected = 0

    # ---- noise -----------------------------------------------------------------------------

    def _suspect_noise(self) -> None:
        spread = np.sqrt(np.var(self.model.theta)) + 1e-300
        self.want_repeat = bool(np.sqrt(self.model.powers.max()) > SUSPICIOUS * spread)
        self.checked_noise = True

    def _measure_noise(self, theta: Array | None) -> None:
        self.want_repeat = False
        if theta is None:
            return
        variance = 0.5 * float(np.mean((theta - self.model.theta) ** 2))
        distance = REPEAT_DISTANCE * np.sqrt(self.model.center.size)
        smooth = float(self.model.powers.max()) * distance**2
        if variance <= 100.0 * smooth + 1e-24 * float(np.mean(theta**2)):
            return
        self.noise = variance
        mean = 0.5 * (theta + self.model.theta)
        scale = float(np.std(mean)) + 1e-300
        self.radius = float(np.clip(NOISE_RADIUS * np.sqrt(np.sqrt(variance) / scale), 1e-3, LARGEST_RADIUS))
        self.model = AffineModel(self.model.center, mean, 0.5 * variance)
        self.loss = self.outer.loss(mean)
        self.differences = 0
        self._restart_directions()

    def revive(self) -> bool:
        """Doubt every column and trust anew, unless that brought nothing last time."""
        if self.solved or self.loss > 0.99 * self._revived_at:
            return False
        self._revived_at = self.loss
        self.model.doubt()
        self.trust = Trust()
        self.idle = 0
        return True

    @property
    def solved(self) -> bool:
        """Whether the loss is zero to rounding."""
        return self.loss <= 1e-28 * (1e-300 + float(np.mean(self.model.theta**2)))

    @property
    def hopeless(self) -> bool:
        """Whether progress is slow and most of theta's misfit unexplained, where looking elsewhere is cheap."""
        cheap = self.model.center.size <= FEW_TO_SEARCH and self.noise == 0.0
        return cheap and self.slow >= 2 and self.loss > 1e-2 * float(np.var(self.model.theta))

    @property
    def finished(self) -> bool:
        """Whether nothing is left to gain here."""
        if self.solved:
            return True
        return self.noise == 0.0 and (self.idle >= 6 or self.trust.radius < 1e-9)


def gauss_newton(
    model: OuterModel, start: Array, lower: Array, upper: Array, directions: Callable[[], Iterator[Array]], rng_seed: int, width: int = 1, may_restart: bool = True
) -> Generator[list[Array], Thetas, Any]:
    """Ask for rounds of points until nothing is left to gain.

    Args:
        model: the outer objective as a function of theta.
        start: where to begin.
        lower: bounds, as upper; all in units of a sixth of a parameter's range.
        upper: bounds.
        prior: smoothness of the parameters, or None.
        rng_seed: seed of the space-filling restarts.
        width: how many solves may run at once at no extra cost.

    Yields:
        A round: independent points; expects their thetas, None for a failed solve.
    """
    restarts = Restarts(lower, upper, rng_seed, width)
    center, theta = start, (yield Plan(points=[start]))[0]
    best: Search | None = None
    while True:
        while theta is None or not np.isfinite(theta).all():
            center, theta = yield from restarts.next_start(model)
        search = Search(model, AffineModel(center, theta), (lower, upper), directions, width)
        yield from _descend(search, may_restart and restarts.cheap)
        restarts.remember(search.model.center)
        best = search if best is None or search.loss < best.loss else best
        if not restarts.cheap and not best.finished:
            yield from _descend(best, False)
        if not may_restart or not restarts.worth_it(best.loss, best.model.theta):
            return best.model.center
        center, theta = yield from restarts.next_start(model)


def _descend(search: Search, give_up: bool) -> Generator[list[Array], Thetas, None]:
    """Run one local search until it is finished, or looks hopeless and may be given up."""
    while not (give_up and search.hopeless):
        if search.finished and not search.revive():
            return
        plan = search.plan()
        plan.center, plan.theta = search.model.center, search.model.theta.copy()
        plan.noisy = search.noise > 0.0
        thetas = yield plan
        search.learn(plan, [t if t is not None and np.isfinite(t).all() else None for t in thetas])
