"""BoTorch: a Gaussian process on all solves and log expected improvement."""

from __future__ import annotations

from typing import final

import numpy as np

from zo_bilevel.methods.base import Search
from zo_bilevel.methods.baselines.gaussian_process import UnitData, import_botorch
from zo_bilevel.methods.baselines.limits import refuse_discrete, refuse_many_solves, stop_at
from zo_bilevel.methods.baselines.threaded import Baseline, Solves

MOST_SOLVES = 500
"""A fit takes seconds then, and grows with the cube."""
CLIMBS = 8
"""Climbs of the acquisition function."""
DRAWS = 256
"""Points among which the starts of the climbs are chosen."""


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

    label = "botorch"

    def __init__(self) -> None:
        super().__init__()
        import_botorch("botorch", "BoTorch")

    def refuse(self, search: Search) -> None:
        """Raise where a Gaussian process of numbers cannot work.

        Raises:
            UnsupportedProblemError: For integers or choices, or more than 500 solves.
        """
        refuse_discrete(search, self.label, "models numbers")
        refuse_many_solves(search, self.label, MOST_SOLVES)

    def drive(self, solves: Solves) -> str:
        """Design, then fit and climb for as long as there are solves."""
        import torch

        acquisition = import_botorch("botorch.acquisition.logei", "BoTorch")
        climb = import_botorch("botorch.optim", "BoTorch").optimize_acqf
        data, size = UnitData(solves), solves.coordinates.size
        cube = torch.tensor([[0.0] * size, [1.0] * size], dtype=torch.float64)
        data.solve(np.vstack([data.start, data.design(2 * size - 1)]))
        while True:
            stop_at(solves, self.label, MOST_SOLVES)
            with data.random():
                improvement = acquisition.qLogExpectedImprovement(data.fitted(), max(data.values))
                points, _ = climb(
                    improvement,
                    bounds=cube,
                    q=solves.search.round_width,
                    num_restarts=CLIMBS,
                    raw_samples=DRAWS,
                    sequential=True,
                )
            data.solve(points.detach().numpy())
