"""Simulators of a few numbers: reactors, kinetics, beams, epidemics, waves, a few ms a solve.

Every parameter is given as it would be searched, a positive one of unknown size as its logarithm.
The data are a simulation at a known truth, for some with an error of measurement, drawn once. All
boxes belong to the problem. Two starts each, uniform in the middle half of the box.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from scipy.integrate import odeint
from scipy.linalg import eigvalsh
from scipy.special import erfc

from benchmarks.arena.problem import ArenaProblem, FloatArray, Model
from benchmarks.arena.waves import burgers, kdv

STARTS = 2


def stirred_tank(x: FloatArray) -> FloatArray:
    """Two reactions in a cooled tank: log k1, E1/1000, log k2, log UA, dH; 62 numbers."""
    k1, k2, exchange = np.exp(x[[0, 2, 3]])
    activation, heat = 1000 * x[1], x[4]

    def slope(state: FloatArray, time: float) -> list[float]:
        a, b, temperature = state
        rate = k1 * np.exp(-activation * (1 / temperature - 1 / 350)) * a
        cooling = exchange * (temperature - 320)
        return [
            (1 - a) / 2 - rate,
            -b / 2 + rate - k2 * b,
            (330 - temperature) / 2 + heat * rate - cooling,
        ]

    path = odeint(slope, [1.0, 0, 330], np.linspace(0, 10, 31), rtol=1e-9, atol=1e-10)
    return np.concatenate([path[:, 1] / 0.01, path[:, 2] / 0.5])


def kinetics(x: FloatArray) -> FloatArray:
    """Six reversible reactions of seven species, 12 log rates; every second one is bimolecular."""
    forward, backward = np.exp(x[:6]), np.exp(x[6:])

    def slope(state: FloatArray, time: float) -> FloatArray:
        left, right = state[:-1].copy(), state[1:].copy()
        left[1::2] *= state[0]
        right[1::2] *= state[0]
        flow = forward * left - backward * right
        return np.append(-flow, 0.0) + np.append(0.0, flow)

    times = np.concatenate([[0.0], np.geomspace(0.05, 30, 12)])
    start = np.append(1.0, np.zeros(6))
    return odeint(slope, start, times, rtol=1e-8, atol=1e-10)[1:].ravel()


def beam(x: FloatArray) -> FloatArray:
    """A cantilever of nine elements, log bending stiffness of each; deflections of two loads."""
    h, n = 1 / 9, x.size
    element = np.array(
        [
            [12, 6 * h, -12, 6 * h],
            [6 * h, 4 * h * h, -6 * h, 2 * h * h],
            [-12, -6 * h, 12, -6 * h],
            [6 * h, 2 * h * h, -6 * h, 4 * h * h],
        ]
    )
    stiffness = np.zeros((2 * n + 2, 2 * n + 2))
    for place, value in enumerate(np.exp(x)):
        part = slice(2 * place, 2 * place + 4)
        stiffness[part, part] += value / h**3 * element
    loads = np.zeros((2 * n, 2))
    loads[-2, 0] = 1.0  # at the tip
    loads[n // 2 * 2, 1] = 5.0  # in the middle
    moved = np.linalg.solve(stiffness[2:, 2:], loads)
    return moved[::2].T.ravel()


def lotka_volterra(x: FloatArray) -> FloatArray:
    """Hare and lynx, four log rates; two cycles."""
    grow, eat, die, breed = np.exp(x)

    def slope(state: FloatArray, time: float) -> list[float]:
        hare, lynx = state
        return [grow * hare - eat * hare * lynx, breed * hare * lynx - die * lynx]

    path = odeint(slope, [1.0, 0.5], np.linspace(0, 15, 41), rtol=1e-8, atol=1e-9)
    return path[1:].ravel()


def fitzhugh_nagumo(x: FloatArray) -> FloatArray:
    """Spikes of a nerve: a, b, c; known for its many basins (Ramsay et al., 2007)."""
    a, b, c = x

    def slope(state: FloatArray, time: float) -> list[float]:
        v, r = state
        return [c * (v - v**3 / 3 + r), -(v - a + b * r) / c]

    return odeint(slope, [-1.0, 1.0], np.linspace(0, 20, 41), rtol=1e-8, atol=1e-9)[1:].ravel()


def epidemic(x: FloatArray) -> FloatArray:
    """Susceptible, exposed, infected: log contact, incubation and recovery rates, first cases."""
    contact, incubate, recover, first = np.exp(x)

    def slope(state: FloatArray, time: float) -> list[float]:
        s, e, i = state
        return [-contact * s * i, contact * s * i - incubate * e, incubate * e - recover * i]

    path = odeint(slope, [1 - first, first, 0.0], np.arange(0, 121, 3.0), rtol=1e-9, atol=1e-12)
    return 100 * path[1:, 2]


def pharmacokinetics(x: FloatArray) -> FloatArray:
    """Two compartments after an oral dose: log ka, ke, k12, k21, volume."""
    ka, ke, k12, k21, volume = np.exp(x)
    rates = np.array([[-ka, 0, 0], [ka, -ke - k12, k21], [0, k12, -k21]])
    values, vectors = np.linalg.eig(rates)
    weights = np.linalg.solve(vectors, np.array([10.0, 0, 0], dtype=vectors.dtype))
    times = np.array([0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 36, 48])
    return np.real(np.exp(np.outer(times, values)) * weights @ vectors[1]) / volume


def lorenz(x: FloatArray) -> FloatArray:
    """Lorenz 1963 over two time units, before chaos hides everything: sigma, rho, beta."""
    sigma, rho, beta = x

    def slope(state: FloatArray, time: float) -> list[float]:
        a, b, c = state
        return [sigma * (b - a), a * (rho - c) - b, a * b - beta * c]

    return odeint(slope, [1.0, 1, 20], np.linspace(0, 2, 41), rtol=1e-9, atol=1e-9)[1:].ravel()


def vibrating_chain(x: FloatArray) -> FloatArray:
    """Eight log springs of a hanging chain from its frequencies, bare and with one mass added."""
    springs = np.exp(x)
    stiffness = np.diag(springs + np.append(springs[1:], 0)) - np.diag(springs[1:], 1)
    stiffness -= np.diag(springs[1:], -1)
    heavier = np.eye(8)
    heavier[5, 5] = 2.0
    both = [eigvalsh(stiffness), eigvalsh(stiffness, heavier)]
    return np.sqrt(np.maximum(np.concatenate(both), 0))


def tracer(x: FloatArray) -> FloatArray:
    """Breakthrough in a column: log velocity, dispersion, retardation (Ogata and Banks, 1961)."""
    velocity, spread, retardation = np.exp(x)
    time, places = np.linspace(0.2, 10, 25), np.array([[0.5], [1.0]])
    width = 2 * np.sqrt(spread * time / retardation)
    gone = velocity * time / retardation
    return np.ravel(0.5 * erfc((places - gone) / width))


def orbit(x: FloatArray) -> FloatArray:
    """Angles of a planet seen from the centre's side: position and velocity in the plane."""

    def slope(state: FloatArray, time: float) -> list[float]:
        a, b, u, v = state
        cube = (a * a + b * b + 1e-4) ** 1.5
        return [u, v, -a / cube, -b / cube]

    path = odeint(slope, x, np.linspace(0, 5, 30), rtol=1e-9, atol=1e-9, mxstep=5000)
    return np.concatenate([path[:, 0] / (2.5 - path[:, 1]), path[:, 1] / (2.5 + path[:, 0])])


