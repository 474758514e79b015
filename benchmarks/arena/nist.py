"""NIST's reference data sets for nonlinear regression, 27 of them, each from its two starts.

Data, starts and certified values are read from NIST's own files (public domain); the models are
written once, here. Source: NIST/ITL StRD, https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.arena.problem import ArenaProblem, FloatArray

PARAMETER = re.compile(r"\s*b\d\s*=")
FOLDER = Path(__file__).parent / "nist_data"
Regression = Callable[[FloatArray, FloatArray], FloatArray]


def _rational(x: FloatArray, b: FloatArray) -> FloatArray:
    degree = (b.size - 1) // 2
    powers = x[:, None] ** np.arange(degree + 1)
    return np.asarray(powers @ b[: degree + 1] / (1 + powers[:, 1:] @ b[degree + 1 :]))


def _gauss(x: FloatArray, b: FloatArray) -> FloatArray:
    first = b[2] * np.exp(-(((x - b[3]) / b[4]) ** 2))
    second = b[5] * np.exp(-(((x - b[6]) / b[7]) ** 2))
    return np.asarray(b[0] * np.exp(-b[1] * x) + first + second)


def _exponentials(x: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-np.outer(x, b[1::2])) @ b[::2])


def _enso(x: FloatArray, b: FloatArray) -> FloatArray:
    value = np.full(x.size, b[0])
    for period, cosine, sine in ((12, b[1], b[2]), (b[3], b[4], b[5]), (b[6], b[7], b[8])):
        value += cosine * np.cos(2 * np.pi * x / period) + sine * np.sin(2 * np.pi * x / period)
    return value


MODELS: dict[str, Regression] = {
    "Bennett5": lambda x, b: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": lambda x, b: b[0] * (1 - np.exp(-b[1] * x)),
    "Chwirut1": lambda x, b: np.exp(-b[0] * x) / (b[1] + b[2] * x),
    "Chwirut2": lambda x, b: np.exp(-b[0] * x) / (b[1] + b[2] * x),
    "DanWood": lambda x, b: b[0] * x ** b[1],
    "ENSO": _enso,
    "Eckerle4": lambda x, b: b[0] / b[1] * np.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Gauss1": _gauss,
    "Gauss2": _gauss,
    "Gauss3": _gauss,
    "Hahn1": _rational,
    "Kirby2": _rational,
    "Lanczos1": _exponentials,
    "Lanczos2": _exponentials,
    "Lanczos3": _exponentials,
    "MGH09": lambda x, b: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "MGH10": lambda x, b: b[0] * np.exp(b[1] / (x + b[2])),
    "MGH17": lambda x, b: b[0] + b[1] * np.exp(-x * b[3]) + b[2] * np.exp(-x * b[4]),
    "Misra1a": lambda x, b: b[0] * (1 - np.exp(-b[1] * x)),
    "Misra1b": lambda x, b: b[0] * (1 - (1 + b[1] * x / 2) ** -2.0),
    "Misra1c": lambda x, b: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda x, b: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda x, b: b[0] - b[1] * x[0] * np.exp(-b[2] * x[1]),
    "Rat42": lambda x, b: b[0] / (1 + np.exp(b[1] - b[2] * x)),
    "Rat43": lambda x, b: b[0] / (1 + np.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": lambda x, b: b[0] - b[1] * x - np.arctan(b[2] / (x - b[3])) / np.pi,
    "Thurber": _rational,
}
"""Functions of the predictors and the parameters b; Nelson's answer is the logarithm of y."""
SAME_FUNCTION = {"MGH09": "kowalik-osborne", "MGH10": "meyer", "MGH17": "osborne-one"}
"""Bases shared with the other collections, so that both sit in the same half."""


@dataclass(frozen=True)
class Certified:
    """What one of NIST's files says.

    Args:
        response: Shape `(m,)`.
        predictor: Shape `(m,)`, or `(k, m)` with several.
        starts: Shape `(2, N)`.
        values: Certified parameters, shape `(N,)`.
        deviations: Certified standard deviations, shape `(N,)`.
        smallest: Certified sum of squares.
    """

    response: FloatArray
    predictor: FloatArray
    starts: FloatArray
    values: FloatArray
    deviations: FloatArray
    smallest: float


def read_certified(file: Path) -> Certified:
    """Read one of NIST's files.

    Args:
        file: Such as `Misra1a.dat`.
    """
    lines = file.read_text(encoding="ascii").splitlines()
    parameters = [line.split("=")[1].split() for line in lines if PARAMETER.match(line)]
    rows = np.array([[float(word) for word in row] for row in parameters if len(row) == 4])
    smallest = next(line for line in lines if line.startswith("Residual Sum of Squares"))
    last = max(place for place, line in enumerate(lines) if line.startswith("Data:"))
    data = np.array(
        [[float(w) for w in line.split()] for line in lines[last + 1 :] if line.strip()]
    )
    response, predictor = data[:, 0], data[:, 1:].T
    return Certified(
        response=np.log(response) if file.stem == "Nelson" else response,
        predictor=predictor if len(predictor) > 1 else predictor[0],
        starts=rows[:, :2].T.copy(),
        values=rows[:, 2],
        deviations=rows[:, 3],
        smallest=float(smallest.split(":")[1]),
    )


def nist_problems(folder: Path = FOLDER) -> list[ArenaProblem]:
    """Both starts of every file in a folder whose model is known.

    Args:
        folder: Holds `NAME.dat` files.
    """
    problems = []
    for file in sorted(folder.glob("*.dat")):
        known, function = read_certified(file), MODELS[file.stem]
        for number, start in enumerate(known.starts, start=1):
            # certified values lie far inside ten times the start, but for two
            reach = np.maximum(10 * np.abs(start), 1.5 * np.abs(known.values - start))
            problems.append(
                ArenaProblem(
                    name=f"nist/{file.stem}-start{number}",
                    base=SAME_FUNCTION.get(file.stem, f"nist-{file.stem}"),
                    group="nist",
                    model=lambda b, f=function, x=known.predictor: f(x, b),  # type: ignore[misc]
                    target=known.response,
                    start=start,
                    lower=start - reach,
                    upper=start + reach,
                    smallest=known.smallest,
                    truth=known.values,
                )
            )
    return problems
