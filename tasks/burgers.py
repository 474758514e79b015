"""Recover the coefficient of the Burgers equation from 64 observations (arXiv 2406.14095)."""

from zo_bilevel.problem.task import Task
from zo_bilevel.tasks.pde import pde_task


def task(*, noise: float = 0.0) -> Task:
    """The Burgers task.

    Args:
        noise: Standard deviation of the solver's noise, as a share of the data's spread, >= 0.

    Returns:
        One unknown, nu, on a logarithmic axis; 64 observations.

    Example:
        >>> task().problem.space.names
        ('nu',)
    """
    return pde_task("burgers", noise)
