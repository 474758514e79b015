"""The model of the inner solution: everything solved so far, weighed by the Taylor prior.

Every solve, whether a difference or a trial step, is one observation of the same smooth function,
and the model is what they say together: no column is ever renewed, or grows old, by a rule. From
the model come, in the coordinates of the directions explored so far, the Jacobian, the curvature of
theta along the residuals, and how far to believe the slopes. Equation numbers are those of
docs/methods/gauss-newton.md.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.loss_model import ModelObjective, Quadratic
from zo_bilevel.methods.gauss_newton.outer_model import OuterModel
from zo_bilevel.methods.gauss_newton.taylor_prior import (
    Likelihood,
    Observations,
    ObservedRows,
    solved,
)
from zo_bilevel.methods.shared.exploration import orthogonal_part
from zo_bilevel.support.arrays import FloatArray

FIRST_LENGTH = 3.0
"""Length of the prior before anything is known: half the range of each parameter."""
FARTHEST_LENGTHS = 3.0
"""Observations farther away, in lengths, are left out."""
SPARE_ROWS, ROWS_PER_DIRECTION, NOISY_ROWS_PER_DIRECTION = 10, 3, 8
"""The nearest observations are used, up to so many."""
LENGTH_FACTOR = 2.0
"""Step of the search for the likeliest length."""
NOISE_FACTOR = 3.0
"""Step of the search for the likeliest variance of noise."""
LARGEST_NOISE_RATIO = 1e30
"""Of the noise's variance to that of a slope: an answer that never changes has slopes of zero."""
MACHINE_EPSILON = float(np.finfo(float).eps)
"""Noise of a row that is a smaller share of a slope's variance than this changes no bit."""
NEW_DIRECTION = 1e-7
"""A displacement has a new direction when this share of it lies outside the basis."""
SHORTEST_VALUE = 1e-3
"""Differences this long or longer are kept as values: they tell of curvature too."""


