"""Recover speed and viscosity of Burgers' equation from the whole field at ten times."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.parameters import Log, Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.task import Task
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.tasks import burgers_pair
from zo_bilevel.tasks.solvers import ArraySolver, with_noise

TRUE_LAM, TRUE_NU = burgers_pair.TRUE_PHI[0], math.exp(burgers_pair.TRUE_PHI[1])


def _simulate(pair: FloatArray) -> FloatArray:
    return burgers_pair.simulate(np.stack([pair[..., 0], np.log(pair[..., 1])], axis=-1))


def _simulate_tensor(pair: torch.Tensor) -> torch.Tensor:
    return burgers_pair.simulate_tensor(torch.stack([pair[..., 0], pair[..., 1].log()], dim=-1))


def _start(seed: int) -> dict[str, float]:  # noqa: ARG001 - one start for all seeds
    return {"lam": burgers_pair.START_PHI[0], "nu": math.exp(burgers_pair.START_PHI[1])}


def _error(phi: Mapping[str, Any]) -> float:
    return float(max(abs(phi["lam"] / TRUE_LAM - 1.0), abs(phi["nu"] / TRUE_NU - 1.0)))


def task(*, noise: float = 0.0) -> Task:
    """Burgers with two unknowns, `u_t = -lam u u_x + nu u_xx`.

    Args:
        noise: Standard deviation of the solver's noise, as a share of the data's spread, >= 0.

    Returns:
        Unknowns lam (linear) and nu (logarithmic), 1,280 observations.

    Example:
        >>> task().problem.space.names
        ('lam', 'nu')
    """
    target = burgers_pair.target()
    inner = ArraySolver("burgers-two", ("lam", "nu"), _simulate, _simulate_tensor)
    space = Space(lam=Real(0.0, 4.0), nu=Log(1e-3, 10.0))
    outer = SquaredError(target)
    return Task(
        name="burgers-two",
        summary="speed and viscosity of Burgers' equation from 1,280 observations",
        problem=Problem(space, with_noise(inner, noise, target), outer),
        exact=Problem(space, inner, outer),
        start=_start,
        truth={"lam": TRUE_LAM, "nu": TRUE_NU},
        target_loss=1e-7,
        error=_error,
        max_solves=60,
    )
