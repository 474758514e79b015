"""Local searches one after the other: the start's, then those of restarts while loss is left."""

from __future__ import annotations

from zo_bilevel.methods.gauss_newton.explorer import Explorer
from zo_bilevel.methods.gauss_newton.local_search import LocalSearch
from zo_bilevel.methods.gauss_newton.probing import Probing
from zo_bilevel.methods.gauss_newton.restarts import Restarts, Start
from zo_bilevel.methods.gauss_newton.step_plan import StepPlan
from zo_bilevel.methods.shared.mixed import Descent


def descents(probing: Probing, *, may_restart: bool) -> Descent:
    """Ask for rounds until nothing is left to gain.

    Args:
        probing: The continuous coordinates around a solved start.
        may_restart: Whether to look elsewhere when loss is left.

    Yields:
        Rounds of points.

    Returns:
        The best solve.
    """
    restarts = Restarts(probing.lower, probing.upper, probing.search.seed, probing.width)
    best: LocalSearch | None = None
    following: Start | None = probing.start
    while following is not None:
        explorer = Explorer(probing.lower, probing.upper, probing.directions)
        search = LocalSearch(probing, *following, explorer)
        yield from search.run(may_give_up=may_restart and restarts.cheap)
        restarts.remember(search.center)
        best = search if best is None or search.loss < best.loss else best
        if not restarts.cheap and not best.is_finished:
            yield from best.run(may_give_up=False)
        if not may_restart or not restarts.worth_it(best.loss, best.theta):
            break
        plan = StepPlan(points=restarts.round())
        if plan.points:
            answers = probing.answers(plan, (yield probing.points(plan)))
            restarts.learn(probing.model, plan.points, answers.trials)
        following = restarts.next_start()
    return probing.best