def thin_film(x: FloatArray) -> FloatArray:
    """Reflectance of two layers on glass at 40 wavelengths: two indices, two thicknesses (µm)."""
    wavelengths = np.linspace(0.4, 0.8, 40)
    below: FloatArray | complex = 1.52 + 0j
    reflected = np.zeros(40, dtype=complex)
    for index, thickness in ((x[1], x[3]), (x[0], x[2])):
        fresnel = (index - below) / (index + below)
        turn = np.exp(4j * np.pi * index * thickness / wavelengths)
        reflected = (fresnel + reflected) / (1 + fresnel * reflected)
        reflected, below = reflected * turn, index
    fresnel = (1 - below) / (1 + below)
    return np.abs((fresnel + reflected) / (1 + fresnel * reflected)) ** 2


def enzyme(x: FloatArray) -> FloatArray:
    """Rates with competitive inhibition: log Vmax, Km, Ki, and a log background; 5 x 5 grid."""
    fastest, half, inhibition, background = np.exp(x)
    substrate, inhibitor = np.geomspace(0.1, 20, 5)[:, None], np.array([0, 0.3, 1, 3, 10])
    rate = fastest * substrate / (half * (1 + inhibitor / inhibition) + substrate)
    return np.ravel(rate + background)


@dataclass(frozen=True)
class Row:
    """One simulator.

    Args:
        model: Noiseless.
        lower: Smallest values.
        upper: Largest values.
        truth: Where the data come from.
        error: Standard deviation of the data, as a share of their spread.
    """

    model: Model
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    truth: tuple[float, ...]
    error: float = 0.0


