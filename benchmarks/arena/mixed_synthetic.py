"""Made mixed problems: a known minimum of 0, moved with the seed, and options in shuffled order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import zo_bilevel as zb

Phi = Mapping[str, Any]
Made = tuple[zb.Space, Callable[[Phi], Any]]
FloatArray = NDArray[np.float64]


def mixed_ackley(rng: np.random.Generator) -> Made:
    """Ackley's function of 3 reals, 2 integers of 0 to 10 and 3 choices of 5 shuffled levels."""
    shift = rng.uniform(-0.8, 0.8, 3)
    best = rng.integers(1, 10, 2)
    levels = [rng.permutation([-1.0, -0.5, 0.0, 0.5, 1.0]) for _ in range(3)]
    space = zb.Space(
        x=zb.Real(-1, 1, (3,)),
        n=zb.Integer(0, 10, (2,)),
        **{f"c{k}": zb.Choice(tuple(range(5))) for k in range(3)},
    )

    def loss(phi: Phi) -> float:
        picks = [levels[k][phi[f"c{k}"]] for k in range(3)]
        z = np.concatenate([phi["x"] - shift, (phi["n"] - best) / 5, picks])
        spread = math.exp(-0.2 * math.sqrt(float(np.mean((4 * z) ** 2))))
        waves = math.exp(float(np.mean(np.cos(8 * math.pi * z))))
        return max(20 + math.e - 20 * spread - waves, 0.0)

    return space, loss


def mixed_rosenbrock(rng: np.random.Generator) -> Made:
    """Rosenbrock's valley through 3 reals and 2 integers in turn, mirrored by the seed."""
    sign = rng.choice([-1.0, 1.0], 5)
    space = zb.Space(
        a=zb.Real(-5, 5),
        m=zb.Integer(-5, 5),
        b=zb.Real(-5, 5),
        n=zb.Integer(-5, 5),
        c=zb.Real(-5, 5),
    )

    def loss(phi: Phi) -> float:
        z = sign * np.array([phi["a"], phi["m"], phi["b"], phi["n"], phi["c"]], dtype=float)
        return float(np.sum(100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2))

    return space, loss


def kinked(rng: np.random.Generator) -> Made:
    """Absolute values of a Log, an Integer of 1 to 50, a Choice of 3 and 2 coupled reals."""
    rate, count = rng.uniform(-4, 0), int(rng.integers(5, 46))
    first, second = rng.uniform(-0.7, 0.7, 2)
    extra = dict(zip("abc", rng.permutation([0.0, 0.3, 0.6]), strict=True))
    space = zb.Space(
        rate=zb.Log(1e-5, 10.0),
        count=zb.Integer(1, 50),
        kind=zb.Choice(["a", "b", "c"]),
        x=zb.Real(-1, 1),
        y=zb.Real(-1, 1),
    )

    def loss(phi: Phi) -> float:
        slope = abs(math.log10(phi["rate"]) - rate) / 3 + abs(phi["count"] - count) / 25
        bend = max(abs(phi["x"] - first), 2 * abs(phi["y"] - second - 0.5 * (phi["x"] - first)))
        return float(slope + bend + extra[phi["kind"]])

    return space, loss


def wide_integers(rng: np.random.Generator) -> Made:
    """Two integers of 0 to 1000 and a vector that is linear in them; the root of the loss."""
    share = rng.uniform(0.1, 0.9, 2)
    target = np.array([share[0], share[1], share.sum()])
    space = zb.Space(a=zb.Integer(0, 1000), b=zb.Integer(0, 1000))

    def misfit(phi: Phi) -> FloatArray:
        a, b = phi["a"] / 1000, phi["b"] / 1000
        return np.asarray([a - target[0], b - target[1], a + b - target[2]])

    return space, misfit


def _beale(x: float, y: float) -> float:
    x, y = 4.5 * x, 4.5 * y
    terms = (1.5 - x + x * y, 2.25 - x + x * y**2, 2.625 - x + x * y**3)
    return sum(term**2 for term in terms) / 50


def _camel(x: float, y: float) -> float:
    x, y = 2 * x, y
    return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (-4 + 4 * y**2) * y**2 + 1.0316284535


def _rosenbrock(x: float, y: float) -> float:
    return (100 * (2 * y - (2 * x) ** 2) ** 2 + (1 - 2 * x) ** 2) / 300


SURFACES = (_rosenbrock, _camel, _beale)


def functions_by_choice(choices: int, rng: np.random.Generator) -> Made:
    """2 or 3 choices add up a different surface over the same 2 reals, as Func-2C and Func-3C do.

    Each option of a choice is one of three surfaces with a weight of its own; the others of its
    choice are lifted, so that the best combination is one.

    Args:
        choices: 2 or 3.
        rng: Of the instance.

    Source:
        Ru et al. (2020), "Bayesian optimisation over multiple continuous and categorical inputs".
    """
    counts = (3, 5, 4)[:choices]
    tables = [
        [(int(rng.integers(3)), rng.uniform(0.5, 2.0), rng.uniform(0.2, 2.0)) for _ in range(n)]
        for n in counts
    ]
    best = [int(rng.integers(n)) for n in counts]
    surface = int(rng.integers(3))  # the best of all choices agree on one surface
    for table, pick in zip(tables, best, strict=True):
        table[pick] = (surface, 1.0, 0.0)
    space = zb.Space(
        x=zb.Real(-1, 1),
        y=zb.Real(-1, 1),
        **{f"c{k}": zb.Choice(tuple(range(n))) for k, n in enumerate(counts)},
    )

    def loss(phi: Phi) -> float:
        total = 0.0
        for k, table in enumerate(tables):
            which, weight, lift = table[phi[f"c{k}"]]
            total += weight * SURFACES[which](phi["x"], phi["y"]) + lift
        return max(total, 0.0)

    return space, loss


def func_2c(rng: np.random.Generator) -> Made:
    """Two choices and two reals."""
    return functions_by_choice(2, rng)


def func_3c(rng: np.random.Generator) -> Made:
    """Three choices and two reals."""
    return functions_by_choice(3, rng)


PROBLEMS = {
    "mixed Ackley": mixed_ackley,
    "mixed Rosenbrock": mixed_rosenbrock,
    "kinked": kinked,
    "wide integers": wide_integers,
    "two choices of functions": func_2c,
    "three choices of functions": func_3c,
}
