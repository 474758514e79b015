"""A quadratic fitted to noisy losses by Bayesian regression, near points counting more.

A loss is taken to be a random quadratic plus an error. The error's variance adds up from noise that
is the same everywhere, noise in proportion to the loss, and what a quadratic misses at distance d,
in proportion to d^3. All scales are learnt by maximum likelihood, one step of one scale a fit.

Source: Rasmussen, Williams (2006), "Gaussian Processes for Machine Learning", chapters 2 and 5.
"""

from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from zo_bilevel.support.arrays import FloatArray

LEAST_POINTS = 60
MOST_POINTS = 250
MOST_SHARE = 0.7
"""Noise is at most this share of the loss."""
FLAT_NOISE, SHARED_NOISE, CUBIC_ERROR, PRIOR_SLOPE, PRIOR_CURVATURE = range(5)
"""Scales: constant noise, noise per loss, cubic error, prior slope, prior curvature."""
FIRST_FACTOR = 2.0
LAST_FACTOR = 1.2
MOST_NOISE = 5.0
"""Noise is at most so many times what the first probes showed: beyond that the model is wrong."""
OUTLYING_RISE = 1e6
"""Losses higher by so many times the spread near the centre are left out."""
SCALE_BELIEF = 3.0
"""Standard deviation of a scale's logarithm around its first value."""


class Fit(NamedTuple):
    """A quadratic around the centre, fitted to rows `(m, p)` relative to it; its log likelihood."""

    rows: FloatArray
    factor: FloatArray
    weights: FloatArray
    evidence: float


