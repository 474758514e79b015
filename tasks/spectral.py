"""Fourier pseudo-spectral solvers of the paper's equations: Burgers, Allen-Cahn, KdV.

The inner solvers of the paper's PDE discovery (Shen et al., arXiv 2406.14095, Table
F.3): one coefficient nu in, 64 noiseless observations of u on an 8 x 8 grid out.

- Burgers     u_t + u u_x - nu u_xx = 0,    u(0, x) = -sin(pi x),     nu = 0.01 / pi
- Allen-Cahn  u_t - nu u_xx = 5 (u - u^3),  u(0, x) = x^2 cos(pi x),  nu = 0.001
- KdV         u_t + u u_x + nu u_xxx = 0,   u(0, x) = cos(pi x),      nu = 0.0025

x in [-1, 1) is periodic, t in [0, 1], all is dimensionless and float64. (The paper
holds Allen-Cahn at u = -1 at both ends; at the true nu that moves no observation by
more than 1.2e-5.)

In Fourier space dv/dt = L v + g F(p(u)): L diagonal, p pointwise, g = c (i k)^m with
the modes that would alias set to zero. The stiff L is integrated exactly, by fourth-
order exponential time differencing (ETDRK4-B: Krogstad, J. Comput. Phys. 203, 2005)
with coefficients from contour integrals (Kassam & Trefethen, SIAM J. Sci. Comput. 26,
2005). Burgers with nu < 0.003 is not resolved by 1,024 points: a spectral viscosity of
the higher modes (Tadmor, SIAM J. Numer. Anal. 26, 1989) then keeps it stable; for
larger nu there is none.

Written once, in torch, batched over nu and differentiable; the numpy functions call it
without recording gradients: both give the same numbers, a batch the same as its parts.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zo_bilevel.support.errors import InputError
from zo_bilevel.tasks.time_stepping import grid, integrate

FloatArray = NDArray[np.float64]

# x_i = -1 + (i + 1/4) / 4: no two |x_i| agree, so that a mirror-symmetric u still gives
# 64 different numbers; all lie on every grid with a multiple of 32 points.
OBSERVED_POSITIONS: Final = -1.0 + (np.arange(8) + 0.25) / 4.0
OBSERVED_TIMES: Final = np.arange(1, 9) / 8.0
FIELD_POSITIONS: Final = -1.0 + np.arange(256) / 128.0
FIELD_TIMES: Final = np.arange(1, 513) / 512.0

BURGERS_CUTOFF: Final = 0.8  # above 2/3: nearly all aliases still fall on zeroed modes
_SPECTRAL_VISCOSITY: Final = 3.0  # of the highest mode, times the grid's number of points
_SPECTRAL_VISCOSITY_START: Final = 0.05  # share of the modes it leaves alone


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """One row of the paper's table, at the coarsest resolution found good enough."""

    true_nu: float
    largest_initial_nu: float  # the paper draws its starts from (0, largest_initial_nu]
    num_points: int  # in x
    num_steps: int  # in t
    cutoff: float  # share of the grid's modes that is kept
    initial: Callable[[Tensor], Tensor]  # u(0, x)
    symbol: Callable[[Tensor, Tensor], Tensor]  # L, from k (num_modes,) and nu (..., 1)
    flux: Callable[[Tensor], Tensor]  # p(u)
    factor: float  # c
    order: int  # m: how many x derivatives stand before p


def burgers_symbol(k: Tensor, nu: Tensor, speed: Tensor | None = None) -> Tensor:
    """L = -k^2 max(nu, spectral viscosity) of u_t + speed u u_x = nu u_xx.

    Args:
        k: all wave numbers of the grid, shape (num_modes,).
        nu: shape (..., 1), > 0.
        speed: shape (..., 1); None means 1.

    Returns:
        L, shape (..., num_modes).
    """
    share = k / (BURGERS_CUTOFF * k[-1])
    distance = (share - 1.0) / (share - _SPECTRAL_VISCOSITY_START).clamp(min=1e-9)
    floor = _SPECTRAL_VISCOSITY / (2 * len(k) - 2) * torch.exp(-distance.square())
    if speed is not None:
        floor = floor * speed.abs()
    return -torch.maximum(nu, floor) * k.square()


EQUATIONS: Final[Mapping[str, Equation]] = MappingProxyType(
    {
        "burgers": Equation(
            true_nu=0.01 / math.pi,
            largest_initial_nu=10.0,
            num_points=1024,
            num_steps=192,
            cutoff=BURGERS_CUTOFF,
            initial=lambda x: -torch.sin(math.pi * x),
            symbol=burgers_symbol,
            flux=torch.square,
            factor=-0.5,
            order=1,
        ),
        "allen_cahn": Equation(
            true_nu=0.001,
            largest_initial_nu=0.1,
            num_points=512,
            num_steps=96,
            cutoff=2 / 3,
            initial=lambda x: x.square() * torch.cos(math.pi * x),
            symbol=lambda k, nu: 5.0 - nu * k.square(),
            flux=lambda u: u * u.square(),
            factor=-5.0,
            order=0,
        ),
        "kdv": Equation(
            true_nu=0.0025,
            largest_initial_nu=0.01,
            num_points=256,
            num_steps=512,
            cutoff=2 / 3,
            initial=lambda x: torch.cos(math.pi * x),
            symbol=lambda k, nu: 1j * nu * k**3,
            flux=torch.square,
            factor=-0.5,
            order=1,
        ),
    }
)


