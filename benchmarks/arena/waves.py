"""KdV and Burgers on coarse grids, by Fourier modes: ten times faster than the project's tasks.

The same equations and observations as `zo_bilevel.tasks.spectral`, plain RK4 with the stiff linear
part integrated exactly.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.arena.problem import FloatArray

Modes: TypeAlias = NDArray[Any]


def _wave_numbers(points: int) -> Modes:
    return np.pi * np.arange(points // 2 + 1)  # x in [-1, 1)


def _spectral(
    linear: Modes, factor: Modes, start: FloatArray, steps: int, looks: int
) -> FloatArray:
    """`v_t = linear v + factor (u^2)^`, RK4 with the linear part exact; 8 points, `looks` times."""
    h, points = 1 / steps, start.size
    half, whole = np.exp(linear * h / 2), np.exp(linear * h)
    kept = np.arange(linear.size) < points / 3

    def slope(v: Modes) -> Modes:
        return factor * kept * np.fft.rfft(np.fft.irfft(v, points) ** 2)

    v, seen = np.fft.rfft(start), []
    for step in range(1, steps + 1):
        a = slope(v)
        b = slope(half * (v + h / 2 * a))
        c = slope(half * v + h / 2 * b)
        d = slope(whole * v + h * half * c)
        v = whole * v + h / 6 * (whole * a + 2 * half * (b + c) + d)
        if step % (steps // looks) == 0:
            seen.append(np.fft.irfft(v, points)[points // 32 :: points // 8])
    return np.concatenate(seen)


def kdv(x: FloatArray) -> FloatArray:
    """`u_t + u u_x + nu u_xxx = 0`, u(0) = cos(pi x): log nu; 64 observations, many basins."""
    k = _wave_numbers(128)
    start = np.cos(np.pi * (np.arange(128) / 64 - 1))
    return _spectral(1j * np.exp(x[0]) * k**3, -0.5j * k, start, 128, 8)


def burgers(x: FloatArray) -> FloatArray:
    """`u_t + speed u u_x = nu u_xx`, u(0) = -sin(pi x): speed and log nu; 64 observations."""
    k = _wave_numbers(64)
    start = -np.sin(np.pi * (np.arange(64) / 32 - 1))
    return _spectral(-np.exp(x[1]) * k**2, -0.5j * x[0] * k, start, 64, 8)
