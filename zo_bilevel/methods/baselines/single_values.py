"""A space as single numbers and options, for libraries that know integers and choices."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import numpy as np

from zo_bilevel.problem.parameters import Choice, Integer
from zo_bilevel.problem.space import Block, Space
from zo_bilevel.support.arrays import FloatArray

Kind: TypeAlias = Literal["real", "integer", "choice"]
Values: TypeAlias = Mapping[str, float | int]


@final
@dataclass(frozen=True, slots=True)
class Item:
    """One number, or one choice.

    Args:
        name: Unique: the parameter's, with a place where it is an array.
        kind: What it is.
        section: Its coordinates in the scaled vector: one, or one for each option.
        lower: Smallest value: scaled for a real, the first option's 0 for a choice.
        upper: Largest value: scaled for a real, the last option's index for a choice.
    """

    name: str
    kind: Kind
    section: slice
    lower: float
    upper: float


@final
class SingleValues:
    """A space, one item after the other.

    Reals are searched in the coordinates of every method, so that a `Log` is on its own scale.

    Example:
        >>> from zo_bilevel import Real
        >>> values = SingleValues(Space(n=Integer(1, 9), c=Choice(["a", "b"]), x=Real(0, 1)))
        >>> space = Space(n=Integer(1, 9), c=Choice(["a", "b"]), x=Real(0, 1))
        >>> space.decode(values.row({"n": 7, "c": 1, "x": 3.0}))
        {'n': 7, 'c': 'b', 'x': 1.0}
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self.items: tuple[Item, ...] = tuple(
            item for block in space.blocks for item in _items(block, space)
        )

    def row(self, values: Values) -> FloatArray:
        """Scaled point of values by name, shape `(N,)`."""
        x = np.zeros(self._space.size)
        for item in self.items:
            value = values[item.name]
            if item.kind == "choice":
                x[item.section.start + int(value)] = 1.0
            elif item.kind == "integer":  # the middle of what rounds to it
                place = self._space.lower[item.section], self._space.unit[item.section]
                x[item.section] = place[0] + (value - item.lower + 0.5) / place[1]
            else:
                x[item.section] = value
        return x

    def of(self, x: FloatArray) -> dict[str, float | int]:
        """Values by name of a scaled point of shape `(N,)`."""
        rounded = self._space.values(x)
        found: dict[str, float | int] = {}
        for item in self.items:
            if item.kind == "choice":
                found[item.name] = int(np.argmax(x[item.section]))
            elif item.kind == "integer":
                found[item.name] = int(rounded[item.section.start])
            else:
                found[item.name] = float(x[item.section.start])
        return found


def _items(block: Block, space: Space) -> Iterator[Item]:
    parameter = block.parameter
    width = len(parameter.options) if isinstance(parameter, Choice) else 1
    for place in range(math.prod(parameter.shape)):
        section = slice(block.start + place * width, block.start + (place + 1) * width)
        name = f"{block.name}[{place}]" if parameter.shape else block.name
        if isinstance(parameter, Choice):
            yield Item(name, "choice", section, 0, width - 1)
        elif isinstance(parameter, Integer):
            yield Item(name, "integer", section, parameter.lower, parameter.upper)
        else:
            bounds = float(space.lower[section.start]), float(space.upper[section.start])
            yield Item(name, "real", section, *bounds)
