"""A Gaussian process over all parameters: reals, integers and choices in one model of the loss.

The kernel is a weighted sum of what parameters do alone and what they do together,
`k = w mean_i exp(-d_i / 2) + (1 - w) m(mean_i d_i)`, with `d_i` the squared distance in parameter i
over its squared length, and m the Matern kernel of order 5/2. Two options of a choice are
`OPTION_DISTANCE` apart. Lengths, w and the noise are learnt by maximum likelihood under a prior,
one step of one scale at a time. Equation numbers: docs/methods/integers-and-choices.md.

Source: Rasmussen, Williams (2006), "Gaussian Processes for Machine Learning", chapters 4 and 5;
additive kernels: Duvenaud, Nickisch, Rasmussen (2011), "Additive Gaussian processes".
"""

from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, solve_triangular

from zo_bilevel.support.arrays import FloatArray

Apart: TypeAlias = tuple[FloatArray, FloatArray]
"""Of each number the squared distance, of each option whether it is another: `(., m, m')` each."""
OPTION_DISTANCE = 2.0
"""Between two options of a choice, in scaled units: a third of the range of a number."""
FIRST_LENGTH = 1.2
LENGTH_BELIEF, WEIGHT_BELIEF, NOISE_BELIEF = 1.0, 1.5, 1.0
"""Standard deviations of the prior of each scale's logarithm around its first value."""
LEAST_NOISE, FIRST_NOISE = 1e-4, 1.0
"""Standard deviations of the noise, in units of that of the loss, without and with draws."""
FIRST_LOGIT = 1.5
"""Of w, where solves are noisy: what parameters do together is lost in noise at first."""
MOST_FITS, FEWEST_FITS = 40, 4
"""Steps of scales for each new loss: many while there are few points, and each costs little."""
MOST_POINTS = 200


