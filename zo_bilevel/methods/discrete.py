"""The neighbours of a point in its integers and choices."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.parameters import Choice, Integer
from zo_bilevel.space import HALF_RANGE, Space

FloatArray: TypeAlias = NDArray[np.float64]

MOST_NEIGHBOURS = 64


def neighbours(space: Space, x: FloatArray, rng: np.random.Generator) -> list[FloatArray]:
    """Points that differ from `x` in one integer, by 1, 2, 4, ... units, or in one choice.

    Args:
        space: The space.
        x: Scaled point, shape `(N,)`.
        rng: Draws a sample when there are more than 64.

    Returns:
        Scaled points within the bounds.

    Example:
        >>> from zo_bilevel import Real
        >>> space = Space(k=Integer(0, 9), scheme=Choice(["a", "b", "c"]), r=Real(0, 1))
        >>> start = space.encode({"k": 0, "scheme": "b"})
        >>> found = neighbours(space, start, np.random.default_rng(0))
        >>> [(p["k"], p["scheme"]) for p in map(space.decode, found)]
        [(1, 'b'), (2, 'b'), (4, 'b'), (8, 'b'), (0, 'a'), (0, 'c')]
    """
    moves: list[FloatArray] = []
    for block in space.blocks:
        if isinstance(block.parameter, Integer):
            moves += _integer_moves(space, x, block.start, block.stop)
        elif isinstance(block.parameter, Choice):
            moves += _choice_moves(x, block.start, block.stop, len(block.parameter.options))
    if len(moves) > MOST_NEIGHBOURS:
        picked = sorted(rng.choice(len(moves), MOST_NEIGHBOURS, replace=False))
        moves = [moves[index] for index in picked]
    return moves


def _integer_moves(space: Space, x: FloatArray, start: int, stop: int) -> list[FloatArray]:
    moves = []
    for index in range(start, stop):
        stride = 1.0 / space.unit[index]
        while stride < 2 * HALF_RANGE:
            for moved_to in (x[index] - stride, x[index] + stride):
                if abs(moved_to) < HALF_RANGE:
                    moved = x.copy()
                    moved[index] = moved_to
                    moves.append(moved)
            stride *= 2.0
    return moves


def _choice_moves(x: FloatArray, start: int, stop: int, count: int) -> list[FloatArray]:
    moves = []
    for first in range(start, stop, count):
        chosen = int(np.argmax(x[first : first + count]))
        for option in range(count):
            if option != chosen:
                moved = x.copy()
                moved[first : first + count] = 0.0
                moved[first + option] = 1.0
                moves.append(moved)
    return moves
