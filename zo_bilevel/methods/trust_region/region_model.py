"""What the scalar trust region knows: its coordinates, its points and two quadratic models.

Points are `x = base + frame @ y`: the frame's columns are the directions taken up so far, in a
metric learnt from the curvature. Of two models, one of the nearest points and one of every point,
the one that foresaw the steps better is used. Equation numbers: docs/methods/trust-region.md.
"""

from typing import TypeAlias, final

import numpy as np

from zo_bilevel.methods.trust_region.quadratic_model import QuadraticModel
from zo_bilevel.support.arrays import FloatArray

Box: TypeAlias = tuple[FloatArray, FloatArray]

TWIN_LIMIT = 40
"""Directions up to which a second model keeps every point."""
TWIN_POINTS = 250
LEAST_WAY = 1e-5
"""Of the distance of the farthest point: nearer ones tell no slope."""
CUBIC_SHARE = 1e-4
"""Variance left to cubic terms at the trust radius, in units of the kernel, when the larger model
foresees nothing; less by the square of the share that it missed of the last step."""


@final
class RegionModel:
    """Coordinates and models; knows nothing of radii beyond those it is told."""

    def __init__(self, start: FloatArray, value: float, box: Box) -> None:
        self.base = start.copy()
        self.lower, self.upper = box
        self.size = 0
        self._frame: FloatArray = np.zeros((len(start), 4), order="F")
        self._back: FloatArray = np.zeros((4, len(start)))
        self.local, self.whole = QuadraticModel(value), QuadraticModel(value)
        self.noise = 0.0
        self._metric: FloatArray = np.zeros((0, 0))
        self._trust_whole = 0.0

    @property
    def frame(self) -> FloatArray:
        """Directions taken up, shape `(N, p)`."""
        return self._frame[:, : self.size]

    @property
    def back(self) -> FloatArray:
        """From coordinates to the frame's, shape `(p, N)`."""
        return self._back[: self.size]

    @property
    def models(self) -> list[QuadraticModel]:
        """The models in use."""
        return [self.local, self.whole] if self.size <= TWIN_LIMIT else [self.local]

    @property
    def chosen(self) -> QuadraticModel:
        """The model that foresaw the steps better."""
        both = self.size <= TWIN_LIMIT
        return self.whole if both and self._trust_whole > 0.1 else self.local

    @property
    def is_flat(self) -> bool:
        """Whether all losses are the same, in as many points as there are directions."""
        values = self.local.values
        return len(values) > self.size and bool(values.min() == values.max())

    @property
    def x(self) -> FloatArray:
        """The best point in the problem's coordinates, shape `(N,)`."""
        return self.place(self.centre()[0])[0]

    @property
    def value(self) -> float:
        """Its loss."""
        return self.centre()[1]

    @property
    def knows_all(self) -> bool:
        """Whether all directions are taken up, and losses are without noise."""
        return self.size == len(self.base) and self.noise == 0.0

    @property
    def has_slopes(self) -> bool:
        """Whether points that solved tell the slope along each direction."""
        ways = self.local.rows - self.centre()[0]
        least = LEAST_WAY * float(np.abs(ways).max(initial=0.0))
        return int(np.linalg.matrix_rank(ways, tol=least)) == self.size

    @property
    def full(self) -> int:
        """Points that determine a quadratic."""
        return (self.size + 1) * (self.size + 2) // 2

    @property
    def is_determined(self) -> bool:
        """Whether there are as many points as a quadratic of few directions has coefficients."""
        return len(self.models) == 2 and self.whole.count >= self.full

    def best(self) -> int:
        """The row of the best point."""
        return int(self.local.values.argmin())

    def centre(self) -> tuple[FloatArray, float]:
        """The best point and its value."""
        row = self.best()
        return self.local.rows[row], float(self.local.values[row])

    def place(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The point within the bounds, and where that is in the frame's coordinates."""
        x = self.within(self.base + self.frame @ y)
        return x, self.back @ (x - self.base)

    def within(self, x: FloatArray) -> FloatArray:
        """A point put within the bounds."""
        return np.asarray(np.minimum(np.maximum(x, self.lower), self.upper))

    def take(self, unit: FloatArray) -> None:
        """Take up one more direction."""
        stretch = float(np.median(np.diag(self._metric))) if self.size else 1.0
        unit = unit / stretch
        if self.size == len(self._back):
            self._frame = np.asfortranarray(np.hstack([self._frame, np.zeros_like(self._frame)]))
            self._back = np.vstack([self._back, np.zeros_like(self._back)])
        self._frame[:, self.size] = unit
        self._back[self.size] = unit / (unit @ unit)
        self.size += 1
        self._metric = np.pad(self._metric, ((0, 1), (0, 1)))
        self._metric[-1, -1] = stretch
        for model in (self.local, self.whole):
            model.grow()

    def judge_foresight(self, y: FloatArray, value: float) -> None:
        """Note which model foresaw a step better."""
        if self.size > TWIN_LIMIT:
            return
        errors = [abs(model.value_at(y) - value) + 1e-300 for model in self.models]
        better = float(np.clip(np.log(errors[0] / errors[1]), -2, 2))
        self._trust_whole = 0.9 * self._trust_whole + 0.1 * better
        missed = errors[1] / (abs(value - self.centre()[1]) + 1e-300)
        self.whole.blur = CUBIC_SHARE * min(1.0, missed) ** 2

    def curvature_range(self) -> tuple[float, float]:
        """Lowest and highest curvature of the chosen model; unknown with many directions."""
        if self.size > TWIN_LIMIT:
            return 0.0, np.inf
        curvatures = np.linalg.eigvalsh(self.chosen.hessian())
        return float(curvatures[0]), float(np.abs(curvatures).max())

    def presume_curvature(self, y: FloatArray, value: float) -> None:
        """A new direction that goes up is taken to be curved, in part, rather than steep."""
        centre, best = self.centre()
        along = y - centre
        if value > best and len(self.base) > TWIN_LIMIT:
            for model in self.models:
                model.bend((value - best) / float(along @ along) ** 2, along)

    def learn(self, y: FloatArray, value: float, radius: float) -> None:
        """Fit one value in both models; forget what is needed least."""
        centre = self.centre()[0]
        dense = self.size <= TWIN_LIMIT
        for model in self.models:
            most = self.full if model is self.local else min(3 * self.full, TWIN_POINTS)
            while model.count >= most:
                model.drop(int(model.squared_distances(centre).argmax()))
            (model.append if dense else model.add)(y, value)
        if dense:
            self.rebuild(radius)
        self._trim(radius)

    def learn_at(self, x: FloatArray, value: float, radius: float) -> None:
        """The same for a point in the problem's coordinates, that another search has found."""
        self.learn(self.back @ (x - self.base), value, radius)

    def _trim(self, radius: float) -> None:
        each = 3 if self.is_determined else 2
        most = max(3, min(self.full, each * self.size + 1))
        while self.local.count > most:
            score = self.local.redundancy(self.centre()[0], radius)
            score[self.local.newest] = score[self.best()] = -1.0
            self.local.drop(int(np.argmax(score)))
        if self.size <= TWIN_LIMIT:
            return
        centre = self.centre()[0]
        drift = float(centre @ centre) > (5 * self.local.scale) ** 2
        stale = self.local.stale > 0.5 * self.local.count + 10
        if stale or drift or not 0.33 < self.local.scale / radius < 5.0:
            self.rebuild(radius)

    def rebuild(self, radius: float, transform: FloatArray | None = None) -> None:
        """Move the base to the best point; fit both models again, in new coordinates if given."""
        centre = self.centre()[0].copy()
        self.base = self.within(self.base + self.frame @ centre)
        for model in self.models:
            model.rebuild(centre, radius, transform, invert=model is self.local)
        if transform is not None:
            self._frame[:, : self.size] = self.frame @ np.linalg.inv(transform)
            self._back[: self.size] = transform @ self.back

    def learn_metric(self, steps: list[FloatArray], radius: float) -> None:
        """Measure lengths by the curvature, so that the ball is narrow where the loss is steep."""
        determined = self.is_determined
        hessian = (self.chosen if determined else self.local).hessian()
        before = np.eye(self.size) if determined else self._metric
        curvatures, vectors = np.linalg.eigh(before.T @ hessian @ before)
        curvatures = np.abs(curvatures)
        if len(steps) <= 3 or not curvatures.mean() > 0:
            return
        # (eq. 4)
        wanted = np.linalg.cholesky((vectors * (curvatures + curvatures.mean())) @ vectors.T).T
        transform = wanted @ np.linalg.inv(before)
        recent = np.array(steps[-max(self.size, 4) :]) @ self.back.T
        lengths = [np.linalg.norm(rows, axis=1) + 1e-300 for rows in (recent, recent @ transform.T)]
        factor = float(np.exp(np.mean(np.log(lengths[0]) - np.log(lengths[1]))))
        self._metric = transform @ self._metric * factor
        self.rebuild(radius, transform * factor)
