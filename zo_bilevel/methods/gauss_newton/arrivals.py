"""A local search without rounds: told each answer as it arrives, asked for the next solve at once.

What still runs is imagined: the model takes in, as if it were observed, what it predicts there.
From the model so made the next solve is proposed as if there were one worker, so it goes on from
where a trial step should lead, and along directions that no other solve measures already.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.local_search import LocalSearch
from zo_bilevel.methods.gauss_newton.local_state import (
    CAUTION_IN_WIDE_ROUNDS,
    CAUTION_SHARE,
    LocalState,
)
from zo_bilevel.methods.gauss_newton.probing import Probing, StepPlan
from zo_bilevel.methods.gauss_newton.propose import (
    STEP_SCALES,
    UNSURE_VARIANCE,
    doubtful_directions,
    propose,
)
from zo_bilevel.methods.shared.exploration import orthogonal_part
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray

OVERDUE_ANSWERS = 2
"""Answers for each worker after which a difference that still runs is asked for again."""
SMALL_GAIN = 1e-3
"""Share of the loss that is not worth a trial step while a direction is not known."""
WORKERS_PER_TRIAL = 4
"""One trial step runs at a time for every so many workers; the others learn around them."""


@final
@dataclass(eq=False, slots=True)
class _Unit:
    """One trial step or one difference.

    Args:
        plan: With one point or one probe.
        points: Its solves.
        origin: Center, imagined or not, from which it was proposed.
        theta: Modelled vector at the base of a difference, unless that still runs.
        base: What runs at the base of a difference.
        is_repeat: Whether it measures the noise.
        age: Solves that arrived while it ran.
        num_probes: Differences asked for at a trial step, along what holds steps back.
        found: Its evaluations by their place in `points`.
    """

    plan: StepPlan
    points: list[Point]
    origin: FloatArray
    theta: FloatArray | None
    base: _Unit | None = None
    is_repeat: bool = False
    age: int = 0
    num_probes: int = 0
    found: dict[int, Evaluation] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        return len(self.found) == len(self.points) and self.base is None

    def take(self, evaluation: Evaluation) -> None:
        for place, point in enumerate(self.points):
            if point is evaluation.point:
                self.found[place] = evaluation


@final
class Arrivals:
    """Runs a local search one arrival at a time."""

    def __init__(self, local: LocalSearch, probing: Probing) -> None:
        self._local, self._probing = local, probing
        self._running: list[_Unit] = []

    def run(self) -> RoundsThen[None]:
        """Ask for solves until nothing is left to gain here."""
        local = self._local
        try:
            while not local.is_solved:
                points = self._start()
                if not self._running:
                    if not local.goes_on():
                        return
                    continue
                local.recommend()
                for evaluation in (yield points):
                    self._take(evaluation)
        finally:
            self._probing.note_slopes(local.model)

    def _start(self) -> list[Point]:
        """Solves for the workers that are free."""
        points: list[Point] = []
        while self._num_running < self._probing.width and (units := self._propose()):
            self._running += units
            points += [point for unit in units for point in unit.points]
        return points

    @property
    def _num_running(self) -> int:
        return sum(len(unit.points) - len(unit.found) for unit in self._running)

    # ---- what to solve next

    def _propose(self) -> list[_Unit]:
        local, real = self._local, self._local.state
        if local.noise.wants_repeat and not any(unit.is_repeat for unit in self._running):
            return [self._unit(local.repeat(), real, is_repeat=True)]
        if not self._running:
            return self._units(propose(real, 1), real)
        if local.is_finished or self._is_exhausted:
            return []  # what runs may change that
        if units := self._units(self._trial(), real):
            return units
        if units := self._units(self._around_trial(), real):
            return units
        imagined = self._imagined()
        return self._units(self._filling(imagined), imagined)

    @property
    def _is_exhausted(self) -> bool:
        """Whether no step promises a gain, and no direction is left to look along."""
        real = self._local.state
        quadratic = real.model.quadratic()
        if real.explorer.left or not quadratic.doubt.size:
            return False
        gains = (-quadratic.change(real.step(quadratic, doubt=doubt)) for doubt in (True, False))
        return max(gains) <= real.least_gain()

    def _trial(self) -> StepPlan:
        """A trial step, unless enough of them run: careful first, then bolder ones."""
        real, known = self._local.state, [unit.plan.points[0] for unit in self._trials]
        quadratic = real.model.quadratic()
        width = self._probing.width
        young = sum(unit.age < width for unit in self._trials)
        if young >= max(1, width // WORKERS_PER_TRIAL) or not quadratic.doubt.size:
            return StepPlan()
        for doubt, caution in ((True, CAUTION_IN_WIDE_ROUNDS), (True, CAUTION_SHARE), (False, 0.0)):
            step = real.step(quadratic, doubt=doubt, caution=caution)
            gain = -quadratic.change(step, doubt=doubt)
            if self._is_blind and gain <= SMALL_GAIN * abs(real.model.loss):
                return StepPlan()  # it would polish a part of the parameters, and lose trust
            point = real.explorer.reached(real.model.center, real.model.basis @ step)
            if not any(np.array_equal(point, other) for other in [real.model.center, *known]):
                return StepPlan(points=[point])
        return StepPlan()

    def _around_trial(self) -> StepPlan:
        """As in a round: differences at the newest step, along what holds a step back."""
        real, width = self._local.state, self._probing.width
        quadratic = real.model.quadratic()
        newest = self._trials[-1] if self._trials else None
        if newest is None or newest.age >= width or not quadratic.doubt.size:
            return StepPlan()
        if newest.num_probes >= min(width, WORKERS_PER_TRIAL) // 2:
            return StepPlan()
        step = real.step(quadratic, doubt=True, caution=CAUTION_IN_WIDE_ROUNDS)
        found = doubtful_directions(real, quadratic, step, newest.num_probes + 1)
        base, probe = newest.plan.points[0], None
        if len(found) > newest.num_probes:
            probe = real.probe(found[newest.num_probes], base)
            newest.num_probes += 1
        return StepPlan() if probe is None else StepPlan(base=base, probes=[probe])

    def _units(self, plan: StepPlan, state: LocalState) -> list[_Unit]:
        parts = [StepPlan(points=[point], role=plan.role) for point in plan.points]
        parts += [StepPlan(base=plan.base, probes=[probe]) for probe in plan.probes]
        return [self._unit(part, state) for part in parts]

    @property
    def _is_blind(self) -> bool:
        """Whether a difference runs along a direction that the model does not know."""
        basis = self._local.state.model.basis
        probes = [unit.plan.probes[0] for unit in self._running if unit.plan.probes]
        parts = [(orthogonal_part(probe, basis), probe) for probe in probes]
        return any(part @ part > 0.5 * (probe @ probe) for part, probe in parts)

    def _is_overdue(self, unit: _Unit) -> bool:
        return bool(unit.plan.probes) and unit.age >= OVERDUE_ANSWERS * self._probing.width

    @property
    def _trials(self) -> list[_Unit]:
        return [unit for unit in self._running if unit.plan.points and not unit.is_repeat]

    def _unit(self, plan: StepPlan, state: LocalState, *, is_repeat: bool = False) -> _Unit:
        at_base = (
            unit
            for unit in self._trials
            if plan.base is not None and np.array_equal(unit.plan.points[0], plan.base)
        )
        origin, theta = state.model.center, state.model.theta
        base = next(at_base, None)
        return _Unit(plan, self._probing.points(plan), origin, theta, base, is_repeat)

    def _imagined(self) -> LocalState:
        """The state as if all that runs had arrived as predicted."""
        real = self._local.state
        trials = [unit.plan.points[0] for unit in self._trials]
        probes = [
            (unit.plan.base, unit.plan.probes[0])
            for unit in self._running
            if unit.plan.base is not None and not self._is_overdue(unit)
        ]
        state = copy.copy(real)
        state.model, state.trust = real.model.imagining(trials, probes), copy.copy(real.trust)
        state.differences = len(probes) + (0 if trials else real.differences)
        return state

    def _filling(self, state: LocalState) -> StepPlan:
        """A new direction, a slope in doubt, or a step of another length."""
        plan = state.explore(1)
        if plan.probes:
            return plan
        quadratic = state.model.quadratic()
        values, vectors = np.linalg.eigh(quadratic.doubt)
        if values[-1] > UNSURE_VARIANCE * quadratic.ignorance:
            probe = state.probe(vectors[:, -1], state.model.center)
            if probe is not None:
                return StepPlan(base=state.model.center, probes=[probe])
        real = self._local.state
        if not real.model.size:
            return StepPlan()  # the first differences along all directions run
        step = real.step(real.model.quadratic(), doubt=True)
        known = [unit.plan.points[0] for unit in self._trials]
        for scale in STEP_SCALES:
            point = real.explorer.reached(real.model.center, real.model.basis @ (scale * step))
            if not any(np.array_equal(point, other) for other in [real.model.center, *known]):
                return StepPlan(points=[point])
        return StepPlan()

    # ---- what an arrival teaches

    def _take(self, evaluation: Evaluation) -> None:
        for unit in self._running:
            unit.take(evaluation)
            unit.age += 1
            if unit.age == OVERDUE_ANSWERS * self._probing.width and unit.plan.probes:
                self._local.state.explorer.retry(-unit.plan.probes[0])
        while ready := [unit for unit in self._running if unit.is_ready]:
            self._learn(ready[0])

    def _learn(self, unit: _Unit) -> None:
        self._running.remove(unit)
        local, model = self._local, self._local.model
        found = [unit.found[place] for place in range(len(unit.points))]
        answers = self._probing.answers(unit.plan, found, unit.theta)
        for other in self._running:
            if other.base is unit:
                other.base, other.theta = None, answers.thetas[0]
        is_stale = not np.array_equal(unit.origin, model.center)
        if not unit.is_repeat:
            local.learn(unit.plan, answers, is_stale=is_stale)
        elif not is_stale:
            local.learn_repeat(answers)
