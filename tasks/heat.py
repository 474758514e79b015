"""The heat-field task: recover a conductivity field from steady temperatures.

Unit interval, N cells of conductivity k_i = exp(phi_i), h = 1/N, temperature u = 0 at
both ends and unknown at the N - 1 inner nodes x_j = j h, three steady load cases:

1. -(k u')' = 1 + sin(3 pi x)
2. -(k u')' = x
3. -(k u')' + 20 u = 1 + sin(3 pi x)

Finite volumes: node j has (k_{j-1} + k_j) / h^2 on the diagonal and -k / h^2 beside it.
theta = the three temperature vectors times 10, stacked. The true field, at the cell
centres, is 0.8 sin(2 pi x) + 0.5 cos(5 pi x). All is dimensionless and float64.

Source: the project's reference problems. The batched solver is parallel cyclic
reduction (Hockney & Jesshope, Parallel Computers, 1981) carrying row sums instead of
diagonals (Grassmann, Taksar & Heyman, Oper. Res. 33, 1985): only positive numbers are
added, so nothing cancels at any contrast of k.
"""

from functools import cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solveh_banded
from torch import Tensor

from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.errors import InputError

FloatArray = NDArray[np.float64]

LARGEST_LOG_CONDUCTIVITY: Final = 5.0  # phi is clipped to [-5, 5]
OUTPUT_SCALE: Final = 10.0  # theta = 10 u
REACTION_RATE: Final = 20.0  # of load case 3


def _loads(num_cells: int) -> tuple[FloatArray, FloatArray]:
    """The sources of cases 1 and 3, and of case 2, at the inner nodes."""
    nodes = np.arange(1, num_cells) / num_cells
    return 1.0 + np.sin(3.0 * np.pi * nodes), nodes


def _check_num_cells(num_cells: int) -> None:
    whole_number("num_cells", num_cells, least=3)


def simulate(phi: FloatArray) -> FloatArray:
    """The three temperature vectors of one field, by banded Cholesky solves.

    Args:
        phi: log-conductivities, shape (num_cells,), num_cells >= 3; clipped to [-5, 5].

    Returns:
        theta, shape (3 * (num_cells - 1),): ten times u, load case after load case.

    Raises:
        InputError: if phi is not a vector of at least three numbers.
    """
    phi = np.asarray(phi, dtype=np.float64)
    if phi.ndim != 1:
        raise InputError(f"phi must have shape (num_cells,), got {phi.shape}")
    num_cells = phi.size
    _check_num_cells(num_cells)
    bound = LARGEST_LOG_CONDUCTIVITY
    stiffness = np.exp(np.clip(phi, -bound, bound)) * num_cells**2
    banded = np.zeros((2, num_cells - 1))
    banded[0] = stiffness[:-1] + stiffness[1:]
    banded[1, :-1] = -stiffness[1:-1]
    wave, ramp = _loads(num_cells)
    steady = solveh_banded(banded, np.stack([wave, ramp], axis=1), lower=True, check_finite=False)
    banded[0] += REACTION_RATE
    reacting = solveh_banded(banded, wave, lower=True, check_finite=False)
    temperatures: FloatArray = np.concatenate([steady[:, 0], steady[:, 1], reacting])
    return OUTPUT_SCALE * temperatures


def _shift(values: Tensor, distance: int, fill: float) -> Tensor:
    """Entry i becomes entry i - distance of the last axis, fill beyond the ends."""
    pads = (distance, 0) if distance > 0 else (0, -distance)
    padded = torch.nn.functional.pad(values, pads, value=fill)
    size = values.shape[-1]
    return padded[..., :size] if distance > 0 else padded[..., -distance:]


def _solve_tridiagonal(left: Tensor, right: Tensor, row_sum: Tensor, load: Tensor) -> Tensor:
    """Solve (row_sum + left + right) x_i - left x_{i-1} - right x_{i+1} = load.

    Args:
        left: couplings >= 0 to the left neighbour, shape (..., size), 0 at the first.
        right: couplings >= 0 to the right neighbour, shape (..., size), 0 at the last.
        row_sum: what the diagonal exceeds the couplings by, >= 0, shape (..., size).
        load: right-hand side, shape (..., size).

    Returns:
        x, shape (..., size).
    """
    distance = 1
    while distance < load.shape[-1]:
        diagonal = row_sum + left + right
        # Eliminate the neighbours at this distance: rows then couple twice as far.
        to_left = left / _shift(diagonal, distance, 1.0)
        to_right = right / _shift(diagonal, -distance, 1.0)
        row_sum = row_sum + (
            to_left * _shift(row_sum, distance, 0.0) + to_right * _shift(row_sum, -distance, 0.0)
        )
        load = load + (
            to_left * _shift(load, distance, 0.0) + to_right * _shift(load, -distance, 0.0)
        )
        left = to_left * _shift(left, distance, 0.0)
        right = to_right * _shift(right, -distance, 0.0)
        distance *= 2
    return load / (row_sum + left + right)


def simulate_tensor(phi: Tensor) -> Tensor:
    """The same for a batch of fields; differentiable, on the device of phi.

    Args:
        phi: float64 log-conductivities, shape (..., num_cells); clipped to [-5, 5].

    Returns:
        theta, shape (..., 3 * (num_cells - 1)).

    Raises:
        InputError: if there are fewer than three cells.
    """
    num_cells = phi.shape[-1]
    _check_num_cells(num_cells)
    bound = LARGEST_LOG_CONDUCTIVITY
    stiffness = torch.exp(phi.clamp(-bound, bound)) * num_cells**2
    inner = stiffness[..., 1:-1]
    left = torch.nn.functional.pad(inner, (1, 0))
    right = torch.nn.functional.pad(inner, (0, 1))
    # Beside the walls the diagonal holds a coupling that the row has no neighbour for.
    walls = stiffness[..., :-1] + stiffness[..., 1:] - left - right
    wave, ramp = (torch.as_tensor(load).to(phi) for load in _loads(num_cells))
    load = torch.stack([wave, ramp, wave]).expand(*phi.shape[:-1], 3, num_cells - 1)
    reaction = torch.tensor([0.0, 0.0, REACTION_RATE]).to(phi)[:, None]
    solution = _solve_tridiagonal(
        left[..., None, :], right[..., None, :], walls[..., None, :] + reaction, load
    )
    return OUTPUT_SCALE * solution.flatten(-2)


def true_field(num_cells: int) -> FloatArray:
    """The true log-conductivity at the cell centres, shape (num_cells,)."""
    _check_num_cells(num_cells)
    centres = (np.arange(num_cells) + 0.5) / num_cells
    field: FloatArray = 0.8 * np.sin(2.0 * np.pi * centres)
    return field + 0.5 * np.cos(5.0 * np.pi * centres)


@cache
def target(num_cells: int) -> FloatArray:
    """The theta of the true field, shape (3 * (num_cells - 1),), read-only."""
    theta = simulate(true_field(num_cells))
    theta.setflags(write=False)
    return theta
