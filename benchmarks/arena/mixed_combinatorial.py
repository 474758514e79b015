"""Choices and integers throughout, and a fitted model: no reals to descend, or few."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import zo_bilevel as zb
from zo_bilevel.tasks.bbob import import_cocoex

Phi = Mapping[str, Any]
Made = tuple[zb.Space, Callable[[Phi], float]]
FloatArray = NDArray[np.float64]

MIXINT_SCALES = {2: 1e-3, 8: 1e-2, 15: 0.1, 21: 1.0}
"""Functions of bbob-mixint, and by what COCO multiplies them there."""
PATIENTS = 150
PESTICIDES = (
    (1.0, 0.2, 1 / 7),
    (0.8, 0.3, 2.5 / 7),
    (0.7, 0.3, 2 / 7),
    (0.5, 0.0, 0.5 / 7),
)
"""Price, how far it falls when bought again, and how fast pests get used to it."""


def pest_control(rng: np.random.Generator) -> Made:
    """15 stations in a row, each with one of 4 pesticides or none; prices fall, pests adapt.

    After Oh et al. (2019), "Combinatorial Bayesian optimization using the graph Cartesian
    product": the draws of the pests' growth are those of the instance.
    """
    stages = 15
    spread = rng.beta(1.0, 17 / 3, (stages, 50))
    killed = rng.beta(1.0, 3 / 7, (len(PESTICIDES), stages, 50))
    space = zb.Space({f"s{k:02}": zb.Choice(tuple(range(5))) for k in range(stages)})

    def loss(phi: Phi) -> float:
        pests, total, used = np.full(50, 0.1), 0.0, [0] * len(PESTICIDES)
        for stage in range(stages):
            pick = phi[f"s{stage:02}"] - 1
            if pick < 0:
                pests = spread[stage] * (1 - pests) + pests
            else:
                price, discount, habit = PESTICIDES[pick]
                total += price * (1 - discount / stages * used[pick])
                pests = pests * (1 - killed[pick, stage] * (1 - habit * used[pick] / 4))
                used[pick] += 1
            total += float(np.mean(pests > 0.1))
        return total

    return space, loss


def low_autocorrelation(rng: np.random.Generator) -> Made:
    """Signs of a sequence of 24 with small sums of products at every lag; the inverse merit.

    Source:
        Golay (1977); smallest energy for 24 signs: 36.
    """
    size = 24
    mask = rng.choice([-1, 1], size)
    space = zb.Space(s=zb.Choice([-1, 1], shape=(size,)))

    def loss(phi: Phi) -> float:
        signs = np.asarray(phi["s"], dtype=int) * mask
        energy = sum(int(signs[lag:] @ signs[:-lag]) ** 2 for lag in range(1, size))
        return 2 * energy / size**2

    return space, loss


def nk_landscape(rng: np.random.Generator) -> Made:
    """Kauffman's NK landscape: 12 choices of 3, each counting together with 2 others."""
    size, options = 12, 3
    partners = [(k + 1 + rng.choice(size - 1, 2, replace=False)) % size for k in range(size)]
    tables = rng.uniform(size=(size, options, options, options))
    space = zb.Space({f"c{k:02}": zb.Choice(tuple(range(options))) for k in range(size)})

    def loss(phi: Phi) -> float:
        picks = [phi[f"c{k:02}"] for k in range(size)]
        parts = [tables[k, picks[k], picks[a], picks[b]] for k, (a, b) in enumerate(partners)]
        return float(np.mean(parts))

    return space, loss


@cache
def _diabetes(scaler: str) -> tuple[FloatArray, FloatArray]:
    """Scaled inputs of mean square 1, and standardized outputs."""
    from sklearn.datasets import load_diabetes
    from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler

    inputs, outputs = load_diabetes(return_X_y=True, scaled=False)
    order = np.random.default_rng(0).permutation(len(outputs))[:PATIENTS]
    inputs, outputs = inputs[order], outputs[order]
    scalers = {
        "standard": StandardScaler(),
        "minmax": MinMaxScaler(),
        "quantile": QuantileTransformer(n_quantiles=50),
    }
    if scaler in scalers:
        inputs = scalers[scaler].fit_transform(inputs)
    return inputs / inputs.std(), (outputs - outputs.mean()) / outputs.std()


