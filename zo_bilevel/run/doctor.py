"""Preflight: what a handful of solves tell before a budget is spent.

The noise of a solver that always answers the same at one point shows in a difference table of
closely spaced solves (More and Wild, 2011, "Estimating computational noise", SIAM J. Sci. Comput.
33); the noise of a stochastic one shows in repeats.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.solve.dispatch.base import Dispatcher, Solve
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.dispatch.unpicklable import find_unpicklable
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError

NoiseTable: TypeAlias = NDArray[np.float64]

TABLE_SPACING = 1e-6
"""Distance between the solves of the difference table, in scaled units."""
TABLE_SOLVES = 7
SMALL_RADIUS, LARGE_RADIUS = 1e-5, 0.4
SLOW_ENOUGH_TO_DISPATCH_S = 0.02


@final
@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found and what is suggested; `str()` says it in words.

    Args:
        solves: Solves spent.
        failures: Those that were not ok.
        picklable: Whether process dispatch is possible; `obstacle` says what is in the way.
        obstacle: The part that cannot travel to another process, or nothing.
        takes_seed: Whether the inner solver accepts a seed.
        deterministic: Same point and seed, same numbers.
        varies_with_seed: Other seed, other numbers.
        noise: Standard deviation of theta's noise over the spread of theta.
        seconds: Median seconds a solve.
        theta: Structure of the inner solution in words.
        batchable: Whether `solve_batch` is offered and agrees with single solves.
        is_vector: Whether methods see more than the loss.
        radius: Suggested smoothing radius, scaled.
        difference: Suggested scheme.
        num_directions: Suggested directions a sketch.
        workers: Suggested number of workers.
        timeout_s: Suggested time limit of a solve.
        errors: First words of each failure.
    """

    solves: int
    failures: int
    picklable: bool
    obstacle: str
    takes_seed: bool
    deterministic: bool
    varies_with_seed: bool
    noise: float
    seconds: float
    theta: str
    batchable: bool
    is_vector: bool
    radius: float
    difference: str
    num_directions: int
    workers: int
    timeout_s: float
    errors: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return "\n".join(f"- {line}" for line in self.lines())

    def lines(self) -> list[str]:
        """One finding a line, the suggestions last."""
        said = [
            f"{self.solves} solves, {self.failures} failed, {_seconds(self.seconds)} a solve",
            f"the inner solution has {self.theta}"
            + ("" if self.is_vector else "; methods see only the loss"),
            "it can be sent to other processes"
            if self.picklable
            else f"it cannot be sent to other processes: {self.obstacle}; use threads",
            self._determinism(),
            f"noise is {self.noise:.1e} of theta's spread"
            if self.noise > 0
            else "no noise was seen, not even in the last digits",
            "it solves a whole round in one call: use Batched()"
            if self.batchable
            else "it solves one point a call",
        ]
        said += [f"a solve failed: {error}" for error in self.errors]
        said.append(
            f"suggested: {self.difference} differences, radius {self.radius:.1e} scaled units, "
            f"{self.num_directions} directions a sketch"
        )
        said.append(self._dispatch())
        return said

    def _determinism(self) -> str:
        if not self.deterministic:
            return "the same point and seed give other numbers each time: it has noise of its own"
        if self.varies_with_seed:
            return "it is reproducible: the same seed gives the same numbers, another seed others"
        return "it is deterministic" + (": its seed changes nothing" if self.takes_seed else "")

    def _dispatch(self) -> str:
        if self.workers == 1:
            return "suggested: no parallel dispatch, a solve is too short to gain from it"
        backend = "" if self.picklable else ', backend="threading"'
        limit = f", timeout_s={self.timeout_s:g}" if self.picklable else ""
        return f"suggested: dispatcher=Joblib(n_jobs={self.workers}{backend}{limit})"


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
    solve, x = Solve(problem.inner), problem.space.encode(initial)
    runner = Serial() if dispatcher is None else dispatcher
    repeats = _run(runner, solve, problem, [x, x, x], [seed, seed, seed + 1])
    usable = [outcome for outcome in repeats if outcome.status == "ok"]
    if not usable or usable[0].theta is None or usable[0].layout is None:
        raise InnerSolverError(
            f"no solve at {problem.space.decode(x)} succeeded: {repeats[0].error}"
        )
    bound = problem.bind(usable[0].theta, usable[0].layout, x)
    table = _run(runner, solve, problem, _table_points(problem, x, seed), [seed] * TABLE_SOLVES)
    outcomes = [*repeats, *table]
    noise = _noise(repeats, table)
    radius, difference = _difference(noise)
    seconds = float(np.median([outcome.seconds for outcome in outcomes]))
    culprit = _obstacle(problem.inner)
    size = problem.space.size
    return Diagnosis(
        solves=len(outcomes),
        failures=sum(outcome.status != "ok" for outcome in outcomes),
        picklable=not culprit,
        obstacle=culprit,
        takes_seed=solve.with_seed,
        deterministic=_same(repeats[0], repeats[1]),
        varies_with_seed=solve.with_seed and not _same(repeats[0], repeats[2]),
        noise=noise,
        seconds=seconds,
        theta=usable[0].layout.describe(),
        batchable=_batchable(problem, x, usable[0].theta, seed),
        is_vector=bound.is_vector,
        radius=radius,
        difference=difference,
        num_directions=size if size <= 16 else math.ceil(2 + 2 * math.log2(size)),
        workers=(os.cpu_count() or 1) if seconds >= SLOW_ENOUGH_TO_DISPATCH_S else 1,
        timeout_s=float(f"{max(1.0, 20 * max(o.seconds for o in outcomes)):.2g}"),
        errors=tuple(dict.fromkeys(o.error for o in outcomes if o.error))[:3],
    )


