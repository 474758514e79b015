"""Optuna's Hyperband: trials that are cut off at a cheap level where they promise little."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.methods.baselines.optuna import distributions_of, quietly
from zo_bilevel.methods.baselines.single_values import SingleValues
from zo_bilevel.methods.fidelity.levels import at_level
from zo_bilevel.methods.fidelity.race import FACTOR
from zo_bilevel.support.errors import UnsupportedProblemError
from zo_bilevel.support.packages import import_optional


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
        kinds = distributions_of(library, values)
        levels = fidelity.levels(FACTOR)
        pruner = library.pruners.HyperbandPruner(1, FACTOR ** (len(levels) - 1), FACTOR)
        with quietly(library):
            sampler = library.samplers.TPESampler(seed=int(search.rng(1).integers(2**32)))
            study = library.create_study(sampler=sampler, pruner=pruner)
        study.enqueue_trial(values.of(search.start))
        while True:
            with quietly(library):
                trial = study.ask(kinds)
            point = search.point(values.row(trial.params))
            for rung, level in enumerate(levels):
                (solved,) = yield [at_level(point, level, fidelity)]
                loss = solved.loss if np.isfinite(solved.loss) else float(np.finfo(float).max)
                trial.report(loss, FACTOR**rung)
                if level < fidelity.full and trial.should_prune():
                    study.tell(trial, state=library.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, loss)
