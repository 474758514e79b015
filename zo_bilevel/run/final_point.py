"""Judging the final point afresh when solves are noisy, so that lucky draws do not win.

With noise the lowest loss of a run is an underestimate: the luckiest of many draws. A share of the
budget is kept back to solve the candidates again with fresh seeds; their mean is reported, with
its standard error.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.special import stdtrit

from zo_bilevel.methods.state import Notes
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.run.ledger import Ledger
from zo_bilevel.run.result import Record
from zo_bilevel.solve.evaluation import CONFIRM_ROLE, Evaluation, Point
from zo_bilevel.solve.streams import CONFIRM_STREAM

CONFIRMING_SHARE = 0.1
MOST_SOLVES = 8
OVERRULED_BY_LUCK = 0.023
"""How often the lowest loss may overrule a recommendation that is as good: two standard errors of
many solves, 4.5 of two each."""


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """The point to report and its loss.

    Args:
        evaluation: The point's first solve, for its inner solution.
        loss: Mean loss over fresh seeds, or the one loss there is.
        standard_error: Of that mean, or `None` when solves are not known to be noisy.
        num_solves: That the mean is of.
    """

    evaluation: Evaluation
    loss: float
    standard_error: float | None = None
    num_solves: int = MOST_SOLVES


def keep_back(ledger: Ledger, full_price: float = 0.0) -> int:
    """Set aside a tenth of the budget, at most 8 solves or their price.

    Args:
        ledger: Of the run.
        full_price: Set aside instead, as long as there is as much, and one solve with it: of the
            full solve that shall judge what cheap ones recommend.

    Returns:
        How many solves that is; as many as are wanted where solves are not limited.
    """
    solves, cost = ledger.budget.max_solves, ledger.budget.max_cost
    if cost is not None:
        ledger.cost_reserve = min(MOST_SOLVES * ledger.prices.highest, CONFIRMING_SHARE * cost)
        if 0.0 < full_price <= cost - ledger.cost:
            ledger.cost_reserve = full_price
    if solves is None:
        return MOST_SOLVES
    ledger.reserve = max(min(MOST_SOLVES, int(CONFIRMING_SHARE * solves)), int(full_price > 0.0))
    return ledger.reserve


def confirm(
    evaluator: Evaluator,
    ledger: Ledger,
    notes: Notes,
    callback: Callable[[Record], None] | None,
) -> Verdict | None:
    """Solve the candidates again with fresh seeds and choose by the mean.

    Args:
        evaluator: Runs the solves.
        ledger: Charged for them.
        notes: The method's recommendation competes with the lowest loss.
        callback: Told each solve.

    Returns:
        The verdict, or `None` when no budget is left for it.
    """
    best = ledger.best
    if best is None:
        return None
    candidates = [best.point.x]
    if notes.recommended is not None and not np.array_equal(notes.recommended, best.point.x):
        candidates.append(notes.recommended)
    wanted = keep_back(ledger, notes.full_price)
    ledger.reserve, ledger.cost_reserve = 0, 0.0
    repeats = ledger.room(wanted) // len(candidates)
    if repeats < 1 and ledger.room(1):  # enough for one: for what rests on more than luck
        candidates, repeats = candidates[-1:], 1
    if repeats < 1:
        return None
    points = [
        Point(x, (CONFIRM_STREAM, repeat), CONFIRM_ROLE)
        for x in candidates
        for repeat in range(repeats)
    ]
    evaluations = evaluator.evaluate_part(points)
    ledger.rounds += bool(evaluations)
    if len(evaluations) < len(points) and evaluator.stopped is None:
        ledger.out_of_time()
    with suppress(StopIteration):  # the run has ended already
        ledger.charge_all(evaluations, callback)
    return chosen([evaluations[i : i + repeats] for i in range(0, len(evaluations), repeats)])


def chosen(groups: Sequence[Sequence[Evaluation]]) -> Verdict | None:
    """The point to report, from fresh solves of the candidates.

    Args:
        groups: Fresh solves of the point of lowest loss, and of the recommended one if that is
            another.

    Returns:
        The verdict, or `None` when all solves failed.
    """
    return _chosen([verdict for verdict in map(_judge, groups) if verdict is not None])


def _chosen(verdicts: list[Verdict]) -> Verdict | None:
    """The recommended point, the last, unless the lowest loss seen proves better.

    A few fresh solves of two good points do not tell them apart; the recommendation rests on many.
    """
    if len(verdicts) < 2:
        return verdicts[0] if verdicts else None
    lowest, recommended = verdicts
    errors = [verdict.standard_error for verdict in verdicts]
    doubt = math.hypot(*(math.inf if error is None else error for error in errors))
    freedom = max(1, lowest.num_solves + recommended.num_solves - 2)
    margin = 0.0 if math.isnan(doubt) else -float(stdtrit(freedom, OVERRULED_BY_LUCK)) * doubt
    return lowest if lowest.loss + margin < recommended.loss else recommended


def _judge(group: Sequence[Evaluation]) -> Verdict | None:
    losses = [evaluation.loss for evaluation in group if evaluation.ok]
    if not losses:
        return None
    first = next(evaluation for evaluation in group if evaluation.ok)
    if len(losses) == 1:
        return Verdict(first, losses[0], math.nan)
    error = float(np.std(losses, ddof=1)) / math.sqrt(len(losses))
    return Verdict(first, float(np.mean(losses)), error, len(losses))
