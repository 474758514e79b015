"""SMAC: a random forest of the loss and expected improvement, over numbers and choices."""

import sys
import tempfile
from typing import Any, final

from zo_bilevel.methods.baselines.single_values import SingleValues
from zo_bilevel.methods.baselines.solves import Solves
from zo_bilevel.methods.baselines.threaded import Baseline
from zo_bilevel.support.arrays import FloatArray

SILENT_LEVEL = 60  # above every level of Python's logging


@final
class SMAC(Baseline):
    """SMAC's facade for hyperparameters, told the start first, one solve a round.

    Raises:
        MissingPackageError: If SMAC is not installed.

    Example:
        >>> from zo_bilevel import Choice, Problem, Real, Space, minimize
        >>> space = Space(a=Real(-1, 1), sign=Choice([-1, 1]))
        >>> problem = Problem(space, lambda phi: (phi["a"] * phi["sign"] - 0.5) ** 2)
        >>> minimize(problem, SMAC(), max_solves=30).loss < 1e-1
        True

    Source:
        Lindauer et al. (2022), "SMAC3: a versatile Bayesian optimization package for
        hyperparameter optimization", JMLR 23.
    """

    label, package = "smac", ("smac", "smac")

    def __init__(self) -> None:
        super().__init__()

    def drive(self, solves: Solves) -> str:
        """Ask and tell for as long as there are solves."""
        kinds = self.library("smac.runhistory.dataclasses")
        values, start = SingleValues(solves.search.space), solves.coordinates.start
        with tempfile.TemporaryDirectory() as folder:
            seed = int(solves.search.rng(1).integers(2**31))
            space = _space(self.library("ConfigSpace"), values, start, seed)
            facade = self._facade(solves, space, folder)
            trial, row = kinds.TrialInfo(space.get_default_configuration(), seed=0), start
            while True:
                facade.tell(trial, kinds.TrialValue(cost=solves.loss(row)), save=False)
                try:
                    trial = facade.ask()
                except StopIteration:
                    return "nothing is left to try"
                found = {item.name: trial.config[f"p{k}"] for k, item in enumerate(values.items)}
                row = values.row(found)

    def _facade(self, solves: Solves, space: Any, folder: str) -> Any:  # noqa: ANN401 - no types
        library = self.library()
        scenario = library.Scenario(
            space,
            deterministic=True,
            n_trials=solves.search.max_solves or sys.maxsize,
            seed=int(solves.search.rng(2).integers(2**31)),
            output_directory=folder,
        )
        facade = library.HyperparameterOptimizationFacade
        return facade(scenario, _unused, overwrite=True, logging_level=SILENT_LEVEL)


def _space(spaces: Any, values: SingleValues, start: FloatArray, seed: int) -> Any:  # noqa: ANN401
    """SMAC's space, its default the start; names of its own, since it forbids some."""
    first = values.of(start)
    space = spaces.ConfigurationSpace(seed=seed)
    for index, item in enumerate(values.items):
        name, default = f"p{index}", first[item.name]
        if item.kind == "choice":
            options = list(range(int(item.upper) + 1))
            space.add(spaces.Categorical(name, options, default=default))
        elif item.kind == "integer":
            bounds = int(item.lower), int(item.upper)
            space.add(spaces.Integer(name, bounds, default=default))
        else:
            space.add(spaces.Float(name, (item.lower, item.upper), default=default))
    return space


def _unused(config: Any, seed: int = 0) -> float:  # noqa: ANN401, ARG001 - SMAC's signature
    return 0.0
