"""Fields of 40 to 128 numbers: conductivities, wave speeds, permeabilities, depths.

The truth of each is a draw of a smooth random field, once; where the prior is told, the space has
its correlation length.
"""

from __future__ import annotations

import hashlib
from functools import cache
from itertools import product

import numpy as np
from scipy.linalg import cho_solve_banded, cholesky_banded

from benchmarks.arena.problem import ArenaProblem, FloatArray, Model
from zo_bilevel.tasks import heat

MAX_GROUPS = 10


def wave_speed(x: FloatArray) -> FloatArray:
    """Acoustic waves through log speeds `0.3 x` of 128 cells: two shots, six receivers, 50 times.

    Leapfrog in space and time, `p_tt = c^2 p_xx`, both ends reflect; a Ricker wavelet.
    """
    n, steps = x.size, 400
    speed = np.exp(0.3 * np.clip(x, -5, 5))
    courant = (0.25 * speed) ** 2  # dt / dx is a quarter at c = 1
    time = (np.arange(steps) - 40) / 14
    wavelet = (1 - time**2) * np.exp(-(time**2) / 2)
    now, before = np.zeros((2, n)), np.zeros((2, n))
    shots, receivers = np.array([8, n - 8]), np.linspace(4, n - 5, 6).astype(int)
    bend, seen = np.empty((2, n)), []
    for step in range(steps):
        bend[:, 1:-1] = now[:, :-2] - 2 * now[:, 1:-1] + now[:, 2:]
        bend[:, 0], bend[:, -1] = now[:, 1] - now[:, 0], now[:, -2] - now[:, -1]
        before = 2 * now - before + courant * bend
        before[[0, 1], shots] += wavelet[step]
        now, before = before, now
        if step % 8 == 7:
            seen.append(now[:, receivers].ravel())
    return np.concatenate(seen)


def darcy(x: FloatArray) -> FloatArray:
    """Heads of two pumping tests on 10 x 10 log permeabilities, held at 0 around; 50 wells."""
    n = int(np.sqrt(x.size))
    k = np.exp(np.clip(x, -5, 5)).reshape(n, n)
    padded = np.pad(k, 1, mode="edge")
    matrix = np.zeros((n, n, n, n))
    rows, columns = np.mgrid[:n, :n]
    for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        other = padded[1 + down : n + 1 + down, 1 + right : n + 1 + right]
        link = 2 * k * other / (k + other)
        matrix[rows, columns, rows, columns] += link
        inside = (rows + down >= 0) & (rows + down < n) & (columns + right >= 0)
        inside &= columns + right < n
        a, b = rows[inside], columns[inside]
        matrix[a, b, a + down, b + right] -= link[inside]
    sources = np.zeros((n, n, 2))
    sources[2, 3, 0], sources[7, 6, 1] = 10.0, 10.0
    heads = np.linalg.solve(matrix.reshape(n * n, n * n), sources.reshape(n * n, 2))
    return heads[::2].T.ravel()


def basin(x: FloatArray) -> FloatArray:
    """Gravity over 40 columns of sediment of depth exp(x): slabs of infinite strike."""
    centres = (np.arange(x.size) + 0.5) / x.size
    apart = centres[:, None] - centres
    half = 0.5 / x.size
    depth = 0.1 * np.exp(np.clip(x, -4, 2))

    def corner(offset: FloatArray) -> FloatArray:
        high = 0.5 * offset * np.log((offset**2 + depth**2) / (offset**2 + 1e-8))
        return high + depth * np.arctan(offset / depth)

    return 20 * (corner(apart + half) - corner(apart - half)).sum(axis=1)


def sounding(x: FloatArray) -> FloatArray:
    """Log resistivity seen from above 40 layers, at 40 wave numbers: Koefoed's recursion."""
    resistivity = np.exp(np.clip(x, -5, 5))
    damping = np.tanh(np.geomspace(0.2, 60, 40) / x.size)
    seen = np.full(damping.size, resistivity[-1])
    for layer in resistivity[-2::-1]:
        seen = (seen + layer * damping) / (1 + seen * damping / layer)
    return np.log(seen)


