"""Directions in blocks, cycle after cycle, within the bounds that hold."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeAlias, final

import numpy as np

from zo_bilevel.support.arrays import FloatArray

Box: TypeAlias = tuple[FloatArray, FloatArray]

BLOCK_SIZE = 32
"""Directions of a block; wide rounds take more."""
ROUNDS_PER_BLOCK = 4
"""Rounds that the differences of a block should take."""
PROBE_DISTANCE = 1e-8
"""Distance of a second solve of one point, in units of a sixth of the range."""


@final
class BlockDirections:
    """Blocks of about equal size.

    A coordinate at its bound is left out of the others' directions and gets its own turn, once a
    cycle: moves that are cut at the bound would say nothing about it.

    Args:
        directions: Makes all directions, each of the length of one unit, in their order.
        box: Lower and upper bounds, shape `(N,)` each.
        rng: Random numbers.
        width: Solves that may run at once.

    Attributes:
        cycles: Completed.
        block: Directions of a block, without those of bounds.
        diameter: Of the box, scaled units.
    """

    def __init__(
        self,
        directions: Callable[[], Iterator[FloatArray]],
        box: Box,
        rng: np.random.Generator,
        width: int,
    ) -> None:
        self._make, self._left = directions, directions()
        self._lower, self._upper = box
        self._rng = rng
        size = len(self._lower)
        self.block = -(-size // max(1, round(size / max(BLOCK_SIZE, ROUNDS_PER_BLOCK * width))))
        self.diameter = float(np.linalg.norm(self._upper - self._lower))
        self.cycles = 0
        self._turn = 0

    def next_block(self, x: FloatArray, count: int) -> list[FloatArray]:
        """The next directions, fewer than `count` at the end of a cycle."""
        units = list(islice(self._left, count))
        if not units:
            self.cycles += 1
            self._left = self._make()
            units = list(islice(self._left, count))
        at_bound = np.flatnonzero((x <= self._lower) | (x >= self._upper))
        if len(at_bound) == 0:
            return units
        length = float(np.median([np.linalg.norm(unit) for unit in units]))
        units = [unit.copy() for unit in units]
        for unit in units:
            unit[at_bound] = 0.0
        share = -(-len(at_bound) * count // len(x))
        for turn in range(self._turn, self._turn + share):
            unit = np.zeros(len(x))
            unit[at_bound[turn % len(at_bound)]] = length
            units.append(unit)
        self._turn += share
        return [unit for unit in units if unit.any()]

    def moves(self, x: FloatArray, units: list[FloatArray], length: float) -> list[FloatArray]:
        """Moves along the units, either way, or to the side that has room."""
        moves = []
        for unit in units:
            sign = 1.0 if self._rng.random() < 0.5 else -1.0
            move = self.within(x + sign * length * unit) - x
            if abs(float(move @ unit)) < 0.5 * length * float(unit @ unit):
                move = self.within(x - sign * length * unit) - x
            moves.append(move)
        return moves

    def within(self, x: FloatArray) -> FloatArray:
        """A point put within the bounds."""
        return np.asarray(np.minimum(np.maximum(x, self._lower), self._upper))

    def beside(self, x: FloatArray) -> FloatArray:
        """Next to a point: the same loss, another draw of the noise."""
        spread = (self._upper - self._lower) / 6.0
        return self.within(x + PROBE_DISTANCE * self._rng.standard_normal(len(x)) * spread)
