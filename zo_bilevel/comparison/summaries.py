"""The runs of one method in numbers: medians, quartiles, how many reached a target."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

from zo_bilevel.comparison.statistics import expected_running_time
from zo_bilevel.run.runs import Run, Target

Quartiles: TypeAlias = tuple[float, float, float]
"""First quartile, median, third quartile."""
LOSS_DIGITS = 10
"""Of two losses that are compared: the others are rounding."""

MOST_REUSED = 0.05
"""Of a method's solves, that may take no time before its seconds are not those of the others."""


def level(loss: float) -> float:
    """A loss without the digits that are rounding; those that are equal are level.

    Example:
        >>> level(1.18297188558) == level(1.18297188559)
        True
    """
    return float(f"{loss:.{LOSS_DIGITS - 1}e}")


def quantile(values: Sequence[float], share: float) -> float:
    """Quantile by linear interpolation, where infinity is a value like others.

    Returns:
        The quantile; infinity as soon as an infinite value has a part in it.

    Example:
        >>> quantile([3.0, 1.0, math.inf], 0.5), quantile([1.0, math.inf], 0.5)
        (3.0, inf)
    """
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    weight = position - below
    if weight < 1e-12:
        return ordered[below]
    upper = ordered[below + 1]
    if math.isinf(upper):
        return upper
    return ordered[below] * (1.0 - weight) + upper * weight


def quartiles(values: Sequence[float]) -> Quartiles:
    """First quartile, median and third quartile."""
    return quantile(values, 0.25), quantile(values, 0.5), quantile(values, 0.75)


@final
@dataclass(frozen=True, slots=True)
class Reached:
    """How soon the runs reached a target.

    Args:
        counts: Solves of each run until the target, infinity where it was never reached.
        budget: Solves that a run had.
        spent: Solves that each run spent in all; default the budget.
    """

    counts: tuple[float, ...]
    budget: int
    spent: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """Median over *all* runs; infinity when half of them or more never reached it.

        A median over those that did would flatter a method that rarely does.
        """
        return quantile(self.counts, 0.5) if self.counts else math.inf

    @property
    def expected(self) -> float:
        """Expected running time (ERT) as in COCO; infinity when no run reached it."""
        return expected_running_time(self.counts, self.spent or (self.budget,) * len(self.counts))

    @property
    def reached(self) -> int:
        """How many runs reached it."""
        return sum(math.isfinite(count) for count in self.counts)

    def __str__(self) -> str:
        shown = f"{self.median:g}" if math.isfinite(self.median) else f">{self.budget}"
        return f"{shown} ({self.reached}/{len(self.counts)})"


@final
@dataclass(frozen=True, slots=True)
class MethodSummary:
    """All runs of one method.

    Args:
        method: Its label.
        num_runs: Runs that count: neither refused nor interrupted, whose budget was another.
        loss: Quartiles of the final loss, or `None` when no run counts.
        to_target: Solves to the target, where there is one.
        rounds_to_target: Rounds to the target, likewise.
        relative_error: Quartiles of the final relative error, where the truth is known.
        solves: Median of the solves spent.
        rounds: Median of the rounds.
        seconds: Median of the seconds.
        failures: Failed solves of all runs.
        errors: Why runs were refused, failed or broke off, each reason once, and in how many of
            them where that has to be said.
        held_out: Median loss on held-out data, where the task has them.
        feasible: How many runs ended where all constraints hold, of how many, and how the method
            keeps them; `None` where the problem has none. The loss of the others is infinite.
        cut_short: How many runs an error of the method ended after they had found something.
        reused: Solves of all runs whose answers a store already had.
        share_reused: Of all their solves.
    """

    method: str
    num_runs: int
    loss: Quartiles | None
    to_target: Reached | None
    rounds_to_target: Reached | None
    relative_error: Quartiles | None
    solves: float
    rounds: float
    seconds: float
    failures: int
    errors: tuple[str, ...]
    held_out: float | None = None
    feasible: tuple[int, int, str] | None = None
    cut_short: int = 0
    reused: int = 0
    share_reused: float = 0.0

    @property
    def is_timed(self) -> bool:
        """Whether its seconds are those of nearly all its solves."""
        return self.share_reused <= MOST_REUSED

    @property
    def rank(self) -> tuple[float, float, float, float]:
        """Smaller is better: median solves to the target, then ERT, then median loss and solves."""
        if self.loss is None:
            return math.inf, math.inf, math.inf, math.inf  # refused
        found = (level(self.loss[1]), self.solves)
        if self.to_target is None:
            return 0.0, 0.0, *found
        return self.to_target.median, self.to_target.expected, *found


def summarize(
    method: str, runs: Sequence[Run], max_solves: int, target: Target | None = None
) -> MethodSummary:
    """Sum up the runs of one method.

    Returns:
        The summary; runs that failed or broke off count with the loss they had, infinity when they
        had none, and with the solves they had spent.
    """
    kept = [run for run in runs if run.is_counted]
    known = [run.relative_error for run in kept]
    known_errors = [math.inf if error is None else error for error in known]
    held_out = [run.held_out_loss for run in kept if run.held_out_loss is not None]
    has_error = any(error is not None for error in known)
    to_target = rounds_to_target = None
    if target is not None and kept:
        solves, rounds = tuple(r.solves for r in kept), tuple(r.rounds for r in kept)
        to_target = Reached(tuple(r.solves_to(target) for r in kept), max_solves, solves)
        rounds_to_target = Reached(tuple(r.rounds_to(target) for r in kept), max_solves, rounds)
    reused = sum(run.reused for run in kept)
    return MethodSummary(
        method=method,
        num_runs=len(kept),
        loss=quartiles([run.loss for run in kept]) if kept else None,
        to_target=to_target,
        rounds_to_target=rounds_to_target,
        relative_error=quartiles(known_errors) if has_error else None,
        solves=quantile([run.solves for run in kept], 0.5) if kept else 0.0,
        rounds=quantile([run.rounds for run in kept], 0.5) if kept else 0.0,
        seconds=quantile([run.seconds for run in kept], 0.5) if kept else 0.0,
        failures=sum(sum(run.failures.values()) for run in kept),
        errors=_errors(runs),
        held_out=quantile(held_out, 0.5) if held_out else None,
        feasible=_feasible(kept),
        cut_short=sum(run.is_cut_short for run in kept),
        reused=reused,
        share_reused=reused / max(sum(run.solves for run in kept), 1),
    )


def _errors(runs: Sequence[Run]) -> tuple[str, ...]:
    """Reasons, those of runs that do count with how many they ended."""
    found = Counter((run.status, run.error) for run in runs if run.error)
    return tuple(
        f"{status} in {count} of {len(runs)} runs: {error}"
        if status == "broke off" or count < len(runs)
        else error
        for (status, error), count in found.items()
    )


def _feasible(runs: Sequence[Run]) -> tuple[int, int, str] | None:
    how = [run.constraints for run in runs if run.constraints]
    if not how:
        return None
    return sum(run.is_feasible and run.violation is not None for run in runs), len(runs), how[0]
