"""A run in a store as an Optuna study, so that optuna-dashboard shows it."""

import os
from typing import Any

import numpy as np

from zo_bilevel.problem.parameters import Choice, Integer, Log, Parameter
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.space_text import space_from_text
from zo_bilevel.run.run_text import decoded
from zo_bilevel.store.places import open_store
from zo_bilevel.store.records import StoredSolve
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.packages import import_optional

MOST_PARAMETERS = 1000
"""Optuna keeps a row of a table for each parameter of each trial."""


def export_study(
    store: str | os.PathLike[str],
    run: int,
    *,
    storage: Any = None,  # noqa: ANN401 - an address or an Optuna storage
    study_name: str | None = None,
) -> Any:  # noqa: ANN401 - a Study
    """Copy a run into an Optuna study.

    Args:
        store: The store file.
        run: Number of the run, as `zo-bilevel runs` lists it.
        storage: Where Optuna keeps the study, for instance "sqlite:///study.db"; default memory.
        study_name: Its name; default the problem, method and seed.

    Returns:
        The study, one trial a solve; failed solves are failed trials. An array is a parameter for
        each of its numbers.

    Raises:
        MissingPackageError: If Optuna is not installed.
        InputError: If there is no such run, it has more than 1,000 numbers, or there is a study
            of that name already.
    """
    library = import_optional("optuna", "export_study", "integrations")
    with open_store(store, read_only=True) as opened:
        stored = opened.find_run(run)
        solves = [solve for solve in opened.solves(stored) if solve.judged]
    space = space_from_text(stored.space)
    distributions = _distributions(library, space)
    if len(distributions) > MOST_PARAMETERS:
        raise InputError(
            f"run {run} has {len(distributions)} numbers, an Optuna study takes at most "
            f"{MOST_PARAMETERS}"
        )
    name = study_name or f"{stored.problem} {stored.method} seed {stored.seed} run {run}"
    try:
        study = library.create_study(storage=storage, study_name=name, direction="minimize")
    except library.exceptions.DuplicatedStudyError as error:
        raise InputError(f"there is a study {name!r} in that storage: give study_name") from error
    study.set_user_attr("command", stored.command)
    study.set_user_attr("stop reason", stored.stop_reason)
    study.add_trials([_trial(library, space, distributions, solve) for solve in solves])
    return study


def _distributions(library: Any, space: Space) -> dict[str, Any]:  # noqa: ANN401
    return {
        name: _distribution(library.distributions, parameter)
        for block, parameter in space.parameters.items()
        for name in _names(block, parameter)
    }


NO_BOUND = 1e300
"""Stands for a bound that there is not."""


def _names(name: str, parameter: Parameter) -> list[str]:
    if not parameter.shape:
        return [name]
    return [f"{name}[{','.join(map(str, place))}]" for place in np.ndindex(*parameter.shape)]


def _distribution(kinds: Any, parameter: Parameter) -> Any:  # noqa: ANN401
    if isinstance(parameter, Choice):
        return kinds.CategoricalDistribution(tuple(map(_option, parameter.options)))
    if isinstance(parameter, Integer):
        return kinds.IntDistribution(int(parameter.lower), int(parameter.upper))
    ends = (max(parameter.lower, -NO_BOUND), min(parameter.upper, NO_BOUND))
    return kinds.FloatDistribution(*ends, log=isinstance(parameter, Log))


def _option(option: Any) -> Any:  # noqa: ANN401 - Optuna takes plain values only
    return option if option is None or isinstance(option, bool | int | float | str) else str(option)


def _trial(library: Any, space: Space, distributions: Any, solve: StoredSolve) -> Any:  # noqa: ANN401
    phi = decoded(space, solve.point)
    flat: dict[str, Any] = {}
    for block, parameter in space.parameters.items():
        values = np.asarray(phi[block], dtype=object).ravel() if parameter.shape else [phi[block]]
        flat |= dict(zip(_names(block, parameter), map(_option, values), strict=True))
    is_good = solve.judged == "ok" and solve.loss is not None
    states = library.trial.TrialState
    facts = {name: getattr(solve, name) for name in ("role", "seconds", "cost")}
    if solve.error:
        facts["error"] = solve.error
    return library.trial.create_trial(
        params=flat,
        distributions=distributions,
        value=solve.loss if is_good else None,
        state=states.COMPLETE if is_good else states.FAIL,
        user_attrs=facts,
    )
