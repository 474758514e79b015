"""The local search of the scalar method under noise: regression over a wide region.

Steps to the model's minimum take turns with points that tell most about it. How far away those are
follows from the noise: near ones see noise alone, far ones what is no quadratic.
"""

from collections.abc import Iterator
from typing import final

import numpy as np

from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart
from zo_bilevel.methods.trust_region.noisy_model import NoisyModel
from zo_bilevel.methods.trust_region.region_search import (
    LARGEST_LOSS,
    MOST_DIRECTIONS,
    RegionSearch,
)
from zo_bilevel.methods.trust_region.trust_step import box_step
from zo_bilevel.support.arrays import FloatArray

DENSE_LIMIT = 48
LEARNING_PERIOD = 4
"""With more directions scales are only learnt once in so many solves."""
LOOKS_DRAWN = 8
"""Random points of which the most doubtful one is solved."""
LEAST_CURVATURE = 0.01
"""Added to curvatures that measure lengths, in units of their mean."""
SURPRISING_RISE = 5.0
"""A loss above the centre's by more deviations is no step forward, whatever the model says."""
CLEAR_GAIN = 2.0
"""A step is sure when its predicted gain is more than so many deviations of the noise."""


@final
class NoisyRegion:
    """One local search.

    Args:
        part: The coordinates.
        base: Where the frame's coordinates are 0, shape `(N,)`.
        frame: Directions, shape `(N, p)`.
        model: Points in the frame's coordinates.
        radius: First trust radius.
        rng: Random numbers.
    """

    def __init__(
        self,
        part: ContinuousPart,
        base: FloatArray,
        frame: FloatArray,
        model: NoisyModel,
        radius: float,
        rng: np.random.Generator,
    ) -> None:
        self._part = part
        self.base, self.frame, self.model = base, frame, model
        self._back = np.linalg.pinv(frame)
        self._lower, self._upper = part.box
        self._radius, self._rng, self._width = radius, rng, part.width
        self._reach = radius
        self._look = False
        self._metric = np.eye(frame.shape[1])
        self._age = 0
        self._idle = 0
        self.recommended = self._place(model.centre)

    @property
    def level(self) -> float:
        """What the loss at the centre is hardly above."""
        doubt = float(self.model.doubts(np.zeros((1, self.frame.shape[1])))[0])
        return self.model.level + 2.0 * float(np.sqrt(doubt))

    def rounds(self) -> RoundsThen[None]:
        """Rounds until nothing is gained any more."""
        patience = 20 + 15 * self.frame.shape[1]
        self._learn(10)
        while self._idle < patience and self._radius > 1e-9:
            step, gain = self._step()
            noise = self._noise(self.model.level)
            sure = gain > CLEAR_GAIN * noise
            tries = self._width > 1 or not self._look or sure
            self._look = tries
            self._choose_reach()
            count = self._width - tries
            asked = [step] if tries else []
            asked += self._looks(count, step if tries else 0 * step)
            points = [self._place(self.model.centre + move) for move in asked]
            values = yield from self._part.ask(points, "trial")
            rows = [self._back @ (point - self.base) for point in points]
            for row, value in zip(rows, values, strict=True):
                if value is not None and value <= LARGEST_LOSS:
                    self.model.add(row, value)
            self._judge(rows[0] if tries else None, gain, values[0] if tries else None)
            self._age += len(points)
            if self._age >= self.frame.shape[1]:
                self._age = 0
                self._learn_metric()
            self._part.recommend_smoothed(self.recommended, self.level, self)

    def _learn(self, attempts: int) -> None:
        model, size = self.model, self.frame.shape[1]
        least = self._mean_curvature() * (self._reach + self._radius) / np.sqrt(size)
        model.widen_slope(least)
        is_due = size <= DENSE_LIMIT or self._age % LEARNING_PERIOD == 0
        model.learn(model.centre, attempts if is_due else 0)

    def _learn_metric(self) -> None:
        """Measure lengths by the curvature; the typical length of a point stays what it was."""
        curvatures, vectors = np.linalg.eigh(self._metric.T @ self.model.hessian() @ self._metric)
        curvatures = abs(curvatures)
        least = LEAST_CURVATURE * float(curvatures.mean())
        if not least > 0.0:
            return
        wanted = np.sqrt(curvatures + least)[:, None] * vectors.T
        transform = wanted @ np.linalg.inv(self._metric)
        rows = self.model.fit.rows
        lengths = [np.linalg.norm(r, axis=1) + 1e-300 for r in (rows, rows @ transform.T)]
        factor = float(np.exp(np.mean(np.log(lengths[0]) - np.log(lengths[1]))))
        self._metric = factor * wanted
        transform = factor * transform
        self.frame = self.frame @ np.linalg.inv(transform)
        self._back = transform @ self._back
        self.model.transform(transform)
        self._learn(5)

    def _judge(self, row: FloatArray | None, gain: float, value: float | None) -> None:
        model = self.model
        level, noise = model.level, self._noise(model.level)
        self._learn(1)
        if row is None:
            return
        if value is None or value > level + SURPRISING_RISE * noise:
            self._radius *= 0.5
            self._idle += 1
            return
        move = row - model.centre
        length = float(np.linalg.norm(move))
        found = -float(model.rises(move[None])[0])
        ratio = found / gain if gain > 0 else -1.0
        if ratio > 0.7:
            self._radius = max(self._radius, 2 * length)
        elif ratio > 0.1:
            self._radius = max(0.5 * self._radius, length)
        else:
            self._radius = 0.5 * min(length, self._radius)
        self._radius = max(self._radius, 0.5 * self._reach)
        if found > 0:
            model.learn(row, 0)
        self._idle = 0 if found > 0.2 * noise else self._idle + 1
        best, _ = self._step()
        self.recommended = self._place(model.centre + best)

    def _noise(self, level: float) -> float:
        flat, share, _ = self.model.noise_floor
        return float(np.hypot(flat, share * level))

    def _choose_reach(self) -> None:
        """The distance at which a solve tells most about the slope."""
        flat, share, bend = self.model.noise_floor
        size = self.frame.shape[1]
        curvature = 2 * float(self._mean_curvature())
        reach = self._radius * np.logspace(-2, 2, 41)
        doubt = float(self.model.doubts(np.zeros((1, size)))[0])
        level = np.sqrt(self.model.level**2 + doubt) + 0.5 * curvature * reach**2
        variance = flat**2 + (share * level) ** 2 + bend**2 * reach**6
        best = float(reach[int(np.argmax(reach**2 / variance))])
        self._reach = float(np.clip(best, 0.5 * self._reach, 2 * self._reach))

    def _mean_curvature(self) -> float:
        size = self.frame.shape[1]
        mean: float = abs(float(np.trace(self.model.hessian()))) / size
        return mean

    def _looks(self, count: int, about: FloatArray) -> list[FloatArray]:
        """Points that are doubtful for their noise, at the reach."""
        if count <= 0:
            return []
        draws = self._rng.standard_normal((LOOKS_DRAWN * count, len(about)))
        draws *= self._reach / np.linalg.norm(draws, axis=1, keepdims=True)
        moves = np.array([self._held(about + draw) for draw in draws])
        order = np.argsort(self.model.doubts(moves), kind="stable")[::-1][:count]
        return list(moves[order])

    def _held(self, move: FloatArray) -> FloatArray:
        centre = self.model.centre
        return np.asarray(self._back @ (self._place(centre + move) - self.base) - centre)

    def _place(self, row: FloatArray) -> FloatArray:
        return np.clip(self.base + self.frame @ row, self._lower, self._upper)

    def _step(self) -> tuple[FloatArray, float]:
        model = self.model
        gradient = model.gradient()
        dense = model.hessian() if self.frame.shape[1] <= DENSE_LIMIT else None
        product = model.product if dense is None else lambda vector: dense @ vector
        here = self.base + self.frame @ model.centre
        room = self._lower - here, self._upper - here
        step = box_step(gradient, product, self._radius, self.frame, room, dense)
        return step, -float(step @ (gradient + 0.5 * product(step)))


def noisy_region(
    part: ContinuousPart,
    local: RegionSearch,
    source: Iterator[FloatArray],
    rng: np.random.Generator,
) -> NoisyRegion:
    """Go on where a local search without regard to noise has ended."""
    region = local.model
    while region.size < MOST_DIRECTIONS and (unit := next(source, None)) is not None:
        region.take(unit)
    frame = region.frame.copy()
    inverse = np.linalg.pinv(frame)
    known = [(x, value) for x, value in part.known if value <= LARGEST_LOSS]
    rows = np.array([inverse @ (x - region.base) for x, _ in known])
    hessian = region.local.hessian()
    curvature = float(np.sqrt(np.mean(hessian**2)))
    gradient = region.local.gradient_at(region.centre()[0])
    slope = max(float(np.sqrt(np.mean(gradient**2))), curvature * local.radius)
    values = np.array([value for _, value in known])
    model = NoisyModel(rows, values, region.noise, local.radius, slope, curvature)
    return NoisyRegion(part, region.base, frame, model, local.radius, rng)
