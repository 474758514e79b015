"""The method people get when they name none."""

from __future__ import annotations

from typing import final

from zo_bilevel.evaluation import Point
from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.methods.gauss_newton import GaussNewton


@final
class DefaultMethod(Method):
    """Gauss-Newton when the inner solution is a vector of known objective, else a scalar search.

    The start is solved first; what it returns decides. That solve is handed on, not repeated.
    """

    @property
    def name(self) -> str:
        """Name in tables."""
        return "default"

    def rounds(self, search: Search) -> Rounds:
        """The start, then the method it calls for.

        Args:
            search: Problem, start, seed, round width.

        Yields:
            The start; then that method's rounds.

        Returns:
            That method's reason.
        """
        (first,) = yield [Point(search.start, role="start")]
        if first.ok and not search.bind(first).is_vector:
            from zo_bilevel.methods.gradient import GradientMethod

            return (yield from GradientMethod().rounds(search))
        return (yield from GaussNewton().continue_from(search, first))
