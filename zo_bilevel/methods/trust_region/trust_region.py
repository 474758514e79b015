"""The default method for scalar losses: a growing trust region, then global restarts."""

import dataclasses
from typing import final

from zo_bilevel.methods.base import Arrivals, Method, Rounds, Search
from zo_bilevel.methods.constrained.constrained_search import ConstrainedSearch
from zo_bilevel.methods.penalty import penalized
from zo_bilevel.methods.shared.starts import NO_START, find_start
from zo_bilevel.methods.shared.whole_rounds import whole
from zo_bilevel.methods.trust_region.continuous_search import ContinuousSearch
from zo_bilevel.methods.trust_region.mixed_search import MixedSearch
from zo_bilevel.methods.trust_region.racing_search import RacingSearch
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.solve.evaluation import Evaluation


@final
class TrustRegion(Method):
    """A quadratic model of the loss, in directions taken up one by one.

    Sees nothing but the loss. Fields with a correlation length are searched along their smooth
    modes first. From 40 parameters on, when no direction matters more than others, all of them are
    gone through in blocks, several times, before a model is made. One continuous parameter is
    bracketed instead. When the trust region has converged, descents from random points and an
    evolution strategy look elsewhere; a loss with ripples is left to the strategy early.
    Integers and choices are searched together with the reals, by a model over all of them, before a
    trust region takes the reals further.

    Constraints are kept by a search of their own, with models of those on outputs; where there are
    integers or choices, by a penalty.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, minimize
        >>> space = Space(a=Real(-2, 2), b=Real(-2, 2))
        >>> def loss(phi):
        ...     return (1 - phi["a"]) ** 2 + 10 * (phi["b"] - phi["a"] ** 2) ** 2
        >>> result = minimize(Problem(space, loss), TrustRegion(), max_solves=120)
        >>> result.loss < 1e-9
        True

    Source:
        Powell (2006), "The NEWUOA software for unconstrained optimization without
        derivatives"; Nesterov (2012), "Efficiency of coordinate descent methods on huge-scale
        optimization problems"; Hansen (2016), arXiv 1604.00772. The growing set of directions,
        the pair of models and the metric learnt from the model's curvature are this project's.
    """

    name = "trust-region"
    has_steps = True
    constraints = "kept"

    def rounds(self, search: Search) -> Rounds:
        """Local searches, restarts, and steps to discrete neighbours."""
        (first,) = yield [search.point(search.start, "start")]
        search, first = yield from whole(search, find_start(search, first))
        return (yield from self.continue_from(search, first)) if first.ok else NO_START

    def arrivals(self, search: Search) -> Arrivals:
        """The same, told each answer as it arrives."""
        return self.rounds(dataclasses.replace(search, is_asynchronous=True))

    def continue_from(self, search: Search, first: Evaluation) -> Rounds:
        """The same, from a start that is solved already."""
        feasible, is_mixed = search.problem.feasible, bool(search.space.discrete.any())
        if not feasible and not is_mixed:
            return ContinuousSearch(search, first, 1, may_restart=search.rules.restarts).rounds()
        part = dataclasses.replace(search, is_asynchronous=False)
        if feasible and is_mixed:
            return whole(search, penalized(MixedSearch(part, first).rounds(), feasible))
        if feasible:
            return whole(search, ConstrainedSearch(part, first, is_vector=False).rounds())
        is_noisy = takes_seed(search.problem.inner)
        return whole(search, (RacingSearch if is_noisy else MixedSearch)(part, first).rounds())
