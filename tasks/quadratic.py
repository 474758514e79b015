"""A quadratic with closed-form inner solution and hypergradient: the reference for tests."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.task import Task
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.tasks.quadratic_form import QuadraticForm, make_quadratic_form
from zo_bilevel.tasks.solvers import ArraySolver, with_noise

BOX_BOUND = 6.0


class PenalisedMisfit:
    """`0.5 |theta - target|^2 + 0.5 rho |phi|^2` as a torch function of theta and phi."""

    def __init__(self, form: QuadraticForm) -> None:
        self.form = form

    def __call__(self, theta: torch.Tensor, phi: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss, a scalar tensor."""
        residual = theta - torch.from_numpy(self.form.target)
        penalty: torch.Tensor = self.form.penalty * (phi["phi"] ** 2).sum()
        return 0.5 * ((residual**2).sum() + penalty)


def _error(truth: FloatArray, phi: Mapping[str, Any]) -> float:
    return float(np.linalg.norm(phi["phi"] - truth) / np.linalg.norm(truth))


def task(
    *,
    size: int = 20,
    condition: float = 100.0,
    curvature: float = 0.0,
    penalty: float = 0.0,
    seed: int = 0,
    noise: float = 0.0,
) -> Task:
    """`theta = A phi + c + kappa/2 (B phi)^2`, loss a misfit plus `rho/2 |phi|^2`.

    Args:
        size: N, >= 1.
        condition: Largest over smallest singular value of A, >= 1; the loss has its square.
        curvature: kappa, >= 0.
        penalty: rho, >= 0; with 0 the loss is the mean squared misfit.
        seed: Draws A, B, c and the truth.
        noise: Standard deviation of the solver's noise, as a share of the data's spread, >= 0.

    Returns:
        Start 0; the truth is a standard normal draw, within the box [-6, 6].

    Example:
        >>> task(size=5).problem.space.size
        5
    """
    form = make_quadratic_form(
        size, seed=seed, condition=condition, curvature=curvature, penalty=penalty
    )
    inner = ArraySolver("quadratic", ("phi",), form.solution)
    outer = PenalisedMisfit(form) if penalty > 0 else SquaredError(form.target)
    space = Space(phi=Real(-BOX_BOUND, BOX_BOUND, (size,)))
    has_minimum = penalty == 0 or curvature == 0
    return Task(
        name="quadratic",
        summary="closed-form inner solution and hypergradient, any N, any conditioning",
        problem=Problem(space, with_noise(inner, noise, form.target), outer),
        exact=Problem(space, inner, outer),
        truth={"phi": form.minimum()} if has_minimum else None,
        target_loss=1e-9 if penalty == 0 else None,
        error=partial(_error, form.minimum()) if has_minimum else None,
        max_solves=200,
    )
