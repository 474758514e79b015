"""How the inner solution changes along displacements: forward, central, or exactly.

Forward, a displacement `d` from `base` is one solve, `base + d`. Central, it is two, `base + d`
and `base - d`: half their difference has no second-order error. Exactly, it is one solve of
`base` with all displacements as tangents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, final

import numpy as np

from zo_bilevel.estimators.orders import Push
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray

DifferenceKind: TypeAlias = Literal["forward", "central", "exact"]
Solved: TypeAlias = tuple[FloatArray, FloatArray]
"""Displacement of a solve from the base, `(N,)`, and what is looked at there, `(m,)`."""


class View(Protocol):
    """What is looked at of a solve: the inner solution, the loss, or a part of them."""

    def observe(self, evaluation: Evaluation) -> FloatArray | None:
        """The vector, shape `(m,)`; `None` for a failed solve."""
        ...

    def tangents(self, derivative: FloatArray, directions: FloatArray, x: FloatArray) -> FloatArray:
        """The vector's derivatives `(m, c)` from those of theta, along directions `(N, c)` at x."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Change:
    """What one difference found.

    Args:
        displacement: Shape `(N,)`; half the way between two solves that lie on both sides.
        change: Of what is looked at, along it, shape `(m,)`.
        noise_share: Variance of the change, in variances of one solve.
    """

    displacement: FloatArray
    change: FloatArray
    noise_share: float

    def derivative(self, way: FloatArray) -> FloatArray:
        """Per unit of a direction `(N,)` that the displacement is a multiple of, maybe negative."""
        length = float(self.displacement @ way) / float(way @ way)
        return np.asarray(self.change / length)


@final
@dataclass(frozen=True, eq=False, slots=True)
class Differences:
    """Displacements from a base point, as solves and as what the solves say.

    Args:
        kind: "forward", "central" or "exact".
        base: Scaled point, shape `(N,)`, within the bounds.
        displacements: Shape `(N, c)`; points that would leave the bounds are moved back.
        space: For the bounds.
    """

    kind: DifferenceKind
    base: FloatArray
    displacements: FloatArray
    space: Space

    def points(self, stream: tuple[int, ...], role: str = "sketch") -> list[Point]:
        """The solves beside that of the base; both sides of a displacement follow each other."""
        if self.kind == "exact":
            return [Point(self.base, stream, role, Push(self.displacements))]
        return [Point(end, stream, role) for sides in self._sides() for end, _ in sides]

    def changes(
        self, evaluations: Sequence[Evaluation], origin: FloatArray | None, view: View
    ) -> list[Change | None]:
        """What became of each displacement.

        Args:
            evaluations: The solves in the order of `points`; may stop early.
            origin: What is looked at, at the base, or `None` where that solve failed: then the
                first solve without a partner takes its place.
            view: What is looked at.

        Returns:
            A change each; `None` where too much failed. Where one side of a central difference
            failed, the difference between the base and the other side.
        """
        if self.kind == "exact":
            return self._exact(evaluations, view)
        seen = iter([view.observe(e) if e.ok else None for e in evaluations])
        groups = [
            [(way, value) for _, way in sides if (value := next(seen, None)) is not None]
            for sides in self._sides()
        ]
        anchor: Solved | None = None
        if origin is not None:
            anchor = np.zeros_like(self.base), origin
        elif alone := [group[0] for group in groups if len(group) == 1]:
            anchor = alone[0]
        return [_change(group, anchor) for group in groups]

    def _sides(self) -> list[list[tuple[FloatArray, FloatArray]]]:
        """For each displacement where its solves lie, and how far from the base."""
        signs = (1.0, -1.0) if self.kind == "central" else (1.0,)
        return [[self._side(sign * way) for sign in signs] for way in self.displacements.T]

    def _side(self, way: FloatArray) -> tuple[FloatArray, FloatArray]:
        wanted = self.base + way
        end = np.clip(wanted, self.space.lower, self.space.upper)
        return end, np.where(end == wanted, way, end - self.base)

    def _exact(self, evaluations: Sequence[Evaluation], view: View) -> list[Change | None]:
        derivative = evaluations[0].derivative if evaluations and evaluations[0].ok else None
        if derivative is None:
            return [None] * self.displacements.shape[1]
        columns = view.tangents(derivative, self.displacements, self.base)
        return [
            Change(way, column, 0.0)
            for way, column in zip(self.displacements.T, columns.T, strict=True)
        ]


def _change(group: list[Solved], anchor: Solved | None) -> Change | None:
    if len(group) == 2:
        (ahead, high), (behind, low) = group
        return Change(0.5 * (ahead - behind), 0.5 * (high - low), 0.5)
    if not group or anchor is None:
        return None
    way, value = group[0][0] - anchor[0], group[0][1] - anchor[1]
    return Change(way, value, 2.0) if way.any() else None