def _logs(*values: float) -> tuple[float, ...]:
    return tuple(np.log(values))


RATES = _logs(3, 0.8, 1.5, 0.5, 1, 0.4, 0.5, 0.3, 0.2, 0.3, 0.1, 0.2)
STIFF = _logs(2, 1.6, 2.2, 1, 0.7, 1.3, 0.9, 0.5, 1.2)
SPRINGS = _logs(3, 1, 2, 1.5, 4, 0.8, 2, 1.2)
ROWS: dict[str, Row] = {
    "stirred-tank": Row(
        stirred_tank,
        (*_logs(0.01), 1, *_logs(0.005, 0.01), 10),
        (*_logs(5), 15, *_logs(5, 5), 300),
        (*_logs(0.35), 6, *_logs(0.15, 0.4), 90),
        0.02,
    ),
    "kinetics": Row(kinetics, (-5.0,) * 12, (3.0,) * 12, RATES),
    "beam": Row(beam, (-2.5,) * 9, (2.5,) * 9, STIFF),
    "lotka-volterra": Row(lotka_volterra, (-2.0,) * 4, (1.5,) * 4, _logs(1, 1.2, 0.7, 0.9)),
    "fitzhugh-nagumo": Row(fitzhugh_nagumo, (-1, -1, 0.5), (1.5, 1.5, 5), (0.2, 0.2, 3.0), 0.05),
    "epidemic": Row(
        epidemic, _logs(0.05, 0.02, 0.02, 1e-6), _logs(2, 2, 1, 0.1), _logs(0.4, 0.2, 0.1, 1e-3)
    ),
    "pharmacokinetics": Row(
        pharmacokinetics,
        _logs(0.1, 0.01, 0.01, 0.01, 1),
        _logs(10, 2, 3, 3, 50),
        _logs(1.5, 0.15, 0.4, 0.2, 8),
        0.02,
    ),
    "lorenz": Row(lorenz, (2, 10, 0.5), (20, 50, 6), (10, 28, 8 / 3)),
    "vibrating-chain": Row(vibrating_chain, (-2.0,) * 8, (3.0,) * 8, SPRINGS),
    "tracer": Row(tracer, _logs(0.01, 1e-3, 0.5), _logs(2, 1, 10), _logs(0.3, 0.05, 1.8), 0.02),
    "orbit": Row(orbit, (0.5, -0.7, -0.6, 0.4), (1.5, 0.7, 0.6, 1.5), (1.0, 0.1, -0.1, 0.9)),
    "thin-film": Row(
        thin_film, (1.3, 1.3, 0.02, 0.02), (2.6, 2.6, 0.6, 0.6), (2.1, 1.46, 0.12, 0.23)
    ),
    "enzyme": Row(
        enzyme, _logs(0.1, 0.05, 0.02, 1e-3), _logs(20, 20, 20, 2), _logs(2, 1.2, 0.5, 0.05), 0.03
    ),
    "kdv": Row(kdv, _logs(2e-4), _logs(1e-2), _logs(0.0025)),
    "burgers": Row(burgers, (0.0, float(np.log(0.01))), (2.0, float(np.log(0.5))), (1.0, -3.0)),
}


def simulator_problems() -> list[ArenaProblem]:
    """Each from two starts."""
    problems = []
    for name, row in ROWS.items():
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))
        lower, upper = np.array(row.lower), np.array(row.upper)
        clean = row.model(np.array(row.truth))
        target = clean + row.error * clean.std() * rng.standard_normal(clean.size)
        for number in range(1, STARTS + 1):
            problems.append(
                ArenaProblem(
                    name=f"simulators/{name}-start{number}",
                    base=name,
                    group="simulators",
                    model=row.model,
                    target=target,
                    start=lower + (upper - lower) * rng.uniform(0.25, 0.75, lower.size),
                    lower=lower,
                    upper=upper,
                    has_bounds=True,
                    smallest=None if row.error else 0.0,
                    max_groups=100,
                    truth=np.array(row.truth),
                )
            )
    return problems
