"""Nevergrad's optimizers, by their name in its registry."""

from __future__ import annotations

import sys
from typing import Any, final

import numpy as np

from zo_bilevel.methods.base import Search
from zo_bilevel.methods.baselines.coordinates import Coordinates
from zo_bilevel.methods.baselines.solves import Solves
from zo_bilevel.methods.baselines.threaded import CLOSING_SECONDS, Baseline
from zo_bilevel.problem.parameters import Choice, Integer
from zo_bilevel.problem.space import HALF_RANGE, Block, Space
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, UnsupportedProblemError, unknown_name_message


@final
class Nevergrad(Baseline):
    """A Nevergrad optimizer, asked for `round_width` candidates a round, told in their order.

    Bounds are Nevergrad's own, and its mutation step is 1, the step of every method; choices and
    integers are Nevergrad's own kinds, as its users would write them. An optimizer that would
    begin elsewhere has the start suggested to it. Those that cannot work in parallel get rounds
    of one solve.

    Args:
        optimizer: Name in Nevergrad's registry, for instance "CMA" or "NGOpt".
        coordinates: "scaled", or "prior" for white coordinates of the prior.
        budget: What the optimizer is told to plan for, >= 1; `None` for the run's `max_solves`.

    Raises:
        InputError: If the name is unknown or the budget below 1.
        MissingPackageError: If Nevergrad is not installed.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, minimize
        >>> problem = Problem(Space(a=Real(-1, 1)), lambda phi: phi["a"] ** 2)
        >>> minimize(problem, Nevergrad("OnePlusOne"), max_solves=100).loss < 1e-6
        True
    """

    is_asynchronous, package = True, ("nevergrad", "baselines")

    def __init__(
        self, optimizer: str, coordinates: str = "scaled", *, budget: int | None = None
    ) -> None:
        super().__init__(coordinates)
        if budget is not None:
            budget = whole_number("budget", budget, least=1)
        registry = self.library().optimizers.registry
        if optimizer not in registry:
            raise InputError(unknown_name_message("Nevergrad optimizer", optimizer, registry))
        self.optimizer = optimizer
        self.budget = budget

    @property
    def label(self) -> str:
        """Name without the coordinates."""
        return f"nevergrad:{self.optimizer}"

    def refuse(self, search: Search) -> None:  # noqa: ARG002 - the problem does not matter
        """Raise for NGOpt with numpy 2.4 or later, where it is known to break."""
        version = tuple(int(part) for part in np.__version__.split(".")[:2])
        if self.optimizer.startswith("NGOpt") and version >= (2, 4):
            raise UnsupportedProblemError(
                f"{self.label} raises TypeError after some solves with numpy >= 2.4, and numpy is "
                f'{np.__version__}: pip install "numpy<2.4"'
            )

    def _make(self, solves: Solves, random: int) -> tuple[Any, _Parameters]:
        library, search = self.library(), solves.search
        factory = library.optimizers.registry[self.optimizer]
        parameters = _Parameters(library, search.space, solves.coordinates)
        parametrization = parameters.parametrization
        parametrization.random_state = np.random.RandomState(random)
        budget = search.max_solves if self.budget is None else self.budget
        width = 1 if _is_sequential(factory) else min(search.round_width, budget or sys.maxsize)
        return factory(parametrization, budget=budget, num_workers=width), parameters

    def _begins_at_start(self, solves: Solves, random: int) -> bool:
        optimizer, parameters = self._make(solves, random)
        try:
            first, start = parameters.row(optimizer.ask().value), solves.coordinates.start
            return np.allclose(first, start, atol=1e-9)
        except AssertionError as error:
            if optimizer.budget is not None:
                raise
            raise UnsupportedProblemError(
                f"{self.label} must know the number of solves: give max_solves or budget"
            ) from error
        finally:
            _end_threads(optimizer)

    def drive(self, solves: Solves) -> str:
        """Ask and tell for as long as there are solves."""
        random = int(solves.search.rng(1).integers(2**32, dtype=np.uint32))
        begins_there = self._begins_at_start(solves, random)
        optimizer, parameters = self._make(solves, random)
        if not begins_there:
            optimizer.suggest(parameters.start())

        def ask() -> tuple[Any, FloatArray]:
            candidate = optimizer.ask()
            return candidate, parameters.row(candidate.value)

        try:
            solves.serve(ask, optimizer.tell, optimizer.num_workers)
        finally:
            _end_threads(optimizer)


