"""A task: a problem with known facts, to measure against."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from zo_bilevel.problem.problem import Problem
from zo_bilevel.support.errors import InputError


def _no_start(seed: int) -> dict[str, Any]:  # noqa: ARG001 - the signature of a start
    return {}


@final
@dataclass(frozen=True, eq=False)
class Task:
    """A problem, where it starts, what is true, what has been published.

    Args:
        name: Name on the command line.
        summary: One line for the list of tasks.
        problem: The problem.
        start: Initial point of a seed, by name; the middle of the space by default.
        truth: True meta-parameters, where known.
        target_loss: Loss that counts as solved, where known.
        target_error: Relative error that counts as solved, where published.
        exact: The same problem without the solver's noise, to judge what was found.
        held_out: The same space with an outer objective on data that no method sees, to judge what
            was found.
        error: From meta-parameters by name to a relative error, where the truth is known.
        published: Published figures by name, each with its source in the key.
        max_solves: A sensible budget.
    """

    name: str
    summary: str
    problem: Problem
    start: Callable[[int], Mapping[str, Any]] = _no_start
    truth: Mapping[str, Any] | None = None
    target_loss: float | None = None
    target_error: float | None = None
    exact: Problem | None = None
    held_out: Problem | None = None
    error: Callable[[Mapping[str, Any]], float] | None = None
    published: Mapping[str, float] = field(default_factory=dict)
    max_solves: int = 200

    def __post_init__(self) -> None:
        if not isinstance(self.problem, Problem):
            raise InputError(f"problem must be a zb.Problem, got {type(self.problem).__name__}")
