"""What the methods on BoTorch share: the unit cube, random numbers of the run, a fitted model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import numpy as np
from scipy.stats import qmc

from zo_bilevel.methods.baselines.threaded import Solves
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.packages import import_optional

EXTRA = "botorch"


def import_botorch(module: str, owner: str) -> Any:  # noqa: ANN401 - a module without types
    """A module of BoTorch; `MissingPackageError` if it is not installed."""
    return import_optional(module, owner, EXTRA)


@final
class UnitData:
    """The solves of a run as a model wants them: points in the unit cube, values to maximize.

    Args:
        solves: The run; its coordinates have bounds.
    """

    def __init__(self, solves: Solves) -> None:
        place = solves.coordinates
        self._solves, self._lower = solves, place.lower
        self._width = place.upper - place.lower
        self._seeds = solves.search.rng(1)
        self.points: list[FloatArray] = []
        self.values: list[float] = []

    def solve(self, points: FloatArray) -> None:
        """Solve a round and keep it; `points`: in the unit cube, shape `(count, N)`."""
        losses = self._solves.losses([self._lower + self._width * point for point in points])
        self.points += list(points)
        self.values += [-loss for loss in losses]

    @property
    def start(self) -> FloatArray:
        """The start in the unit cube, shape `(N,)`."""
        return np.asarray((self._solves.coordinates.start - self._lower) / self._width)

    def design(self, count: int) -> FloatArray:
        """The first points of a scrambled Sobol sequence, shape `(count, N)`."""
        return np.asarray(qmc.Sobol(self._width.size, seed=self._seeds).random(count))

    @contextmanager
    def random(self) -> Iterator[None]:
        """Let torch draw the run's own numbers, and give it back its own afterwards."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self._seeds.integers(2**62)))
            yield

    def fitted(self, first: int = 0, **options: Any) -> Any:  # noqa: ANN401 - BoTorch's model
        """A Gaussian process on the solves, its hyperparameters at their most likely."""
        import torch

        models = import_botorch("botorch.models", "a Gaussian process")
        fit = import_botorch("botorch.fit", "a Gaussian process").fit_gpytorch_mll
        likelihoods = import_botorch("gpytorch.mlls", "a Gaussian process")
        errors = import_botorch("botorch.exceptions.errors", "a Gaussian process")
        points = torch.from_numpy(np.stack(self.points[first:]))
        values = torch.tensor(self.values[first:], dtype=torch.float64).unsqueeze(-1)
        model = models.SingleTaskGP(points, values, **options)
        try:
            fit(likelihoods.ExactMarginalLogLikelihood(model.likelihood, model))
        except errors.ModelFittingError:  # the hyperparameters it has will do
            model.eval()
        return model
