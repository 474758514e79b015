"""Least-squares test problems of More, Garbow and Hillstrom: neutral ground for vector methods.

Source: J. More, B. Garbow, K. Hillstrom, "Testing unconstrained optimization software", ACM
Trans. Math. Softw. 7 (1981) 17-41; the numbers below are theirs. Each is a residual function
`f: R^n -> R^m`, a standard start and the smallest known sum of squares.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.task import Task
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, unknown_name_message

GAIN_LEFT = 1e-5
"""Share of the possible gain that may be left when a problem counts as solved."""

_BARD_Y = np.array(
    [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]
)
_KOWALIK_Y = np.array(
    [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
)
_KOWALIK_U = np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])
_OSBORNE_1_Y = np.concatenate(
    [
        [0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751],
        [0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490],
        [0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406],
    ]
)


def _rosenbrock(x: FloatArray) -> FloatArray:
    """(1)."""
    return np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def _freudenstein_roth(x: FloatArray) -> FloatArray:
    """(2)."""
    first = -13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1]
    return np.array([first, -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]])


def _jennrich_sampson(x: FloatArray) -> FloatArray:
    """(6), m = 10."""
    i = np.arange(1.0, 11)
    return np.asarray(2 + 2 * i - (np.exp(i * x[0]) + np.exp(i * x[1])))


def _helical_valley(x: FloatArray) -> FloatArray:
    """(7)."""
    angle = np.arctan2(x[1], x[0]) / (2 * np.pi)
    return np.array([10 * (x[2] - 10 * angle), 10 * (np.hypot(x[0], x[1]) - 1), x[2]])


def _bard(x: FloatArray) -> FloatArray:
    """(8)."""
    u = np.arange(1.0, 16)
    v = 16 - u
    return np.asarray(_BARD_Y - (x[0] + u / (v * x[1] + np.minimum(u, v) * x[2])))


def _box(x: FloatArray) -> FloatArray:
    """(12), m = 10."""
    t = 0.1 * np.arange(1.0, 11)
    return np.asarray(np.exp(-t * x[0]) - np.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t)))


def _powell_singular(x: FloatArray) -> FloatArray:
    """(13)."""
    return np.array(
        [
            x[0] + 10 * x[1],
            np.sqrt(5) * (x[2] - x[3]),
            (x[1] - 2 * x[2]) ** 2,
            np.sqrt(10) * (x[0] - x[3]) ** 2,
        ]
    )


def _wood(x: FloatArray) -> FloatArray:
    """(14)."""
    return np.array(
        [
            10 * (x[1] - x[0] ** 2),
            1 - x[0],
            np.sqrt(90) * (x[3] - x[2] ** 2),
            1 - x[2],
            np.sqrt(10) * (x[1] + x[3] - 2),
            (x[1] - x[3]) / np.sqrt(10),
        ]
    )


def _kowalik_osborne(x: FloatArray) -> FloatArray:
    """(15)."""
    u = _KOWALIK_U
    return np.asarray(_KOWALIK_Y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3]))


def _osborne_1(x: FloatArray) -> FloatArray:
    """(17)."""
    t = 10.0 * np.arange(33)
    return np.asarray(_OSBORNE_1_Y - (x[0] + x[1] * np.exp(-t * x[3]) + x[2] * np.exp(-t * x[4])))


def _watson(x: FloatArray) -> FloatArray:
    """(20), n = 6."""
    t, j = np.arange(1.0, 30)[:, None] / 29, np.arange(x.size)
    slope = (j[1:] * x[1:] * t ** (j[1:] - 1)).sum(axis=1)
    value = (x * t**j).sum(axis=1)
    return np.concatenate([slope - value**2 - 1, [x[0], x[1] - x[0] ** 2 - 1]])


def _variably_dimensioned(x: FloatArray) -> FloatArray:
    """(25)."""
    total = float(np.arange(1.0, x.size + 1) @ (x - 1))
    return np.concatenate([x - 1, [total, total**2]])


def _brown_almost_linear(x: FloatArray) -> FloatArray:
    """(27)."""
    return np.concatenate([x[:-1] + x.sum() - (x.size + 1), [np.prod(x) - 1]])


def _discrete_boundary_value(x: FloatArray) -> FloatArray:
    """(28)."""
    h = 1 / (x.size + 1)
    t = h * np.arange(1, x.size + 1)
    padded = np.concatenate([[0.0], x, [0.0]])
    return np.asarray(2 * x - padded[:-2] - padded[2:] + h**2 * (x + t + 1) ** 3 / 2)


def _broyden_tridiagonal(x: FloatArray) -> FloatArray:
    """(30)."""
    padded = np.concatenate([[0.0], x, [0.0]])
    return np.asarray((3 - 2 * x) * x - padded[:-2] - 2 * padded[2:] + 1)


def _chebyquad(x: FloatArray) -> FloatArray:
    """(35), m = n."""
    y = 2 * x - 1
    before, now, residuals = np.ones_like(y), y, []
    for i in range(1, x.size + 1):
        integral = 0.0 if i % 2 else -1.0 / (i * i - 1)
        residuals.append(now.mean() - integral)
        before, now = now, 2 * y * now - before
    return np.array(residuals)


@final
@dataclass(frozen=True, slots=True)
class LeastSquares:
    """One problem of the collection.

    Args:
        residuals: From n numbers to m residuals.
        start: The standard start.
        smallest: Smallest known sum of squares.
        reach: Half the width of the box around the start, a number for all or one for each.
    """

    residuals: Callable[[FloatArray], FloatArray]
    start: tuple[float, ...]
    smallest: float
    reach: float | tuple[float, ...]


PROBLEMS: Mapping[str, LeastSquares] = {
    "rosenbrock": LeastSquares(_rosenbrock, (-1.2, 1), 0.0, 5),
    "freudenstein-roth": LeastSquares(_freudenstein_roth, (0.5, -2), 0.0, (20, 10)),
    "jennrich-sampson": LeastSquares(_jennrich_sampson, (0.3, 0.4), 124.362, 0.5),
    "helical-valley": LeastSquares(_helical_valley, (-1, 0, 0), 0.0, 5),
    "bard": LeastSquares(_bard, (1, 1, 1), 8.21487e-3, (1.5, 0.9, 1.5)),
    "box": LeastSquares(_box, (0, 10, 20), 0.0, (5, 15, 25)),
    "powell-singular": LeastSquares(_powell_singular, (3, -1, 0, 1), 0.0, 6),
    "wood": LeastSquares(_wood, (-3, -1, -3, -1), 0.0, 6),
    "kowalik-osborne": LeastSquares(
        _kowalik_osborne, (0.25, 0.39, 0.415, 0.39), 3.07505e-4, (0.24, 0.38, 0.4, 0.38)
    ),
    "osborne-1": LeastSquares(
        _osborne_1, (0.5, 1.5, -1, 0.01, 0.02), 5.46489e-5, (1, 2, 2, 0.0099, 0.0199)
    ),
    "watson": LeastSquares(_watson, (0.0,) * 6, 2.28767e-3, 4),
    "variably-dimensioned": LeastSquares(
        _variably_dimensioned, tuple(1 - k / 10 for k in range(1, 11)), 0.0, 3
    ),
    "brown-almost-linear": LeastSquares(_brown_almost_linear, (0.5,) * 10, 0.0, 3),
    "discrete-boundary-value": LeastSquares(
        _discrete_boundary_value, tuple(t * (t - 1) for t in np.arange(1, 21) / 21), 0.0, 2
    ),
    "broyden-tridiagonal": LeastSquares(_broyden_tridiagonal, (-1.0,) * 20, 0.0, 3),
    "chebyquad": LeastSquares(_chebyquad, tuple(np.arange(1, 9) / 9), 3.51687e-3, 1),
}


@final
class ResidualSolver:
    """The residuals of one problem as an inner solver."""

    def __init__(self, name: str) -> None:
        self.name = f"more-garbow-hillstrom-{name}"
        self._residuals = PROBLEMS[name].residuals

    def __call__(self, phi: Mapping[str, Any]) -> FloatArray:
        """Residuals, shape `(m,)`."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self._residuals(np.asarray(phi["x"], dtype=np.float64))


