"""CMA-ES by pycma, plain and behind a quadratic model, restarted with twice the population."""

import math
from collections.abc import Iterator
from typing import Any, final

import numpy as np

from zo_bilevel.methods.baselines.solves import Solves
from zo_bilevel.methods.baselines.threaded import Baseline

PACKAGE = "cma", "baselines"


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

    label, package = "cma", PACKAGE

    def drive(self, solves: Solves) -> str:
        """Generations, restarts, for as long as there are solves."""
        waiting = [solves.coordinates.start]
        for strategy in strategies(self.library(), solves):
            while not strategy.stop():
                rows = strategy.ask()
                losses = solves.losses([*waiting, *rows])
                strategy.tell(rows, losses[len(waiting) :])
                waiting = []
        raise AssertionError("restarts do not end")


@final
class LqCMA(Baseline):
    """CMA-ES that asks a quadratic model first, as pycma's `fmin_lq_surr2`; one solve a round.

    Arguments and restarts are those of `CMA`. The start is solved first and belongs to the model;
    each restart has another.

    Example:
        >>> from zo_bilevel import minimize
        >>> from zo_bilevel.testing import sample_problem
        >>> minimize(sample_problem(), LqCMA(), max_solves=60).loss < 1e-6
        True

    Source:
        Hansen (2019), "A global surrogate assisted CMA-ES", GECCO.
    """

    label, package = "lq-cma", PACKAGE

    def drive(self, solves: Solves) -> str:
        """Generations, restarts, for as long as there are solves."""
        models = self.library("cma.fitness_models")
        start = solves.coordinates.start
        first: float | None = solves.loss(start)
        for strategy in strategies(self.library(), solves):
            surrogate = models.SurrogatePopulation(solves.loss)
            if first is not None:
                surrogate.model.add_data_row(start, first)
                first = None
            while not strategy.stop():
                rows = strategy.ask()
                strategy.tell(rows, surrogate(rows))
                strategy.inject([surrogate.model.xopt])
        raise AssertionError("restarts do not end")


def strategies(library: Any, solves: Solves) -> Iterator[Any]:  # noqa: ANN401 - no types
    """Strategies of pycma, each after the first at a random place with twice the population."""
    place, rng = solves.coordinates, solves.search.rng(1)
    mean = place.start
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
        if (
            place.size == 1
        ):  # pycma would bound a step that it has no scale to shorten by, and raise
            options["maxstd"] = np.inf
        yield library.CMAEvolutionStrategy(mean, 1.0, options)
        size, mean = 2 * size, place.draw(rng)
