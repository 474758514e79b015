"""Data profiles: the share of problems that a method solves within so many groups of N + 1 solves.

Source: J. More and S. Wild, "Benchmarking derivative-free optimization algorithms", SIAM J.
Optim. 20 (2009), equations 2.2 and 2.9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from benchmarks.arena.best import smallest_loss
from benchmarks.arena.problem import ArenaProblem, FloatArray
from benchmarks.arena.running import ArenaRun

Judged: TypeAlias = Literal["best", "incumbent"]
TAUS = (1e-1, 1e-3, 1e-5, 1e-7)
"""Shares of the possible gain that may be left."""
BUDGETS = (5, 10, 25, 50, 100, 200)
"""Groups of N + 1 solves."""
AREA_GROUPS = np.logspace(-1, np.log10(200), 500)
"""Where the area is taken: evenly in the logarithm of the groups, from a tenth, as a field with a
prior is found in fewer solves than it has cells, to 200."""


def groups_to_solve(
    problem: ArenaProblem, run: ArenaRun, tau: float, judged: Judged = "best"
) -> float:
    """Groups of N + 1 solves until `f <= f_L + tau (f_0 - f_L)` (eq. 2.2), without noise.

    Args:
        problem: What was solved.
        run: Of one method.
        tau: Share of the possible gain that may be left.
        judged: "best" point so far, as in the paper, or the "incumbent" that the method itself
            would name, for good: the last time it comes below counts.

    Returns:
        Infinity when it never came so far.
    """
    lowest, first = smallest_loss(problem), problem.start_loss
    level = lowest + tau * (first - lowest)
    pairs = run.best if judged == "best" else run.incumbent
    solved = float("inf")
    for solve, loss in reversed(pairs):
        if loss > level:
            break
        solved = solve / (problem.size + 1)
    return solved


def share_table(
    problems: Sequence[ArenaProblem],
    runs: Mapping[tuple[str, int], ArenaRun],
    judged: Judged = "best",
) -> FloatArray:
    """Groups to solve of every problem and seed, shape `(runs, len(TAUS))`.

    Args:
        problems: Counted ones.
        runs: Of one method, by problem and seed.
        judged: See `groups_to_solve`.
    """
    known = {problem.name: problem for problem in problems}
    rows = [
        [groups_to_solve(known[name], run, tau, judged) for tau in TAUS]
        for (name, _), run in runs.items()
        if name in known
    ]
    return np.array(rows).reshape(-1, len(TAUS))


def shares(table: FloatArray) -> FloatArray:
    """The data profile at every tau and budget, shape `(len(TAUS), len(BUDGETS))` (eq. 2.9).

    Args:
        table: From `share_table`.
    """
    return np.array([[np.mean(column <= budget) for budget in BUDGETS] for column in table.T])


def profile(column: FloatArray) -> FloatArray:
    """The data profile at `AREA_GROUPS`.

    Args:
        column: Groups to solve at one tau.
    """
    return np.searchsorted(np.sort(column), AREA_GROUPS, side="right") / max(column.size, 1)


def area(table: FloatArray) -> float:
    """Mean over the taus of the area under the data profile, in [0, 1].

    Args:
        table: From `share_table`.
    """
    return float(np.mean([profile(column).mean() for column in table.T]))
