"""Tune one ridge penalty a feature, N = 300, on validation error: a large residual remains."""

from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.task import Task
from zo_bilevel.tasks import ridge
from zo_bilevel.tasks.solvers import ArraySolver, with_noise


def task(*, noise: float = 0.0) -> Task:
    """Ridge regression with penalty `exp(log_penalty_j)` on feature j.

    Args:
        noise: Standard deviation of the solver's noise, as a share of the data's spread, >= 0.

    Returns:
        Start 0; theta is the predictions on 400 validation rows. The best loss known is 0.27.

    Example:
        >>> task().problem.space.size
        300
    """
    bound = ridge.LARGEST_LOG_PENALTY
    space = Space(log_penalty=Real(-bound, bound, (ridge.NUM_FEATURES,)))
    target = ridge.target()
    inner = ArraySolver("ridge-penalties", ("log_penalty",), ridge.simulate, ridge.simulate_tensor)
    outer = SquaredError(target)
    return Task(
        name="ridge-penalties",
        summary="one ridge penalty a feature, from validation error",
        problem=Problem(space, with_noise(inner, noise, target), outer),
        exact=Problem(space, inner, outer),
        target_loss=0.31,
        max_solves=1500,
    )
