"""COCO's 24 noiseless test functions (bbob) as tasks: neutral ground for scalar methods.

Functions: Hansen et al., "Real-parameter black-box optimization benchmarking 2009: noiseless
functions definitions" (INRIA RR-6829), through the package coco-experiment. Noise: the Gaussian
model of the noisy functions (INRIA RR-6869), `f exp(beta N(0, 1))`.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np

from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.task import Task
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.packages import import_optional

BOX_BOUND = 5.0
START_BOUND = 4.0
"""Starts are drawn from [-4, 4], where all optima lie."""
FUNCTION_NAMES = {
    1: "sphere",
    2: "ellipsoid",
    3: "Rastrigin",
    4: "Bueche-Rastrigin",
    5: "linear slope",
    6: "attractive sector",
    7: "step ellipsoid",
    8: "Rosenbrock",
    9: "Rosenbrock, rotated",
    10: "ellipsoid, rotated",
    11: "discus",
    12: "bent cigar",
    13: "sharp ridge",
    14: "different powers",
    15: "Rastrigin, rotated",
    16: "Weierstrass",
    17: "Schaffer F7",
    18: "Schaffer F7, ill-conditioned",
    19: "Griewank-Rosenbrock",
    20: "Schwefel",
    21: "Gallagher, 101 peaks",
    22: "Gallagher, 21 peaks",
    23: "Katsuura",
    24: "Lunacek bi-Rastrigin",
}
DIMENSIONS = (2, 3, 5, 10, 20, 40)


@final
class BbobSolver:
    """One function: the loss above its optimum. The library's object is made on first use.

    Args:
        function: Its number, 1 to 24.
        size: N.
        instance: Which shift and rotation, >= 1.
    """

    def __init__(self, function: int, size: int, instance: int) -> None:
        self.function, self.size, self.instance = function, size, instance
        self.name = f"bbob-f{function}-i{instance}-n{size}"
        self._made: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}

    def __call__(self, phi: Mapping[str, Any]) -> float:
        """`f(x) - f(x_opt)`."""
        if self._made is None:
            self._made = import_cocoex().BareProblem(
                "bbob", self.function, self.size, self.instance
            )
        return max(float(self._made(phi["x"])) - float(self._made.best_value()), 0.0)


@final
class NoisyBbobSolver:
    """The same with noise: another draw at every point and seed.

    Args:
        exact: The function.
        beta: Strength of the noise, > 0; 0.01 is moderate, 1 severe.
    """

    def __init__(self, exact: BbobSolver, beta: float) -> None:
        self.exact, self.beta = exact, beta
        self.name = f"{exact.name}-noise-{beta:g}"

    def __call__(self, phi: Mapping[str, Any], *, seed: int) -> float:
        """`(f(x) - f(x_opt)) exp(beta N(0, 1))`; the same point and seed give the same draw."""
        digest = hashlib.sha256(str(seed).encode() + np.asarray(phi["x"], "<f8").tobytes())
        rng = np.random.default_rng(int.from_bytes(digest.digest()[:8], "little"))
        return self.exact(phi) * math.exp(self.beta * rng.standard_normal())


def import_cocoex() -> Any:  # noqa: ANN401 - a module without types
    """The module of coco-experiment; `MissingPackageError` if it is not installed."""
    return import_optional("cocoex", "bbob", "bench")


def bbob_task(
    function: int, size: int, *, instance: int = 1, noise: float = 0.0, precision: float = 1e-2
) -> Task:
    """A bbob function as a task; only its loss is to be seen.

    Args:
        function: Its number, 1 to 24.
        size: N: 2, 3, 5, 10, 20 or 40.
        instance: Which shift and rotation, >= 1.
        noise: beta, >= 0.
        precision: Loss above the optimum that counts as solved.

    Returns:
        Starts are drawn from [-4, 4] by the seed; the optimum's loss is 0.

    Raises:
        InputError: If a number is not one of these.
        MissingPackageError: If coco-experiment is not installed.
    """
    if function not in FUNCTION_NAMES:
        raise InputError(f"function must be 1 to 24, got {function}")
    if size not in DIMENSIONS:
        raise InputError(f"size must be one of {', '.join(map(str, DIMENSIONS))}, got {size}")
    if instance < 1 or noise < 0:
        raise InputError(f"instance must be >= 1 and noise >= 0, got {instance}, {noise}")
    import_cocoex()
    space = Space(x=Real(-BOX_BOUND, BOX_BOUND, (size,)))
    exact = BbobSolver(function, size, instance)
    inner = NoisyBbobSolver(exact, noise) if noise > 0 else exact

    def start(seed: int) -> dict[str, FloatArray]:
        rng = np.random.default_rng([seed, function, size, instance])
        return {"x": rng.uniform(-START_BOUND, START_BOUND, size)}

    suffix = f", noise {noise:g}" if noise > 0 else ""
    return Task(
        name=f"bbob f{function} {FUNCTION_NAMES[function]}, N = {size}{suffix}",
        summary=f"COCO's function {function}, instance {instance}",
        problem=Problem(space, inner),
        exact=Problem(space, exact),
        start=start,
        target_loss=precision,
        max_solves=100 * (size + 1),
    )
