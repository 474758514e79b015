"""The local search of the scalar method: a trust region that takes up directions one by one.

Each round either tries the model's best step, mends the model's geometry, or takes up a new
direction: whichever is predicted to gain more per solve. Equation numbers:
docs/methods/trust-region.md.

Source: geometry rules and the two radii: Powell (2006), "The NEWUOA software for unconstrained
optimization without derivatives".
"""

from typing import final

import numpy as np

from zo_bilevel.methods.shared.foresight import Foresight, next_radius
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart
from zo_bilevel.methods.trust_region.direction_promises import DirectionPromises
from zo_bilevel.methods.trust_region.region_model import RegionModel
from zo_bilevel.methods.trust_region.region_noise import RegionNoise
from zo_bilevel.methods.trust_region.region_proposals import Proposals, Trial
from zo_bilevel.methods.trust_region.ripples import ROUGH_RADIUS, Ripples
from zo_bilevel.support.arrays import FloatArray

MOST_DIRECTIONS = 150
SMALLEST_RADIUS = 1e-9
WIDE_ROUND = 8
"""From so many solves at once on a probe of the noise costs next to nothing."""
ROUNDING_SHARE = 1e-15
"""Gains of less than this share of the loss are lost in its digits."""
BETWEEN_SHARE = 0.37
"""Losses may be the same at one distance by symmetry; then not at this share of it too."""
LARGEST_LOSS = 1e100
"""Beyond it a loss is a failure: its square would overflow."""


