"""TuRBO-1: Bayesian optimization in a trust region that moves, grows, shrinks and starts anew."""

from __future__ import annotations

import math
from typing import Any, final

import numpy as np

from zo_bilevel.methods.base import Search
from zo_bilevel.methods.baselines.gaussian_process import UnitData, import_botorch
from zo_bilevel.methods.baselines.limits import refuse_discrete, refuse_many_solves, stop_at
from zo_bilevel.methods.baselines.threaded import Baseline, Solves
from zo_bilevel.support.arrays import FloatArray

MOST_SOLVES = 2000
"""More than other Gaussian processes carry, since each region has only its own solves."""
FIRST_LENGTH, LARGEST_LENGTH, SMALLEST_LENGTH = 0.8, 1.6, 0.5**7
"""Sides of the region, in the unit cube."""
SUCCESSES = 3
"""In a row, after which the region doubles."""
CANDIDATES, MOST_CANDIDATES = 100, 5000
"""Points of the region among which samples of the model choose: for each coordinate, at most."""


@final
class TuRBO(Baseline):
    """TuRBO with one region, Thompson sampling, at most 2000 solves, numbers only.

    The first region begins with the start and 2 N - 1 points of a Sobol sequence, later ones with
    2 N points; then `round_width` points a round.

    Raises:
        MissingPackageError: If BoTorch is not installed.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, minimize
        >>> problem = Problem(Space(a=Real(-1, 1)), lambda phi: (phi["a"] - 0.3) ** 2)
        >>> minimize(problem, TuRBO(), max_solves=10).loss < 1e-2
        True

    Source:
        Eriksson et al. (2019), "Scalable global optimization via local Bayesian optimization".
    """

    label = "turbo"

    def __init__(self) -> None:
        super().__init__()
        import_botorch("botorch", "TuRBO")

    def refuse(self, search: Search) -> None:
        """Raise where a Gaussian process of numbers cannot work.

        Raises:
            UnsupportedProblemError: For integers or choices, or more than 2000 solves.
        """
        refuse_discrete(search, self.label, "models numbers")
        refuse_many_solves(search, self.label, MOST_SOLVES)

    def drive(self, solves: Solves) -> str:
        """Region after region for as long as there are solves."""
        data, size = UnitData(solves), solves.coordinates.size
        width = solves.search.round_width
        patience = math.ceil(max(4 / width, size / width))
        data.solve(np.vstack([data.start, data.design(2 * size - 1)]))
        first = 0
        while True:
            length, better, worse = FIRST_LENGTH, 0, 0
            while length >= SMALLEST_LENGTH:
                stop_at(solves, self.label, MOST_SOLVES)
                best = max(data.values[first:])
                with data.random():
                    points = _proposed(data, first, length, width)
                data.solve(points)
                gain = max(data.values[-width:]) - best
                is_better = gain > 1e-3 * abs(best)
                better, worse = (better + 1, 0) if is_better else (0, worse + 1)
                if better == SUCCESSES:
                    length, better = min(2 * length, LARGEST_LENGTH), 0
                elif worse == patience:
                    length, worse = length / 2, 0
            first = len(data.values)
            data.solve(data.design(2 * size))


def _proposed(data: UnitData, first: int, length: float, count: int) -> FloatArray:
    """Where samples of the model are highest in the region around its best point."""
    import torch

    sampling = import_botorch("botorch.generation.sampling", "TuRBO")
    model = data.fitted(first, covar_module=_kernel(data.start.size))
    centre = torch.from_numpy(data.points[first + int(np.argmax(data.values[first:]))])
    scales = model.covar_module.base_kernel.lengthscale.detach().squeeze()
    weights = (scales / scales.log().mean().exp()).reshape(-1)  # longer where the model is flat
    low = (centre - weights * length / 2).clamp(0, 1)
    high = (centre + weights * length / 2).clamp(0, 1)
    size = centre.numel()
    draws = data.design(min(CANDIDATES * size, MOST_CANDIDATES))
    draws = low + (high - low) * torch.from_numpy(draws)
    moved = torch.rand(draws.shape, dtype=torch.float64) <= min(20 / size, 1.0)
    unmoved = torch.nonzero(~moved.any(dim=1)).ravel()
    moved[unmoved, torch.randint(size, (len(unmoved),))] = True
    candidates = torch.where(moved, draws, centre)
    with torch.no_grad():
        chosen = sampling.MaxPosteriorSampling(model=model, replacement=False)(candidates, count)
    return np.asarray(chosen.numpy())


def _kernel(size: int) -> Any:  # noqa: ANN401 - gpytorch's
    kernels = import_botorch("gpytorch.kernels", "TuRBO")
    bounds = import_botorch("gpytorch.constraints", "TuRBO").Interval(0.005, 4.0)
    matern = kernels.MaternKernel(nu=2.5, ard_num_dims=size, lengthscale_constraint=bounds)
    return kernels.ScaleKernel(matern)
