"""The 53 problems of More and Wild: 22 nonlinear least-squares functions, several sizes and starts.

Formulas and numbers as in J. More and S. Wild, "Benchmarking derivative-free optimization
algorithms", SIAM J. Optim. 20 (2009); numbers 4 to 18 are from More, Garbow and Hillstrom (1981).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from benchmarks.arena.problem import ArenaProblem, FloatArray, box_around
from zo_bilevel.tasks.more_garbow_hillstrom import PROBLEMS

Function: TypeAlias = Callable[[FloatArray, int], FloatArray]

MEYER = np.concatenate(
    [
        [34780.0, 28610, 23650, 19630, 16370, 13720, 11540, 9744],
        [8261.0, 7030, 6005, 5147, 4427, 3820, 3307, 2872],
    ]
)
OSBORNE_2 = np.concatenate(
    [
        [1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608],
        [0.655, 0.616, 0.606, 0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661],
        [0.612, 0.558, 0.533, 0.495, 0.500, 0.423, 0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428],
        [0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668, 0.645, 0.632, 0.591, 0.559],
        [0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098, 0.054],
    ]
)


def linear_full_rank(x: FloatArray, m: int) -> FloatArray:
    """(1)."""
    residuals = np.full(m, -2 * x.sum() / m - 1)
    residuals[: x.size] += x
    return residuals


def linear_rank_one(x: FloatArray, m: int) -> FloatArray:
    """(2)."""
    return np.arange(1, m + 1) * float(np.arange(1, x.size + 1) @ x) - 1


def linear_rank_one_zeros(x: FloatArray, m: int) -> FloatArray:
    """(3), zero columns and rows."""
    total = float(np.arange(2, x.size) @ x[1:-1])
    return np.append(np.arange(m - 1) * total, 0.0) - 1


def helical_valley(x: FloatArray, m: int) -> FloatArray:
    """(5); the angle runs from -1/4 to 3/4 of a turn."""
    if x[0] == 0:
        turn = 0.0 if x[1] == 0 else 0.25
    else:
        turn = np.arctan(x[1] / x[0]) / (2 * np.pi) + (0.5 if x[0] < 0 else 0.0)
    return np.array([10 * (x[2] - 10 * turn), 10 * (np.hypot(x[0], x[1]) - 1), x[2]])


def meyer(x: FloatArray, m: int) -> FloatArray:
    """(10)."""
    return x[0] * np.exp(x[1] / (5 * np.arange(1, 17) + 45 + x[2])) - MEYER


def brown_dennis(x: FloatArray, m: int) -> FloatArray:
    """(14)."""
    t = np.arange(1, m + 1) / 5
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + np.sin(t) * x[3] - np.cos(t)) ** 2


def osborne_two(x: FloatArray, m: int) -> FloatArray:
    """(18)."""
    t = np.arange(65)[:, None] / 10
    bumps = np.exp(-x[5:8] * (t - x[8:11]) ** 2) @ x[1:4]
    return OSBORNE_2 - (x[0] * np.exp(-x[4] * t[:, 0]) + bumps)


def bdqrtic(x: FloatArray, m: int) -> FloatArray:
    """(19)."""
    s = x**2
    quartic = s[:-4] + 2 * s[1:-3] + 3 * s[2:-2] + 4 * s[3:-1] + 5 * s[-1]
    return np.append(3 - 4 * x[:-4], quartic)


def cube(x: FloatArray, m: int) -> FloatArray:
    """(20)."""
    return np.append(x[0] - 1, 10 * (x[1:] - x[:-1] ** 3))


def mancino(x: FloatArray, m: int) -> FloatArray:
    """(21)."""
    i = np.arange(1.0, x.size + 1)
    root = np.sqrt(x[:, None] ** 2 + i[:, None] / i)
    log = np.log(root)
    waves = (root * (np.sin(log) ** 5 + np.cos(log) ** 5)).sum(axis=1)
    return 1400 * x + (i - 50) ** 3 + waves


def heart_eight(x: FloatArray, m: int) -> FloatArray:
    """(22), dipole model of the heart: moments of two complex numbers."""
    weights, places = x[0:2] - 1j * x[2:4], x[4:6] + 1j * x[6:8]
    conjugate = np.conj(weights)
    first, second, third = ((conjugate * places**k).sum() for k in (1, 2, 3))
    sums = [x[0] + x[1] + 0.69, x[2] + x[3] + 0.044]
    moments = [first.real + 1.57, first.imag + 1.31, second.real + 2.65, second.imag - 2.0]
    return np.array([*sums, *moments, third.real + 12.6, third.imag - 9.48])


def _mancino_start(n: int) -> FloatArray:
    i = np.arange(1.0, n + 1)
    root = np.sqrt(i[:, None] / i)
    waves = root * (np.sin(np.log(root)) ** 5 + np.cos(np.log(root)) ** 5)
    return np.asarray(-8.710996e-4 * ((i - 50) ** 3 + waves.sum(axis=1)))


def _start(number: int, n: int) -> FloatArray:
    fixed: dict[int, list[float]] = {
        4: [-1.2, 1],
        5: [-1, 0, 0],
        6: [3, -1, 0, 1],
        7: [0.5, -2],
        8: [1, 1, 1],
        9: [0.25, 0.39, 0.415, 0.39],
        10: [0.02, 4000, 250],
        12: [0, 10, 20],
        13: [0.3, 0.4],
        14: [25, 5, -5, -1],
        17: [0.5, 1.5, 1, 0.01, 0.02],
        18: [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5],
        22: [-0.3, -0.39, 0.3, -0.344, -1.2, 2.69, 1.59, -1.5],
    }
    if number in fixed:
        return np.array(fixed[number], dtype=np.float64)
    if number == 15:
        return np.arange(1, n + 1) / (n + 1)
    if number == 21:
        return _mancino_start(n)
    return np.full(n, 0.5 if number in (11, 16, 20) else 1.0)


def _shared(name: str) -> Function:
    """A function that the project's own collection has already."""
    residuals = PROBLEMS[name].residuals
    return lambda x, m: residuals(x)


