"""A point that solves, for methods whose start does not."""

import dataclasses

import numpy as np

from zo_bilevel.methods.base import Search
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.solve.streams import START_STREAM
from zo_bilevel.support.arrays import FloatArray

NO_START = "no point was found that solves"
"""Why a method stops whose start, and every other point of the first rounds, fails."""
START_ROUNDS = 4
"""Rounds spent on finding any point that solves, when the start does not."""
MOST_SOBOL_PARAMETERS = 16
"""With more parameters a point drawn from the whole box is hopeless: look around the start."""
LOOK_SCALES = (0.1, 0.3, 1.0, 3.0)
"""Of those looks, in scaled units: pointwise standard deviations of draws from the prior."""


def find_start(search: Search, first: Evaluation) -> RoundsThen[tuple[Search, Evaluation]]:
    """The start, or the best of a few rounds of other points when it does not solve.

    Yields:
        Rounds of at least 8 points; none when the start is ok.

    Returns:
        The search on the random numbers that its start solved with; a solve that is ok, or the
        failed start when none was found.
    """
    if first.ok:
        return search, first
    from scipy.stats import qmc  # slow to import, seldom needed

    space = search.space
    is_small = space.size <= MOST_SOBOL_PARAMETERS
    sobol = qmc.Sobol(space.size, rng=search.rng(3)) if is_small else None
    count = 1 << max(3, (search.round_width - 1).bit_length())
    for step in range(START_ROUNDS):
        if sobol is None:
            points = _around(search, count, step)
        else:
            low, high = space.likely
            points = low + (high - low) * sobol.random(count)
        points = points[[search.problem.feasible.allows(x) for x in points]]
        if not len(points):
            continue
        # other random numbers too: it may be those of the start that do not solve
        stream = search.stream if step == 0 else (START_STREAM, step)
        found = yield [Point(x, stream, "restart") for x in points]
        usable = [evaluation for evaluation in found if evaluation.ok]
        if usable:
            best = min(usable, key=lambda evaluation: evaluation.loss)
            return dataclasses.replace(search, stream=stream), best
    return search, first


def _around(search: Search, count: int, step: int) -> FloatArray:
    """Draws from the prior around the start, near and far, shape `(count, N)`."""
    space = search.space
    white = search.rng(4, step).standard_normal((space.size, count))
    scales = np.resize(np.array(LOOK_SCALES), count)
    points = search.start[:, None] + space.prior.apply_sqrt(white) * scales
    return np.asarray(np.clip(points.T, space.lower, space.upper))
