"""(FG)2U: forward gradients with exact directional derivatives.

Shen et al. (2024), "Memory-Efficient Gradient Unrolling for Large-Scale Bi-level Optimization",
arXiv 2406.14095, section 3.1: `g = (1/b) sum_k (df/dtheta y_k + df/dphi v_k) v_k` with
`y_k = (dtheta/dphi) v_k` by forward mode. Unbiased; `E|g - grad h|^2 = (N - 1)/b |grad h|^2` for
Rademacher directions (Lemma 3.1), `(N - b)/b` for orthogonal ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from zo_bilevel.estimators.base import SketchPlan
from zo_bilevel.estimators.derivatives import require_gradient
from zo_bilevel.estimators.direction_block import DirectionBlock
from zo_bilevel.estimators.directions import (
    Family,
    check_family,
    direction_count,
    draw_directions,
    frame_correction,
)
from zo_bilevel.estimators.orders import Push
from zo_bilevel.estimators.sketch import Sketch
from zo_bilevel.estimators.slope_regression import SlopeRegression
from zo_bilevel.problem.bound_problem import BoundProblem
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

    Memory grows with the chunk, not with directions, inner steps or parameters; a chunk that runs
    out of memory is halved. A direction counts as one
    solve in a budget.

    Args:
        num_directions: Directions b a sketch, >= 1, or "auto": `ceil(2 + 2 log2(N))`, at most N.
            Of more than N orthogonal or coordinate ones, as many as make whole frames: with N = 3
            and b = 4 or 5 it is 3, which are exact.
        chunk: Directions pushed at once by one worker, >= 1, or "auto": 16. Memory is about
            `1 + 2 chunk` times that of one inner step.
        directions: "orthogonal", "rademacher", "gaussian", "coordinate" or "prior". Beyond 4
            million numbers, directions are drawn chunk by chunk from seeds, at O(N) each; then
            orthogonal ones are cosines with random signs.
        keep_tangents: Bring home the derivatives of the whole inner solution, for `Sketch.model`,
            instead of contracting them with the outer gradient where they are computed.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> FG2U(32, chunk=8).num_directions
        32
    """

    num_directions: int | Literal["auto"] = "auto"
    chunk: int | Literal["auto"] = "auto"
    directions: Family = "orthogonal"
    keep_tangents: bool = False

    def __post_init__(self) -> None:
        for name in ("num_directions", "chunk"):
            value = getattr(self, name)
            if value != "auto" and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name} must be >= 1 or 'auto', got {value!r}")
        check_family(self.directions)

    def direction_count(self, size: int) -> int:
        """Directions a sketch has in N = `size` dimensions."""
        return direction_count(self.num_directions, self.directions, size)

    def plan(
        self, space: Space, x: FloatArray, rng: np.random.Generator, stream: tuple[int, ...]
    ) -> SketchPlan:
        """Choose directions; no point leaves `x`, so no radius is needed.

        Returns:
            One point a chunk. Beyond the dense limit V and U are empty: seeds stand for them.
        """
        total = self.direction_count(space.size)
        chunk = DEFAULT_CHUNK if self.chunk == "auto" else self.chunk
        starts = range(0, total, chunk)
        V = U = np.zeros((space.size, 0))
        drawn: list[FloatArray | DirectionBlock]
        if self.keep_tangents or space.size * total <= DENSE_NUMBERS:
            V, U = draw_directions(self.directions, total, space.prior, rng)
            drawn = [V[:, start : start + chunk] for start in starts]
        else:
            entropy = int(rng.integers(1 << 62))
            drawn = [
                DirectionBlock(self.directions, min(chunk, total - start), entropy, start, total)
                for start in starts
            ]
        orders = [Push(part, "slopes alone" if k else "slopes") for k, part in enumerate(drawn)]
        if self.keep_tangents:
            orders = [Push(part) for part in drawn]
        return SketchPlan([Point(x, stream, "sketch", order) for order in orders], x, V, U, 0.0)

    def sketch(
        self, plan: SketchPlan, evaluations: Sequence[Evaluation], bound: BoundProblem
    ) -> Sketch | SlopeSketch:
        """Put the chunks together, as far as they came back.

        Returns:
            The sketch over the directions whose chunks came back.

        Raises:
            InnerSolverError: If the first chunk, which brings theta, did not come back.
            UnsupportedProblemError: If the outer objective has no derivative, or the dispatcher
                ignored the order.
        """
        require_gradient("FG2U", bound.outer.is_vector)
        if not evaluations or not evaluations[0].ok or evaluations[0].theta is None:
            raise InnerSolverError("the base solve of the sketch failed")
        theta = evaluations[0].theta
        width, total = plan.points[0].solves - 1, sum(p.solves - 1 for p in plan.points)
        answers = {k: _derivative(e) for k, e in enumerate(evaluations) if e.ok}
        dropped = total - sum(answer.shape[-1] for answer in answers.values())
        if not self.keep_tangents:
            chunks = [(_duals(plan, k, width), slopes) for k, slopes in answers.items()]
            return SlopeSketch(plan.x, theta, chunks, self.directions, total, dropped)
        kept = [c for k in answers for c in range(k * width, min((k + 1) * width, total))]
        JV = np.concatenate(list(answers.values()), axis=1)
        correction = frame_correction(self.directions, len(kept), plan.x.size)
        V, U = plan.V[:, kept], plan.U[:, kept]
        return Sketch(plan.x, theta, V, JV, U, correction, dropped, is_exact=True)


