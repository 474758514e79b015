"""What a comparison says, in words, and no more than follows from it."""

import math

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.comparison.pairwise import paired_tests
from zo_bilevel.comparison.statistics import FEWEST_SEEDS, SIGNIFICANCE_LEVEL, PairedTest
from zo_bilevel.comparison.summaries import MethodSummary, level
from zo_bilevel.support.tables import listed, number


def conclusion(comparison: Comparison) -> str:
    """The result in a few sentences.

    Returns:
        Who is in front and by how much; against whom that is more than chance. With fewer than 5
        seeds it says that nothing follows.

    Example:
        >>> conclusion(Comparison("p", ("a",), (0,), 10, ()))
        'No method found anything on p.'
    """
    ranked = [summary for summary in comparison.summaries() if math.isfinite(_median(summary))]
    if not ranked:
        return f"No method found anything on {comparison.problem}."
    front = _achievement(ranked[0], comparison)
    if len(comparison.seeds) < FEWEST_SEEDS:
        count = len(comparison.seeds)
        seeds = "1 seed" if count == 1 else f"{count} seeds"
        return f"With {seeds} nothing follows (at least {FEWEST_SEEDS} are needed). So far: {front}"
    if len(ranked) == 1:
        return front
    return f"{front} {_margin(ranked, comparison)} {_verdict(ranked[0], comparison)}".strip()


def _median(summary: MethodSummary) -> float:
    return math.inf if summary.loss is None else summary.loss[1]


def _achievement(summary: MethodSummary, comparison: Comparison) -> str:
    reached, loss = summary.to_target, number(_median(summary))
    if reached is None:
        made = max(run.solves for run in comparison.runs_of(summary.method))
        return (
            f"On {comparison.problem}, {summary.method} found the lowest loss: {loss} in the "
            f"median after at most {made} solves."
        )
    if not reached.reached:
        return (
            f"On {comparison.problem}, no method reached {comparison.target} within "
            f"{comparison.max_solves} solves; {summary.method} came nearest, with a loss of {loss}."
        )
    took = f"ERT {number(reached.expected)} solves"
    if math.isfinite(reached.median):
        took = f"after {reached.median:g} solves in the median, {took}"
    return (
        f"On {comparison.problem}, {summary.method} was first to reach {comparison.target}: "
        f"{reached.reached} of {len(reached.counts)} runs, {took}."
    )


def _margin(ranked: list[MethodSummary], comparison: Comparison) -> str:
    first, second = ranked[0], ranked[1]
    if comparison.target is None or not (first.to_target and first.to_target.reached):
        if level(_median(first)) == level(_median(second)):
            return f"As low: {second.method}, after {second.solves:g} solves in the median."
        return f"Next: {second.method} with {number(_median(second))}."
    if second.to_target is None or not second.to_target.reached:
        return f"Next: {second.method}, which never reached it."
    return (
        f"Next: {second.method}, {second.to_target.reached} of {len(second.to_target.counts)} "
        f"runs, ERT {number(second.to_target.expected)}."
    )


def _verdict(best: MethodSummary, comparison: Comparison) -> str:
    found = paired_tests(comparison, best.method)
    if not found:
        return ""
    decided = [d.second for d in found if d.is_decided and d.probability > 0.5]
    open_ones = [d for d in found if d.second not in decided]
    if not open_ones:
        worst = max(d.p_value for d in found)
        return (
            f"It is better than every other method by more than chance (p <= {number(worst, 2)})."
        )
    if not decided and all(d.probability == 1.0 and d.num_seeds > 1 for d in open_ones):
        return (
            f"It is ahead of every other with every seed, but {len(comparison.seeds)} seeds cannot "
            f"rule out chance among {len(found) + 1} methods; {seeds_needed(len(found))} can."
        )
    if not decided:
        return f"No difference is beyond chance: {_chances(open_ones)}."
    return (
        f"It is better than {listed(decided)} by more than chance; not beyond chance: "
        f"{_chances(open_ones)}."
    )


def seeds_needed(num_rivals: int) -> int:
    """Fewest seeds with which being ahead on every one of them is beyond chance.

    Example:
        >>> seeds_needed(1), seeds_needed(5)
        (6, 8)
    """
    seeds = FEWEST_SEEDS
    while num_rivals * 2.0 ** (1 - seeds) >= SIGNIFICANCE_LEVEL:
        seeds += 1
    return seeds


def _chances(found: list[PairedTest]) -> str:
    shown = [
        f"{d.second} (better with {100 * d.probability:.0f} % of the seeds, p = "
        f"{number(d.p_value, 2)})"
        if d.num_seeds > 1
        else f"{d.second} (the same two runs with every seed)"
        for d in found
    ]
    return listed(shown, most=4)
