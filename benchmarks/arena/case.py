"""What a case of the scalar, mixed, slot and policy arenas is: tasks by seed, a budget, a half."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import zo_bilevel as zb

Half = Literal["tune", "held"]


def half_of(base: str) -> Half:
    """The half of a problem, by a hash of its base name: nobody chose.

    Args:
        base: The function behind the problem, without size, noise or instance, so that no variant
            of what was tuned on is ever among the held ones.

    Returns:
        "tune" or "held".
    """
    return "tune" if hashlib.sha256(base.encode()).digest()[0] % 2 == 0 else "held"


@dataclass(frozen=True)
class Case:
    """One problem with one budget; a seed fixes its instance, its start and the run.

    Args:
        suite: "bbob", "real-world", "mixed", "slots" or "policy".
        name: Unique within the suite, together with the budget.
        base: The function behind it; decides the half.
        group: Where it is counted in the tables.
        make: From a seed to the task; of an importable function, for other processes to call it.
        max_solves: The budget.
    """

    suite: str
    name: str
    base: str
    group: str
    make: partial[zb.Task]
    max_solves: int

    @property
    def half(self) -> Half:
        """Tuned on, or only looked at."""
        return half_of(self.base)

    @cached_property
    def size(self) -> int:
        """N, an option of a choice counting as one."""
        return self.make(0).problem.space.size

    def __str__(self) -> str:
        return f"{self.name} @{self.max_solves}"
