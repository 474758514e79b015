"""Local searches one after the other: the start's, then those of restarts while loss is left."""

from __future__ import annotations

from zo_bilevel.methods.constrained.constrained_search import ConstrainedSearch
from zo_bilevel.methods.gauss_newton.arrivals import Arrivals
from zo_bilevel.methods.gauss_newton.curve_search import look_along
from zo_bilevel.methods.gauss_newton.local_search import LocalSearch
from zo_bilevel.methods.gauss_newton.probing import Probing
from zo_bilevel.methods.gauss_newton.restarts import Restarts, Start
from zo_bilevel.methods.gauss_newton.sparse_start import sparse_start
from zo_bilevel.methods.gauss_newton.step_plan import StepPlan
from zo_bilevel.methods.notes import Notes
from zo_bilevel.methods.shared.mixed import Descent
from zo_bilevel.methods.shared.whole_rounds import one_round, whole

MOST_RETURNS = 2
"""Restarts that come back to the lowest minimum, after which it is taken for the only one."""


def descents(probing: Probing, *, may_restart: bool) -> Descent:
    """Ask for rounds until nothing is left to gain."""
    outer, first = probing.outer, probing.best.loss
    low, high = (end[probing.is_free] for end in probing.search.space.likely)
    restarts = Restarts(low, high, probing.search.seed, probing.width)
    best: LocalSearch | None = None
    seen, notes = list(probing.search.known), probing.search.notes
    following: Start | None
    following, may_restart = yield from look_along(probing, seen, is_allowed=may_restart)
    while following is not None:
        search = LocalSearch(probing, *following)
        if best is None:
            search.remember(seen)
        yield from sparse_start(search, probing)
        one_by_one = probing.search.is_asynchronous
        yield from (Arrivals(search, probing) if one_by_one else search).run()
        if search.noise.is_still and not search.is_solved:
            probing.refuse_stillness()
        restarts.remember(search.model.center)
        if search.is_at_edge and may_restart:
            sliding = ConstrainedSearch(probing.search, probing.best, is_vector=True)
            yield from whole(probing.search, sliding.rounds())
            break
        best = search if best is None else _lower(best, search, notes)
        notes.unseen = 0 if probing.is_exact else best.unseen
        left = outer.unexplained(best.model.loss, first)
        may_restart &= notes.returns < MOST_RETURNS and restarts.worth_it(left)
        if not may_restart or search.noise.found:
            break
        plan = StepPlan(points=restarts.round(), role="restart")
        if plan.points:
            found = yield from whole(probing.search, one_round(probing.points(plan)))
            answers = probing.answers(plan, found, best.model.theta)
            restarts.learn(outer, plan.points, answers.thetas)
        following = restarts.next_start()
    return probing.best


def _lower(best: LocalSearch, search: LocalSearch, notes: Notes) -> LocalSearch:
    """The lower of two searches; notes whether the second came back to where the first ended."""
    is_lower = search.model.loss < best.model.loss
    if best.ended_like(search):
        notes.returns += 1
    elif is_lower:
        notes.returns = 0
    return search if is_lower else best
