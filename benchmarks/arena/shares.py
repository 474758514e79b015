"""How runs are counted: shares of pairs as in COCO, medians and ranks of medians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from benchmarks.arena.racing import Trace

TARGETS = np.power(10.0, np.arange(2, -8.01, -0.5))
"""Losses above the optimum, from 1e2 to 1e-8."""
BUDGETS = 60
"""How many budgets are looked at, evenly spaced in their logarithm from 1 to the whole budget."""


def pairs_and_targets(traces: Sequence[Trace], budget: int) -> tuple[float, float]:
    """Share of all pairs of a budget and a target that are reached, and of targets at the end.

    Args:
        traces: Of one method on one case, a seed each; one that was refused reaches nothing.
        budget: Solves of a run.

    Source:
        Hansen et al., "COCO: performance assessment" (arXiv:1605.03560).
    """
    solves = np.logspace(0, np.log10(budget), BUDGETS)
    reached = [trace.best_at(solves)[:, None] <= TARGETS for trace in traces]
    return float(np.mean(reached)), float(np.mean([one[-1] for one in reached]))


def median_loss(traces: Sequence[Trace]) -> float:
    """Median over the seeds of the loss at the point that the run reports.

    Args:
        traces: Of one method on one case.
    """
    return float(np.median([trace.loss for trace in traces]))


def ranks(medians: Mapping[str, float]) -> dict[str, float]:
    """Places of the methods on one case, 1 for the lowest; equal medians share their places.

    Args:
        medians: By method; equal to 1e-9 of their size counts as equal.
    """
    rounded = [float(f"{value:.9g}") for value in medians.values()]
    return dict(zip(medians, rankdata(rounded).tolist(), strict=True))


def wins(medians: Sequence[Mapping[str, float]], method: str, other: str) -> tuple[int, int]:
    """On how many cases a method is ahead of another, and behind it.

    Args:
        medians: By method, for each case.
        method: The one.
        other: The other.
    """
    placed = [ranks({method: case[method], other: case[other]}) for case in medians]
    return (
        sum(place[method] < place[other] for place in placed),
        sum(place[method] > place[other] for place in placed),
    )
