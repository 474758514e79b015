"""Random search: the floor under every comparison."""

from collections.abc import Iterator
from itertools import count, islice
from typing import final

from zo_bilevel.methods.base import Arrivals, Method, Rounds, Search
from zo_bilevel.solve.evaluation import Point


@final
class RandomSearch(Method):
    """The start, then independent uniform draws in the scaled box.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, minimize
        >>> problem = Problem(Space(a=Real(-1, 1)), lambda phi: phi["a"] ** 2)
        >>> minimize(problem, RandomSearch(), max_solves=50).solves
        50
    """

    name = "random"
    constraints = "penalized"

    def rounds(self, search: Search) -> Rounds:
        """`round_width` draws a round."""
        points = _points(search)
        yield [next(points)]
        while True:
            yield list(islice(points, search.round_width))

    def arrivals(self, search: Search) -> Arrivals:
        """As many draws as may run, then one for each that arrives."""
        points = _points(search)
        yield list(islice(points, search.round_width))
        while True:
            yield [next(points)]


def _points(search: Search) -> Iterator[Point]:
    rng, (low, high) = search.rng(), search.space.likely
    yield Point(search.start, (0,), "start")
    for step in count(1):
        yield Point(rng.uniform(low, high), (step,), "trial")
