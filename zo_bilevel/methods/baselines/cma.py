"""CMA-ES by pycma, restarted with twice the population whenever it stops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, final

import numpy as np

from zo_bilevel.methods.baselines.threaded import Baseline, Solves
from zo_bilevel.support.packages import import_optional


@final
class CMA(Baseline):
    """CMA-ES: initial step 1, pycma's defaults, one round a generation.

    The start is solved beside the first generation. The population is pycma's default or the
    round width, whichever is larger. When pycma stops before the budget it begins anew at a
    random place with twice the population (IPOP).

    Args:
        coordinates: "scaled", or "prior" for white coordinates of the prior.

    Raises:
        MissingPackageError: If pycma is not installed.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, minimize
        >>> problem = Problem(Space(a=Real(-1, 1), b=Real(-1, 1)), lambda p: p["a"]**2 + p["b"]**2)
        >>> minimize(problem, CMA(), max_solves=300).loss < 1e-6
        True

    Source:
        Hansen, "The CMA evolution strategy: a tutorial"; restarts: Auger and Hansen (2005).
    """

    label = "cma"

    def __init__(self, coordinates: str = "scaled") -> None:
        super().__init__(coordinates)
        import_optional("cma", "CMA", "baselines")

    def drive(self, solves: Solves) -> str:
        """Generations, restarts, for as long as there are solves."""
        waiting = [solves.coordinates.start]
        for strategy in strategies(solves):
            while not strategy.stop():
                rows = strategy.ask()
                losses = solves.losses([*waiting, *rows])
                strategy.tell(rows, losses[len(waiting) :])
                waiting = []
        raise AssertionError("restarts do not end")


def strategies(solves: Solves) -> Iterator[Any]:
    """Strategies of pycma, each after the first at a random place with twice the population."""
    library, place = import_optional("cma", "CMA", "baselines"), solves.coordinates
    rng, mean = solves.search.rng(1), place.start
    size = max(4 + int(3 * math.log(place.size)), solves.search.round_width)
    while True:
        options = {
            "bounds": [None, None] if place.is_white else [place.lower, place.upper],
            "popsize": size,
            "seed": np.nan,  # the random numbers are already the run's own
            "verbose": -9,
            "verb_log": 0,
            "signals_filename": None,  # no orders from files that happen to lie around
        }
        yield library.CMAEvolutionStrategy(mean, 1.0, options)
        size, mean = 2 * size, place.draw(rng)
