"""Variants of a problem: noise of three kinds, and boxes far too wide."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from benchmarks.arena.problem import ArenaProblem, Noise, NoiseKind, box_around

LEVELS = (1e-6, 1e-4, 1e-3, 1e-2)
KINDS: tuple[NoiseKind, ...] = ("additive", "proportional", "step")
TIMES = (1e3, 1e6)
NOISY_GROUPS = 100


def with_noise(problem: ArenaProblem, noise: Noise) -> ArenaProblem:
    """The same problem, its answers spoilt; counted in the group of that kind of noise.

    Args:
        problem: Without noise.
        noise: Kind and level.
    """
    return replace(
        problem,
        name=f"{problem.name}/{noise}",
        group=f"{noise.kind}-noise",
        noise=noise,
        max_groups=min(problem.max_groups, NOISY_GROUPS),
    )


def noisy_variants(problems: Iterable[ArenaProblem], *, every: bool = False) -> list[ArenaProblem]:
    """Each problem with additive and proportional noise, and every third with steps.

    Args:
        problems: Without noise.
        every: All levels of all kinds; else the name's hash chooses one level of each kind.
    """
    found = []
    for problem in problems:
        digest = hashlib.sha256(problem.name.encode()).digest()
        for place, kind in enumerate(KINDS):
            levels = LEVELS if every else (LEVELS[digest[place] % len(LEVELS)],)
            if every or kind != "step" or digest[-1] % 3 == 0:
                found += [with_noise(problem, Noise(kind, level)) for level in levels]
    return found


def wide_variants(problems: Iterable[ArenaProblem]) -> list[ArenaProblem]:
    """Each problem with a placeholder box of a thousand and a million times the start.

    Args:
        problems: Those whose box is a placeholder.
    """
    found = []
    for problem in problems:
        for times in TIMES:
            lower, upper = box_around(problem.start, times)
            found.append(
                replace(
                    problem,
                    name=f"{problem.name}/wide-{times:.0e}",
                    group="wide",
                    lower=np.minimum(lower, problem.lower),
                    upper=np.maximum(upper, problem.upper),
                    max_groups=min(problem.max_groups, NOISY_GROUPS),
                )
            )
    return found
