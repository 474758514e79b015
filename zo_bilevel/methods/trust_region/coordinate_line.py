"""One coordinate of a separable loss: a global search of one number, a solve at a time.

Source: expected improvement: Jones, Schonlau, Welch (1998), "Efficient global optimization of
expensive black-box functions", eq. 15; a trend beside the process: Rasmussen, Williams (2006),
"Gaussian Processes for Machine Learning", eqs. 2.41 to 2.45.
"""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
from scipy.linalg import lapack
from scipy.special import ndtr

from zo_bilevel.methods.trust_region.bracket import GOLDEN_SHARE, Known
from zo_bilevel.support.arrays import FloatArray

LENGTHS = np.geomspace(0.01, 1.0, 12)
"""Lengths of the process that are tried, in shares of the range."""
GRID = (np.arange(257) + 0.5) / 257
"""Where improvement may be expected, in shares of the range."""
NUGGET = 1e-10
MOST_POINTS = 100
"""The lowest so many are looked at: each costs time."""
CAUTION = 0.1
"""Share of an improvement expected far away that counts: digits next to the best are sure."""
LEAST_IMPROVEMENT = 1e-6
"""Expected improvements of less than this share of the losses' spread promise nothing."""


STEP_TOLERANCE = 1e-8
"""Shortest step, in shares of the range."""
BRACKET_SHARE = 0.01
"""Of the wider side of a bracket, at which the next value is tried where a parabola has no more."""
LOPSIDED, BALANCING = 8.0, 3.0
"""A bracket whose sides' lengths differ by more gets a value so many narrow sides away."""
NARROWEST_GAP = 1 / 32
"""Gaps that are wider, in shares of the range, are looked into before the end."""
LOOK_GAIN = 1e-300
"""Promised by a gap of the whole range: after anything that is expected."""


class Promise(NamedTuple):
    """A value to try next, and how much lower the loss may be there."""

    gain: float
    value: float


@final
class CoordinateLine:
    """What is known of the part of the loss that one coordinate has.

    Args:
        low: Lower bound.
        high: Upper bound.
        start: Where the coordinate is.
        ceiling: Rises above the loss there count as this at most, and failures as this.

    Attributes:
        promise: The next value to try.
    """

    def __init__(self, low: float, high: float, start: float, ceiling: float) -> None:
        self._low, self._high, self._ceiling = low, high, ceiling
        self._known = Known(low, high)
        self._known.tell([start], [0.0])
        golden = np.array([low, high]) + GOLDEN_SHARE * (high - low) * np.array([1, -1])
        farthest = float(golden[np.abs(golden - start).argmax()])
        self.promise = Promise(np.inf, farthest)

    @property
    def best(self) -> float:
        """The value of the lowest loss."""
        return self._known.best

    @property
    def gain(self) -> float:
        """The lowest loss minus that at the start, <= 0."""
        return self._known.lowest

    def tell(self, rise: float | None, least: float) -> None:
        """Learn what the value that was promised most of has brought.

        Args:
            rise: The loss there minus that at `best`; `None` for a failed solve.
            least: Gains below it are lost in the digits of the loss.
        """
        known = self._known
        loss = self._ceiling if rise is None else min(known.lowest + rise, self._ceiling)
        known.tell([self.promise.value], [loss])
        found = max(self._near(), self._far())
        self.promise = found if found.gain > least else self._between()

    def _near(self) -> Promise:
        """The minimum next to the best value."""
        x, f = self._known.arrays()
        best = int(f.argmin())
        least = STEP_TOLERANCE * (self._high - self._low)
        move, gain = self._parabola(x, f, best)
        if 0 < best < len(x) - 1:
            sides = x[[best - 1, best + 1]] - x[best]
            narrow, wide = np.abs(sides).argsort()
            if abs(sides[wide]) > LOPSIDED * abs(sides[narrow]) >= LOPSIDED * abs(move):
                gain = max(gain, CAUTION * float(f[best - 1 + 2 * narrow] - f[best]))
                move = -BALANCING * sides[narrow]
            elif abs(move) < least:  # at the middle of its parabola: a closer one
                move = BRACKET_SHARE * sides[wide]
            elif not sides[0] < move < sides[1]:
                move = GOLDEN_SHARE * sides[int(move > 0)]
        value = float(np.clip(x[best] + move, self._low, self._high))
        if np.abs(x - value).min() < least:
            return Promise(0.0, value)
        return Promise(gain, value)

    def _parabola(self, x: FloatArray, f: FloatArray, best: int) -> tuple[float, float]:
        """From the best value to the minimum of a parabola or a line, and what is gained there."""
        usual = np.flatnonzero(f < self._ceiling)
        chosen = usual[np.argsort(np.abs(x[usual] - x[best]), kind="stable")[1:3]]
        if 0 < best < len(x) - 1 and max(f[best - 1], f[best + 1]) < self._ceiling:
            chosen = np.array([best - 1, best + 1])
        if len(chosen) == 0:
            return 0.0, 0.0
        away, rise = x[chosen] - x[best], f[chosen] - f[best]
        powers = away[:, None] ** np.arange(1, 1 + len(away))
        slope, curvature = (*np.linalg.solve(powers, rise), 0.0)[:2]
        if curvature > 0.0:
            return float(-0.5 * slope / curvature), float(0.25 * slope**2 / curvature)
        move = (self._low if slope > 0 else self._high) - float(x[best])
        return move, float(abs(slope * move))

    def _between(self) -> Promise:
        """The middle of the widest gap: nothing is promised there, but nothing is known either."""
        gap, middle = self._known.widest_gap()
        share = gap / (self._high - self._low)
        return Promise(LOOK_GAIN * share if share > NARROWEST_GAP else 0.0, middle)

    def _far(self) -> Promise:
        """Where the improvement expected by a Gaussian process around a parabola is largest."""
        x, f = self._known.arrays()
        x, order = (x - self._low) / (self._high - self._low), np.argsort(f, kind="stable")
        cells = np.minimum(x[order] * len(GRID), len(GRID) - 1).astype(int)
        chosen = order[np.sort(np.unique(cells, return_index=True)[1])][:MOST_POINTS]
        x, f = x[chosen], np.where(f < self._ceiling, f, -np.inf)[chosen]
        f = np.where(np.isfinite(f), f, f.max()) - f[0]
        spread = float(f.std())
        if spread == 0.0:
            return Promise(0.0, self.best)
        process = max(
            (_Process(x, f / spread, length) for length in LENGTHS), key=lambda fit: fit.evidence
        )
        gain = process.expected_improvement(GRID)
        gain[np.min(np.abs(GRID[:, None] - x), axis=1) < 0.5 / len(GRID)] = 0.0
        found = int(gain.argmax())
        if gain[found] < LEAST_IMPROVEMENT:
            return Promise(0.0, self.best)
        value = self._low + float(GRID[found]) * (self._high - self._low)
        return Promise(CAUTION * spread * float(gain[found]), value)


