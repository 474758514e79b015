"""Mixed spaces: a continuous search at one setting of the integers and choices, then the next."""

import itertools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from zo_bilevel.methods.base import Rounds, Search
from zo_bilevel.methods.shared.endings import CONVERGED
from zo_bilevel.methods.shared.whole_rounds import one_round, whole
from zo_bilevel.methods.state import Notes, RoundsThen
from zo_bilevel.problem.parameters import Choice, Integer
from zo_bilevel.problem.space import HALF_RANGE, Block, Space
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray

Descent: TypeAlias = RoundsThen[Evaluation]

MOST_DETOURS = 8
"""Settings descended into without gain before the search ends."""
MOST_NEIGHBOURS = 64


def mixed_search(search: Search, first: Evaluation, descend: Callable[..., Descent]) -> Rounds:
    """Descend, then poll the neighbouring settings and descend into the most promising ones.

    `descend(start, may_restart=...)` searches the continuous coordinates at one setting.
    """
    discrete, best = search.space.discrete, first
    if not discrete.any():
        yield from descend(best, may_restart=True)
        return _why_it_ended(search.notes)
    if not discrete.all():
        best = yield from descend(best, may_restart=False)
    tried = {_setting(search.space, best.point.x)}
    while True:
        moves = neighbours(search.space, best.point.x, search.rng(7, len(tried)))
        neighbourhood = [search.point(x, "neighbour") for x in moves]
        polled = yield from whole(search, one_round(neighbourhood))
        usable = sorted((e for e in polled if e.ok), key=lambda e: e.loss)
        fresh = [e for e in usable if _setting(search.space, e.point.x) not in tried][:MOST_DETOURS]
        improved = False
        for candidate in fresh:
            tried.add(_setting(search.space, candidate.point.x))
            found = candidate
            if not discrete.all():
                found = yield from descend(candidate, may_restart=False)
            improved = found.loss < best.loss
            if improved:
                best = found
                break
        if not improved:
            return "converged: no integer or choice beside the best one is better"


def _why_it_ended(notes: Notes) -> str:
    unseen, returns = notes.unseen, notes.returns
    if notes.is_flat:
        return "nothing was gained: the outer objective's gradient is 0 at the start"
    if notes.obstacle:
        return f"nothing left to gain nearby, but {notes.obstacle}: give scale= or another start"
    if not unseen:
        if returns == 0:
            return CONVERGED
        many = "1 restart" if returns == 1 else f"{returns} restarts"
        return f"{CONVERGED}; {many} came back to the same minimum"
    return (
        f"nothing left to gain that differences show: {unseen} of them changed nothing; a "
        "parameter has no effect, or is rounded inside the solver"
    )


def _setting(space: Space, x: FloatArray) -> str:
    """Which integers and choices a point stands for."""
    values = space.decode(x)
    return repr([(b.name, values[b.name]) for b in space.blocks if space.discrete[b.start]])


def neighbours(space: Space, x: FloatArray, rng: np.random.Generator) -> list[FloatArray]:
    """Points that differ from `x` in one integer, by 1, 2, 4, ... units, or in one choice.

    When all settings of the integers and choices together are at most 64, all others are given:
    no step at a time can miss a pair that only pays together.

    Returns:
        Scaled points within the bounds.

    Example:
        >>> from zo_bilevel import Real
        >>> scheme = Choice(["a", "b", "c"])
        >>> space = Space(k=Integer(0, 99), scheme=scheme, r=Real(0, 1))
        >>> start = space.encode({"k": 0, "scheme": "b"})
        >>> found = neighbours(space, start, np.random.default_rng(0))
        >>> [(p["k"], p["scheme"]) for p in map(space.decode, found[:4])]
        [(1, 'b'), (2, 'b'), (4, 'b'), (8, 'b')]
    """
    every = _all_settings(space, x)
    if every:
        return every
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


def _all_settings(space: Space, x: FloatArray) -> list[FloatArray]:
    """Every other setting of the integers and choices, when there are few."""
    groups: list[list[tuple[slice, FloatArray]]] = []
    count = 1
    for block in space.blocks:
        group = _block_settings(block)
        for place in group:
            count *= len(place)
            if count > MOST_NEIGHBOURS:
                return []
        groups += group
    points = []
    for setting in itertools.product(*groups):
        point = x.copy()
        for section, values in setting:
            point[section] = values
        points.append(point)
    here = _setting(space, x)
    return [point for point in points if _setting(space, point) != here]


def _block_settings(block: Block) -> list[list[tuple[slice, FloatArray]]]:
    """For every single integer or choice of a block, its places in the vector and values."""
    parameter = block.parameter
    if isinstance(parameter, Integer):
        count = parameter.upper - parameter.lower + 1
        shown = min(count, MOST_NEIGHBOURS + 1)  # of more, it only matters that they are too many
        share = (np.arange(shown, dtype=np.float64) + 0.5) / float(count)
        levels = share * 2 * HALF_RANGE - HALF_RANGE
        return [
            [(slice(i, i + 1), levels[k : k + 1]) for k in range(shown)]
            for i in range(block.start, block.stop)
        ]
    if isinstance(parameter, Choice):
        count = len(parameter.options)
        return [
            [(slice(i, i + count), row) for row in np.eye(count)]
            for i in range(block.start, block.stop, count)
        ]
    return []


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