@final
class _Parameters:
    """What a Nevergrad user would write for a space.

    Numbers are arrays in the coordinates of every method, with a mutation step of 1; integers are
    arrays with integer casting, and choices `Choice`, one for each, so that the discrete
    optimizers see what they are made for.
    """

    def __init__(self, library: Any, space: Space, place: Coordinates) -> None:  # noqa: ANN401
        self._space, self._place = space, place
        self._is_native = bool(space.discrete.any()) and not place.is_white
        if self._is_native:
            parts = {}
            for block in space.blocks:
                parts.update(self._parts(library.p, block))
            self.parametrization: Any = library.p.Dict(**parts)
        else:
            self.parametrization = self._array(library.p, slice(0, space.size))

    def _array(self, kinds: Any, section: slice) -> Any:  # noqa: ANN401
        array = kinds.Array(init=self._place.start[section]).set_mutation(sigma=1.0)
        if not self._place.is_white:
            array.set_bounds(self._place.lower[section], self._place.upper[section])
        return array

    def _parts(self, kinds: Any, block: Block) -> dict[str, Any]:  # noqa: ANN401
        parameter = block.parameter
        if isinstance(parameter, Choice):
            count = len(parameter.options)
            places = range((block.stop - block.start) // count)
            return {_part(block, k): kinds.Choice(list(range(count))) for k in places}
        if isinstance(parameter, Integer):
            values = self._space.values(self._place.start)[block.section]
            array = kinds.Array(init=values)
            array.set_mutation(sigma=(parameter.upper - parameter.lower + 1) / (2 * HALF_RANGE))
            array.set_bounds(float(parameter.lower), float(parameter.upper))
            return {block.name: array.set_integer_casting()}
        return {block.name: self._array(kinds, block.section)}

    def row(self, value: Any) -> FloatArray:  # noqa: ANN401 - an array, or values by name
        """Coordinates of a candidate: shape `(N,)`."""
        if not self._is_native:
            return np.asarray(value, dtype=np.float64)
        row = self._place.start.copy()
        for block in self._space.blocks:
            parameter = block.parameter
            if isinstance(parameter, Choice):
                row[block.section] = self._scores(block, len(parameter.options), value)
            elif isinstance(parameter, Integer):
                found = np.asarray(value[block.name]).reshape(parameter.shape)
                row[block.section] = self._space.encode({block.name: found})[block.section]
            else:
                row[block.section] = value[block.name]
        return row

    def _scores(self, block: Block, count: int, value: dict[str, Any]) -> FloatArray:
        places = range((block.stop - block.start) // count)
        picks = [int(value[_part(block, k)]) for k in places]
        return np.asarray(np.eye(count)[picks].ravel())

    def start(self) -> Any:  # noqa: ANN401 - an array, or values by name
        """The value of the start, to suggest it."""
        x = self._place.start
        if not self._is_native:
            return x
        value: dict[str, Any] = {}
        for block in self._space.blocks:
            parameter = block.parameter
            if isinstance(parameter, Choice):
                picks = x[block.section].reshape(-1, len(parameter.options)).argmax(axis=1)
                value |= {_part(block, k): int(pick) for k, pick in enumerate(picks)}
            elif isinstance(parameter, Integer):
                value[block.name] = self._space.values(x)[block.section]
            else:
                value[block.name] = x[block.section]
        return value


def _is_sequential(factory: Any) -> bool:  # noqa: ANN401 - a class without types
    return bool(getattr(factory, "no_parallelization", False))


def _end_threads(optimizer: Any) -> None:  # noqa: ANN401 - a class without types
    """End the threads in which Nevergrad runs callback-only optimizers, its parts' included."""
    waiting, seen = [optimizer], {id(optimizer)}
    while waiting:
        part = waiting.pop()
        thread = getattr(part, "_messaging_thread", None)
        if thread is not None:
            thread.stop()
            thread._thread.join(CLOSING_SECONDS)
        for value in list(vars(part).values()):
            for inner in value if isinstance(value, list | tuple) else [value]:
                if hasattr(inner, "ask") and hasattr(inner, "tell") and id(inner) not in seen:
                    seen.add(id(inner))
                    waiting.append(inner)


def _part(block: Block, index: int) -> str:
    return f"{block.name}[{index}]"
