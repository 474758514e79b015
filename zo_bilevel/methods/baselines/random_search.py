"""Random search: the floor under every comparison."""

from __future__ import annotations

from typing import final

from zo_bilevel.methods.base import Method, Rounds, Search
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

    @property
    def name(self) -> str:
        """Name in tables."""
        return "random"

    def rounds(self, search: Search) -> Rounds:
        """`round_width` draws a round.

        Args:
            search: Problem, start, seed, round width.

        Yields:
            The start, then uniform draws.

        Returns:
            Never.
        """
        rng, space, step = search.rng(), search.space, 0
        yield [Point(search.start, (0,), "start")]
        while True:
            draws = rng.uniform(space.lower, space.upper, (search.round_width, space.size))
            points = [Point(x, (step + k + 1,), "trial") for k, x in enumerate(draws)]
            step += len(points)
            yield points
