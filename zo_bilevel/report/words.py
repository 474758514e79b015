"""What a comparison says, in words, and no more than follows from it."""

import math

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.comparison.pairwise import paired_tests
from zo_bilevel.comparison.statistics import FEWEST_SEEDS, SIGNIFICANCE_LEVEL, PairedTest
from zo_bilevel.comparison.summaries import MethodSummary, Reached, level
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
    started = seeds_at_target(comparison)
    is_trivial = started == len({run.seed for run in comparison.runs if run.is_counted})
    front = _of_start(ranked, comparison) if is_trivial else _achievement(ranked, comparison)
    if started and not is_trivial:
        front += f" With {started} of {comparison.seeds_made[1]} seeds the start is there already."
    count = comparison.seeds_made[1]
    if count < FEWEST_SEEDS:
        seeds = "1 seed" if count == 1 else f"{count} seeds"
        return f"With {seeds} nothing follows (at least {FEWEST_SEEDS} are needed). So far: {front}"
    if len(ranked) == 1 or is_trivial:
        return front
    return f"{front} {_margin(ranked, comparison)} {_verdict(ranked[0], comparison)}".strip()


def _median(summary: MethodSummary) -> float:
    return math.inf if summary.loss is None else summary.loss[1]


def seeds_at_target(comparison: Comparison) -> int:
    """With how many seeds the start satisfies the target: all runs reach it at their first solve.

    Example:
        >>> seeds_at_target(Comparison("p", ("a",), (0,), 10, ()))
        0
    """
    if comparison.target is None:
        return 0
    later: dict[int, bool] = {}
    for run in comparison.runs:
        if run.is_counted:
            is_later = run.solves_to(comparison.target) > 1
            later[run.seed] = later.get(run.seed, False) or is_later
    return sum(not is_later for is_later in later.values())


def _of_start(ranked: list[MethodSummary], comparison: Comparison) -> str:
    return (
        f"On {comparison.problem}, the start satisfies {comparison.target} already, so that no "
        f"method is first to reach it: a lower target tells methods apart. {ranked[0].method} "
        f"found the lowest loss: {number(_median(ranked[0]))} in the median."
    )


def _as_soon(ranked: list[MethodSummary]) -> list[MethodSummary]:
    """Those that reached the target exactly as soon, and as often, as the first."""
    first = ranked[0]
    if first.to_target is None or not first.to_target.reached:
        return []
    return [
        s
        for s in ranked[1:]
        if s.to_target is not None
        and s.rank[:2] == first.rank[:2]
        and s.to_target.reached == first.to_target.reached
    ]


def _achievement(ranked: list[MethodSummary], comparison: Comparison) -> str:
    summary = ranked[0]
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
    took = f"{_in_median(reached)}ERT {number(reached.expected)} solves"
    front = f"{summary.method} was first to reach {comparison.target}"
    if _as_soon(ranked):
        front = f"no method reached {comparison.target} sooner than {summary.method}"
    runs = f"{reached.reached} of {len(reached.counts)} runs"
    return f"On {comparison.problem}, {front}: {runs}, {took}."


def _margin(ranked: list[MethodSummary], comparison: Comparison) -> str:
    first, second = ranked[0], ranked[1]
    if comparison.target is None or not (first.to_target and first.to_target.reached):
        if level(_median(first)) == level(_median(second)):
            return f"As low: {second.method}, after {second.solves:g} solves in the median."
        return f"Next: {second.method} with {number(_median(second))}."
    if tied := _as_soon(ranked):
        level_with = f"As soon: {listed([s.method for s in tied])}."
        others = [ranked[0], *(s for s in ranked[1:] if s not in tied)]
        return f"{level_with} {_margin(others, comparison)}" if len(others) > 1 else level_with
    if second.to_target is None or not second.to_target.reached:
        return f"Next: {second.method}, which never reached it."
    return (
        f"Next: {second.method}, {second.to_target.reached} of {len(second.to_target.counts)} "
        f"runs, {_in_median(second.to_target)}ERT {number(second.to_target.expected)}."
    )


def _in_median(reached: Reached) -> str:
    is_known = math.isfinite(reached.median)
    return f"after {reached.median:g} solves in the median, " if is_known else ""


def _verdict(best: MethodSummary, comparison: Comparison) -> str:
    order = [summary.method for summary in comparison.summaries()]
    found = sorted(paired_tests(comparison, best.method), key=lambda d: order.index(d.second))
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