def _duals(plan: SketchPlan, place: int, width: int) -> FloatArray | DirectionBlock:
    order = plan.points[place].derivative
    if isinstance(order, Push) and isinstance(order.directions, DirectionBlock):
        return order.directions
    return plan.U[:, place * width : (place + 1) * width]


def _derivative(evaluation: Evaluation) -> FloatArray:
    if evaluation.derivative is None:
        raise UnsupportedProblemError(
            "the dispatcher gave back no derivative; use Serial, Joblib or Distributed with FG2U"
        )
    return evaluation.derivative


@final
@dataclass(frozen=True, eq=False, slots=True)
class SlopeSketch:
    """Slopes of the outer objective along directions: all that a hypergradient needs.

    Args:
        x: The point, scaled, shape `(N,)`.
        theta: Inner solution there, shape `(m,)`.
        chunks: Duals of directions, or the seeds that draw them, with their slopes `(c,)`.
        family: Family of the directions.
        total: Directions asked for.
        dropped: Directions lost to failed solves.
    """

    x: FloatArray
    theta: FloatArray
    chunks: list[tuple[FloatArray | DirectionBlock, FloatArray]]
    family: Family
    total: int
    dropped: int

    @property
    def num_directions(self) -> int:
        """Directions that came back, b."""
        return self.total - self.dropped

    def hypergradient(self, bound: BoundProblem) -> tuple[FloatArray, FloatArray]:
        """`(1/b) sum_k w_k u_k` and its standard error, in memory of one chunk.

        Returns:
            Estimate and standard error per scaled unit, both `(N,)`, as `Sketch.hypergradient`:
            for a coordinate of which no direction was drawn, 0 and NaN.
        """
        count, mean, squares = 0, np.zeros_like(self.x), np.zeros_like(self.x)
        drawn = np.zeros(self.x.size, dtype=bool)
        for U, slopes in self._drawn(bound):
            terms = U * slopes
            drawn |= U.any(axis=1)
            here = terms.mean(axis=1)
            both = count + len(slopes)
            squares += terms.var(axis=1) * len(slopes)
            # the spread between chunks (Chan, Golub, LeVeque 1979)
            squares += (here - mean) ** 2 * (count * len(slopes) / both)
            mean += (here - mean) * (len(slopes) / both)
            count = both
        correction = frame_correction(self.family, count, self.x.size)
        error = np.zeros_like(mean)
        if correction != 0.0:
            spread = np.sqrt(squares / max(count - 1, 1) / count * correction)
            error = spread if count > 1 else np.full_like(mean, np.nan)
        return mean, np.where(drawn, error, np.nan)

    def regression(self, bound: BoundProblem) -> tuple[FloatArray, ...]:
        """Centres and standard errors of confidence intervals, as `Sketch.regression`."""
        correction = frame_correction(self.family, self.num_directions, self.x.size)
        if correction == 0.0 or self.num_directions < 2 or self.family == "prior":
            return ()
        found = SlopeRegression(self.x.size, in_frames=correction != 1.0)
        for U, slopes in self._drawn(bound):
            found.add(U, slopes)
        return found.result()

    def _drawn(self, bound: BoundProblem) -> Iterator[tuple[FloatArray, FloatArray]]:
        for duals, slopes in self.chunks:
            U = duals.draw(bound.space)[1] if isinstance(duals, DirectionBlock) else duals
            yield U, slopes
