"""The method people get when they name none."""

from __future__ import annotations

from typing import final

from zo_bilevel.evaluation import Point
from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.methods.gauss_newton import GaussNewton
from zo_bilevel.methods.starts import find_start
from zo_bilevel.methods.trust_region import TrustRegion


@final
class DefaultMethod(Method):
    """Gauss-Newton for a vector of known objective, else a trust region on the loss alone.

    The start is solved first; what it returns decides. That solve is handed on, not repeated.
    When it fails, the best of a few space-filling rounds takes its place.
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
        first = yield from find_start(search, first)
        if first.ok and search.bind(first).is_vector:
            return (yield from GaussNewton().continue_from(search, first))
        return (yield from TrustRegion().continue_from(search, first))