def _run(
    dispatcher: Dispatcher,
    solve: Solve,
    problem: Problem,
    points: Sequence[FloatArray],
    seeds: Sequence[int],
) -> list[Outcome]:
    jobs = [
        Job(place, problem.space.decode(point), seed)
        for place, (point, seed) in enumerate(zip(points, seeds, strict=True))
    ]
    answers = dict(dispatcher.run(solve, jobs))
    return [answers[place] for place in range(len(jobs))]


def _table_points(problem: Problem, x: FloatArray, seed: int) -> list[FloatArray]:
    direction = np.random.default_rng(seed).choice([-1.0, 1.0], x.size)
    direction[problem.space.discrete] = 0.0
    middle = np.clip(x, problem.space.lower + 1e-4, problem.space.upper - 1e-4)
    return [middle + TABLE_SPACING * k * direction for k in range(TABLE_SOLVES)]


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


def _noise(repeats: Sequence[Outcome], table: Sequence[Outcome]) -> float:
    thetas = [o.theta for o in repeats if o.theta is not None]
    spread = float(np.std(thetas[0])) or float(np.abs(thetas[0]).max()) or 1.0
    jitter = 0.0
    if len(thetas) > 1:
        jitter = float(np.sqrt(np.mean(np.var(np.array(thetas), axis=0, ddof=1))))
    rows = [o.theta for o in table if o.theta is not None]
    rough = difference_table_noise(np.array(rows)) if len(rows) == TABLE_SOLVES else 0.0
    return max(jitter, rough) / spread


def _difference(noise: float) -> tuple[float, str]:
    # the error of a forward difference, noise / h + h / 2, is least at h = sqrt(2 noise)
    radius = float(np.clip(2.0 * math.sqrt(noise), SMALL_RADIUS, LARGE_RADIUS))
    return radius, "central" if noise > 1e-6 else "forward"


def _same(one: Outcome, other: Outcome) -> bool:
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


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2g} ms" if seconds < 1 else f"{seconds:.3g} s"
