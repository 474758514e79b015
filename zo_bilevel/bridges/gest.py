"""Our methods as a generator of the gest-api standard, for libEnsemble, Xopt and Optimas."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zo_bilevel.bridges.point_queue import PointQueue
from zo_bilevel.methods.base import Method
from zo_bilevel.problem.parameters import Choice, Integer, Log, Real
from zo_bilevel.problem.space import Space
from zo_bilevel.run.reporting import LOG
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.packages import import_optional

import_optional("gest_api", "GestGenerator", "gest", "gest-api")

from gest_api import Generator  # noqa: E402 - its absence is named above
from gest_api.vocs import (  # noqa: E402
    VOCS,
    ContextualVariable,
    ContinuousVariable,
    DiscreteVariable,
    MaximizeObjective,
    MinimizeObjective,
)


class GestGenerator(Generator):  # type: ignore[misc]  # gest-api is untyped
    """Suggests points by a method of zo_bilevel and ingests their results.

    With an outer objective the observables are the inner solution: Gauss-Newton then sees all that
    a simulation returned. Without one the objective of `vocs` is the loss.

    Args:
        vocs: Variables with finite domains or discrete values; constants are handed on.
        method: How to search; default `DefaultMethod()`.
        outer: What is good, as in `zb.Problem`: `zb.SquaredError({"y": data})`, by the names of the
            observables, or for a single one its data alone.
        space: Parameters that say more than a domain, by name: `{"nu": zb.Log(1e-4, 1)}`.
        num_workers: Points that are evaluated at once, >= 1: what is suggested beyond a round of
            the method is random near the best point.
        max_solves: How many points will be evaluated, for methods that plan ahead.
        seed: Seed of the search.

    Raises:
        InputError: If an argument breaks its rule, or `vocs` has what cannot be searched.
        MissingPackageError: If gest-api is not installed.

    Example:
        >>> from zo_bilevel import SquaredError
        >>> vocs = VOCS(variables={"a": [0.0, 4.0]}, observables={"y": (float, (2,))})
        >>> generator = GestGenerator(vocs, outer=SquaredError({"y": [4.0, 2.0]}))
        >>> for _ in range(12):
        ...     (point,) = generator.suggest(1)
        ...     generator.ingest([{**point, "y": [point["a"] ** 2, point["a"]]}])
        >>> round(generator.best["a"], 6)
        2.0

    Source:
        https://github.com/campa-consortium/gest-api
    """

    returns_id = True

    def __init__(
        self,
        vocs: VOCS,
        method: Method | None = None,
        *,
        outer: Any = None,  # noqa: ANN401 - as in Problem
        space: Mapping[str, Any] | None = None,
        num_workers: int = 1,
        max_solves: int | None = None,
        seed: int = 0,
    ) -> None:
        self.vocs, self._outer = vocs, outer
        super().__init__(vocs)
        parameters = {name: _parameter(name, v) for name, v in vocs.variables.items()}
        for name in space or {}:
            if name not in parameters:
                raise InputError(f"space has {name!r}, which is no variable of vocs")
        self.space = Space({**parameters, **(space or {})})
        defaults = {n: v.default_value for n, v in vocs.variables.items()}
        self._queue = PointQueue(
            self.space,
            method,
            outer,
            seed=seed,
            initial={n: value for n, value in defaults.items() if value is not None},
            round_width=whole_number("num_workers", num_workers, least=1),
            max_solves=max_solves,
        )

    def _validate_vocs(self, vocs: VOCS) -> None:
        if not isinstance(vocs, VOCS):
            raise InputError(f"vocs must be a gest_api VOCS, got {type(vocs).__name__}")
        if vocs.constraints:
            raise InputError(f"vocs has constraints, which are not kept: {list(vocs.constraints)}")
        if self._outer is not None:
            if not vocs.observables:
                raise InputError("outer needs observables in vocs, the inner solution")
            return
        kinds = [type(objective) for objective in vocs.objectives.values()]
        if len(kinds) != 1 or kinds[0] not in (MinimizeObjective, MaximizeObjective):
            raise InputError(
                "vocs must have one objective, MINIMIZE or MAXIMIZE, or observables and an outer "
                f"objective, got {dict(vocs.objectives)}"
            )

    def suggest(self, num_points: int | None = None) -> list[dict[str, Any]]:
        """The next points.

        Args:
            num_points: How many; default what the method wants at once, at least one.

        Returns:
            Variables, constants and "_id" by name.
        """
        wanted = self._queue.num_waiting or 1 if num_points is None else num_points
        constants = {name: constant.value for name, constant in self.vocs.constants.items()}
        asked = (self._queue.ask() for _ in range(whole_number("num_points", wanted, least=0)))
        return [{**self.space.decode(x), **constants, "_id": number} for number, x in asked]

    def ingest(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Take results in; values that are not finite are failed solves.

        Args:
            results: Points of `suggest` with their results. Those of others, without "_id", are
                not used.

        Raises:
            InputError: If an id is not waited for, or a result lacks an observable.
        """
        for result in results:
            if "_id" not in result:
                LOG.info("a point that was not suggested is not used: %s", dict(result))
                continue
            try:
                self._queue.tell(int(result["_id"]), self._answer(result))
            except KeyError as error:
                raise InputError(
                    f"ingest takes points of suggest with all results, once each; got _id="
                    f"{result['_id']} with {sorted(result)} ({error} is not known)"
                ) from error

    def _answer(self, result: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a loss or inner solution
        if self._outer is None:
            ((name, objective),) = self.vocs.objectives.items()
            return -result[name] if isinstance(objective, MaximizeObjective) else result[name]
        parts = {name: result[name] for name in self.vocs.observables}
        layout = getattr(self._outer, "layout", None)
        is_bare = len(parts) == 1 and layout is not None and not layout.names
        return next(iter(parts.values())) if is_bare else parts

    @property
    def best(self) -> dict[str, Any] | None:
        """The best point so far by name, or what a noisy search recommends."""
        x = self._queue.recommended
        return None if x is None else self.space.decode(x)

    @property
    def stop_reason(self) -> str:
        """Why the method wants no further solve; empty while it does."""
        return self._queue.stop_reason


def _parameter(name: str, variable: Any) -> Real | Log | Integer | Choice:  # noqa: ANN401
    if isinstance(variable, DiscreteVariable):
        values = sorted(variable.values, key=lambda value: (str(type(value)), value))
        whole = list(range(values[0], values[0] + len(values))) if type(values[0]) is int else []
        return Integer(values[0], values[-1]) if values == whole and whole[1:] else Choice(values)
    if isinstance(variable, ContextualVariable) or not isinstance(variable, ContinuousVariable):
        raise InputError(f"variable {name!r} cannot be searched: {variable!r}")
    low, high = variable.domain
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"variable {name!r} must have a finite domain, got {variable.domain}")
    return Real(low, high)
