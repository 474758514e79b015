"""All mixed problems: integers and choices, alone or among reals, with random starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import zo_bilevel as zb
from benchmarks.arena import mixed_combinatorial, mixed_engineering, mixed_synthetic
from benchmarks.arena.case import Case
from benchmarks.arena.mixed_synthetic import Made

BUDGETS = (60, 120, 200)
MADE: dict[str, Callable[[np.random.Generator], Made]] = {
    **mixed_synthetic.PROBLEMS,
    **mixed_combinatorial.PROBLEMS,
}


def random_start(space: zb.Space, rng: np.random.Generator) -> dict[str, Any]:
    """A point uniform in the scaled box, every option of a choice as likely as the others.

    Args:
        space: The space.
        rng: Random numbers.
    """
    return space.decode(rng.uniform(space.lower, space.upper))


def mixed_task(name: str, seed: int) -> zb.Task:
    """One problem; the instance of a made one and the start follow the seed.

    Args:
        name: Of the problem.
        seed: >= 0.
    """
    if name in MADE:
        space, inner = MADE[name](np.random.default_rng([11, seed]))
    else:
        inner, space = mixed_engineering.PROBLEMS[name]
    problem = zb.Problem(space, inner)
    if name == "wide integers":
        problem = zb.Problem(space, inner, zb.SquaredError(np.zeros(3)))
    start = random_start(space, np.random.default_rng([12, seed]))
    return zb.Task(name, "", problem, start=lambda _: start)


def cases() -> list[Case]:
    """Every problem with every budget."""
    return [
        Case("mixed", name, name.replace(" ", "-"), "mixed", partial(mixed_task, name), budget)
        for budget in BUDGETS
        for name in (*mixed_engineering.PROBLEMS, *MADE)
    ]