@final
class MixedModel:
    """Posterior mean and deviation of the loss at any setting.

    Args:
        is_option: Which features are options of choices, shape `(d,)`.
        is_noisy: Whether one point may have several losses.
    """

    def __init__(self, is_option: NDArray[np.bool_], *, is_noisy: bool) -> None:
        size = len(is_option)
        self._is_option = is_option
        self._first = np.zeros(size + 2)
        self._first[:size] = np.log(FIRST_LENGTH)
        self._first[-2:] = (
            (FIRST_LOGIT, np.log(FIRST_NOISE)) if is_noisy else (0.0, np.log(LEAST_NOISE))
        )
        self._belief = np.full(size + 2, LENGTH_BELIEF)
        self._belief[-2:] = WEIGHT_BELIEF, NOISE_BELIEF
        self.scales = self._first.copy()
        self._factors = np.full(size + 2, 0.7)
        self._free = size + (2 if is_noisy else 1)
        self._turn = 0
        self._rows: FloatArray = np.zeros((0, size))

    def learn(
        self,
        rows: FloatArray,
        losses: FloatArray,
        counts: NDArray[np.intp] | None = None,
        squares: float = 0.0,
    ) -> None:
        """Fit points and their losses.

        Args:
            rows: Features, shape `(m, d)`: scaled numbers, and indices of options.
            losses: Shape `(m,)`.
            counts: How many draws each is the mean of; one where not given.
            squares: Of the draws around those means, in all.
        """
        self._rows = rows
        self._counts = np.ones(len(rows)) if counts is None else counts.astype(np.float64)
        self._centre, self._spread = float(losses.mean()), float(losses.std()) or 1.0
        self._targets = (losses - self._centre) / self._spread
        self._squares = squares / self._spread**2
        apart = self._distances(rows, rows)
        evidence = self._fit(apart, self.scales)
        for _ in range(int(np.clip(2000 / len(rows), FEWEST_FITS, MOST_FITS))):
            turn = self._turn = (self._turn + 1) % self._free
            tried = self.scales.copy()
            tried[turn] += self._factors[turn]
            found = self._fit(apart, tried)
            if found > evidence:
                evidence, self.scales = found, tried
                self._factors[turn] *= 1.3
            else:
                self._factors[turn] *= -0.7
            size = np.clip(abs(self._factors[turn]), 0.1, 1.5)
            self._factors[turn] = np.copysign(size, self._factors[turn])
        self._fit(apart, self.scales)

    def predict(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the loss without noise, shape `(count,)` each."""
        cross = self._kernel(self._distances(rows, self._rows), self.scales)
        mean = self._mean + cross @ self._weights
        solved = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        left = np.maximum(1.0 - np.square(solved).sum(axis=0), 1e-10)
        deviation = np.sqrt(self._amplitude * left)
        return self._centre + self._spread * mean, self._spread * deviation

    def sample(self, rows: FloatArray, rng: np.random.Generator) -> FloatArray:
        """One draw of what parameters may do alone, with the mean of the rest, shape `(count,)`.

        A draw of the rest is lowest at one setting among very many, and never the same.
        """
        apart, own = self._distances(rows, self._rows), self._distances(rows, rows)
        alone, among = self._alone(apart, self.scales), self._alone(own, self.scales)
        return np.asarray(self._drawn(apart, alone, among, 1, rng)[0])

    def samples(self, rows: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
        """Draws of the losses at points, shape `(draws, count)`."""
        apart, own = self._distances(rows, self._rows), self._distances(rows, rows)
        cross, among = self._kernel(apart, self.scales), self._kernel(own, self.scales)
        return self._drawn(apart, cross, among, draws, rng)

    def _drawn(
        self,
        apart: Apart,
        cross: FloatArray,
        among: FloatArray,
        draws: int,
        rng: np.random.Generator,
    ) -> FloatArray:
        """Draws of a part of the model, known by its covariances, around the mean of the whole."""
        solved = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        values, vectors = np.linalg.eigh(among - solved.T @ solved)
        noise = np.sqrt(np.maximum(values, 0.0)) * rng.standard_normal((draws, len(among)))
        drawn = self._kernel(apart, self.scales) @ self._weights
        drawn = drawn + np.sqrt(self._amplitude) * (noise @ vectors.T)
        return np.asarray(self._centre + self._spread * (self._mean + drawn))

    def _distances(self, rows: FloatArray, others: FloatArray) -> Apart:
        is_option, left, right = self._is_option, rows.T[:, :, None], others.T[:, None, :]
        away = left[~is_option] - right[~is_option]
        return np.square(away, out=away), (left[is_option] != right[is_option]).astype(np.float64)

    def _alone(self, apart: Apart, scales: FloatArray) -> FloatArray:
        """Covariance of what parameters do alone, the first term of (eq. 1)."""
        size, is_option = len(self._is_option), self._is_option
        away, differ = apart
        inverse = np.exp(-2 * scales[:size])
        numbers = -0.5 * inverse[~is_option, None, None] * away
        # options are the same or OPTION_DISTANCE apart: exp is linear in that
        lost = 1.0 - np.exp(-0.5 * OPTION_DISTANCE**2 * inverse[is_option])
        options = len(differ) - np.tensordot(lost, differ, 1)
        weight = 1.0 / (1.0 + np.exp(-scales[size]))
        return np.asarray(weight / size * (options + np.exp(numbers, out=numbers).sum(axis=0)))

    def _kernel(self, apart: Apart, scales: FloatArray) -> FloatArray:
        size, is_option = len(self._is_option), self._is_option
        inverse = np.exp(-2 * scales[:size])
        far = np.tensordot(inverse[~is_option], apart[0], 1)
        far += np.tensordot(OPTION_DISTANCE**2 * inverse[is_option], apart[1], 1)
        root = np.sqrt(5.0 / size * far)
        together = (1.0 + root + root * root / 3.0) * np.exp(-root)
        rest = 1.0 / (1.0 + np.exp(scales[size]))
        return np.asarray(self._alone(apart, scales) + rest * together)  # (eq. 1)

    def _fit(self, apart: Apart, scales: FloatArray) -> float:
        """Factor and weights; the logarithm of the likelihood, amplitude and mean at their best."""
        gram = self._kernel(apart, scales)
        noise = float(np.exp(2 * scales[-1]))
        gram.ravel()[:: len(gram) + 1] += noise / self._counts + 1e-8
        factor, failed = lapack.dpotrf(gram, lower=1, clean=1)
        if failed:
            return -np.inf
        ones = lapack.dpotrs(factor, np.ones(len(gram)), lower=1)[0]
        # (eq. 2)
        self._mean = float(ones @ self._targets / ones.sum())
        centred = self._targets - self._mean
        self._factor, self._weights = factor, lapack.dpotrs(factor, centred, lower=1)[0]
        count, again = float(self._counts.sum()), float(self._counts.sum()) - len(gram)
        misfit = float(centred @ self._weights) + self._squares / noise
        self._amplitude = (misfit + 1.0) / (count + 1.0)
        evidence = -0.5 * count * np.log(self._amplitude) - np.log(factor.diagonal()).sum()
        evidence -= 0.5 * again * np.log(noise)
        away = (scales - self._first) / self._belief
        return float(evidence - 0.5 * away @ away)
