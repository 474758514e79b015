"""Local searches one after the other: the start's, then those of restarts while loss is left."""

import numpy as np

from zo_bilevel.estimators.sparse_zo import SparseZO
from zo_bilevel.methods.constrained.constrained_search import ConstrainedSearch
from zo_bilevel.methods.gauss_newton.arrivals import Arrivals
from zo_bilevel.methods.gauss_newton.curve_search import look_along
from zo_bilevel.methods.gauss_newton.far_start import far_start
from zo_bilevel.methods.gauss_newton.local_search import LocalSearch
from zo_bilevel.methods.gauss_newton.probing import Probing, StepPlan
from zo_bilevel.methods.gauss_newton.restarts import UNEXPLAINED_SHARE, Restarts, Start
from zo_bilevel.methods.shared.mixed import Descent
from zo_bilevel.methods.shared.whole_rounds import one_round, whole
from zo_bilevel.methods.state import Notes, RoundsThen
from zo_bilevel.solve.evaluation import Evaluation

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
        search, obstacle = yield from _descend(probing, following, seen if best is None else [])
        restarts.remember(search.model.center)
        if search.is_at_edge and may_restart:
            notes.has_slid = True
            sliding = ConstrainedSearch(probing.search, probing.best, is_vector=True)
            yield from whole(probing.search, sliding.rounds())
            break
        best = search if best is None else _lower(best, search, notes)
        notes.unseen = 0 if probing.is_exact else best.unseen
        is_flat = not outer.is_quadratic and best.is_solved
        notes.is_flat = is_flat and best.model.loss == first != 0.0
        left = outer.unexplained(best.model.loss, first)
        if best is search:
            notes.obstacle = obstacle if left > UNEXPLAINED_SHARE else ""
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


def _descend(
    probing: Probing, start: Start, seen: list[Evaluation]
) -> RoundsThen[tuple[LocalSearch, str]]:
    """One search, or several where slopes say that the answer lies far off; see `far_start`."""
    following: Start | None = start
    while following is not None:
        search = LocalSearch(probing, *following)
        search.remember(seen)
        yield from sparse_start(search, probing)
        one_by_one = probing.search.is_asynchronous
        yield from (Arrivals(search, probing) if one_by_one else search).run()
        if search.noise.is_still and not search.is_solved:
            probing.refuse_stillness()
        following, obstacle = yield from far_start(probing, search)
    return search, obstacle


def _lower(best: LocalSearch, search: LocalSearch, notes: Notes) -> LocalSearch:
    """The lower of two searches; notes whether the second came back to where the first ended."""
    is_lower = search.model.loss < best.model.loss
    if best.ended_like(search):
        notes.returns += 1
    elif is_lower:
        notes.returns = 0
    return search if is_lower else best


def sparse_start(local: LocalSearch, probing: Probing) -> RoundsThen[None]:
    """Difference each group of parameters, and a direction that checks the pattern.

    Where the pattern is refuted, or a solve failed, what was measured is learnt as any difference
    is, and the search goes on as without it.

    Yields:
        One round; none without a pattern.

    Raises:
        InputError: If the pattern does not fit the parameters or the inner solution.
    """
    if (sparse := probing.sparse) is None:
        return
    model, radius = local.model, local.noise.radius
    sparse.check_shape(model.theta.size, model.center.size)
    signs = np.where(model.center + 2.0 * radius <= probing.upper, radius, -radius)
    ways = sparse.ways(probing.search.rng(9), signs.size) * signs[:, None]
    plan = StepPlan(base=model.center, probes=list(ways.T))
    found = yield from whole(probing.search, one_round(probing.points(plan)))
    answers = probing.answers(plan, found, model.theta)
    changes = [change.change for change in answers.changes if change is not None]
    if len(changes) == ways.shape[1]:
        measured = np.column_stack(changes)
        columns, precision = sparse.columns(measured), probing.outer.resolution
        probing.sparse = sparse.seen_in(columns, model.theta, 1.0, precision)
        if sparse.missed(columns / signs, ways, measured, model.theta, precision) == 0.0:
            for place, sign in enumerate(signs):
                way = np.zeros(signs.size)
                way[place] = sign
                model.add_derivative(model.center, way, columns[:, place], 2.0)
            return
    if sparse.is_seen:
        probing.sparse = SparseZO()  # to be seen again
    local.learn(plan, answers)