def kernel_ridge(rng: np.random.Generator) -> Made:
    """Kernel ridge regression on a third of scikit-learn's diabetes data, error of 3 folds."""
    space = zb.Space(
        alpha=zb.Log(1e-4, 1e3),
        gamma=zb.Log(1e-4, 10.0),
        kernel=zb.Choice(["rbf", "laplacian", "poly", "sigmoid"]),
        degree=zb.Integer(1, 5),
        coef0=zb.Real(0, 3),
        scaler=zb.Choice(["none", "standard", "minmax", "quantile"]),
    )
    return space, _kernel_ridge_error


def _kernel_ridge_error(phi: Phi) -> float:
    inputs, outputs = _diabetes(phi["scaler"])
    kernel = _kernel(phi, inputs)
    errors = []
    for fold in range(3):
        test = np.arange(len(outputs)) % 3 == fold
        square = kernel[np.ix_(~test, ~test)] + phi["alpha"] * np.eye(int((~test).sum()))
        weights = np.linalg.lstsq(square, outputs[~test], rcond=None)[0]
        errors.append(np.mean((kernel[np.ix_(test, ~test)] @ weights - outputs[test]) ** 2))
    return float(min(np.mean(errors), 1e6))


def _kernel(phi: Phi, inputs: FloatArray) -> FloatArray:
    if phi["kernel"] in ("rbf", "laplacian"):
        power = 2 if phi["kernel"] == "rbf" else 1
        distances = np.abs(inputs[:, None] - inputs[None]) ** power
        return np.asarray(np.exp(-phi["gamma"] * distances.sum(axis=-1)))
    products = phi["gamma"] * inputs @ inputs.T + phi["coef0"]
    return np.asarray(
        np.tanh(products) if phi["kernel"] == "sigmoid" else products ** phi["degree"]
    )


def mixed_integer_bbob(function: int, rng: np.random.Generator) -> Made:
    """COCO's bbob-mixint in N = 10: 2 integers each of 2, 4, 8 and 16 values, and 2 reals.

    The loss is above that of the best point.

    Args:
        function: 1 to 24.
        rng: Of the instance.

    Source:
        Tušar, Brockhoff and Hansen (2019), "Mixed-integer benchmark problems for single- and
        bi-objective optimization".
    """
    size, instance = 10, int(rng.integers(1, 16))
    options = f"dimensions:{size} instance_indices:{instance}"
    suite = import_cocoex().Suite("bbob-mixint", "", f"{options} function_indices:{function}")
    problem = suite.get_problem(0)
    count = problem.number_of_integer_variables
    parameters: dict[str, zb.Integer | zb.Real] = {}
    for k, (low, high) in enumerate(zip(problem.lower_bounds, problem.upper_bounds, strict=True)):
        kind = zb.Integer(int(low), int(high)) if k < count else zb.Real(low, high)
        parameters[f"x{k}"] = kind
    plain = import_cocoex().BareProblem("bbob", function, size, instance)
    lowest = MIXINT_SCALES[function] * float(plain.best_value())

    def loss(phi: Phi) -> float:
        x = np.array([phi[name] for name in parameters], dtype=float)
        return max(float(problem(x)) - lowest, 0.0)

    return zb.Space(parameters), loss


PROBLEMS: dict[str, Callable[[np.random.Generator], Made]] = {
    "pest control": pest_control,
    "low autocorrelation": low_autocorrelation,
    "NK landscape": nk_landscape,
    "kernel ridge": kernel_ridge,
    **{f"mixint f{k}": partial(mixed_integer_bbob, k) for k in MIXINT_SCALES},
}
