"""Burgers' equation with two unknowns, observed everywhere.

u_t = -lam u u_x + nu u_xx, x in [-1, 1) periodic on 128 points, u(0, x) = -sin(pi x),
observed at every point at t = 0.1, 0.2, ..., 1.0. phi = (lam, log nu), truth
(1, log 0.03), start (0.3, log 0.2). Dimensionless, float64.

Source: this project's the published reference figures, section 4. The solver is that of
zo_bilevel.tasks.spectral.
"""

import math
from functools import cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.errors import InputError
from zo_bilevel.tasks import spectral, time_stepping

FloatArray = NDArray[np.float64]

NUM_POINTS: Final = 128
NUM_STEPS: Final = 100
NUM_TIMES: Final = 10
TRUE_PHI: Final = (1.0, math.log(0.03))
START_PHI: Final = (0.3, math.log(0.2))


def simulate_tensor(phi: Tensor, *, refinement: int = 1) -> Tensor:
    """Solve for a batch of phi; differentiable, on the device of phi.

    Args:
        phi: (lam, log nu), float64, shape (..., 2). Time steps suit |lam| <= 4.
        refinement: multiplies the points and the steps of the solve, >= 1; the output
            stays on the 128 points.

    Returns:
        u, the times outermost, shape (..., 1280).

    Raises:
        InputError: if phi does not hold two numbers, or the refinement is < 1.
    """
    if phi.ndim < 1 or phi.shape[-1] != 2:
        raise InputError(f"phi must be (lam, log nu), got shape {tuple(phi.shape)}")
    refinement = whole_number("refinement", refinement, least=1)
    speed, nu = phi[..., :1], torch.exp(phi[..., 1:])
    x, k = time_stepping.grid(NUM_POINTS * refinement, device=phi.device)
    field = time_stepping.integrate(
        -torch.sin(math.pi * x),
        spectral.burgers_symbol(k, nu, speed),
        -0.5j * speed * k,
        torch.square,
        cutoff=spectral.BURGERS_CUTOFF,
        num_steps=NUM_STEPS * refinement,
        num_times=NUM_TIMES,
    )
    return field[..., ::refinement].flatten(-2)


def simulate(phi: FloatArray, *, refinement: int = 1) -> FloatArray:
    """The same on numpy arrays: shape (..., 1280) for phi of shape (..., 2)."""
    with torch.no_grad():
        batch = torch.as_tensor(np.asarray(phi, dtype=np.float64))
        return simulate_tensor(batch, refinement=refinement).numpy()


@cache
def target(*, refinement: int = 1) -> FloatArray:
    """The field of the true phi, shape (1280,), read-only.

    Args:
        refinement: 1 gives data that phi reproduces exactly; 2 or more gives data from a
            finer grid and step than the recovery's.
    """
    field = simulate(np.array(TRUE_PHI), refinement=refinement)
    field.setflags(write=False)
    return field
