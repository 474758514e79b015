"""Data profiles and performance profiles over many problems.

Source: J. More and S. Wild, "Benchmarking derivative-free optimization algorithms", SIAM J.
Optim. 20 (2009); performance profiles: E. Dolan and J. More (2002).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.run.runs import Axis, Run
from zo_bilevel.support.errors import InputError

TAUS = (1e-1, 1e-3, 1e-5)
"""Shares of the possible gain that may be left: coarse, middling, fine."""


@final
@dataclass(frozen=True, slots=True)
class Case:
    """One problem with one start, solved by several methods.

    Args:
        problem: Its name.
        seed: Seed of the runs.
        size: N.
        runs: Each method's run.
    """

    problem: str
    seed: int
    size: int
    runs: tuple[Run, ...]

    @property
    def start_loss(self) -> float:
        """Loss at the common start: that of the first solve of most methods."""
        first = sorted(run.improvements[0].true_loss for run in self.runs if run.improvements)
        return first[len(first) // 2] if first else math.inf

    @property
    def lowest_loss(self) -> float:
        """Lowest loss that any method found."""
        found = [step.true_loss for run in self.runs for step in run.improvements]
        return min(found, default=math.inf)

    def counts(self, tau: float, by: Axis = "solves") -> dict[str, float]:
        """How soon each method came within tau of the best.

        Convergence test (More and Wild, eq. 2.2): `f(x) <= f_L + tau (f(x_0) - f_L)`.

        Args:
            tau: Share of the possible gain that may be left, in (0, 1).
            by: What is counted.

        Returns:
            The count by method; infinity where it never came so far.
        """
        lowest, start = self.lowest_loss, self.start_loss
        if not (math.isfinite(lowest) and math.isfinite(start)):
            return {run.method: math.inf for run in self.runs}
        level = lowest + tau * max(start - lowest, 0.0)
        counts = {}
        for run in self.runs:
            hits = (s.at(by) for s in run.improvements if s.true_loss <= level)
            counts[run.method] = next(hits, math.inf)
        return counts


@final
@dataclass(frozen=True, slots=True)
class Profile:
    """Share of the problems solved, as a step function.

    Args:
        method: Its label.
        positions: Where the share grows, ascending.
        shares: The share from there on, in [0, 1].
    """

    method: str
    positions: tuple[float, ...]
    shares: tuple[float, ...]

    def at(self, position: float) -> float:
        """The share at a position.

        Args:
            position: Of the same kind as `positions`.
        """
        place = int(np.searchsorted(self.positions, position, side="right"))
        return self.shares[place - 1] if place else 0.0


def cases_of(comparisons: Sequence[Comparison]) -> tuple[Case, ...]:
    """Every problem and seed for itself, without methods that refused it.

    Left out are problems whose losses on the way are noisy draws: the lowest of any method would
    be what every method is measured by.
    """
    return tuple(
        Case(found.problem, seed, max(found.size, 1), runs)
        for found in comparisons
        if not found.has_lucky_draws
        for seed in found.seeds
        if (runs := tuple(r for r in found.runs if r.seed == seed and r.is_counted))
    )


def data_profiles(
    cases: Sequence[Case], methods: Sequence[str], tau: float, by: Axis = "solves"
) -> tuple[Profile, ...]:
    """Share of the problems that a method solves within so many groups of N + 1 solves.

    `d_s(alpha) = |{p : t_ps <= alpha (n_p + 1)}| / |P|` (eq. 2.9); by rounds or seconds, where a
    group of N + 1 has no meaning, `d_s(alpha) = |{p : t_ps <= alpha}| / |P|`.

    Returns:
        One profile a method. A problem that it refused counts as not solved.
    """
    _check(tau)
    found = [case.counts(tau, by) for case in cases]
    units = [case.size + 1 if by == "solves" else 1 for case in cases]
    scaled = [
        [counts.get(method, math.inf) / unit for counts, unit in zip(found, units, strict=True)]
        for method in methods
    ]
    return tuple(_profile(m, row) for m, row in zip(methods, scaled, strict=True))


def performance_profiles(
    cases: Sequence[Case], methods: Sequence[str], tau: float, by: Axis = "solves"
) -> tuple[Profile, ...]:
    """Share of the problems that a method solves within so many times the best method's solves.

    `rho_s(alpha) = |{p : t_ps / min_s t_ps <= alpha}| / |P|` (eq. 2.1).
    """
    _check(tau)
    ratios: dict[str, list[float]] = {method: [] for method in methods}
    for case in cases:
        counts = case.counts(tau, by)
        best = min(counts.values(), default=math.inf)
        for method in methods:
            count = counts.get(method, math.inf)
            ratios[method].append(count / max(best, 1e-9) if math.isfinite(count) else math.inf)
    return tuple(_profile(method, row) for method, row in ratios.items())


def _check(tau: float) -> None:
    if not 0 < tau < 1:
        raise InputError(f"tau must lie in (0, 1), got {tau}")


def _profile(method: str, values: Sequence[float]) -> Profile:
    reached = sorted(value for value in values if math.isfinite(value))
    positions = sorted(set(reached))
    shares = [float(np.searchsorted(reached, p, side="right")) / len(values) for p in positions]
    return Profile(method, tuple(positions), tuple(shares))
