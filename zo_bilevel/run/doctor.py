"""Preflight: what a handful of solves tell before a budget is spent.

The noise of a solver that always answers the same at one point shows in a difference table of
closely spaced solves (More and Wild, 2011, "Estimating computational noise", SIAM J. Sci. Comput.
33); the noise of a stochastic one shows in repeats.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.run.diagnosis import Diagnosis
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.dispatch.base import Dispatcher, Solve
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.dispatch.unpicklable import find_unpicklable
from zo_bilevel.solve.evaluation import Evaluation, Job, Point
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError

NoiseTable: TypeAlias = NDArray[np.float64]

TABLE_SPACING = 1e-6
"""Distance between the solves of the difference table, in scaled units."""
TABLE_SOLVES = 7
TABLE_STEPS: FloatArray = TABLE_SPACING * np.arange(TABLE_SOLVES, dtype=np.float64)
LONGER_STEPS: FloatArray = np.array([1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
ABOVE_GRAIN = 10.0
"""A radius so many times a solver's grain measures the solver more than its rounding."""
MOST_STARTS = 5
SMALL_RADIUS, LARGE_RADIUS = 1e-5, 0.4
SLOW_ENOUGH_TO_DISPATCH_S = 0.02


def doctor(
    problem: Problem,
    *,
    initial: Mapping[str, Any] | None = None,
    dispatcher: Dispatcher | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Try a problem with about ten solves before a budget is spent on it.

    Args:
        problem: The problem.
        initial: Where, by name; missing names take the middle of their range.
        dispatcher: Runs the solves; default `Serial()`. With a time limit a hang is survived.
        seed: Seed of the direction and the solves.

    Returns:
        Findings and suggestions.

    Raises:
        InputError: If the problem or the point breaks a rule.
        InnerSolverError: If no solve succeeds, with what it said.

    Example:
        >>> from zo_bilevel import Real, Space, SquaredError
        >>> problem = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"] ** 2, SquaredError(1.0))
        >>> doctor(problem).deterministic
        True
    """
    if not isinstance(problem, Problem):
        raise InputError(f"problem must be a zb.Problem, got {type(problem).__name__}")
    problem = problem.placed_at(initial)
    evaluator = Evaluator(problem, Serial() if dispatcher is None else dispatcher, seed)
    repeats, failed = _repeats(evaluator, problem.space.encode(initial))
    x = repeats[0].point.x
    direction = np.random.default_rng(seed).choice([-1.0, 1.0], x.size)
    direction[problem.space.discrete] = 0.0
    table = evaluator.evaluate(_along(problem, x, direction, TABLE_STEPS))
    steps = _steps(evaluator, table, direction)
    # after others, as a solver that begins where the last solve ended shows only then
    repeats.insert(1, *evaluator.evaluate([repeats[0].point]))
    evaluations = [*failed, *repeats, *table, *steps]
    noise, grain = _noise(repeats, table), _grain(table, steps)
    radius, difference = _difference(noise, grain)
    seconds = float(np.median([e.seconds for e in evaluations]))
    culprit = _obstacle(problem.inner)
    size, with_seed = problem.space.size, evaluator.solve.with_seed
    bound = evaluator.bound
    if bound is None or repeats[0].theta is None:
        raise InnerSolverError("a solve that is ok has bound the problem")
    return Diagnosis(
        solves=len(evaluations),
        failures=sum(not e.ok for e in evaluations),
        picklable=not culprit,
        obstacle=culprit,
        takes_seed=with_seed,
        deterministic=_same(repeats[0], repeats[1]),
        varies_with_seed=with_seed and not _same(repeats[0], repeats[2]),
        noise=noise,
        grain=grain,
        seconds=seconds,
        theta=bound.layout.describe(),
        batchable=_batchable(problem, x, repeats[0].theta, evaluator.seed_of(repeats[0].point)),
        is_vector=bound.is_vector,
        radius=radius,
        difference=difference,
        num_directions=size if size <= 16 else math.ceil(2 + 2 * math.log2(size)),
        workers=(os.cpu_count() or 1) if seconds >= SLOW_ENOUGH_TO_DISPATCH_S else 1,
        timeout_s=float(f"{max(1.0, 20 * max(e.seconds for e in evaluations)):.2g}"),
        errors=tuple(dict.fromkeys(e.error for e in evaluations if e.error))[:3],
    )


def _repeats(evaluator: Evaluator, x: FloatArray) -> tuple[list[Evaluation], list[Evaluation]]:
    """A point solved with one seed and with another, and what failed before it.

    Where the start fails, others are tried, as in a run.
    """
    failed: list[Evaluation] = []
    space, rng = evaluator.problem.space, np.random.default_rng(evaluator.seed)
    for _ in range(MOST_STARTS):
        points = [Point(x, (stream,), "start") for stream in (0, 1)]
        repeats = evaluator.evaluate(points)
        if repeats[0].ok:
            return repeats, failed
        failed += repeats
        x = rng.uniform(space.lower, space.upper)
    raise InnerSolverError(
        f"no solve at {space.decode(failed[0].point.x)} or {MOST_STARTS - 1} other points "
        f"succeeded: {failed[0].error}"
    )


def _along(
    problem: Problem, x: FloatArray, direction: FloatArray, steps: FloatArray
) -> list[Point]:
    middle = np.clip(x, problem.space.lower + 1e-4, problem.space.upper - 1e-4)
    space = problem.space
    return [
        Point(np.clip(middle + step * direction, space.lower, space.upper), (0,), "sketch")
        for step in steps
    ]


def _steps(
    evaluator: Evaluator, table: Sequence[Evaluation], direction: FloatArray
) -> list[Evaluation]:
    """Longer steps, for a solver that does not see the small ones of the table."""
    if not direction.any() or not all(e.ok and _same(e, table[0]) for e in table):
        return []
    start = table[0].point.x
    return evaluator.evaluate(_along(evaluator.problem, start, direction, LONGER_STEPS))


def _grain(table: Sequence[Evaluation], steps: Sequence[Evaluation]) -> float:
    if not steps:
        return 0.0
    seen = (
        size
        for size, evaluation in zip(LONGER_STEPS.tolist(), steps, strict=True)
        if evaluation.ok and not _same(evaluation, table[0])
    )
    return float(next(seen, math.inf))


def difference_table_noise(values: NoiseTable) -> float:
    """Noise of equally spaced values of a smooth function (ECNoise, More and Wild 2011).

    Args:
        values: Shape `(points, m)`, the function at equally spaced points.

    Returns:
        Standard deviation of the noise of one component, root mean square over components; 0
        when the differences do not settle.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = np.linspace(0, 1e-3, 7)[:, None]
        >>> noisy = np.sin(x + np.arange(200)) + 1e-4 * rng.normal(size=(7, 200))
        >>> bool(0.8e-4 < difference_table_noise(noisy) < 1.2e-4)
        True
    """
    levels, factor = [], 1.0
    for order in range(1, len(values)):
        values = np.diff(values, axis=0)
        # gamma_k = (k!)^2 / (2k)!
        factor *= order / (2.0 * (2 * order - 1))
        levels.append(math.sqrt(factor * float(np.mean(values**2))))
    for low, middle, high in zip(levels, levels[1:], levels[2:], strict=False):
        if max(low, middle, high) <= 4.0 * min(low, middle, high):
            return middle
    return 0.0


def _noise(repeats: Sequence[Evaluation], table: Sequence[Evaluation]) -> float:
    thetas = [e.theta for e in repeats if e.theta is not None]
    spread = float(np.std(thetas[0])) or float(np.abs(thetas[0]).max()) or 1.0
    jitter = 0.0
    if len(thetas) > 1:
        jitter = float(np.sqrt(np.mean(np.var(np.array(thetas), axis=0, ddof=1))))
    rows = [e.theta for e in table if e.theta is not None]
    rough = difference_table_noise(np.array(rows)) if len(rows) == TABLE_SOLVES else 0.0
    return max(jitter, rough) / spread


def _difference(noise: float, grain: float) -> tuple[float, str]:
    # the error of a forward difference, noise / h + h / 2, is least at h = sqrt(2 noise)
    least = 2.0 * math.sqrt(noise)
    if math.isfinite(grain):
        least = max(least, ABOVE_GRAIN * grain)
    radius = float(np.clip(least, SMALL_RADIUS, LARGE_RADIUS))
    return radius, "central" if noise > 1e-6 else "forward"


def _same(one: Evaluation, other: Evaluation) -> bool:
    if one.theta is None or other.theta is None:
        return one.status == other.status
    return np.array_equal(one.theta, other.theta)


def _obstacle(inner: object) -> str:
    try:
        cloudpickle.dumps(inner)
    except Exception:  # noqa: BLE001 - whatever a `__reduce__` raises
        path, culprit = find_unpicklable(inner)
        return f"{path} is of type {type(culprit).__name__}"
    return ""


def _batchable(problem: Problem, x: FloatArray, theta: FloatArray, seed: int) -> bool:
    from zo_bilevel.solve.dispatch.batched import Batched

    if not hasattr(problem.inner, "solve_batch"):
        return False
    jobs = [Job(place, problem.space.decode(x), seed) for place in range(2)]
    answers = dict(Batched().run(Solve(problem.inner), jobs))
    rows = [answers[place].theta for place in range(2)]
    return all(
        row is not None and np.allclose(flatten_theta(row)[0], theta, rtol=1e-6) for row in rows
    )
