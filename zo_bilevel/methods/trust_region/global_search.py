"""An evolution strategy, for restarts of the scalar method.

Source: Hansen (2016), "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772; with only the
diagonal: Ros, Hansen (2008), "A simple modification in CMA-ES achieving linear time and space
complexity".
"""

from __future__ import annotations

from typing import final

import numpy as np

from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart
from zo_bilevel.methods.trust_region.population_model import PopulationModel
from zo_bilevel.support.arrays import FloatArray

MOST_COVARIANCE = 100
"""Above so many parameters only the diagonal is learnt."""
FORESEEN_STEP, FORESEEN_ORDER, ORDER_WINDOW = 0.5, 0.8, 4
"""It is done at a scaled step below the first where its model puts so many generations in order, in
the mean of Kendall's tau: there the loss is smooth, and a trust region goes on faster."""
SMALLEST_STEP, SMALLEST_STEP_WITHOUT_MODEL = 1e-3, 0.2
"""Scaled steps below which it is done in any case."""


@final
class Evolution:
    """CMA-ES, with a model of the latest generations: its minimum takes the place of one draw.

    Args:
        part: The coordinates.
        start: The first mean, shape `(N,)`.
        sigma: The first step, scaled.
        population: Solves of a generation.
        rng: Random numbers.
        has_model: Whether it has the model; never above `MOST_COVARIANCE` parameters.

    Attributes:
        best: The best point so far, shape `(N,)`.
        lowest: Its loss, infinite before any solve was ok.
    """

    def __init__(
        self,
        part: ContinuousPart,
        start: FloatArray,
        sigma: float,
        population: int,
        rng: np.random.Generator,
        *,
        has_model: bool = True,
    ) -> None:
        size = len(start)
        self._part, (self._lower, self._upper) = part, part.box
        self._sigma = self._first_sigma = sigma
        self._population, self._rng = population, rng
        self._diagonal = size > MOST_COVARIANCE
        self._set_rates(size)
        self._mean = start.copy()
        self.best, self.lowest = start.copy(), np.inf
        self._path, self._path_sigma = np.zeros(size), np.zeros(size)
        self._covariance = np.ones(size) if self._diagonal else np.eye(size)
        self._basis, self._lengths = np.eye(0 if self._diagonal else size), np.ones(size)
        self._idle = self._generation = 0
        self._points: FloatArray = start[None]
        self._model = PopulationModel(size) if has_model and not self._diagonal else None
        self._orders: list[float] = []

    def _set_rates(self, size: int) -> None:
        """Weights and learning rates (arXiv 1604.00772, eqs. 49 to 58)."""
        self._parents = self._population // 2
        weights = np.log(self._parents + 0.5) - np.log(np.arange(1, self._parents + 1))
        self._weights: FloatArray = weights / weights.sum()
        mass = self._mass = 1.0 / float(self._weights @ self._weights)
        fast = 3.0 if self._diagonal else 1.0
        self._c_sigma = (mass + 2) / (size + mass + 5)
        self._c_path = (4 + mass / size) / (size + 4 + 2 * mass / size)
        self._c_one = fast * 2 / ((size + 1.3) ** 2 + mass)
        many = fast * 2 * (mass - 2 + 1 / mass) / ((size + 2) ** 2 + mass)
        self._c_many = min(1 - self._c_one, many)
        excess = max(0.0, float(np.sqrt((mass - 1) / (size + 1))) - 1)
        self._damping = 1 + 2 * excess + self._c_sigma
        self._norm = float(np.sqrt(size)) * (1 - 1 / (4 * size) + 1 / (21 * size**2))

    @property
    def mean(self) -> FloatArray:
        """Of the distribution, shape `(N,)`."""
        return self._mean

    def has_stalled(self, smallest_step: float) -> bool:
        """Whether its scaled step is as small as that, or it has found nothing lower for long."""
        patience = 20 + 30 * len(self._mean) / self._population
        return self.step <= smallest_step or self._idle >= patience

    @property
    def finished(self) -> bool:
        """Whether it has converged or stalled."""
        latest = self._orders[-ORDER_WINDOW:]
        foresees = len(latest) == ORDER_WINDOW and float(np.mean(latest)) >= FORESEEN_ORDER
        least = SMALLEST_STEP if self._model else SMALLEST_STEP_WITHOUT_MODEL
        return self.has_stalled(FORESEEN_STEP if foresees else least)

    @property
    def step(self) -> float:
        """The longest deviation of the population, in scaled units."""
        return self._sigma * float(self._lengths.max())

    def again(self, start: FloatArray, rng: np.random.Generator) -> Evolution:
        """Another from a start, with its first step and twice the population."""
        sigma, has_model = self._first_sigma, self._model is not None
        return Evolution(self._part, start, sigma, 2 * self._population, rng, has_model=has_model)

    def rounds(self) -> RoundsThen[None]:
        """A generation a round."""
        while not self.finished:
            points = self.ask()
            self.tell((yield from self._part.ask(points, "restart", at_once=len(points))))

    def ask(self) -> list[FloatArray]:
        """The next generation, within the bounds."""
        z = self._rng.standard_normal((self._population, len(self._mean)))
        if self._model is not None:
            self._model.fit(self._mean, self._whitening)
            if self._model.is_fitted:
                z[-1] = self._model.minimum()
        moves = z * self._lengths if self._diagonal else (z * self._lengths) @ self._basis.T
        self._points = np.clip(self._mean + self._sigma * moves, self._lower, self._upper)
        return list(self._points)

    @property
    def _whitening(self) -> FloatArray:
        return (self._basis / (self._sigma * self._lengths)).T

    def _note(self, losses: FloatArray) -> None:
        """Judge the model by the generation; then show it to the model."""
        if self._model is None:
            return
        if self._model.is_fitted:
            rows = (self._points - self._mean) @ self._whitening.T
            self._orders.append(self._model.agreement(rows, losses))
        self._model.add(self._points, losses)

    def tell(self, values: list[float | None]) -> None:
        """Learn from the generation, in its order; `None` for a failed solve."""
        losses = np.array([np.inf if value is None else value for value in values])
        self._note(losses)
        order = np.argsort(losses, kind="stable")
        winner = int(order[0])
        self._idle += 1
        if losses[winner] < self.lowest:
            self.best, self.lowest = self._points[winner].copy(), float(losses[winner])
            self._idle = 0
        chosen = (self._points[order[: self._parents]] - self._mean) / self._sigma
        shift = self._weights @ chosen
        self._mean = self._mean + self._sigma * shift
        self._adapt(chosen, shift)

    def _adapt(self, chosen: FloatArray, shift: FloatArray) -> None:
        """Paths, covariance and step size (arXiv 1604.00772, eqs. 43 to 47)."""
        size, mass, c_sigma, c_path = len(shift), self._mass, self._c_sigma, self._c_path
        if self._diagonal:
            white = shift / self._lengths
        else:
            white = self._basis @ ((self._basis.T @ shift) / self._lengths)
        self._path_sigma = (1 - c_sigma) * self._path_sigma
        self._path_sigma += np.sqrt(c_sigma * (2 - c_sigma) * mass) * white
        self._generation += 1
        length = float(np.sqrt(self._path_sigma @ self._path_sigma))
        settled = float(np.sqrt(1 - (1 - c_sigma) ** (2 * self._generation)))
        moves = length / settled < (1.4 + 2 / (size + 1)) * self._norm
        self._path = (1 - c_path) * self._path
        if moves:
            self._path += np.sqrt(c_path * (2 - c_path) * mass) * shift
        self._learn_covariance(chosen)
        self._sigma *= float(np.exp(min(1.0, c_sigma / self._damping * (length / self._norm - 1))))

    def _learn_covariance(self, chosen: FloatArray) -> None:
        one, many, size = self._c_one, self._c_many, len(self._mean)
        keep = 1 - one - many
        if self._diagonal:
            self._covariance = keep * self._covariance + one * self._path**2
            self._covariance += many * (self._weights @ chosen**2)
            self._lengths = np.sqrt(self._covariance)
            return
        self._covariance = keep * self._covariance + one * np.multiply.outer(self._path, self._path)
        self._covariance += many * ((chosen.T * self._weights) @ chosen)
        if self._generation % max(1, int(1 / (one + many) / size / 10)) == 0:
            squares, self._basis = np.linalg.eigh(self._covariance)
            self._lengths = np.sqrt(np.maximum(squares, 1e-20))
