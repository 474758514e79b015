"""lq-CMA-ES by pycma: a quadratic model answers for most of each population."""

from __future__ import annotations

from typing import final

from zo_bilevel.methods.baselines.cma import strategies
from zo_bilevel.methods.baselines.threaded import Baseline, Solves
from zo_bilevel.support.packages import import_optional


@final
class LqCMA(Baseline):
    """CMA-ES that asks a quadratic model first, as pycma's `fmin_lq_surr2`; one solve a round.

    The start is solved first and belongs to the model. When pycma stops before the budget it
    begins anew at a random place with twice the population and another model.

    Args:
        coordinates: "scaled", or "prior" for white coordinates of the prior.

    Raises:
        MissingPackageError: If pycma is not installed.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, minimize
        >>> problem = Problem(Space(a=Real(-1, 1), b=Real(-1, 1)), lambda p: p["a"]**2 + p["b"]**2)
        >>> minimize(problem, LqCMA(), max_solves=60).loss < 1e-6
        True

    Source:
        Hansen (2019), "A global surrogate assisted CMA-ES", GECCO.
    """

    label = "lq-cma"

    def __init__(self, coordinates: str = "scaled") -> None:
        super().__init__(coordinates)
        import_optional("cma", "LqCMA", "baselines")

    def drive(self, solves: Solves) -> str:
        """Generations, restarts, for as long as there are solves."""
        models = import_optional("cma.fitness_models", "LqCMA", "baselines")
        start = solves.coordinates.start
        first: float | None = solves.loss(start)
        for strategy in strategies(solves):
            surrogate = models.SurrogatePopulation(solves.loss)
            if first is not None:
                surrogate.model.add_data_row(start, first)
                first = None
            while not strategy.stop():
                rows = strategy.ask()
                strategy.tell(rows, surrogate(rows))
                strategy.inject([surrogate.model.xopt])
        raise AssertionError("restarts do not end")