def transient_heat(x: FloatArray) -> FloatArray:
    """A rod of 50 log diffusivities, heated at one end: three sensors, 40 implicit steps."""
    n = x.size
    k = 0.05 * n**2 * np.exp(np.clip(x, -5, 5))
    links = np.append(2 * k[0], 2 * k[1:] * k[:-1] / (k[1:] + k[:-1]))  # to the left of each cell
    banded = np.zeros((2, n))
    banded[0] = links + np.append(links[1:], 0.0)
    banded[1, :-1] = -links[1:]
    step = 0.1
    banded *= step
    banded[0] += 1.0
    factor = cholesky_banded(banded, lower=True, check_finite=False)
    heat_in = np.zeros(n)
    heat_in[0] = step * links[0]
    u, seen = np.zeros(n), []
    for _ in range(40):
        u = cho_solve_banded((factor, True), u + heat_in, check_finite=False)
        seen.append(u[[9, 24, 44]])
    return 10 * np.concatenate(seen)


@cache
def _rays(side: int) -> FloatArray:
    """Length of each of side^2 rays, from the left wall to the right, in each square cell."""
    heights, columns = (np.arange(side) + 0.5) / side, np.arange(side * 40)
    lengths = np.zeros((side * side, side * side))
    for ray, (left, right) in enumerate(product(heights, heights)):
        share = (columns + 0.5) / columns.size
        rows = ((left + (right - left) * share) * side).astype(int)
        np.add.at(lengths[ray], rows * side + columns // 40, np.hypot(1, right - left))
    return lengths / columns.size


def tomography(x: FloatArray) -> FloatArray:
    """Travel times of 64 straight rays through 8 x 8 log slownesses between two wells."""
    return 10 * _rays(int(np.sqrt(x.size))) @ np.exp(np.clip(x, -5, 5))


# model, shape, correlation length, size of the truth, half width of the box
ROWS: dict[str, tuple[Model, tuple[int, ...], float, float, float]] = {
    "heat-field": (heat.simulate, (64,), 0.1, 0.7, 3.0),
    "wave-speed": (wave_speed, (128,), 0.08, 0.5, 3.0),
    "darcy": (darcy, (10, 10), 0.3, 0.8, 4.0),
    "basin": (basin, (40,), 0.15, 0.5, 2.0),
    "sounding": (sounding, (40,), 0.1, 0.8, 4.0),
    "transient-heat": (transient_heat, (50,), 0.12, 0.6, 3.0),
    "tomography": (tomography, (8, 8), 0.3, 0.4, 3.0),
}


def _draw(shape: tuple[int, ...], length: float, rng: np.random.Generator) -> FloatArray:
    """A smooth field of standard deviation 1, flat."""
    axes = [(np.arange(size) + 0.5) / size for size in shape]
    places = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)
    squares = ((places[:, None] - places) ** 2).sum(axis=2)
    covariance = np.exp(-squares / (2 * length**2)) + 1e-10 * np.eye(len(places))
    return np.asarray(np.linalg.cholesky(covariance) @ rng.standard_normal(len(places)))


def field_problems() -> list[ArenaProblem]:
    """Each with and without its prior, from a flat start, and with an error of 1e-3 of the data."""
    problems = []
    for name, (model, shape, length, size, reach) in ROWS.items():
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))
        truth = size * _draw(shape, length, rng)
        clean = model(truth)
        spoilt = clean + 1e-3 * clean.std() * rng.standard_normal(clean.size)
        for kind, target, told in (
            ("prior", clean, True),
            ("plain", clean, False),
            ("prior-data-error", spoilt, True),
        ):
            count = int(np.prod(shape))
            problems.append(
                ArenaProblem(
                    name=f"fields/{name}-{kind}",
                    base=name,
                    group="fields",
                    model=model,
                    target=target,
                    start=np.zeros(count),
                    lower=np.full(count, -reach),
                    upper=np.full(count, reach),
                    has_bounds=True,
                    smallest=None if target is spoilt else 0.0,
                    max_groups=MAX_GROUPS,
                    correlation_length=length if told else None,
                    shape=shape,
                    truth=truth,
                )
            )
    return problems