def least_squares_task(name: str) -> Task:
    """A problem of the collection as a task.

    Returns:
        Seed 0 has the standard start, the others one within a tenth of the box around it.

    Raises:
        InputError: If there is no such problem, with the nearest names.

    Example:
        >>> least_squares_task("bard").problem.space.size
        3
    """
    if name not in PROBLEMS:
        raise InputError(unknown_name_message("least-squares problem", name, PROBLEMS))
    known = PROBLEMS[name]
    standard = np.array(known.start, dtype=np.float64)
    reach = np.broadcast_to(np.asarray(known.reach, dtype=np.float64), standard.shape)
    parameters = {
        f"x{k}": Real(float(middle - half), float(middle + half))
        for k, (middle, half) in enumerate(zip(standard, reach, strict=True))
    }
    solver = ResidualSolver(name)
    first = solver({"x": standard})

    def start(seed: int) -> dict[str, float]:
        away = np.random.default_rng(seed).uniform(-0.1, 0.1, standard.size) if seed else 0.0
        return {f"x{k}": float(v) for k, v in enumerate(standard + away * reach)}

    gain = float(first @ first) - known.smallest
    return Task(
        name=f"{name}, N = {standard.size}",
        summary="least squares, More, Garbow and Hillstrom",
        problem=Problem(
            Space(parameters), _Named(solver), SquaredError(np.zeros(first.size)), solver.name
        ),
        start=start,
        target_loss=(known.smallest + GAIN_LEFT * gain) / first.size,
        max_solves=20 * (standard.size + 1),
    )


@final
class _Named:
    """Turns numbers by name into the vector that the residuals want; each has its own bounds."""

    def __init__(self, solver: ResidualSolver) -> None:
        self.solver = solver
        self.name = solver.name

    def __call__(self, phi: Mapping[str, Any]) -> FloatArray:
        return self.solver({"x": np.array([phi[f"x{k}"] for k in range(len(phi))])})
