"""Recover a heat-conductivity field from three steady temperatures; N from 16 to 1,024."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.task import Task
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.tasks import heat
from zo_bilevel.tasks.solvers import ArraySolver, with_noise


def _error(truth: FloatArray, phi: Mapping[str, Any]) -> float:
    return float(np.linalg.norm(phi["log_conductivity"] - truth) / np.linalg.norm(truth))


def task(*, size: int = 64, correlation_length: float | None = 0.1, noise: float = 0.0) -> Task:
    """The log-conductivity of N cells of a rod.

    Args:
        size: Cells N, 2 or more.
        correlation_length: Smoothness told to the methods, in lengths of the rod; `None`, or 0
            from the command line, tells nothing.
        noise: Standard deviation of the solver's noise, as a share of the data's spread, >= 0.

    Returns:
        Start 0; theta is three temperature profiles, `3 (N - 1)` numbers.

    Raises:
        InputError: If `size < 2`.

    Example:
        >>> task(size=16).problem.space.size
        16
    """
    size = whole_number("size", size, least=2)
    bound = heat.LARGEST_LOG_CONDUCTIVITY
    field = Real(-bound, bound, (size,), correlation_length or None)
    space = Space(log_conductivity=field)
    target, truth = heat.target(size), heat.true_field(size)
    inner = ArraySolver("heat-field", ("log_conductivity",), heat.simulate, heat.simulate_tensor)
    outer = SquaredError(target)
    return Task(
        name="heat-field",
        summary="log-conductivity of a rod from three temperature profiles",
        problem=Problem(space, with_noise(inner, noise, target), outer),
        exact=Problem(space, inner, outer),
        truth={"log_conductivity": truth},
        target_loss=1e-6,
        error=partial(_error, truth),
        max_solves=200,
    )