def simulate_tensor(
    name: str,
    nu: Tensor,
    *,
    num_points: int | None = None,
    num_steps: int | None = None,
    num_times: int = 8,
) -> Tensor:
    """Solve one equation for a batch of nu; differentiable, on the device of nu.

    Args:
        name: "burgers", "allen_cahn" or "kdv".
        nu: float64, shape (...), all > 0.
        num_points: grid points in x; None means the equation's own.
        num_steps: steps in t, a multiple of num_times; None means the equation's own.
        num_times: how many equally spaced times to return, the last is t = 1.

    Returns:
        u(t, x) at all grid points, shape (..., num_times, num_points).

    Raises:
        InputError: if the name is unknown, nu is not positive, or num_steps is not a
            multiple of num_times.
    """
    if name not in EQUATIONS:
        raise InputError(f"name must be one of {sorted(EQUATIONS)}, got {name!r}")
    if not bool((nu > 0).all()):
        raise InputError(f"nu must be > 0, got {nu.min().item()}")
    equation = EQUATIONS[name]
    x, k = grid(num_points or equation.num_points, device=nu.device)
    return integrate(
        equation.initial(x),
        equation.symbol(k, nu.to(torch.float64)[..., None]),
        equation.factor * (1j * k) ** equation.order,
        equation.flux,
        cutoff=equation.cutoff,
        num_steps=num_steps or equation.num_steps,
        num_times=num_times,
    )


def observe(field: Tensor) -> Tensor:
    """The 64 observations in a field, the times outermost.

    Args:
        field: u at OBSERVED_TIMES, shape (..., 8, num_points), 32 a divisor of
            num_points.

    Returns:
        u at OBSERVED_TIMES x OBSERVED_POSITIONS, shape (..., 64).

    Raises:
        InputError: if the observed positions are not on the grid.
    """
    num_points = field.shape[-1]
    if num_points % 32:
        raise InputError(f"num_points must be a multiple of 32, got {num_points}")
    return field[..., num_points // 32 :: num_points // 8].flatten(-2)


def _simulate(name: str, nu: float | FloatArray, num_points: int, num_steps: int) -> FloatArray:
    with torch.no_grad():
        batch = torch.as_tensor(np.asarray(nu, dtype=np.float64))
        field = simulate_tensor(name, batch, num_points=num_points, num_steps=num_steps)
        return observe(field).numpy()


def simulate_burgers(
    nu: float | FloatArray, *, num_points: int = 1024, num_steps: int = 192
) -> FloatArray:
    """The 64 observations of Burgers, (..., 64), for nu > 0 of shape (...)."""
    return _simulate("burgers", nu, num_points, num_steps)


def simulate_allen_cahn(
    nu: float | FloatArray, *, num_points: int = 512, num_steps: int = 96
) -> FloatArray:
    """The 64 observations of Allen-Cahn, (..., 64), for nu > 0 of shape (...)."""
    return _simulate("allen_cahn", nu, num_points, num_steps)


def simulate_kdv(
    nu: float | FloatArray, *, num_points: int = 256, num_steps: int = 512
) -> FloatArray:
    """The 64 observations of KdV, (..., 64), for nu > 0 of shape (...)."""
    return _simulate("kdv", nu, num_points, num_steps)


@cache
def observations(name: str) -> FloatArray:
    """The target: 64 observations at the true nu, shape (64,), read-only.

    From twice the points and four times the steps of the solver that recovers nu.
    """
    equation = EQUATIONS[name]
    target = _simulate(name, equation.true_nu, 2 * equation.num_points, 4 * equation.num_steps)
    target.setflags(write=False)
    return target


def full_field(name: str, nu: float, *, refinement: int = 1) -> FloatArray:
    """The paper's field: u at FIELD_TIMES x FIELD_POSITIONS, shape (512, 256).

    Args:
        name: "burgers", "allen_cahn" or "kdv".
        nu: > 0.
        refinement: multiplies the equation's own num_points, and 512 steps.
    """
    num_points = refinement * EQUATIONS[name].num_points
    with torch.no_grad():
        field = simulate_tensor(
            name,
            torch.tensor(nu, dtype=torch.float64),
            num_points=num_points,
            num_steps=refinement * 512,
            num_times=512,
        )
    return field[:, :: num_points // 256].contiguous().numpy()


@cache
def reference_field(name: str) -> FloatArray:
    """The true field from twice the points and steps, shape (512, 256), read-only."""
    field = full_field(name, EQUATIONS[name].true_nu, refinement=2)
    field.setflags(write=False)
    return field


def relative_error(name: str, nu: float) -> float:
    """||u(nu) - u(true nu)|| / ||u(true nu)|| in L2, over the 256 x 512 field."""
    truth = reference_field(name)
    return float(np.linalg.norm(full_field(name, nu) - truth) / np.linalg.norm(truth))