@final
class RegionSearch:
    """One local search.

    Args:
        part: The coordinates.
        start: A solved point, shape `(n,)`.
        value: Its loss.
        rng: Random numbers.
        radius: First trust radius.
        leaves: Whether to end when the first directions matter no more than others.
        smallest_radius: At which it ends.
        rival: Loss to be below, or the search ends early.

    Attributes:
        model: What is known.
        radius: The trust radius.
        width: Solves that it asks for at once.
        drowned: Whether the search ended because noise drowns its steps.
        ratios: Of actual to predicted gain, of all steps since somebody cleared it.
        floor: Of the trust radius.
        foresight: Of its steps; the search pauses where that is in doubt.
        ripples: What it learns of them.
    """

    def __init__(
        self,
        part: ContinuousPart,
        start: FloatArray,
        value: float,
        rng: np.random.Generator,
        *,
        radius: float = 1.0,
        leaves: bool = False,
        smallest_radius: float = SMALLEST_RADIUS,
        rival: float = np.inf,
    ) -> None:
        self._part, self._source = part, part.directions()
        self.width = part.width
        self._leaves, self._smallest_radius, self._rival = leaves, smallest_radius, rival
        self.model = RegionModel(start, value, part.box)
        self._proposals = Proposals(self.model, rng)
        self.radius = self.floor = radius
        self._open = self._may_grow = True
        self._promises = DirectionPromises()
        self._steps: list[FloatArray] = []
        self._since_metric = 0
        self._mend = False
        self._last_ratio = self._last_length = 0.0
        self._noise = RegionNoise(self.model)
        self.drowned = self._looked_between = False
        self.ratios: list[float] = []
        self.foresight, self.ripples = Foresight(len(start)), Ripples()

    def rounds(self) -> RoundsThen[None]:
        """Rounds until the radius is as small as it gets."""
        while self.goes_on:
            trials = self.plan()
            if trials:
                roles = ["trial" if trial.kind == "step" else "sketch" for trial in trials]
                points = [trial.x for trial in trials]
                self._absorb(trials, (yield from self._part.ask(points, roles)))

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended."""
        behind = self.floor <= ROUGH_RADIUS and self.model.value >= self._rival
        has_ended = behind or self.is_plain or self.floor <= self._smallest_radius
        return not (has_ended or self.foresight.is_in_doubt or self.ripples.are_followed)

    @property
    def is_plain(self) -> bool:
        """Whether it has ended as the first directions matter no more than the next."""
        blurred = self.model.noise > 0.0 and len(self.model.base) <= MOST_DIRECTIONS
        return self._leaves and not blurred and self._promises.are_even

    # ---- the next round

    def plan(self) -> list[Trial]:
        """New directions, a step, a probe of the noise, or the model's geometry."""
        size = self.model.size
        if size == 0:
            return self._grow(self.width)
        step = self._proposals.step(self.radius)
        if not self._mend and self._wants_growth(step):
            self._may_grow = False
            fresh = self._grow(max(1, self.width - 1))
            if fresh:
                lead = [self._proposals.padded(step)] if self._worth(step) else []
                return (fresh + lead)[: self.width] if self.width > 1 else fresh
        if self._mend or not self._worth(step):
            return self._improve(step)
        self._since_metric += 1
        if self._since_metric >= size:
            self._since_metric = 0
            self.model.learn_metric(self._steps, self.radius)
            step = self._proposals.step(self.radius)
        if self.width < WIDE_ROUND:
            return [step, *self._proposals.beside(step, self.width - 1, self.radius, self.floor)]
        if self._noise.drowns(step, is_wide=True):
            self.drowned, self.floor = True, 0.0
            return []
        lead = [self._proposals.probe()] if self._noise.joins_round() else []
        left = self.width - 1 - len(lead)
        return [*lead, step, *self._proposals.beside(step, left, self.radius, self.floor)]

    def grow_if_wanted(self) -> list[Trial]:
        """A point along a new direction, where that promises more than a step."""
        wants = self._open and (self.model.size == 0 or self._wants_growth(self.step()))
        return self._grow(1) if wants else []

    def step(self, scale: float = 1.0) -> Trial:
        """The best step within a multiple of the radius."""
        return self._proposals.step(scale * self.radius)

    def explore(self) -> Trial:
        """A point of which little is known, around the best step."""
        return self._proposals.explore(1, self.step().y, self.radius)[0]

    def _grow(self, count: int) -> list[Trial]:
        """Take up to `count` new directions, one point along each."""
        trials = []
        for _ in range(count):
            unit = next(self._source, None)
            if unit is None or self.model.size >= MOST_DIRECTIONS:
                self._open = False
                break
            self.model.take(unit)
            trials.append(self._proposals.along_newest(self.radius))
        return [self._proposals.padded(trial) for trial in trials]

    def _worth(self, step: Trial) -> bool:
        return step.length >= 0.5 * self.floor and step.gain > 0.0

    def _wants_growth(self, step: Trial) -> bool:
        if not self._open or (self._may_grow and not self._worth(step)):
            return self._open
        return self.model.size < 2 or step.gain < 0.5 * self.model.size * self._promises.latest

    def _improve(self, step: Trial) -> list[Trial]:
        """After a bad step: replace far points; without any, look closer."""
        if self.model.is_flat:
            return self._doubt_flatness()
        small = max(self._last_length, self.radius) <= self.floor
        settled = self._mend and self._last_ratio <= 0 and small
        self._mend = False
        lowest = self.model.curvature_range()[0]
        if not self._worth(step) and self.foresight.is_exact(lowest):
            return self._shrink(step)
        far = self._proposals.replacements(self.width, self.radius, self.floor)
        if far:
            return far
        if settled or not self._worth(step):
            return self._shrink(step)
        return []

    def _doubt_flatness(self) -> list[Trial]:
        """Where all losses are the same: the other directions, then closer by, then it is flat."""
        fresh = self._grow(self.width) if self._open else []
        if not fresh and not self._looked_between:
            self._looked_between = True
            fresh = self._proposals.explore(
                self.width, self.model.centre()[0], BETWEEN_SHARE * self.radius
            )
        if not fresh:
            self.floor = 0.0
        return fresh

    def _shrink(self, step: Trial) -> list[Trial]:
        """Look closer; first ask for the noise: where it drowns the step, look wider instead."""
        region = self.model
        if self._noise.is_due():
            return [self._proposals.probe()]
        if self._noise.drowns(step):
            self.drowned, self.floor = True, 0.0
            return []
        self._may_grow = True
        if region.knows_all and self.foresight.pauses(self.floor):
            return []
        if region.curvature_range()[1] * self.floor**2 <= ROUNDING_SHARE * abs(region.centre()[1]):
            self.floor = 0.0
            return []
        self.radius, self.floor = 0.5 * self.floor, 0.1 * self.floor
        self.ripples.look(region, self._part.known, self.radius, self.floor)
        return []

    # ---- learning

    def _absorb(
        self, trials: list[Trial], values: list[float | None], known: float | None = None
    ) -> None:
        """Learn from a round; `known` was the loss of the centre when it was proposed."""
        region = self.model
        centre, before = region.centre()
        before = before if known is None else known
        place = region.base + region.frame @ centre
        moves = [region.frame @ (t.y - centre) if t.kind == "step" else None for t in trials]
        tried: list[tuple[float, Trial]] = []
        for trial, value, move in zip(trials, values, moves, strict=True):
            if value is not None and value > LARGEST_LOSS:
                value = None
            if trial.kind == "probe":
                if value is not None and self._noise.judge(trial, value, self._proposals):
                    region.rebuild(self.radius)
                continue
            if move is not None:
                tried.append((np.inf if value is None else value, trial))
                self._steps.append(move)
            self._absorb_one(trial, value)
        del self._steps[: -2 * MOST_DIRECTIONS]
        if tried:
            self._judge_step(place, before, *min(tried, key=lambda pair: pair[0]))

    def absorb_late(
        self, trial: Trial, value: float | None, before: float, *, is_main: bool
    ) -> None:
        """Learn from a trial that was proposed when less was known.

        Args:
            trial: As it was proposed.
            value: Its loss, `None` for a failed solve.
            before: Loss of the centre when it was proposed.
            is_main: Whether, being a step, it decides over the radius though it gained nothing.
        """
        region = self.model
        trial = trial._replace(y=region.back @ (trial.x - region.base))
        is_better = value is not None and value < region.centre()[1]
        if trial.kind == "step" and not is_main and not is_better:
            self._absorb_one(trial, value)
        else:
            self._absorb([trial], [value], before)

    def _absorb_one(self, trial: Trial, value: float | None) -> None:
        region = self.model
        if trial.kind == "geometry":
            far = self._proposals.far(self.radius)
            if len(far) and region.local.count > region.size + 1:
                region.local.drop(int(far[0]))
        if value is None:
            return
        y = region.back @ (trial.x - region.base)  # the base may have moved since
        if trial.kind == "step":
            region.judge_foresight(y, value)
        elif trial.kind == "grow":
            region.presume_curvature(y, value)
        region.learn(y, value, self.radius)
        if trial.kind == "grow":
            self._promises.note(region, self.radius)

    def _judge_step(self, x: FloatArray, before: float, value: float, step: Trial) -> None:
        length = step.length
        ratio = self.foresight.judge(before, value, step.gain, length)
        self.ratios.append(ratio)
        if self.model.size == len(x) or not self._open:
            self._part.judge_step(x, step.x, before, value, ratio)
        if ratio > 0.1:
            self._noise.failed_shrinks = 0
        self.radius = next_radius(self.radius, self.floor, ratio, length)
        self._mend, self._last_ratio, self._last_length = ratio < 0.1, ratio, length
