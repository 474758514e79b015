"""A point that solves, for methods whose start does not."""

from __future__ import annotations

from collections.abc import Generator

from zo_bilevel.evaluation import Evaluation, Point
from zo_bilevel.methods.base import Search

START_ROUNDS = 4
"""Space-filling rounds spent on finding any point that solves, when the start does not."""
MOST_SOBOL_PARAMETERS = 64


def find_start(
    search: Search, first: Evaluation
) -> Generator[list[Point], list[Evaluation], Evaluation]:
    """The start, or the best of a few space-filling rounds when it does not solve.

    Args:
        search: Problem, seed, round width.
        first: The solved start, ok or not.

    Yields:
        Rounds of at least 8 points; none when the start is ok.

    Returns:
        A solve that is ok, or the failed start when none was found.
    """
    if first.ok:
        return first
    from scipy.stats import qmc  # slow to import, seldom needed

    space = search.space
    small = space.size <= MOST_SOBOL_PARAMETERS
    sobol = qmc.Sobol(space.size, rng=search.rng(3)) if small else None
    count = 1 << max(3, (search.round_width - 1).bit_length())
    for _ in range(START_ROUNDS):
        share = search.rng(4).random((count, space.size)) if sobol is None else sobol.random(count)
        points = space.lower + (space.upper - space.lower) * share
        found = yield [Point(x, role="restart") for x in points]
        usable = [evaluation for evaluation in found if evaluation.ok]
        if usable:
            return min(usable, key=lambda evaluation: evaluation.loss)
    return first
