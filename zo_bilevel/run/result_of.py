"""What a run found, once it is over."""

import numpy as np

from zo_bilevel.methods.base import Method
from zo_bilevel.methods.state import Notes
from zo_bilevel.problem.objectives.robust_error import RobustError
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.problem import Problem
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.run.final_point import may_be_noisy
from zo_bilevel.run.fit import at_end, linearised, warnings_of
from zo_bilevel.run.ledger import Ledger
from zo_bilevel.run.result import Result
from zo_bilevel.run.verdict import Verdict
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import own
from zo_bilevel.support.errors import InnerSolverError
from zo_bilevel.support.memory import process_memory


def result_of(
    problem: Problem,
    method: Method,
    seed: int,
    evaluator: Evaluator,
    ledger: Ledger,
    reason: str,
    verdict: Verdict | None,
    notes: Notes,
    moved: str,
) -> Result:
    """The result of a run, from its books and its final point.

    Raises:
        InnerSolverError: If no solve succeeded.
    """
    best = ledger.best
    if best is None or best.theta is None or evaluator.bound is None:
        if not ledger.solves:
            raise InnerSolverError(f"not one solve was made: {reason}")
        if evaluator.stopped is not None:
            raise InnerSolverError(f"no solve had succeeded: {reason}")
        raise InnerSolverError(
            f"none of {ledger.solves} solves succeeded; the first one {ledger.first_error}"
        )
    unjudged = _unjudged(ledger, is_noisy=verdict is None and may_be_noisy(evaluator, notes))
    verdict = verdict or Verdict(best, best.loss)
    chosen = verdict.evaluation
    space, outer, x = problem.space, evaluator.bound.outer, chosen.point.x
    fit = linearised(space, outer, notes.slopes, x, chosen.theta)
    if (ends := at_end(space, x)) and reason.startswith(("converged", "nothing left")):
        reason = f"the search reached the end of the scale of {', '.join(ends)}: give scale="
    return Result(
        phi=problem.space.decode(chosen.point.x),
        loss=verdict.loss,
        standard_error=verdict.standard_error,
        interval=verdict.interval,
        draws=verdict.draws,
        theta=evaluator.bound.layout.pack(own(chosen.theta)),
        solves=ledger.solves,
        rounds=ledger.rounds,
        seconds=ledger.seconds,
        cost=ledger.cost,
        stop_reason=reason + _certainty(notes, verdict) + _unconfirmed(notes, chosen, problem),
        method=method.name,
        seed=seed,
        failures=dict(ledger.failures),
        history=tuple(ledger.history),
        x=chosen.point.x,
        memory=process_memory(),
        warnings=(*filter(None, [moved, unjudged]), *warnings_of(fit, space, x)),
        space=space,
        objective=outer if isinstance(outer, SquaredError | RobustError) else None,
        slopes=None if fit is None else fit.slopes,
        violation=chosen.violation if problem.feasible else None,
        minima=notes.minima,
        parts=evaluator.bound.parts(chosen.theta, x) if chosen.theta is not None else {},
        reused=0 if evaluator.recorder is None else evaluator.recorder.replayed,
    )


def _unjudged(ledger: Ledger, *, is_noisy: bool) -> str:
    """That a loss is the luckiest of several draws, in words."""
    if not is_noisy or ledger.losses.seem_exact or ledger.solves < 2:
        return ""
    return (
        f"no solve was left to judge the final point on fresh seeds: its loss is the lowest of "
        f"{ledger.solves}, too low where solves are noisy"
    )


def _unconfirmed(notes: Notes, chosen: Evaluation, problem: Problem) -> str:
    """What cheap solves recommend and no full one has judged, in words."""
    at = notes.recommended
    if not notes.full_price or at is None or np.array_equal(chosen.point.x, at):
        return ""
    values = ", ".join(f"{name}={value}" for name, value in problem.space.decode(at).items())
    return f"; cheap solves recommend {values}, which no full solve has confirmed"


def _certainty(notes: Notes, verdict: Verdict | None) -> str:
    """How sure the method is of the point reported, where it says so."""
    known, at = notes.certainty, notes.recommended
    if verdict is None or known is None or at is None:
        return ""
    if not np.array_equal(verdict.evaluation.point.x, at):
        return ""
    return f"; the point reported is the best of those solved with probability {known:.2f}"
