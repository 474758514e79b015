"""(FG)2U: forward gradients with exact directional derivatives.

Shen et al. (2024), "Memory-Efficient Gradient Unrolling for Large-Scale Bi-level Optimization",
arXiv 2406.14095, section 3.1: `g = (1/b) sum_k (df/dtheta y_k + df/dphi v_k) v_k` with
`y_k = (dtheta/dphi) v_k` by forward mode. Unbiased; `E|g - grad h|^2 = (N - 1)/b |grad h|^2` for
Rademacher directions (Lemma 3.1), `(N - b)/b` for orthogonal ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from zo_bilevel.estimators.base import SketchPlan
from zo_bilevel.estimators.derivatives import DirectionBlock, Push, require_gradient
from zo_bilevel.estimators.differences import Differences
from zo_bilevel.estimators.directions import Family, check_family, draw_directions, frame_correction
from zo_bilevel.estimators.sketch import Sketch
from zo_bilevel.problem.problem import BoundProblem
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError, UnsupportedProblemError

DEFAULT_CHUNK = 16
DENSE_NUMBERS = 1 << 22
"""Directions are kept as numbers up to this many (32 MB), as seeds beyond."""


@final
@dataclass(frozen=True, slots=True)
class FG2U:
    """Forward-gradient estimator for inner solvers with a `jvp`, such as `TorchUnroll`.

    Memory grows with the chunk, not with inner steps or parameters. A direction counts as one
    solve in a budget.

    Args:
        num_directions: Directions b a sketch, >= 1, or "auto": `ceil(2 + 2 log2(N))`, at most N.
        chunk: Directions pushed at once by one worker, >= 1, or "auto": 16. Memory is about
            `1 + 2 chunk` times that of one inner step.
        directions: "orthogonal", "rademacher", "gaussian", "coordinate" or "prior". Beyond 4
            million numbers, directions are drawn chunk by chunk from seeds, so that orthogonal
            ones are orthogonal within a chunk only.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> FG2U(32, chunk=8).num_directions
        32
    """

    num_directions: int | Literal["auto"] = "auto"
    chunk: int | Literal["auto"] = "auto"
    directions: Family = "orthogonal"

    def __post_init__(self) -> None:
        for name in ("num_directions", "chunk"):
            value = getattr(self, name)
            if value != "auto" and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name} must be >= 1 or 'auto', got {value!r}")
        check_family(self.directions)

    def direction_count(self, size: int) -> int:
        """Directions a sketch has in N = `size` dimensions."""
        if self.num_directions == "auto":
            return min(size, math.ceil(2 + 2 * math.log2(size)))
        return self.num_directions

    def plan(
        self, space: Space, x: FloatArray, rng: np.random.Generator, stream: tuple[int, ...]
    ) -> SketchPlan:
        """Choose directions; no point leaves `x`, so no radius is needed.

        Args:
            space: The space of `x`.
            x: Scaled point, shape `(N,)`.
            rng: Source of the directions.
            stream: Random stream shared by all chunks: they see the same inner loop.

        Returns:
            One point a chunk. Beyond the dense limit V and U are empty: seeds stand for them.
        """
        total = self.direction_count(space.size)
        chunk = DEFAULT_CHUNK if self.chunk == "auto" else self.chunk
        starts = range(0, total, chunk)
        none = np.zeros((space.size, 0))
        if space.size * total > DENSE_NUMBERS:
            entropy = int(rng.integers(1 << 62))
            blocks = [
                DirectionBlock(self.directions, min(chunk, total - start), (entropy, start))
                for start in starts
            ]
            points = [Point(x, stream, "sketch", Push(block)) for block in blocks]
            return SketchPlan(points, x, none, none, 0.0)
        V, U = draw_directions(self.directions, total, space.prior, rng)
        orders = [Push(V[:, start : start + chunk]) for start in starts]
        return SketchPlan([Point(x, stream, "sketch", order) for order in orders], x, V, U, 0.0)

    def differences(self, base: FloatArray, displacements: FloatArray, space: Space) -> Differences:
        """Exact derivatives along displacements `(N, c)`, in one solve."""
        return Differences("exact", base, displacements, space)

    def sketch(
        self, plan: SketchPlan, evaluations: Sequence[Evaluation], bound: BoundProblem
    ) -> Sketch | SeededSketch:
        """Put the chunks together.

        Args:
            plan: What was asked.
            evaluations: The chunks in the order of the plan; may stop early.
            bound: The problem.

        Returns:
            The sketch over the directions of all chunks that came back.

        Raises:
            InnerSolverError: If no chunk came back.
            UnsupportedProblemError: If the outer objective has no derivative, or the dispatcher
                ignored the order.
        """
        require_gradient("FG2U", bound.outer.is_vector)
        came_back = [k for k, evaluation in enumerate(evaluations) if evaluation.ok]
        if not came_back:
            raise InnerSolverError("no chunk of the sketch came back")
        theta = evaluations[came_back[0]].theta
        assert theta is not None  # noqa: S101 - it is ok
        pushed = {k: _derivative(evaluations[k], theta.size) for k in came_back}
        if plan.V.shape[1] == 0:
            blocks = [(plan.points[k], JV) for k, JV in pushed.items()]
            lost = sum(p.solves - 1 for k, p in enumerate(plan.points) if k not in pushed)
            return SeededSketch(plan.x, theta, blocks, self.directions, lost)
        width = plan.points[0].solves - 1
        kept = [c for k in came_back for c in range(k * width, k * width + pushed[k].shape[1])]
        JV = np.concatenate(list(pushed.values()), axis=1)
        correction = frame_correction(self.directions, len(kept), plan.x.size)
        dropped = plan.V.shape[1] - len(kept)
        sketch = Sketch(plan.x, theta, plan.V[:, kept], JV, plan.U[:, kept], correction, dropped)
        return sketch if bound.is_vector else _seen_as_scalar(sketch, bound)


def _derivative(evaluation: Evaluation, size: int) -> FloatArray:
    if evaluation.derivative is None:
        raise UnsupportedProblemError(
            "the dispatcher gave back no derivative; use Serial, Joblib or Distributed with FG2U"
        )
    return evaluation.derivative.reshape(size, -1)


def _seen_as_scalar(sketch: Sketch, bound: BoundProblem) -> Sketch:
    """The loss in place of theta, for a problem whose inner solution is hidden."""
    slopes = _slopes(sketch.theta, sketch.JV, sketch.V, sketch.x, bound)
    loss = np.array([bound.value(sketch.theta, sketch.x)])
    return Sketch(
        sketch.x, loss, sketch.V, slopes[None, :], sketch.U, sketch.correction, sketch.dropped
    )


def _slopes(
    theta: FloatArray, JV: FloatArray, V: FloatArray, x: FloatArray, bound: BoundProblem
) -> FloatArray:
    theta_part, x_part = bound.gradient(theta, x)
    slopes: FloatArray = theta_part @ JV + x_part @ V
    return slopes


@final
@dataclass(frozen=True, eq=False, slots=True)
class SeededSketch:
    """A sketch whose directions are drawn again from their seeds, a chunk at a time.

    Args:
        x: The point, scaled, shape `(N,)`.
        theta: Inner solution there, shape `(m,)`.
        blocks: Points that carry the seeds, each with its derivatives `(m, c)`.
        family: Family of the directions.
        dropped: Directions lost to failed solves.
    """

    x: FloatArray
    theta: FloatArray
    blocks: list[tuple[Point, FloatArray]]
    family: Family
    dropped: int

    @property
    def num_directions(self) -> int:
        """Directions that came back, b."""
        return sum(int(JV.shape[1]) for _, JV in self.blocks)

    def hypergradient(self, bound: BoundProblem) -> tuple[FloatArray, FloatArray]:
        """As `Sketch.hypergradient`, in memory of one chunk.

        Args:
            bound: The problem.

        Returns:
            Estimate and standard error per scaled unit, both `(N,)`.
        """
        theta_part, x_part = bound.gradient(self.theta, self.x)
        total, squares = np.zeros_like(self.x), np.zeros_like(self.x)
        for point, JV in self.blocks:
            order = point.derivative
            assert isinstance(order, Push)  # noqa: S101 - made by `plan`
            assert isinstance(order.directions, DirectionBlock)  # noqa: S101
            V, U = order.directions.draw(bound.space)
            weights = theta_part @ JV + x_part @ V
            total += U @ weights
            squares += U**2 @ weights**2
        count = self.num_directions
        gradient = total / count
        if count == 1:
            return gradient, np.full_like(gradient, np.nan)
        spread = np.maximum(squares / count - gradient**2, 0.0) / (count - 1)
        return gradient, np.sqrt(spread)
