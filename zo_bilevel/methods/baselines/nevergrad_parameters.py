"""A space as Nevergrad's parameters: its own choices and integers where the space has any."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from zo_bilevel.methods.baselines.coordinates import Coordinates
from zo_bilevel.problem.parameters import Choice, Integer
from zo_bilevel.problem.space import HALF_RANGE, Block, Space
from zo_bilevel.support.arrays import FloatArray


@final
class NevergradParameters:
    """What a Nevergrad user would write for a space.

    Numbers are arrays in the coordinates of every method, with a mutation step of 1; integers are
    arrays with integer casting, and choices `Choice`, one for each, so that the discrete
    optimizers see what they are made for.

    Args:
        library: Nevergrad.
        space: The space.
        place: Coordinates of the search; those of a prior are numbers throughout.
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
        scores: FloatArray = np.eye(count)[picks].ravel()
        return scores

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


def _part(block: Block, index: int) -> str:
    return f"{block.name}[{index}]"
