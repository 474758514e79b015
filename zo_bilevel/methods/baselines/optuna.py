"""Optuna's samplers, told integers and choices as what they are, and its Hyperband."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import numpy as np

from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.methods.baselines.failure_values import refuse_discrete, refuse_many_solves
from zo_bilevel.methods.baselines.single_values import Item, SingleValues
from zo_bilevel.methods.baselines.solves import Solves, stop_at
from zo_bilevel.methods.baselines.threaded import Baseline
from zo_bilevel.methods.fidelity.levels import RUNG_FACTOR, at_level
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, UnsupportedProblemError, unknown_name_message
from zo_bilevel.support.packages import import_optional

PACKAGE = "optuna", "optuna"
SAMPLERS = {"TPE": "TPESampler", "GP": "GPSampler", "CMA": "CmaEsSampler"}
GP_SOLVES = 500
"""The most solves of the Gaussian process: its own time grows with their cube."""


@final
class Optuna(Baseline):
    """One of Optuna's samplers, asked for `round_width` trials a round, the start first.

    Args:
        sampler: "TPE", "GP" (Gaussian process, at most 500 solves) or "CMA" (no choices).
        **options: Optuna's options of this sampler; without any, its defaults.

    Raises:
        InputError: If the name is unknown.
        MissingPackageError: If Optuna is not installed, or cmaes for "CMA".

    Example:
        >>> from zo_bilevel import Choice, Problem, Real, Space, minimize
        >>> space = Space(a=Real(-1, 1), sign=Choice([-1, 1]))
        >>> problem = Problem(space, lambda phi: (phi["a"] * phi["sign"] - 0.5) ** 2)
        >>> minimize(problem, Optuna("TPE"), max_solves=60).loss < 1e-2
        True

    Source:
        Akiba et al. (2019), "Optuna: a next-generation hyperparameter optimization framework".
    """

    is_asynchronous, package = True, PACKAGE

    def __init__(self, sampler: str = "TPE", **options: Any) -> None:  # noqa: ANN401 - to Optuna
        super().__init__()
        if sampler not in SAMPLERS:
            raise InputError(unknown_name_message("Optuna sampler", sampler, SAMPLERS))
        self.sampler, self.options = sampler, options
        if sampler == "CMA":
            self.library("cmaes")

    @property
    def label(self) -> str:
        """Name in tables and on the command line."""
        return f"optuna:{self.sampler}"

    @property
    def packages(self) -> tuple[str, ...]:
        """Optuna, and what it takes CMA-ES from."""
        return ("optuna", "cmaes") if self.sampler == "CMA" else ("optuna",)

    def refuse(self, search: Search) -> None:
        """Raise for choices with CMA, or more solves than the Gaussian process can carry."""
        if self.sampler == "CMA":
            refuse_discrete(search, self.label, "draws numbers", only_choices=True)
        if self.sampler == "GP":
            refuse_many_solves(search, self.label, GP_SOLVES)

    def drive(self, solves: Solves) -> str:
        """Ask and tell for as long as there are solves."""
        library = self.library()
        values = SingleValues(solves.search.space)
        kinds = _distributions(library, values)
        study = self._study(library, solves)
        study.enqueue_trial(values.of(solves.coordinates.start))

        def ask() -> tuple[Any, FloatArray]:
            if self.sampler == "GP":
                stop_at(solves, self.label, GP_SOLVES)
            trial = study.ask(kinds)
            return trial, values.row(trial.params)

        solves.serve(ask, study.tell, solves.search.round_width)

    def _study(self, library: Any, solves: Solves) -> Any:  # noqa: ANN401 - no types needed
        seed = int(solves.search.rng(1).integers(2**32))
        options = {"seed": seed, **self.options}
        if self.sampler == "CMA":
            options.setdefault("warn_independent_sampling", False)
        sampler = getattr(library.samplers, SAMPLERS[self.sampler])(**options)
        with _quietly(library):
            return library.create_study(sampler=sampler)


@final
class OptunaHyperband(Method):
    """TPE with Hyperband's pruner, on a problem with a fidelity.

    A trial is solved at each level from the cheap one on, from its beginning, until the pruner
    ends it or the full level is reached.

    Raises:
        MissingPackageError: If Optuna is not installed.

    Source:
        Li et al. (2018), "Hyperband"; Falkner et al. (2018), "BOHB".
    """

    name = "optuna:Hyperband"

    def __init__(self) -> None:
        import_optional("optuna", "OptunaHyperband", "optuna")

    @property
    def packages(self) -> tuple[str, ...]:
        """Optuna."""
        return ("optuna",)

    def rounds(self, search: Search) -> Rounds:
        """One trial after the other, the start first.

        Raises:
            UnsupportedProblemError: If the problem has no fidelity.
        """
        fidelity = search.problem.fidelity
        if fidelity is None:
            raise UnsupportedProblemError(f"{self.name} needs a problem with a zb.Fidelity")
        library: Any = import_optional("optuna", "OptunaHyperband", "optuna")
        values = SingleValues(search.space)
        kinds = _distributions(library, values)
        levels = fidelity.levels(RUNG_FACTOR)
        pruner = library.pruners.HyperbandPruner(1, RUNG_FACTOR ** (len(levels) - 1), RUNG_FACTOR)
        with _quietly(library):
            sampler = library.samplers.TPESampler(seed=int(search.rng(1).integers(2**32)))
            # the pruner draws its brackets by the name, which would be another one each time
            study = library.create_study(sampler=sampler, pruner=pruner, study_name="zo-bilevel")
        study.enqueue_trial(values.of(search.start))
        while True:
            with _quietly(library):
                trial = study.ask(kinds)
            point = search.point(values.row(trial.params))
            for rung, level in enumerate(levels):
                (solved,) = yield [at_level(point, level, fidelity)]
                loss = solved.loss if np.isfinite(solved.loss) else float(np.finfo(float).max)
                trial.report(loss, RUNG_FACTOR**rung)
                if level < fidelity.full and trial.should_prune():
                    study.tell(trial, state=library.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, loss)


@contextmanager
def _quietly(library: Any) -> Iterator[None]:  # noqa: ANN401 - no types needed
    """Without Optuna's messages."""
    loudness = library.logging.get_verbosity()
    library.logging.set_verbosity(library.logging.ERROR)
    try:
        yield
    finally:
        library.logging.set_verbosity(loudness)


def _distributions(library: Any, values: SingleValues) -> dict[str, Any]:  # noqa: ANN401
    """A space as Optuna names it."""
    return {item.name: _distribution(library, item) for item in values.items}


def _distribution(library: Any, item: Item) -> Any:  # noqa: ANN401 - no types needed
    kinds = library.distributions
    if item.kind == "choice":
        return kinds.CategoricalDistribution(list(range(int(item.upper) + 1)))
    if item.kind == "integer":
        return kinds.IntDistribution(int(item.lower), int(item.upper))
    return kinds.FloatDistribution(item.lower, item.upper)
