"""Slot tables as problems: which option for each slot, seen through right and wrong answers.

The budget is in calls, one an example. A case says how many examples one solve asks: all 64, or a
mini-batch that the solve's seed draws. What a run reports is judged by the share of the gain that
was to be had, from a median combination to the best one; the loss is 1 minus that.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

import zo_bilevel as zb
from benchmarks.arena.case import Case
from benchmarks.arena.slots_worlds import EXAMPLES, OPTIONS, SLOTS, Kind, World, make_world

CALLS = (640, 2560)
BATCHES = (EXAMPLES, 16, 4)
NAMES = tuple(f"s{k}" for k in range(SLOTS))
FloatArray = NDArray[np.float64]


@cache
def _accuracies(kind: Kind, seed: int) -> FloatArray:
    return make_world(kind, seed).accuracies()


def lost_share(kind: Kind, seed: int, phi: Mapping[str, Any]) -> float:
    """Share of the possible gain that a combination misses: 0 is the best one, 1 a median one.

    Args:
        kind: Of the world.
        seed: Of the world.
        phi: An option for each slot.
    """
    table = _accuracies(kind, seed)
    best, middle = float(table.max()), float(np.median(table))
    return (best - float(table[tuple(phi[name] for name in NAMES)])) / (best - middle)


def _log_chances(answers: FloatArray) -> FloatArray:
    """What a prompt task returns: log probabilities of right, wrong and something else."""
    right = answers[:, None] > 0
    return np.where(right, np.log([0.98, 0.01, 0.01]), np.log([0.01, 0.98, 0.01]))


def _answers(
    world: World, is_noisy: bool, batch: int, phi: Mapping[str, Any], *, seed: int
) -> FloatArray:
    picks, rng = [phi[name] for name in NAMES], np.random.default_rng(seed)
    chosen = slice(None) if batch == EXAMPLES else rng.choice(EXAMPLES, batch, replace=False)
    if is_noisy:
        chances = world.chances(picks)[chosen]
        return _log_chances((rng.random(chances.size) < chances).astype(float))
    return _log_chances(world.fixed_answers(picks)[chosen])


def _all_fixed_answers(world: World, phi: Mapping[str, Any]) -> FloatArray:
    return _log_chances(world.fixed_answers([phi[name] for name in NAMES]))


def slots_task(kind: Kind, is_noisy: bool, batch: int, seed: int) -> zb.Task:
    """A world as a task; a solve takes a seed unless it can only give one answer.

    Args:
        kind: Of the world.
        is_noisy: Whether an answer is drawn anew each time it is asked for.
        batch: Examples a solve, up to 64.
        seed: Of the world.
    """
    world = make_world(kind, seed)
    space = zb.Space({name: zb.Choice(tuple(range(OPTIONS))) for name in NAMES})
    inner: Any = partial(_answers, world, is_noisy, batch)
    if not is_noisy and batch == EXAMPLES:
        inner = partial(_all_fixed_answers, world)
    return zb.Task(
        f"slots {kind}",
        "",
        zb.Problem(space, inner, zb.CrossEntropy([0] * batch)),
        start=lambda _: dict.fromkeys(NAMES, 0),
        exact=zb.Problem(space, partial(lost_share, kind, seed)),
    )


def cases() -> list[Case]:
    """Every kind, with and without noise, at each budget of calls and each size of a batch."""
    return [
        Case(
            "slots",
            f"{kind}, {'noisy' if is_noisy else 'fixed'} answers, {batch} a solve",
            f"slots-{kind}",
            f"{'noisy' if is_noisy else 'fixed'}, {batch} a solve",
            partial(slots_task, kind, is_noisy, batch),
            calls // batch,
        )
        for calls in CALLS
        for batch in BATCHES
        for is_noisy in (False, True)
        for kind in get_args(Kind)
    ]