FUNCTIONS: Mapping[str, Function] = {
    "linear-full-rank": linear_full_rank,
    "linear-rank-one": linear_rank_one,
    "linear-rank-one-zeros": linear_rank_one_zeros,
    "rosenbrock": _shared("rosenbrock"),
    "helical-valley": helical_valley,
    "powell-singular": _shared("powell-singular"),
    "freudenstein-roth": _shared("freudenstein-roth"),
    "bard": _shared("bard"),
    "kowalik-osborne": _shared("kowalik-osborne"),
    "meyer": meyer,
    "watson": _shared("watson"),
    "box-three": _shared("box"),
    "jennrich-sampson": _shared("jennrich-sampson"),
    "brown-dennis": brown_dennis,
    "chebyquad": _shared("chebyquad"),
    "brown-almost-linear": _shared("brown-almost-linear"),
    "osborne-one": _shared("osborne-1"),
    "osborne-two": osborne_two,
    "bdqrtic": bdqrtic,
    "cube": cube,
    "mancino": mancino,
    "heart-eight": heart_eight,
}
"""In the paper's order."""
# function, n, m, power of ten that multiplies the start, smallest known sum of squares
ROWS: tuple[tuple[int, int, int, int, float | None], ...] = (
    (1, 9, 45, 0, 36.0), (1, 9, 45, 1, 36.0),
    (2, 7, 35, 0, 595 / 71), (2, 7, 35, 1, 595 / 71),
    (3, 7, 35, 0, 662 / 67), (3, 7, 35, 1, 662 / 67),
    (4, 2, 2, 0, 0.0), (4, 2, 2, 1, 0.0),
    (5, 3, 3, 0, 0.0), (5, 3, 3, 1, 0.0),
    (6, 4, 4, 0, 0.0), (6, 4, 4, 1, 0.0),
    (7, 2, 2, 0, 0.0), (7, 2, 2, 1, 0.0),
    (8, 3, 15, 0, 8.21487e-3), (8, 3, 15, 1, 8.21487e-3),
    (9, 4, 11, 0, 3.07505e-4),
    (10, 3, 16, 0, 87.9458),
    (11, 6, 31, 0, 2.28767e-3), (11, 6, 31, 1, 2.28767e-3),
    (11, 9, 31, 0, 1.39976e-6), (11, 9, 31, 1, 1.39976e-6),
    (11, 12, 31, 0, 4.72238e-10), (11, 12, 31, 1, 4.72238e-10),
    (12, 3, 10, 0, 0.0),
    (13, 2, 10, 0, 124.362),
    (14, 4, 20, 0, 85822.2), (14, 4, 20, 1, 85822.2),
    (15, 6, 6, 0, 0.0), (15, 7, 7, 0, 0.0), (15, 8, 8, 0, 3.51687e-3),
    (15, 9, 9, 0, 0.0), (15, 10, 10, 0, 4.77271e-3), (15, 11, 11, 0, 2.79976e-3),
    (16, 10, 10, 0, 0.0),
    (17, 5, 33, 0, 5.46489e-5),
    (18, 11, 65, 0, 4.01377e-2), (18, 11, 65, 1, 4.01377e-2),
    (19, 8, 8, 0, 10.2389734), (19, 10, 12, 0, 18.28116), (19, 11, 14, 0, 22.26059),
    (19, 12, 16, 0, 26.27277),
    (20, 5, 5, 0, 0.0), (20, 6, 6, 0, 0.0), (20, 8, 8, 0, 0.0),
    (21, 5, 5, 0, 0.0), (21, 5, 5, 1, 0.0), (21, 8, 8, 0, 0.0), (21, 10, 10, 0, 0.0),
    (21, 12, 12, 0, 0.0), (21, 12, 12, 1, 0.0),
    (22, 8, 8, 0, 0.0), (22, 8, 8, 1, 0.0),
)  # fmt: skip


def more_wild_problems() -> list[ArenaProblem]:
    """All 53, in the order of the paper's table."""
    problems = []
    for number, n, m, power, smallest in ROWS:
        base, function = list(FUNCTIONS.items())[number - 1]
        start = 10.0**power * _start(number, n)
        lower, upper = box_around(start)
        problems.append(
            ArenaProblem(
                name=f"more-wild/{number:02d}-{base}-n{n}" + ("-x10" if power else ""),
                base=base,
                group="more-wild",
                model=lambda x, function=function, m=m: function(x, m),  # type: ignore[misc]
                target=np.zeros(m),
                start=start,
                lower=lower,
                upper=upper,
                smallest=smallest,
            )
        )
    return problems
