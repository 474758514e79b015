"""The method people get when they name none."""

import dataclasses
from typing import final

from zo_bilevel.methods.base import Arrivals, Method, Rounds, Search
from zo_bilevel.methods.fidelity.levels import race
from zo_bilevel.methods.fidelity.two_levels import descend_on_two_levels
from zo_bilevel.methods.gauss_newton.gauss_newton import GaussNewton
from zo_bilevel.methods.shared.discontinuity import DiscontinuityDetector, DiscontinuityError
from zo_bilevel.methods.shared.starts import NO_START, find_start
from zo_bilevel.methods.shared.whole_rounds import whole
from zo_bilevel.methods.trust_region.racing_search import RacingSearch
from zo_bilevel.methods.trust_region.trust_region import TrustRegion
from zo_bilevel.solve.dispatch.base import takes_seed


@final
class DefaultMethod(Method):
    """Gauss-Newton for a vector of known objective, else a trust region on the loss alone.

    With integers and choices alone there is nothing to differentiate: then only the loss counts.

    The start is solved first; what it returns decides. That solve is handed on, not repeated.
    When it fails, the best of a few space-filling rounds takes its place. A vector that jumps, as
    the vertices of a linear program do, has no useful differences: then the trust region goes on.

    Where the problem has a fidelity, vectors are searched on two levels first, and everything else
    by races; integers and choices draw by draw where a solve takes a seed.
    """

    name = "default"
    has_steps = True
    constraints = "kept"

    def rounds(self, search: Search) -> Rounds:
        """The start, then the method it calls for."""
        (first,) = yield [search.point(search.start, "start")]
        search, first = yield from whole(search, find_start(search, first))
        if not first.ok:
            return NO_START
        discrete, is_constrained = search.space.discrete, bool(search.problem.feasible)
        is_penalized = is_constrained and bool(discrete.any())
        is_vector = not discrete.all() and not is_penalized and search.bind(first).is_vector
        if search.problem.fidelity is not None:
            part = dataclasses.replace(search, is_asynchronous=False)
            if discrete.any() and takes_seed(search.problem.inner):
                racing = RacingSearch(part, first, search.problem.fidelity)
                return (yield from whole(search, racing.rounds()))
            if not is_vector or discrete.any():
                return (yield from whole(search, race(part, first)))
            first = yield from whole(search, descend_on_two_levels(part, first))
        if is_vector:
            is_watched = not is_constrained and not discrete.any()
            detector = DiscontinuityDetector(first) if is_watched else None
            try:
                return (yield from GaussNewton().continue_from(search, first, detector))
            except DiscontinuityError as jump:
                first = jump.best
        return (yield from TrustRegion().continue_from(search, first))

    def arrivals(self, search: Search) -> Arrivals:
        """The same, told each answer as it arrives."""
        return self.rounds(dataclasses.replace(search, is_asynchronous=True))
