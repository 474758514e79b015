"""Points worth solving in the scalar trust region: steps, geometry, exploration, probes."""

from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.methods.trust_region.quadratic_model import QuadraticModel
from zo_bilevel.methods.trust_region.region_model import RegionModel
from zo_bilevel.methods.trust_region.trust_step import box_step
from zo_bilevel.support.arrays import FloatArray

DENSE_LIMIT = 48
"""Above so many directions steps come from conjugate gradients instead of eigenvalues."""
PROBE_DISTANCE = 1e-8
"""Distance of a probe of the noise, in units of a sixth of the range."""


class Trial(NamedTuple):
    """One proposed point.

    Args:
        kind: "step", "grow", "geometry", "explore" or "probe".
        x: The point, within the bounds, shape `(N,)`.
        y: The same in the model's coordinates, shape `(p,)`.
        gain: Fall of the loss that the model predicts.
        length: Length of the step in the model's metric.
    """

    kind: str
    x: FloatArray
    y: FloatArray
    gain: float = 0.0
    length: float = 0.0


@final
class Proposals:
    """Makes trial points from what is known."""

    def __init__(self, model: RegionModel, rng: np.random.Generator) -> None:
        self._model, self._rng = model, rng

    def trial(self, kind: str, y: FloatArray, gain: float = 0.0, length: float = 0.0) -> Trial:
        """A point of the frame, put within the bounds."""
        return Trial(kind, *self._model.place(y), gain, length)

    def padded(self, trial: Trial) -> Trial:
        """The same point after more directions were taken up."""
        longer = np.zeros(self._model.size)
        longer[: len(trial.y)] = trial.y
        return trial._replace(y=longer)

    def step(self, radius: float, model: QuadraticModel | None = None) -> Trial:
        """The best step of a model, by default the one that foresaw steps better."""
        model = model or self._model.chosen
        centre, _ = self._model.centre()
        gradient = model.gradient_at(centre)
        y = self._minimiser(model, gradient, None, centre, radius)
        gain = -float(y @ (gradient + 0.5 * model.product(y)))
        return self.trial("step", centre + y, gain, float(np.sqrt(y @ y)))

    def geometry(self, row: int, reach: float) -> Trial:
        """The point that best replaces a far one: where its Lagrange quadratic is largest."""
        local, centre = self._model.local, self._model.centre()[0]
        gradient, weights = local.lagrange(row, centre)
        steps = [
            self._minimiser(local, sign * gradient, sign * weights, centre, reach)
            for sign in (1.0, -1.0)
        ]
        sizes = [abs(gradient @ y + 0.5 * weights @ (local.rows @ y) ** 2) for y in steps]
        return self.trial("geometry", centre + steps[int(np.argmax(sizes))])

    def far(self, radius: float) -> NDArray[np.intp]:
        """Rows of the local model beyond twice the radius, the farthest first."""
        away = self._distances()
        order = np.argsort(away)[::-1]
        return np.asarray(order[away[order] > 2 * radius])

    def replacements(self, count: int, radius: float, floor: float) -> list[Trial]:
        """Points in the place of up to `count` far ones."""
        rows, away = self.far(radius)[:count], self._distances()
        reach = [max(min(0.1 * away[row], 0.5 * radius), floor) for row in rows]
        return [self.geometry(int(r), float(s)) for r, s in zip(rows, reach, strict=True)]

    def _distances(self) -> FloatArray:
        return np.sqrt(self._model.local.squared_distances(self._model.centre()[0]))

    def beside(self, step: Trial, count: int, radius: float, floor: float) -> list[Trial]:
        """What else to learn in the round of a step: `count` points."""
        if count <= 0:
            return []
        region = self._model
        found = [self.step(radius / 3.0)] if count >= 2 else []
        if len(region.models) == 2 and count >= 4:
            others = [model for model in region.models if region.chosen is not model]
            found += [self.step(radius, model) for model in others]
        if count >= 6:
            found += [self.step(2.5 * radius), self.step(radius / 10.0)]
        found += self.replacements(count // 2, radius, floor)
        left = max(1, count - len(found))
        return (found + self.explore(left, step.y, radius))[:count]

    def explore(self, count: int, centre: FloatArray, radius: float) -> list[Trial]:
        """Points of which the model knows least, among random ones."""
        draws = self._rng.standard_normal((8 * count, self._model.size))
        draws *= radius / np.linalg.norm(draws, axis=1, keepdims=True)
        unknown = [self._model.local.variance_at(centre + draw) for draw in draws]
        order = np.argsort(unknown)[::-1][:count]
        return [self.trial("explore", centre + draws[k]) for k in order]

    def along_newest(self, radius: float) -> Trial:
        """A point along the newest direction, on the side that has room."""
        y = self._model.centre()[0].copy()
        y[-1] = radius
        found = self.trial("grow", y)
        if abs(found.y[-1]) >= 0.5 * radius:
            return found
        y[-1] = -radius
        return self.trial("grow", y)

    def probe(self) -> Trial:
        """Almost the best point again, to see the noise."""
        region = self._model
        spread = (region.upper - region.lower) / 6.0
        jitter = PROBE_DISTANCE * self._rng.standard_normal(len(region.base)) * spread
        y = region.centre()[0]
        x = region.within(region.base + region.frame @ y + jitter)
        return Trial("probe", x, y)

    def unexplained(self, probe: Trial, value: float) -> float:
        """By how much the loss of a probe differs beyond what slopes explain.

        It is compared with the point that it was asked beside, which need not be the best any more;
        with none where that was dropped meanwhile.
        """
        region = self._model
        away = region.local.squared_distances(probe.y)
        row = int(np.argmin(away))
        if away[row] > PROBE_DISTANCE:
            return 0.0
        difference = abs(value - float(region.local.values[row]))
        moved = PROBE_DISTANCE * float(np.max(region.upper - region.lower)) / 6.0
        unit = moved * float(np.linalg.norm(region.back))
        slope = float(np.linalg.norm(region.local.gradient_at(region.local.rows[row])))
        return difference if difference > 100 * unit * slope + 1e-11 * abs(value) else 0.0

    def _minimiser(
        self,
        model: QuadraticModel,
        gradient: FloatArray,
        weights: FloatArray | None,
        centre: FloatArray,
        radius: float,
    ) -> FloatArray:
        """The step from `centre` in ball and box, for a model or for weights on its rows."""
        rows, region, dense = model.rows, self._model, None
        if region.size <= DENSE_LIMIT:
            dense = model.hessian() if weights is None else (rows.T * weights) @ rows

        def product(vector: FloatArray) -> FloatArray:
            if dense is not None:
                return np.asarray(dense @ vector)
            if weights is None:
                return model.product(vector)
            return np.asarray(rows.T @ (weights * (rows @ vector)))

        here = region.base + region.frame @ centre
        room = region.lower - here, region.upper - here
        return box_step(gradient, product, radius, region.frame, room, dense)
