"""One solve as several runs of a simulator, under conditions that are known."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from zo_bilevel.problem.content import DerivedName
from zo_bilevel.problem.solver_identity import solver_name
from zo_bilevel.problem.space import Space
from zo_bilevel.support.errors import InputError

EXPERIMENT: Final = "experiment"
"""Beside the parameters: which experiment alone to run."""


@final
class Experiments:
    """An inner solver made of several runs of a simulator, one for each experiment.

    The runs are dispatched, and kept in a store, one by one: they run in parallel, and a rerun
    with one experiment more, or one changed, runs that one only. A budget counts a solve of all
    experiments as one. Where an experiment fails, the solve fails, and its error says which.

    Args:
        conditions: By the experiments' names, the keyword arguments of its run.
        simulate: Called as `simulate(phi, **conditions)`, with `seed=seed` when it names a `seed`;
            returns a number or an array, which is the part of theta of the experiment's name, or a
            dict of them, whose parts are called "EXPERIMENT.PART".

    Raises:
        InputError: If there is no experiment, a name is no text, or `simulate` cannot be called.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, SquaredError, minimize
        >>> def discharge(phi, kelvin):
        ...     return [phi["a"] * kelvin, phi["a"] ** 2]
        >>> both = Experiments({"cold": {"kelvin": 1.0}, "warm": {"kelvin": 2.0}}, discharge)
        >>> data = {"cold": [3.0, 9.0], "warm": [6.0, 9.0]}
        >>> problem = Problem(Space(a=Real(0, 5)), both, SquaredError(data))
        >>> round(minimize(problem, max_solves=20).phi["a"], 6)
        3.0
    """

    def __init__(
        self, conditions: Mapping[str, Mapping[str, Any]], simulate: Callable[..., Any]
    ) -> None:
        if not callable(simulate):
            raise InputError(f"simulate must be callable, got {type(simulate).__name__}")
        if not isinstance(conditions, Mapping) or not conditions:
            raise InputError(f"conditions must be a dict of experiments, got {conditions!r}")
        for name, given in conditions.items():
            if not isinstance(name, str) or not name:
                raise InputError(f"the name of an experiment must be a text, got {name!r}")
            if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
                raise InputError(
                    f"conditions of {name!r} must be a dict of keyword arguments, got {given!r}"
                )
        self.conditions = {name: dict(given) for name, given in conditions.items()}
        self.simulate = simulate
        self.takes_seed = _names_seed(simulate)
        self.name = DerivedName(f"{solver_name(simulate)}, {len(conditions)} experiments")

    def check(self, space: Space) -> None:
        """Refuse a parameter of a name that is taken.

        Raises:
            InputError: Naming it.
        """
        if EXPERIMENT in space.names:
            raise InputError(f"a parameter of zb.Experiments must not be called {EXPERIMENT!r}")

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401
        """Run all experiments, or the one that `phi["experiment"]` names."""
        name = phi.get(EXPERIMENT)
        if name is not None:
            own = {key: value for key, value in phi.items() if key != EXPERIMENT}
            return self._run(name, own, seed)
        found: dict[str, Any] = {}
        for each in self.conditions:
            answer = self._run(each, dict(phi), seed)
            named = answer if isinstance(answer, Mapping) else {"": answer}
            found |= {part_name(each, part): value for part, value in named.items()}
        return found

    def _run(self, name: str, phi: dict[str, Any], seed: int | None) -> Any:  # noqa: ANN401
        more = {"seed": seed} if self.takes_seed else {}
        return self.simulate(phi, **self.conditions[name], **more)


def _names_seed(simulate: Callable[..., Any]) -> bool:
    try:
        return "seed" in inspect.signature(simulate).parameters
    except (TypeError, ValueError):
        return False


def part_name(experiment: str, part: str) -> str:
    """What a part of an experiment's answer is called in theta."""
    return f"{experiment}.{part}" if part else experiment