@final
class AnswerModel:
    """The inner solution around the best point so far.

    Attributes:
        center: The best point, shape `(N,)`.
        basis: Orthonormal directions, shape `(N, b)`.
        theta: The answer there.
        smooth_theta: The same, freed of noise by its neighbours.
        loss: At `smooth_theta`.
        noise: Variance of a component of one answer, as the answers have it.
        least_noise: The least it can be: that of rounding.
        is_noisy: Whether solves were found to be noisy.
        length: Of the prior.
        scale: Variance of a slope.
    """

    def __init__(self, outer: OuterModel, center: FloatArray, theta: FloatArray) -> None:
        self.outer, self.center, self.theta, self.smooth_theta = outer, center, theta, theta
        self.loss = outer.loss(theta, center)
        self.noise, self.least_noise, self.scale = 0.0, 0.0, 0.0
        self.is_noisy = False
        self._reach = math.sqrt(center.size)
        self.length = FIRST_LENGTH * math.sqrt(center.size)
        self._origin = center
        self.basis = np.empty((center.size, 0), order="F")
        self._place = np.empty(0)
        self._rows = ObservedRows()
        self._rows.add(self._place, None, theta, 1.0)
        self._fitted: tuple[Observations, FloatArray, Quadratic] | None = None
        self._is_length_due = False
        self._factor = np.zeros((0, 0))

    @property
    def size(self) -> int:
        """How many directions are known."""
        return self.basis.shape[1]

    # ---- observations ------------------------------------------------------------------------

    def add_value(self, point: FloatArray, theta: FloatArray) -> None:
        """Take in an answer."""
        self._rows.add(self._coordinates(point - self._origin), None, theta, 1.0)
        self._reach = math.dist(point, self.center)
        self._fitted, self._is_length_due = None, True

    def add_derivative(
        self, point: FloatArray, displacement: FloatArray, change: FloatArray, error: float
    ) -> None:
        """Take in a difference over a short distance.

        Args:
            point: Where, shape `(N,)`.
            displacement: Shape `(N,)`.
            change: Of the answer along it, shape `(m,)`.
            error: Variance of the change, in variances of one answer.
        """
        length = math.sqrt(displacement @ displacement)
        way = self._coordinates(displacement / length)
        place = self._coordinates(point - self._origin)
        self._rows.add(place, way, change / length, error / length**2)
        self._fitted = None

    def move(self, point: FloatArray, theta: FloatArray) -> None:
        """Make a point that was taken in the center."""
        self._place = self._coordinates(point - self._origin)
        self.center, self.theta, self.smooth_theta = point, theta, theta
        self.loss = self.outer.loss(theta, point)
        self._fitted = None

    def forget(self, *, values: bool = False) -> None:
        """Drop all derivatives, and with `values` the answers away from the center too."""
        rows, table = self._rows, self._rows.table(self.size)
        kept = [row for row, way in enumerate(table.is_derivative) if not (values or way)]
        points = [self._origin + self.basis @ table.places[row] for row in kept]
        self.length, self.scale = FIRST_LENGTH * math.sqrt(self.center.size), 0.0
        self._origin, self.basis = self.center, np.empty((self.center.size, 0), order="F")
        self._place = np.empty(0)
        self._rows, self._fitted = ObservedRows(), None
        self._rows.add(self._place, None, self.theta, 1.0)
        for row, point in zip(kept, points, strict=True):
            if not np.array_equal(point, self.center):
                self.add_value(point, rows.values[row])

    def imagining(
        self, values: Sequence[FloatArray], derivatives: Sequence[tuple[FloatArray, FloatArray]]
    ) -> AnswerModel:
        """The model as it will be if answers that are awaited are as it predicts.

        Args:
            values: Points of trial steps; the best of them becomes the center.
            derivatives: Base and displacement of each difference.
        """
        predicted = [self._predicted(point) for point in values]
        changes = [self._predicted(base + way) - self._predicted(base) for base, way in derivatives]
        other = copy.copy(self)
        other._rows = self._rows.copy()
        for (base, way), change in zip(derivatives, changes, strict=True):
            other.add_derivative(base, way, change, 0.0)
        for point, theta in zip(values, predicted, strict=True):
            other.add_value(point, theta)
            if self.outer.loss(theta, point) < other.loss:
                other.move(point, theta)
        other._is_length_due = self._is_length_due
        return other

    def _predicted(self, point: FloatArray) -> FloatArray:
        return self.predict(self.basis.T @ (point - self.center))

    def _coordinates(self, displacement: FloatArray) -> FloatArray:
        """Coordinates in the basis, which grows when the displacement needs it."""
        whole = math.sqrt(displacement @ displacement)
        if self.size < displacement.size and whole > 0.0:
            rest = orthogonal_part(displacement, self.basis)
            length = math.sqrt(rest @ rest)
            if length > NEW_DIRECTION * whole:
                self.basis = np.asfortranarray(np.column_stack([self.basis, rest / length]))
        return np.asarray(self.basis.T @ displacement)

    # ---- the model ---------------------------------------------------------------------------

    def quadratic(self) -> Quadratic:
        """The loss around the center, from the likeliest theta."""
        return self._fit()[2]

    @property
    def steepness(self) -> float:
        """Root mean square over theta of its steepest slope among the directions explored."""
        observations, weights, _ = self._fit()
        jacobian = weights.T @ observations.slopes
        return float(np.sqrt(np.mean(jacobian**2, axis=0).max(initial=0.0)))

    def predict(self, step: FloatArray) -> FloatArray:
        """The likeliest theta at center + basis @ step, shape `(m,)`."""
        observations, weights, _ = self._fit()
        return self.smooth_theta + observations.covariance_with(step, self.length) @ weights

    def slopes(self) -> tuple[FloatArray, FloatArray]:
        """The likeliest derivatives at the center, `(m, N)`, and the covariance of an output's."""
        observations, weights, quadratic = self._fit()
        basis, ignorance = self.basis, max(quadratic.ignorance, 1e-300)
        known = np.eye(self.size) - quadratic.doubt / ignorance
        doubt = self.scale * (np.eye(self.center.size) - basis @ known @ basis.T)
        return weights.T @ (observations.slopes @ basis.T), doubt

    def unknown_curvature(self, step: FloatArray) -> float:
        """Share of what the prior expects theta to bend by along a step not known, 0 to 1."""
        observations, _, quadratic = self._fit()
        square = float(step @ step)
        bend = 0.5 * square * square / self.length**2
        if bend == 0.0 or quadratic.ignorance == 0.0:
            return 1.0
        known = observations.covariance_with(step, self.length)
        known_share = float(known @ solved(self._factor, known))
        slope = float(step @ quadratic.doubt @ step) / quadratic.ignorance
        third = square**3 / (6.0 * self.length**4)
        left = square + bend + third - known_share - slope
        return min(max(left / (bend + third), 0.0), 1.0)

    @property
    def _noise_ratio(self) -> float:
        return min(self.noise / self.scale, LARGEST_NOISE_RATIO)

    def _fit(self) -> tuple[Observations, FloatArray, Quadratic]:
        if self._fitted is None:
            observations, changes = self._observations()
            if not len(changes):
                none = np.zeros((0, 0))
                quadratic = Quadratic(np.zeros(self.size), np.zeros((self.size,) * 2), none, 0.0)
                self._fitted = observations, changes, quadratic
                return self._fitted
            factor = self._choose_length(observations, changes)
            weights = solved(factor, changes)  # (2)
            if self.is_noisy:
                share = self._noise_ratio
                self.smooth_theta = self.theta + share * (observations.center_shares @ weights)
                self.loss = self.outer.loss(self.smooth_theta, self.center)
            self._factor = factor
            self._fitted = observations, weights, self._quadratic(observations, weights, factor)
        return self._fitted

    def _observations(self) -> tuple[Observations, FloatArray]:
        """The nearest rows as changes from the center per unit length."""
        places, ways, derivative, errors = self._rows.table(self.size)
        center = np.zeros(self.size)
        center[: self._place.size] = self._place
        places = places - center
        distances = np.sqrt(np.einsum("ij,ij->i", places, places))
        usable = np.flatnonzero(derivative | (distances > 0.0))
        order = usable[np.argsort(distances[usable], kind="stable")]
        per_direction = NOISY_ROWS_PER_DIRECTION if self.is_noisy else ROWS_PER_DIRECTION
        near = order[: SPARE_ROWS + per_direction * self.size]
        count = max(int((distances[near] <= FARTHEST_LENGTHS * self.length).sum()), 1)
        chosen = near[:count]
        distances, derivative = distances[chosen], derivative[chosen]
        is_blurred = self.is_noisy and bool(chosen.size)
        shortest = 1e-2 * float(np.median(distances)) if is_blurred else 0.0
        norms = np.where(derivative, 1.0, np.maximum(distances, shortest))
        values = self._rows.values
        changes = np.array([values[row] for row in chosen.tolist()]).reshape(-1, self.theta.size)
        changes -= np.where(derivative[:, None], 0.0, self.theta)
        changes /= norms[:, None]
        errors = errors[chosen] / norms**2
        return Observations(places[chosen], ways[chosen], derivative, norms, errors), changes

    def _choose_length(self, observations: Observations, changes: FloatArray) -> FloatArray:
        """Set length and scale to the likeliest; give back the Cholesky factor of the rows."""
        products = changes @ changes.T
        if self.scale == 0.0:
            self.scale = float(np.trace(products)) / changes.size + 1e-300

        def tried(length: float) -> Likelihood:
            return observations.likelihood(products, changes.shape[1], length, self._noise_ratio)

        best, noise = tried(self.length), self.noise
        if self._is_length_due:
            self._is_length_due = False
            lengths = self.length / LENGTH_FACTOR, LENGTH_FACTOR * self.length
            best = min(best, *map(tried, lengths), key=lambda found: found.score)
            self.length = best.length
            for factor in (1.0 / NOISE_FACTOR, NOISE_FACTOR):
                self.noise = max(factor * noise, self.least_noise)
                if (
                    self.noise == noise
                    or self._noise_ratio * observations.errors.max() < MACHINE_EPSILON
                ):
                    continue
                found = tried(self.length)
                if found.score < best.score:
                    best, noise = found, self.noise
            self.noise = noise
        if np.isfinite(best.score):
            self.scale = best.scale
        self.length = best.length
        return best.factor

    def _quadratic(
        self, observations: Observations, weights: FloatArray, factor: FloatArray
    ) -> Quadratic:
        outer, theta, slopes = self.outer, self.smooth_theta, observations.slopes
        jacobian = weights.T @ slopes  # (2)
        in_theta, in_x = outer.gradient(theta, self.center)
        gradient = jacobian.T @ in_theta + self.basis.T @ in_x
        hessian = outer.curvature(theta, self.center, jacobian, self.basis)
        hessian = hessian + observations.second_order(weights @ in_theta, self.length)  # (3)
        known = slopes.T @ solved(factor, slopes)
        doubt = np.eye(self.size) - 0.5 * (known + known.T)
        ignorance = self.scale * outer.bend(theta, self.center, math.sqrt(self.scale) * self._reach)
        parts = self.center, self.basis, theta, self.loss, observations, weights, self.length
        objective = None if outer.is_smooth else ModelObjective(outer, *parts)
        return Quadratic(gradient, hessian, ignorance * doubt, ignorance, objective)
