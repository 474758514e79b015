"""The first sketch of a sparse solver: a few solves tell the slopes along every parameter.

Where the pattern is not known yet, all parameters one by one tell it.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from zo_bilevel.estimators.sparse_zo import SparseZO
from zo_bilevel.methods.gauss_newton.local_search import LocalSearch
from zo_bilevel.methods.gauss_newton.probing import Probing
from zo_bilevel.methods.gauss_newton.step_plan import StepPlan
from zo_bilevel.methods.shared.whole_rounds import one_round, whole
from zo_bilevel.solve.evaluation import Evaluation, Point


def sparse_start(
    local: LocalSearch, probing: Probing
) -> Generator[list[Point], list[Evaluation], None]:
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
        columns = sparse.columns(measured)
        probing.sparse = sparse.seen_in(columns, model.theta, 1.0)
        if sparse.missed(columns / signs, ways, measured, model.theta) == 0.0:
            for place, sign in enumerate(signs):
                way = np.zeros(signs.size)
                way[place] = sign
                model.add_derivative(model.center, way, columns[:, place], 2.0)
            return
    if sparse.is_seen:
        probing.sparse = SparseZO()  # to be seen again
    local.learn(plan, answers)
