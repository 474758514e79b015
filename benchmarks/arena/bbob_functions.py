"""All 24 bbob functions, N = 2 to 40, on instances that no other test of the project uses."""

from __future__ import annotations

from functools import partial

import zo_bilevel as zb
from benchmarks.arena.case import Case
from zo_bilevel.tasks.bbob import FUNCTION_NAMES, bbob_task

SIZES = (2, 5, 10, 20, 40)
GROUPS = (4, 10, 20, 100)
"""Budgets, in groups of N + 1 solves."""
FIRST_INSTANCE = 101


def task(function: int, size: int, seed: int) -> zb.Task:
    """A function; each seed has another instance and another start.

    Args:
        function: 1 to 24.
        size: N.
        seed: >= 0.
    """
    return bbob_task(function, size, instance=FIRST_INSTANCE + seed)


def cases() -> list[Case]:
    """Every function in every size with every budget; a function is in one half in all sizes."""
    return [
        Case(
            suite="bbob",
            name=f"f{function} {FUNCTION_NAMES[function]}, N = {size}",
            base=f"bbob-f{function}",
            group=f"N = {size}",
            make=partial(task, function, size),
            max_solves=groups * (size + 1),
        )
        for size in SIZES
        for groups in GROUPS
        for function in FUNCTION_NAMES
    ]