@final
class NoisyModel:
    """All points known so far and a quadratic around a centre.

    Args:
        rows: Points, shape `(m, p)`.
        values: Their losses.
        noise: Standard deviation of a loss, a first guess, > 0.
        radius: Distance at which a quadratic was good enough so far.
        slope: A typical slope, > 0.
        curvature: A typical curvature, > 0.
    """

    def __init__(
        self,
        rows: FloatArray,
        values: FloatArray,
        noise: float,
        radius: float,
        slope: float,
        curvature: float,
    ) -> None:
        self.rows, self.values = rows, values
        self.centre = rows[int(values.argmin())].copy()
        lowest = abs(float(values.min())) + 1e-300
        first = [0.7 * noise, min(0.7 * noise / lowest, 0.3), noise / radius**3, slope, curvature]
        self._first = np.log(np.maximum(first, 1e-300))
        self.scales = self._first.copy()
        self._most = self._first[:CUBIC_ERROR] + np.log(MOST_NOISE)
        self._most[SHARED_NOISE] = min(self._most[SHARED_NOISE], np.log(MOST_SHARE))
        self._factors = np.full(5, np.log(FIRST_FACTOR))
        self._turn = 0
        self._level, self._offset = 0.0, 1.0
        self._heights: FloatArray = abs(values)
        self.fit = self._fitted(self._window(), self.scales)

    # ---- learning

    def add(self, row: FloatArray, value: float) -> None:
        """Remember a loss; the next `learn` fits it."""
        self.rows = np.vstack([self.rows, row])
        self.values = np.append(self.values, value)
        self._heights = np.append(self._heights, abs(value))

    def learn(self, centre: FloatArray, attempts: int = 1) -> None:
        """Fit the points near a centre; try to better a scale."""
        self.centre = centre.copy()
        window = self._window()
        self.fit = self._fitted(window, self.scales)
        for _ in range(attempts):
            turn = self._turn = (self._turn + 1) % 5
            tried = self.scales.copy()
            tried[turn] += self._factors[turn]
            tried = self._bounded(tried)
            fit = self._fitted(window, tried)
            if fit.evidence > self.fit.evidence:
                self.fit, self.scales = fit, tried
                self._factors[turn] *= 1.2
            else:
                self._factors[turn] *= -0.7
            least, most = np.log(LAST_FACTOR), np.log(2 * FIRST_FACTOR)
            size = np.clip(abs(self._factors[turn]), least, most)
            self._factors[turn] = np.copysign(size, self._factors[turn])
        doubt = float(self.doubts(np.zeros((1, self.rows.shape[1])))[0])
        least = float(np.hypot(self.level, np.sqrt(doubt)))
        self._heights[window] = np.maximum(abs(self.values_at(self.rows[window])), least)

    def widen_slope(self, least: float) -> None:
        """Expect slopes of this size: at a modelled minimum likelihood would believe in none."""
        if least > 0.0:
            self.scales[PRIOR_SLOPE] = max(float(self.scales[PRIOR_SLOPE]), float(np.log(least)))

    def transform(self, matrix: FloatArray) -> None:
        """Change coordinates; the next `learn` fits again."""
        self.rows, self.centre = self.rows @ matrix.T, matrix @ self.centre

    def _window(self) -> NDArray[np.intp]:
        """The points that tell most: certain ones, and of those the distant ones."""
        away = np.square(self.rows - self.centre).sum(axis=1)
        size = self.rows.shape[1]
        most = min(MOST_POINTS, max(LEAST_POINTS, 2 * (size + 1) * (size + 2)))
        near = np.argsort(away, kind="stable")[: 2 * size + 1]
        self._level = float(np.median(self.values[near]))
        spread = np.median(abs(self.values[near] - self._level))
        usable = self.values - self._level <= (OUTLYING_RISE * spread if spread > 0 else np.inf)
        window = np.flatnonzero(usable)
        if len(window) > most:
            error = self._errors(away, self._heights, self.scales)
            told = (1.0 + away / float(np.median(away))) / error
            told[~usable] = -1.0
            told[np.argsort(np.where(usable, away, np.inf), kind="stable")[: most // 2]] = np.inf
            window = np.sort(np.argsort(-told, kind="stable")[:most])
        self._offset = 10 * float(np.mean((self.values[window] - self._level) ** 2)) + 1e-300
        return window

    def _bounded(self, scales: FloatArray) -> FloatArray:
        """Noise not far above what was probed, and some bend at the most distant point."""
        scales[:CUBIC_ERROR] = np.minimum(scales[:CUBIC_ERROR], self._most)
        farthest = float(np.square(self.fit.rows).sum(axis=1).max()) + 1e-300
        scales[CUBIC_ERROR] = max(
            scales[CUBIC_ERROR], scales[FLAT_NOISE] - 1.5 * np.log(farthest) - np.log(10.0)
        )
        return scales

    def _errors(self, square: FloatArray, heights: FloatArray, scales: FloatArray) -> FloatArray:
        """Variances of losses around the quadratic, at squared distances."""
        flat, share, bend = np.exp(2 * scales[:3])
        return np.asarray(flat + share * heights**2 + bend * square**3)  # (eq. 6)

    def _fitted(self, window: NDArray[np.intp], scales: FloatArray) -> Fit:
        rows, values = self.rows[window] - self.centre, self.values[window] - self._level
        slope, curve = np.exp(2 * scales[PRIOR_SLOPE:])
        inner = rows @ rows.T
        square = inner.diagonal().copy()
        gram = inner * (slope + 0.5 * curve * inner)
        gram += np.multiply.outer(curve * square, square)
        gram += self._offset
        error = self._errors(square, self._heights[window], scales)
        gram.ravel()[:: len(rows) + 1] += error + 1e-10 * gram.diagonal()
        factor, failed = lapack.dpotrf(gram, lower=1, clean=0)
        if failed:
            return Fit(rows, factor, np.zeros(len(rows)), -np.inf)
        weights = lapack.dpotrs(factor, values, lower=1)[0]
        evidence = -0.5 * float(values @ weights) - float(np.log(factor.diagonal()).sum())
        evidence -= 0.5 * float(np.square(scales - self._first).sum()) / SCALE_BELIEF**2
        return Fit(rows, factor, weights, evidence)

    # ---- what is known; points relative to the centre

    @property
    def noise_floor(self) -> tuple[float, float, float]:
        """Constant noise, noise per loss, error per cubed distance."""
        flat, share, bend = np.exp(self.scales[:3])
        return float(flat), float(share), float(bend)

    def gradient(self) -> FloatArray:
        """The slope at the centre, shape `(p,)`."""
        return np.asarray(np.exp(2 * self.scales[PRIOR_SLOPE]) * (self.fit.weights @ self.fit.rows))

    def hessian(self) -> FloatArray:
        """Curvatures, shape `(p, p)`."""
        rows, weights = self.fit.rows, self.fit.weights
        square = np.einsum("ij,ij->i", rows, rows)
        curved = (rows.T * weights) @ rows
        curved.ravel()[:: rows.shape[1] + 1] += 2 * float(weights @ square)
        return np.asarray(np.exp(2 * self.scales[PRIOR_CURVATURE]) * curved)

    def product(self, vector: FloatArray) -> FloatArray:
        """The Hessian times a vector."""
        rows, weights = self.fit.rows, self.fit.weights
        square = np.einsum("ij,ij->i", rows, rows)
        curved = (weights * (rows @ vector)) @ rows + 2 * float(weights @ square) * vector
        return np.asarray(np.exp(2 * self.scales[PRIOR_CURVATURE]) * curved)

    def _cross(self, moves: FloatArray) -> FloatArray:
        rows = self.fit.rows
        slope, curve = (
            np.exp(2 * self.scales[PRIOR_SLOPE]),
            np.exp(2 * self.scales[PRIOR_CURVATURE]),
        )
        inner = moves @ rows.T
        squares = [np.einsum("ij,ij->i", points, points) for points in (moves, rows)]
        return np.asarray(
            inner * (slope + 0.5 * curve * inner)
            + np.multiply.outer(curve * squares[0], squares[1])
        )

    def rises(self, moves: FloatArray) -> FloatArray:
        """Modelled losses above that of the centre, shape `(count,)`."""
        return np.asarray(self._cross(moves) @ self.fit.weights)

    def values_at(self, rows: FloatArray) -> FloatArray:
        """Modelled losses at points."""
        return self.level + self.rises(rows - self.centre)

    @property
    def level(self) -> float:
        """The modelled loss at the centre."""
        values = self.fit.weights
        return self._level + self._offset * float(values.sum())

    def doubts(self, moves: FloatArray) -> FloatArray:
        """Variances of the modelled losses, shape `(count,)`."""
        slope, curve = (
            np.exp(2 * self.scales[PRIOR_SLOPE]),
            np.exp(2 * self.scales[PRIOR_CURVATURE]),
        )
        cross = self._cross(moves) + self._offset
        square = np.einsum("ij,ij->i", moves, moves)
        own = square * (slope + 1.5 * curve * square) + self._offset
        solved = lapack.dpotrs(self.fit.factor, cross.T, lower=1)[0]
        return np.asarray(np.maximum(own - np.einsum("ij,ji->i", cross, solved), 1e-12 * own))
