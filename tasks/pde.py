"""The paper's discovery of one PDE coefficient from 64 observations, as a task.

Shen et al., arXiv 2406.14095, Fig. 2 right and Table F.3: the coefficient nu is recovered through
a solver that is only run; the paper spends 10,000 solves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, final

import numpy as np
import torch

from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.parameters import Log
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.task import Task
from zo_bilevel.support.arguments import finite_number
from zo_bilevel.tasks import spectral
from zo_bilevel.tasks.solvers import ArraySolver, with_noise

PAPER_SOLVES: Final = 10_000.0


@final
@dataclass(frozen=True, slots=True)
class PaperRow:
    """One row of the paper's Table F.3 and Fig. 2.

    Args:
        lower: Smallest nu searched; the paper's range has no lower end but 0. For KdV two decades:
            below 1e-4 the grid no longer resolves the waves.
        upper: Largest initial nu of the paper.
        nu_error: Its relative error of nu.
        field_error: Its relative L2 error of u.
        equation: For the summary.
    """

    lower: float
    upper: float
    nu_error: float
    field_error: float
    equation: str


PAPER_ROWS: Final = {
    "burgers": PaperRow(1e-4, 10.0, 0.0097, 0.63e-3, "u_t + u u_x - nu u_xx = 0"),
    "allen_cahn": PaperRow(1e-5, 0.1, 0.0234, 0.97e-3, "u_t - nu u_xx = 5 (u - u^3)"),
    "kdv": PaperRow(1e-4, 0.01, 0.0072, 2.72e-3, "u_t + u u_x + nu u_xxx = 0"),
}


def _start(row: PaperRow, seed: int) -> dict[str, float]:
    """Uniform on the paper's range, (0, upper]; the box's lower end stands for 0."""
    draw = row.upper * (1.0 - np.random.default_rng(seed).random())
    return {"nu": max(draw, row.lower)}


def _error(truth: float, phi: Mapping[str, Any]) -> float:
    return abs(float(phi["nu"]) - truth) / truth


def _observe(name: str, nu: torch.Tensor) -> torch.Tensor:
    return spectral.observe(spectral.simulate_tensor(name, nu))


_SIMULATE = {
    "burgers": spectral.simulate_burgers,
    "allen_cahn": spectral.simulate_allen_cahn,
    "kdv": spectral.simulate_kdv,
}


def pde_task(equation: str, noise: float = 0.0) -> Task:
    """The task of one equation; a seed draws its start from the paper's range.

    Args:
        equation: "burgers", "allen_cahn" or "kdv".
        noise: Standard deviation of the solver's noise, as a share of the data's spread, >= 0.

    Raises:
        InputError: If the noise is negative.
    """
    finite_number("noise", noise, ">= 0")
    row, truth = PAPER_ROWS[equation], spectral.EQUATIONS[equation].true_nu
    target = spectral.observations(equation)
    inner = ArraySolver(equation, ("nu",), _SIMULATE[equation], partial(_observe, equation))
    space = Space(nu=Log(row.lower, row.upper))
    exact = Problem(space, inner, SquaredError(target))
    return Task(
        name=equation.replace("_", "-"),
        summary=f"nu of {row.equation} from 64 observations",
        problem=Problem(space, with_noise(inner, noise, target), SquaredError(target)),
        exact=exact,
        start=partial(_start, row),
        truth={"nu": truth},
        target_error=row.nu_error,
        error=partial(_error, truth),
        published={
            "relative error of nu": row.nu_error,
            "relative L2 error of u": row.field_error,
            "solves": PAPER_SOLVES,
        },
        max_solves=80,
    )
