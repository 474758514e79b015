"""Whole Jacobians of sparse solvers from few solves: parameters that share no output move together.

Curtis, Powell, Reid (1974), "On the estimation of sparse Jacobian matrices"; the colouring is
greedy, largest degree first (Welsh, Powell 1967).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zo_bilevel.estimators.base import SketchPlan
from zo_bilevel.estimators.differences import Differences
from zo_bilevel.estimators.fg2u_zo import FORWARD_RADIUS, relative_rounding
from zo_bilevel.estimators.sketch import Sketch
from zo_bilevel.estimators.turning import turned
from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError, UnsupportedProblemError

MOST_DISAGREEMENT = 1e-3
"""Share of the change along a random direction that the sparse Jacobian may miss."""


SEEN_ROUNDINGS = 4.0
"""Roundings of the largest output by which an output must change to be moved by a parameter."""


class RefutedPatternError(InnerSolverError):
    """A pattern that was seen at one point does not hold at another."""


@final
@dataclass(frozen=True, eq=False)
class SparseZO:
    """Exact sketches along all parameters, where each moves only some of the outputs.

    Which ones is said by the user, or seen: without `sparsity` the first sketch of a run
    differences every parameter, N + 1 solves, and shows the pattern from then on.

    Parameters that share no output are differenced by one solve: of its change, each output belongs
    to one of them. One more solve, along a random direction, checks the pattern at every sketch:
    where it is wrong, the sketch is refused, never silently false; `GaussNewton` then goes on with
    differences one by one, and a pattern that was seen is looked for again. A banded pattern of
    width w takes w + 2 solves, whatever the number of parameters.

    Args:
        sparsity: Which parameter (column) moves which output (row), shape `(m, N)`; anything that
            is not zero counts. Rows are those of the flat inner solution, columns those of the
            flat parameters in the order of the space. `None`: to be seen.
        radius: Length of the differences > 0, in scaled units.

    Attributes:
        groups: Columns that are differenced together; none while there is no pattern.
        is_seen: Whether the pattern was seen and not said.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, SquaredError, hypergradient
        >>> space = Space(a=Real(-3, 3, shape=(50,)))
        >>> problem = Problem(space, lambda phi: phi["a"] ** 2, SquaredError([1.0] * 50))
        >>> found = hypergradient(problem, {"a": [2.0] * 50}, estimator=SparseZO(np.eye(50)))
        >>> found.solves, round(float(found["a"][7]), 3)
        (4, 0.48)
    """

    sparsity: ArrayLike | None = None
    radius: float = FORWARD_RADIUS
    groups: tuple[NDArray[np.intp], ...] = field(init=False, repr=False, default=())
    is_seen: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", finite_number("radius", self.radius, "> 0"))
        if self.sparsity is None:
            return
        pattern = np.asarray(self.sparsity)
        if pattern.ndim != 2 or pattern.dtype.kind not in "biuf" or not pattern.size:
            raise InputError(f"sparsity must be an array of shape (m, N), got {pattern.shape}")
        object.__setattr__(self, "sparsity", pattern != 0)
        object.__setattr__(self, "groups", _groups(pattern != 0))

    def seen_in(
        self, jacobian: FloatArray, theta: FloatArray, step: float, precision: float
    ) -> SparseZO:
        """The same with the pattern that a whole Jacobian shows; itself where it has one.

        Args:
            jacobian: Shape `(m, N)`.
            theta: Inner solution, `(m,)`.
            step: Length of the differences, > 0.
            precision: Relative rounding of theta.
        """
        if self.sparsity is not None:
            return self
        rounding = precision * float(np.max(np.abs(theta), initial=0.0))
        seen = SparseZO(step * np.abs(jacobian) > SEEN_ROUNDINGS * rounding, self.radius)
        object.__setattr__(seen, "is_seen", True)
        return seen

    def plan(
        self, space: Space, x: FloatArray, rng: np.random.Generator, stream: tuple[int, ...]
    ) -> SketchPlan:
        """Choose the solves around `x`.

        Returns:
            The base point, one probe a group, and the check.

        Raises:
            InputError: If the pattern has another number of columns than the space.
            UnsupportedProblemError: If a parameter is an integer or a choice.
        """
        self.check_shape(None, space.size)
        if space.discrete.any():
            raise UnsupportedProblemError("SparseZO needs parameters that vary continuously")
        base = np.clip(x, space.lower + 2.0 * self.radius, space.upper - 2.0 * self.radius)
        ways = self.ways(rng, space.size)
        probes = Differences("forward", base, self.radius * ways, space).points(stream)
        return SketchPlan([Point(base, stream, "sketch"), *probes], base, ways, ways, self.radius)

    def sketch(
        self, plan: SketchPlan, evaluations: Sequence[Evaluation], bound: BoundProblem
    ) -> Sketch:
        """The whole Jacobian, checked.

        Raises:
            InputError: If the pattern does not fit the inner solution, or is not its own.
            InnerSolverError: If a solve failed: without it columns, or the check, are missing.
            RefutedPatternError: If a pattern that was seen is not that of this point.
            UnsupportedProblemError: If only the loss is seen.
        """
        if not bound.is_vector:
            raise UnsupportedProblemError("SparseZO needs an inner solution that is seen whole")
        thetas = [evaluation.theta for evaluation in evaluations if evaluation.theta is not None]
        failed = len(plan.points) - len(thetas)
        if failed:
            raise InnerSolverError(f"{failed} of {len(plan.points)} solves of the sketch failed")
        self.check_shape(thetas[0].size, plan.x.size)
        changes = (np.array(thetas[1:]) - thetas[0]).T
        signs = np.sign(plan.V.sum(axis=0))  # of what failed, and was solved the other way
        jacobian = self.columns(changes * signs) / plan.step
        dtype = bound.layout.dtype
        precision = float(np.finfo(dtype).eps)
        missed = self.missed(jacobian, plan.step * plan.V, changes, thetas[0], precision)
        if missed and self.is_seen:
            raise RefutedPatternError("the pattern that was seen is that of another point only")
        if missed:
            raise InputError(
                "sparsity must name every output that a parameter moves: along a direction that "
                f"checks it, {missed:.2g} of the change is not where it says"
            )
        size = plan.x.size
        # every direction once: (1/N) sum_k w_k N e_k is the gradient itself
        axes, rounding = np.eye(size), relative_rounding(changes, thetas[0], dtype, plan.step)
        return Sketch(plan.x, thetas[0], axes, jacobian, size * axes, 0.0, rounding=rounding)

    def turned(
        self, plan: SketchPlan, evaluations: Sequence[Evaluation], space: Space
    ) -> tuple[SketchPlan, list[int]]:
        """Differences that failed, the other way, as those of `FG2UZO`."""
        return turned(plan, evaluations, space)

    def check_shape(self, outputs: int | None, parameters: int) -> None:
        """Refuse a pattern of another shape.

        Args:
            outputs: Numbers of the inner solution; `None` where they are not known yet.
            parameters: Numbers of the parameters.

        Raises:
            InputError: Naming both.
        """
        if self.sparsity is None:
            return
        rows, columns = self._pattern.shape
        if columns != parameters:
            raise InputError(
                f"sparsity must have a column a parameter, {parameters}, got {columns}"
            )
        if outputs is not None and rows != outputs:
            raise InputError(f"sparsity must have a row an output, {outputs}, got {rows}")

    def ways(self, rng: np.random.Generator, size: int) -> FloatArray:
        """What moves together, a direction each, and last the one that checks, `(N, c + 1)`.

        Without a pattern each of the N parameters by itself, `(N, N)`.
        """
        if self.sparsity is None:
            return np.eye(size)
        ways = np.zeros((self._pattern.shape[1], len(self.groups) + 1))
        for place, group in enumerate(self.groups):
            ways[group, place] = 1.0
        ways[:, -1] = rng.uniform(0.5, 2.0, len(ways))
        return ways

    def columns(self, changes: FloatArray) -> FloatArray:
        """The change along each parameter, `(m, N)`, from those along `ways`, `(m, c + 1)`."""
        if self.sparsity is None:
            return changes
        columns = np.zeros(self._pattern.shape)
        for place, group in enumerate(self.groups):
            columns[:, group] = self._pattern[:, group] * changes[:, [place]]
        return columns

    @property
    def _pattern(self) -> NDArray[np.bool_]:
        return np.asarray(self.sparsity, dtype=bool)

    def missed(
        self,
        jacobian: FloatArray,
        ways: FloatArray,
        changes: FloatArray,
        theta: FloatArray,
        precision: float,
    ) -> float:
        """Share of a measured change that the Jacobian does not explain; 0 where it may be none.

        Args:
            jacobian: Shape `(m, N)`.
            ways: Displacements, `(N, c + 1)`.
            changes: Of the inner solution along them, `(m, c + 1)`.
            theta: Inner solution at the base, `(m,)`.
            precision: Relative rounding of theta.
        """
        missed = np.linalg.norm(jacobian @ ways - changes, axis=0)
        sizes = np.linalg.norm(changes, axis=0)
        rounding = precision * float(np.max(np.abs(theta), initial=0.0))
        allowed = MOST_DISAGREEMENT * sizes + 10.0 * rounding * np.sqrt(theta.size)
        worst = int(np.argmax(missed - allowed))
        return float(missed[worst] / sizes[worst]) if missed[worst] > allowed[worst] else 0.0


def _groups(pattern: NDArray[np.bool_]) -> tuple[NDArray[np.intp], ...]:
    """Columns that share no row, in as few groups as a greedy colouring finds."""
    dense = pattern.astype(np.float32)
    neighbours = dense.T @ dense > 0
    colours = np.full(pattern.shape[1], -1)
    for column in np.argsort(-neighbours.sum(axis=0), kind="stable"):
        used = set(colours[neighbours[column]].tolist())
        colours[column] = next(k for k in range(len(colours)) if k not in used)
    return tuple(np.flatnonzero(colours == k) for k in range(int(colours.max()) + 1))