@final
class _Process:
    """A Gaussian process around a parabola, its amplitude at its best.

    Args:
        x: Values, shape `(m,)`.
        f: Their losses, shape `(m,)`.
        length: Of its Matern kernel of order 5/2.

    Attributes:
        evidence: Logarithm of the likelihood.
    """

    def __init__(self, x: FloatArray, f: FloatArray, length: float) -> None:
        self._x, self._f, self._length = x, f, length
        self._degree = min(2, len(x) - 2)
        gram = self._kernel(x)
        gram.ravel()[:: len(gram) + 1] += NUGGET
        self.evidence = -np.inf
        self._factor, failed = lapack.dpotrf(gram, lower=1, clean=1)
        if failed:
            return
        powers = self._powers(x)
        solved = lapack.dpotrs(self._factor, np.column_stack([f, powers]), lower=1)[0]
        self._solved = solved[:, 1:]
        self._normal = normal = powers.T @ self._solved
        self._trend: FloatArray = np.linalg.solve(normal, powers.T @ solved[:, 0])  # (eq. 2.42)
        self._weights = solved[:, 0] - self._solved @ self._trend
        free = len(x) - powers.shape[1]
        misfit = float((f - powers @ self._trend) @ self._weights)
        self._amplitude = (misfit + 1e-4) / (free + 1)
        self.evidence = -0.5 * free * np.log(self._amplitude)
        self.evidence -= float(np.log(self._factor.diagonal()).sum())
        self.evidence -= 0.5 * float(np.linalg.slogdet(normal)[1])  # (eq. 2.45)

    def expected_improvement(self, x: FloatArray) -> FloatArray:
        """Below the lowest loss, at values of shape `(count,)`."""
        mean, deviation = self.predict(x)
        better = float(self._f.min()) - mean
        z = np.clip(better / deviation, -38.0, 38.0)
        density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
        return np.asarray(better * ndtr(z) + deviation * density)  # (eq. 15)

    def predict(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation at values of shape `(count,)`, that of the trend among it."""
        cross, powers = self._kernel(x), self._powers(x)
        mean = powers @ self._trend + cross @ self._weights
        solved = lapack.dpotrs(self._factor, np.asfortranarray(cross.T), lower=1)[0]
        left = 1.0 - np.einsum("ij,ji->i", cross, solved)
        missed = powers - cross @ self._solved
        left += np.einsum("ij,ji->i", missed, np.linalg.solve(self._normal, missed.T))  # (eq. 2.42)
        return mean, np.sqrt(self._amplitude * np.maximum(left, 1e-300))

    def _kernel(self, x: FloatArray) -> FloatArray:
        root = np.sqrt(5.0) / self._length * np.abs(x[:, None] - self._x)
        return np.asarray((1.0 + root + root * root / 3.0) * np.exp(-root))

    def _powers(self, x: FloatArray) -> FloatArray:
        return np.asarray((x[:, None] - 0.5) ** np.arange(self._degree + 1))
