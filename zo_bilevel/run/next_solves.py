"""Which solve would tell most of the inner solution where the answer may lie.

The inner solution is expected to be a draw of the Taylor process of `taylor_prior`, of the length
that is likeliest for the solves made. The answer may lie where the data say, z ~ N(x, C). A solve
at c lowers the expected squared error of what is known there of theta by (Cohn 1996, "Neural
Network Exploration Using Optimal Experiment Design", section 3)

    mean over z of  k(z, c)^2 / k(c, c),     k: covariance given all solves so far           (1)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zo_bilevel.methods.constrained.smooth_model import FIRST_LENGTH, SmoothModel
from zo_bilevel.methods.gauss_newton.taylor_prior import Observations
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.run.confidence import Uncertainty
from zo_bilevel.run.result import Record, Result
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

NUM_DRAWS = 256
"""Of where the answer may lie."""
MOST_SOLVES = 200
"""Newest solves that are looked at."""
NUM_FITS = 12
"""Of the length, each by a factor of two."""
KNOWN_VARIANCE = 1e-9
"""Variances of changes per unit length, in those of a slope, up to which a point is known."""


def next_solves(
    result: Result,
    found: Uncertainty,
    candidates: Sequence[Mapping[str, Any]],
    count: int = 5,
) -> list[tuple[int, float]]:
    """Rank solves by what each would tell of theta where the answer may lie, given those before it.

    Args:
        result: Of a run that kept its solves.
        found: Its uncertainty.
        candidates: Named values of the solves that could be made; missing names are the answer's.
        count: How many are wanted, >= 1.

    Returns:
        Place among the candidates, and by which share of what is unknown of theta there now that
        solve lowers it, in [0, 1]; the best first, each with those above it taken as made.

    Raises:
        InputError: If a candidate does not fit the parameters, or no solves were kept.

    Example:
        >>> import zo_bilevel as zb
        >>> t = np.arange(6.0)
        >>> line = zb.Problem(zb.Space(a=zb.Real(-9, 9), b=zb.Real(-9, 9)),
        ...                   lambda phi: phi["a"] * np.exp(-0.1 * phi["b"] * t),
        ...                   zb.SquaredError([1.1, 0.9, 0.8, 0.8, 0.6, 0.6]))
        >>> result = zb.minimize(line, max_solves=20)
        >>> other = [{"b": result.phi["b"] + 0.2}, dict(result.phi)]
        >>> [place for place, _ in zb.next_solves(result, result.uncertainty(line), other)]
        [0, 1]
    """
    count, space = whole_number("count", count, least=1), result.space
    if space is None or result.objective is None:
        raise InputError("next_solves needs a result as the run gave it, not one that was saved")
    solved = [r for r in result.history if r.status == "ok" and r.phi and r.theta is not None]
    if len(solved) < 2:
        raise InputError("next_solves needs a run that kept at least two solves")
    steps = []
    for number, candidate in enumerate(candidates):
        try:
            steps.append(space.encode({**_free(result), **candidate}) - result.x)
        except InputError as error:
            raise InputError(f"candidate {number}: {error}") from error
    if not steps:
        return []
    points = np.array([space.encode(record.phi) for record in solved[-MOST_SOLVES:]]) - result.x
    rows = np.linalg.norm(points, axis=1) > 0
    length = _length(solved[-MOST_SOLVES:], points)
    draws = np.random.default_rng(0).standard_normal((NUM_DRAWS, space.size))
    draws = draws @ (found.factor / space.rates(result.x)[:, None]).T
    return _ranked(points[rows], np.array(steps), draws, length, count)


def _free(result: Result) -> dict[str, Any]:
    assert result.space is not None  # noqa: S101 - checked before
    return {name: result.phi[name] for name in result.space.parameters}


def _length(solved: Sequence[Record], points: FloatArray) -> float:
    """The likeliest length of the process, scaled."""
    center = int(np.argmin(np.linalg.norm(points, axis=1)))
    values = np.array([np.nan_to_num(flatten_theta(record.theta)[0]) for record in solved])
    length = FIRST_LENGTH
    for _ in range(NUM_FITS):
        before, length = length, SmoothModel(points, values, center, length).length
        if length == before:
            break
    return length


def _ranked(
    points: FloatArray, steps: FloatArray, draws: FloatArray, length: float, count: int
) -> list[tuple[int, float]]:
    """The best candidates of (1), one after the other, by joint covariances given the points."""
    places = np.vstack([points, steps, draws])
    norms = np.maximum(np.linalg.norm(places, axis=1), 1e-12)
    none = np.zeros_like(places)
    rows = Observations(places, none, np.zeros(len(places), bool), norms, none[:, 0])
    joint = rows.covariance(length, 0.0)  # of changes per unit length
    for index in range(len(points)):
        joint = _given(joint, index)
    joint = joint[len(points) :, len(points) :]
    num = len(steps)
    squares = norms[len(points) + num :] ** 2
    unknown = float(squares @ np.diag(joint)[num:])
    ranked: list[tuple[int, float]] = []
    left = set(range(num))
    while left and len(ranked) < count:
        own = np.diag(joint)[:num]
        gains = joint[:num, num:] ** 2 @ squares  # (1)
        told = np.divide(gains, own, out=np.zeros(num), where=own > KNOWN_VARIANCE)
        best = max(left, key=lambda k: (told[k], -k))
        ranked.append((best, float(told[best] / unknown) if unknown > 0.0 else 0.0))
        left.remove(best)
        joint = _given(joint, best)
    return ranked


def _given(joint: FloatArray, index: int) -> FloatArray:
    """The covariance once one of its values is known."""
    column = joint[:, index]
    if column[index] <= KNOWN_VARIANCE:
        return joint
    left: FloatArray = joint - np.outer(column, column) / column[index]
    return left
