"""Systems of 49 to 150 unknowns from the literature.

Numbers in brackets are those of More, Garbow and Hillstrom, "Testing unconstrained optimization
software", ACM TOMS 7 (1981); the others name their source.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.arena.problem import ArenaProblem, FloatArray, box_around
from zo_bilevel.tasks.more_garbow_hillstrom import PROBLEMS


def broyden_banded(x: FloatArray) -> FloatArray:
    """(31), five below and one above the diagonal."""
    near = np.convolve(x * (1 + x), [1.0, 0, 1, 1, 1, 1, 1])[1 : x.size + 1]
    return x * (2 + 5 * x**2) + 1 - near


def discrete_integral(x: FloatArray) -> FloatArray:
    """(29)."""
    h = 1 / (x.size + 1)
    t = h * np.arange(1, x.size + 1)
    cubes = (x + t + 1) ** 3
    below = (1 - t) * np.cumsum(t * cubes)
    above = t * (np.sum((1 - t) * cubes) - np.cumsum((1 - t) * cubes))
    return x + h / 2 * (below + above)


def trigonometric(x: FloatArray) -> FloatArray:
    """(26)."""
    i = np.arange(1, x.size + 1)
    return x.size - np.cos(x).sum() + i * (1 - np.cos(x)) - np.sin(x)


def extended_rosenbrock(x: FloatArray) -> FloatArray:
    """(21)."""
    return np.append(10 * (x[1::2] - x[::2] ** 2), 1 - x[::2])


def extended_powell(x: FloatArray) -> FloatArray:
    """(22)."""
    a, b, c, d = x.reshape(-1, 4).T
    linear = [a + 10 * b, np.sqrt(5) * (c - d)]
    return np.concatenate([*linear, (b - 2 * c) ** 2, np.sqrt(10) * (a - d) ** 2])


def penalty_one(x: FloatArray) -> FloatArray:
    """(23)."""
    return np.append(np.sqrt(1e-5) * (x - 1), x @ x - 0.25)


def chandrasekhar(x: FloatArray) -> FloatArray:
    """H equation with c = 0.9; Kelley, "Iterative methods for linear and nonlinear equations"."""
    mu = (np.arange(x.size) + 0.5) / x.size
    kernel = mu[:, None] / (mu[:, None] + mu)
    return x - 1 / (1 - 0.9 / (2 * x.size) * (kernel @ x))


def chained_rosenbrock(x: FloatArray) -> FloatArray:
    """Toint, "Some numerical results using a sparse matrix updating formula" (1978)."""
    return np.append(10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1])


def chained_wood(x: FloatArray) -> FloatArray:
    """Conn, Gould and Toint, "Testing a class of methods for simple bounds" (1988)."""
    a, b, c, d = x[:-2:2], x[1:-1:2], x[2::2], x[3::2]
    a, b = a[: c.size], b[: c.size]
    first = [10 * (b - a**2), 1 - a, np.sqrt(90) * (d - c**2), 1 - c]
    return np.concatenate([*first, np.sqrt(10) * (b + d - 2), (b - d) / np.sqrt(10)])


def arrowhead(x: FloatArray) -> FloatArray:
    """Squares of ARWHEAD's terms: one unknown that all others depend on; CUTEr."""
    return np.append(x[:-1] ** 2 + x[-1] ** 2, 3 - 4 * x[:-1])


def extended_freudenstein_roth(x: FloatArray) -> FloatArray:
    """Pairs of function (2); CUTEr's FREUROTH is chained instead."""
    a, b = x[::2], x[1::2]
    first = -13 + a + ((5 - b) * b - 2) * b
    return np.append(first, -29 + a + ((b + 1) * b - 14) * b)


def bratu(x: FloatArray) -> FloatArray:
    """`-laplace u = 5 exp(u)` on the unit square, five points; More (1990)."""
    side = int(np.sqrt(x.size))
    u = np.pad(x.reshape(side, side), 1)
    around = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
    inner = u[1:-1, 1:-1]
    return (4 * inner - around - 5 / (side + 1) ** 2 * np.exp(inner)).ravel()


def _ends(n: int) -> FloatArray:
    t = np.arange(1, n + 1) / (n + 1)
    return t * (t - 1)


# name, model, start, smallest known sum of squares; arrowhead's first terms vanish at
ROWS: tuple[tuple[str, Callable[[FloatArray], FloatArray], FloatArray, float | None], ...] = (
    ("broyden-tridiagonal", PROBLEMS["broyden-tridiagonal"].residuals, np.full(100, -1.0), 0.0),
    ("broyden-banded", broyden_banded, np.full(60, -1.0), 0.0),
    ("discrete-boundary-value", PROBLEMS["discrete-boundary-value"].residuals, _ends(80), 0.0),
    ("discrete-integral", discrete_integral, _ends(60), 0.0),
    ("trigonometric", trigonometric, np.full(50, 1 / 50), 0.0),
    ("extended-rosenbrock", extended_rosenbrock, np.tile([-1.2, 1.0], 50), 0.0),
    ("extended-powell", extended_powell, np.tile([3.0, -1, 0, 1], 20), 0.0),
    (
        "variably-dimensioned",
        PROBLEMS["variably-dimensioned"].residuals,
        1 - np.arange(1, 61) / 60,
        0.0,
    ),
    ("penalty-one", penalty_one, np.arange(1, 51.0), None),
    ("brown-almost-linear", PROBLEMS["brown-almost-linear"].residuals, np.full(50, 0.5), 0.0),
    ("chandrasekhar", chandrasekhar, np.full(100, 1.0), 0.0),
    ("chained-rosenbrock", chained_rosenbrock, np.tile([-1.2, 1.0], 25), 0.0),
    ("chained-wood", chained_wood, np.tile([-3.0, -1], 26), None),
    ("arrowhead", arrowhead, np.full(100, 1.0), None),
    ("extended-freudenstein-roth", extended_freudenstein_roth, np.tile([0.5, -2], 30), 0.0),
    ("bratu", bratu, np.zeros(49), 0.0),
)
BASES = {
    "extended-rosenbrock": "rosenbrock",
    "chained-rosenbrock": "rosenbrock",
    "extended-powell": "powell-singular",
    "extended-freudenstein-roth": "freudenstein-roth",
}
"""Those that share a function with the small ones sit in the same half."""
MAX_GROUPS = 50


def large_problems() -> list[ArenaProblem]:
    """All of them, with a placeholder box."""
    problems = []
    for name, model, start, smallest in ROWS:
        lower, upper = box_around(start)
        problems.append(
            ArenaProblem(
                name=f"large/{name}-n{start.size}",
                base=BASES.get(name, name),
                group="large",
                model=model,
                target=np.zeros(model(start).size),
                start=start,
                lower=lower,
                upper=upper,
                smallest=smallest,
                max_groups=MAX_GROUPS,
            )
        )
    return problems
