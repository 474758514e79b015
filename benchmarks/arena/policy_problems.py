"""Policies as problems: 27 to 33 weights, a rollout from a drawn state a solve, minus its return.

What a run reports is judged by the mean over rollouts that no run sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

import zo_bilevel as zb
from benchmarks.arena.case import Case
from benchmarks.arena.policy_environments import ENVIRONMENTS

BUDGETS = (100, 300)
BOUND = 3.0
FIRST_SCALE = 0.3
"""Standard deviation of the weights at the start."""
JUDGING_ROLLOUTS = 32
JUDGING_SEED = 10**6


def minus_return(name: str, phi: Mapping[str, Any], *, seed: int) -> float:
    """One rollout.

    Args:
        name: Of the environment.
        phi: The weights, as "w".
        seed: Of the state at the beginning and of what disturbs.
    """
    environment = ENVIRONMENTS[name]
    policy = environment.policy(np.asarray(phi["w"], dtype=np.float64))
    return -environment.rollout(policy, np.random.default_rng(seed))


def mean_minus_return(name: str, phi: Mapping[str, Any]) -> float:
    """The mean over rollouts that no run sees.

    Args:
        name: Of the environment.
        phi: The weights, as "w".
    """
    seeds = range(JUDGING_SEED, JUDGING_SEED + JUDGING_ROLLOUTS)
    return float(np.mean([minus_return(name, phi, seed=seed) for seed in seeds]))


def policy_task(name: str, seed: int) -> zb.Task:
    """An environment as a task; the start follows the seed.

    Args:
        name: Of the environment.
        seed: >= 0.
    """
    size = ENVIRONMENTS[name].size
    space = zb.Space(w=zb.Real(-BOUND, BOUND, (size,)))
    weights = np.random.default_rng([14, seed]).normal(0, FIRST_SCALE, size)
    return zb.Task(
        f"policy {name}",
        "",
        zb.Problem(space, partial(minus_return, name)),
        start=lambda _: {"w": weights},
        exact=zb.Problem(space, partial(mean_minus_return, name)),
    )


def cases() -> list[Case]:
    """Every environment with every budget."""
    return [
        Case("policy", name, f"policy-{name}", "policy", partial(policy_task, name), budget)
        for budget in BUDGETS
        for name in ENVIRONMENTS
    ]
