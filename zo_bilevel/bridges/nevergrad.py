"""Our methods in a loop that was written for Nevergrad: ask, tell, recommend."""

from collections.abc import Callable
from typing import Any, final

from zo_bilevel.bridges.nevergrad_space import initial_of, space_of, value_of
from zo_bilevel.bridges.point_queue import PointQueue, outcome_of
from zo_bilevel.methods.base import Method
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError


@final
class AskTell:
    """Stands in for a Nevergrad optimizer.

    It starts at the value that the parametrization has. A method asks in rounds and is told whole
    rounds. When a round is handed out and workers are free, they get surplus candidates: random
    ones near the best, which can be recommended but are not given to the method. A first round is
    often one candidate; later ones fill the workers of a loop that asks `num_workers` times, then
    tells them all. Workers that do not wait for each other get more surplus candidates.

    Args:
        parametrization: Of Nevergrad, every parameter with bounds; see `space_of`.
        budget: Solves, >= 1, for methods that plan ahead.
        num_workers: Candidates that may be out, asked for and not told, >= 1.
        method: How to search; default `DefaultMethod()`.
        outer: With an outer objective, `tell` takes inner solutions (vectors) instead of losses,
            and vector methods become possible.
        seed: Seed of the search.

    Raises:
        InputError: If an argument breaks a rule.
        MissingPackageError: If Nevergrad is not installed.

    Example:
        >>> import nevergrad as ng
        >>> optimizer = AskTell(ng.p.Scalar(lower=-3, upper=5), budget=30)
        >>> for _ in range(optimizer.budget):
        ...     candidate = optimizer.ask()
        ...     optimizer.tell(candidate, (candidate.value - 1) ** 2)
        >>> abs(optimizer.recommend().value - 1) < 0.1
        True
    """

    def __init__(
        self,
        parametrization: Any,  # noqa: ANN401 - of an optional package
        budget: int,
        num_workers: int = 1,
        *,
        method: Method | None = None,
        outer: Any = None,  # noqa: ANN401 - as in Problem
        seed: int = 0,
    ) -> None:
        self.parametrization, self.budget, self.num_workers = parametrization, budget, num_workers
        self.space = space_of(parametrization)
        self._queue = PointQueue(
            self.space,
            method,
            outer,
            seed=seed,
            initial=initial_of(parametrization),
            round_width=num_workers,
            max_solves=budget,
        )
        self._asked: dict[str, int] = {}

    @property
    def num_ask(self) -> int:
        """Candidates asked for."""
        return self._queue.num_asked

    @property
    def num_tell(self) -> int:
        """Candidates told."""
        return self._queue.num_told

    @property
    def stop_reason(self) -> str:
        """Why the method wants no further solve; empty while it does."""
        return self._queue.stop_reason

    def ask(self) -> Any:  # noqa: ANN401 - a Nevergrad parameter
        """The next candidate, with `.value`, `.args` and `.kwargs`.

        Once the method has stopped, which `stop_reason` tells, it is the recommendation again and
        again, so that a loop over a fixed budget runs to its end.

        Raises:
            InputError: If `num_workers` candidates are out already.
        """
        out = len(self._asked)
        if out >= self.num_workers:
            raise InputError(
                f"tell first: {out} candidate{' waits' if out == 1 else 's wait'}, "
                f"num_workers is {self.num_workers}"
            )
        number, x = self._queue.ask()
        candidate = self._candidate(x)
        self._asked[candidate.uid] = number
        return candidate

    def _candidate(self, x: FloatArray) -> Any:  # noqa: ANN401 - a Nevergrad parameter
        value = value_of(self.parametrization, self.space.decode(x))
        child = self.parametrization.spawn_child()
        child.value = value  # spawn_child(new_value=None) would draw one
        return child

    def tell(self, candidate: Any, loss: Any) -> None:  # noqa: ANN401
        """What a candidate gave.

        Args:
            candidate: From `ask`.
            loss: Its loss, or with an outer objective its inner solution. NaN, infinity and
                `None` are failed solves.

        Raises:
            InputError: If the candidate is not one that is waited for.
            InnerSolverError: If the first one asked for is unusable.
        """
        outcome_of(loss)  # what it cannot be is refused while the candidate is still waited for
        if candidate.uid not in self._asked:
            raise InputError("tell takes a candidate of ask that was not told before")
        self._queue.tell(self._asked.pop(candidate.uid), loss)

    def provide_recommendation(self) -> Any:  # noqa: ANN401 - a Nevergrad parameter
        """The best candidate so far, or what a noisy search recommends.

        Raises:
            InputError: If no usable loss was told yet.
        """
        x = self._queue.recommended
        if x is None:
            raise InputError("nothing to recommend: no usable loss was told")
        return self._candidate(x)

    def recommend(self) -> Any:  # noqa: ANN401 - a Nevergrad parameter
        """The same as `provide_recommendation`.

        Raises:
            InputError: If no usable loss was told yet.
        """
        return self.provide_recommendation()

    def minimize(self, function: Callable[..., Any]) -> Any:  # noqa: ANN401
        """Solve until the budget is spent, as `optimizer.minimize` of Nevergrad does.

        Args:
            function: Called with `*candidate.args, **candidate.kwargs`.

        Returns:
            The recommendation.
        """
        while self.num_tell < self.budget and not self.stop_reason:
            candidate = self.ask()
            self.tell(candidate, function(*candidate.args, **candidate.kwargs))
        return self.provide_recommendation()
