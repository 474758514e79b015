"""Gaussian processes by BoTorch: expected improvement everywhere, and in a moving trust region."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import numpy as np
from scipy.stats import qmc

from zo_bilevel.methods.baselines.solves import Solves, stop_at
from zo_bilevel.methods.baselines.threaded import Baseline
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.packages import import_optional

PACKAGE = "botorch", "botorch"
PACKAGES = "botorch", "gpytorch"
WHY_NO_DISCRETE = "models numbers"
NUM_CLIMBS = 8
"""Climbs of the acquisition function."""
NUM_DRAWS = 256
"""Points among which the starts of the climbs are chosen."""
FIRST_LENGTH, LARGEST_LENGTH, SMALLEST_LENGTH = 0.8, 1.6, 0.5**7
"""Sides of the region, in the unit cube."""
SUCCESSES_TO_DOUBLE = 3
"""In a row, after which the region doubles."""
CANDIDATES, MOST_CANDIDATES = 100, 5000
"""Points of the region among which samples of the model choose: for each coordinate, at most."""


@final
class BoTorch(Baseline):
    """`SingleTaskGP` with log expected improvement, at most 500 solves, numbers only.

    First the start and 2 N - 1 points of a Sobol sequence, then `round_width` points a round.

    Raises:
        MissingPackageError: If BoTorch is not installed.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, minimize
        >>> problem = Problem(Space(a=Real(-1, 1)), lambda phi: (phi["a"] - 0.3) ** 2)
        >>> minimize(problem, BoTorch(), max_solves=8).solves
        8

    Source:
        Balandat et al. (2020), "BoTorch: a framework for efficient Monte-Carlo Bayesian
        optimization"; Ament et al. (2023), "Unexpected improvements to expected improvement".
    """

    label, package, why_no_discrete = "botorch", PACKAGE, WHY_NO_DISCRETE
    most_solves = 500  # a fit takes seconds then, and grows with the cube

    def __init__(self) -> None:
        super().__init__()

    @property
    def packages(self) -> tuple[str, ...]:
        """BoTorch, and whose Gaussian process it is."""
        return PACKAGES

    def drive(self, solves: Solves) -> str:
        """Design, then fit and climb for as long as there are solves."""
        import torch

        acquisition = _import("botorch.acquisition.logei")
        climb = _import("botorch.optim").optimize_acqf
        data, size = _UnitData(solves), solves.coordinates.size
        cube = torch.tensor([[0.0] * size, [1.0] * size], dtype=torch.float64)
        data.solve(np.vstack([data.start, data.design(2 * size - 1)]))
        while True:
            stop_at(solves, self.label, self.most_solves)
            with data.random():
                improvement = acquisition.qLogExpectedImprovement(data.fitted(), max(data.values))
                points, _ = climb(
                    improvement,
                    bounds=cube,
                    q=solves.search.round_width,
                    num_restarts=NUM_CLIMBS,
                    raw_samples=NUM_DRAWS,
                    sequential=True,
                )
            data.solve(points.detach().numpy())


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

    label, package, why_no_discrete = "turbo", PACKAGE, WHY_NO_DISCRETE
    most_solves = 2000  # more than others carry, since each region has only its own

    def __init__(self) -> None:
        super().__init__()

    @property
    def packages(self) -> tuple[str, ...]:
        """BoTorch, and whose Gaussian process it is."""
        return PACKAGES

    def drive(self, solves: Solves) -> str:
        """Region after region for as long as there are solves."""
        data, size = _UnitData(solves), solves.coordinates.size
        width = solves.search.round_width
        patience = math.ceil(max(4 / width, size / width))
        data.solve(np.vstack([data.start, data.design(2 * size - 1)]))
        first = 0
        while True:
            length, better, worse = FIRST_LENGTH, 0, 0
            while length >= SMALLEST_LENGTH:
                stop_at(solves, self.label, self.most_solves)
                best = max(data.values[first:])
                with data.random():
                    points = _proposed(data, first, length, width)
                data.solve(points)
                gain = max(data.values[-width:]) - best
                is_better = gain > 1e-3 * abs(best)
                better, worse = (better + 1, 0) if is_better else (0, worse + 1)
                if better == SUCCESSES_TO_DOUBLE:
                    length, better = min(2 * length, LARGEST_LENGTH), 0
                elif worse == patience:
                    length, worse = length / 2, 0
            first = len(data.values)
            data.solve(data.design(2 * size))


@final
class _UnitData:
    """The solves of a run as a model wants them: points in the unit cube, values to maximize."""

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

        models = _import("botorch.models")
        fit = _import("botorch.fit").fit_gpytorch_mll
        likelihoods = _import("gpytorch.mlls")
        errors = _import("botorch.exceptions.errors")
        points = torch.from_numpy(np.stack(self.points[first:]))
        values = torch.tensor(self.values[first:], dtype=torch.float64).unsqueeze(-1)
        model = models.SingleTaskGP(points, values, **options)
        try:
            fit(likelihoods.ExactMarginalLogLikelihood(model.likelihood, model))
        except errors.ModelFittingError:  # the hyperparameters it has will do
            model.eval()
        return model


def _proposed(data: _UnitData, first: int, length: float, count: int) -> FloatArray:
    """Where samples of the model are highest in the region around its best point."""
    import torch

    sampling = _import("botorch.generation.sampling")
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
    kernels = _import("gpytorch.kernels")
    bounds = _import("gpytorch.constraints").Interval(0.005, 4.0)
    matern = kernels.MaternKernel(nu=2.5, ard_num_dims=size, lengthscale_constraint=bounds)
    return kernels.ScaleKernel(matern)


def _import(module: str) -> Any:  # noqa: ANN401 - a module without types
    return import_optional(module, "a Gaussian process", "botorch")
