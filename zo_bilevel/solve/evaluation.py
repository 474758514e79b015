"""What one solve is asked for, what comes back, and the best of all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import numpy as np

from zo_bilevel.problem.constraints import FEASIBLE_VIOLATION
from zo_bilevel.problem.space import HALF_RANGE
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.solve.derivative import Derivative, DerivativeOrder
from zo_bilevel.solve.streams import CONFIRM_STREAM, JUDGE_STREAM
from zo_bilevel.support.arrays import FloatArray, frozen
from zo_bilevel.support.errors import InputError

BOUND_ROUNDING = 1e-9
"""By how much a scaled coordinate may lie beyond its bound."""
CONFIRM_ROLE, CHEAP_ROLE = "confirm", "cheap"
"""Roles of solves that judge the final point afresh, and of those below the full fidelity: none of
them can become the best."""
NEVER_BEST = (CONFIRM_ROLE, CHEAP_ROLE)
Status: TypeAlias = Literal[
    "ok", "failed", "timed_out", "crashed", "invalid", "wrong_shape", "rejected", "stopped"
]
"""`failed`: raised; `timed_out`: killed at its limit; `crashed`: its process died;
`invalid`: values that are not finite; `wrong_shape`: another length or shape than expected or than
before; `rejected`: refused by the user's own rule; `stopped`: it ends the run."""


@final
@dataclass(frozen=True, slots=True)
class Point:
    """One solve that a method asks for.

    Args:
        x: Flat scaled vector, shape `(N,)`, within the bounds.
        stream: Names the random numbers of the solve: points of one stream share a seed
            (common random numbers), whatever the order of arrival.
        role: What the solve is for ("start", "sketch", "trial", "restart"), for the history.
        derivative: Exact derivatives wanted beside theta, of an inner solver that has them.
        part: Name and place of the experiment that alone is run; methods leave it `None`.
        level: Of a problem with a fidelity, a level below the full one; its role is then "cheap".
    """

    x: FloatArray
    stream: tuple[int, ...] = (0,)
    role: str = "trial"
    derivative: DerivativeOrder | None = None
    part: tuple[str, int] | None = None
    level: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", frozen(self.x))  # a method may go on with its own array

    @property
    def solves(self) -> int:
        """What the point counts for in a budget: one, and one for each derivative."""
        if self.part is not None and self.part[1] > 0:
            return 0  # of several experiments the first counts
        return 1 if self.derivative is None else 1 + self.derivative.solves


def check_asked(points: Sequence[Point], size: int) -> None:
    """Refuse points that a method must not ask for.

    Raises:
        InputError: If a point has another shape, is not within the bounds up to rounding, or its
            stream is kept for judging.
    """
    for point in points:
        if point.x.shape != (size,):
            raise InputError(
                f"a method must ask for points of shape ({size},), got {point.x.shape}"
            )
        if not (np.abs(point.x) <= HALF_RANGE + BOUND_ROUNDING).all():
            raise InputError(
                f"a method must ask for points within the bounds, -{HALF_RANGE:g} to "
                f"{HALF_RANGE:g}, got {point.x}"
            )
        if point.stream[:1] in ((JUDGE_STREAM,), (CONFIRM_STREAM,)):
            raise InputError(
                f"a method must not use the streams that judge final points, got {point.stream}"
            )


@final
@dataclass(frozen=True, slots=True)
class Job:
    """One solve as a dispatcher sees it: named values, a seed, its place in the round.

    `warm` is the answer of a point nearby, for an inner solver that begins from one.
    """

    index: int
    phi: dict[str, Any]
    seed: int
    derivative: Derivative | None = None
    warm: Any = None


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What a dispatcher gives back for one job; plain data that crosses process borders.

    Args:
        status: How the solve ended.
        theta: Flat inner solution, shape `(m,)`, or `None` unless `status` is "ok".
        layout: Structure of the inner solution, or `None` likewise.
        seconds: Wall-clock seconds of the solve, all attempts.
        cost: What the solve cost, in the user's unit of money.
        error: What went wrong, in words.
        worker: Which worker ran it, for the record only.
        derivative: What the job's derivative computed, or `None` when it asked for none.
    """

    status: Status
    theta: FloatArray | None = None
    layout: ThetaLayout | None = None
    seconds: float = 0.0
    cost: float = 0.0
    error: str = ""
    worker: str = ""
    derivative: FloatArray | None = None


@final
@dataclass(frozen=True, slots=True)
class Evaluation:
    """One finished solve: the point, how it ended, the inner solution and its loss.

    Args:
        point: What was asked.
        status: "ok", "failed", "timed_out", "crashed", "invalid", "wrong_shape" or "rejected".
        theta: Flat inner solution, shape `(m,)`, or `None` unless ok.
        loss: Outer objective, or infinity unless ok.
        seconds: Wall-clock seconds of the solve.
        cost: What it cost.
        error: What went wrong, in words.
        layout: Structure of the inner solution, or `None` unless ok.
        derivative: What the point's derivative computed, or `None` when it asked for none.
        violation: Of the constraint that is broken most, in its scale; 0 where all hold.
        is_known: Whether it was made before, and costs nothing.
    """

    point: Point
    status: Status
    theta: FloatArray | None
    loss: float
    seconds: float = 0.0
    cost: float = 0.0
    error: str = ""
    layout: ThetaLayout | None = None
    derivative: FloatArray | None = None
    violation: float = 0.0
    is_known: bool = False

    def __post_init__(self) -> None:
        for name in ("theta", "derivative"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, frozen(getattr(self, name)))

    @property
    def ok(self) -> bool:
        """Whether the solve gave a usable inner solution and a finite loss."""
        return self.status == "ok"

    @property
    def inner_solution(self) -> Any:  # noqa: ANN401 - the user's structure
        """Theta as the solver structured it, read-only; `None` unless ok."""
        return None if self.theta is None or self.layout is None else self.layout.pack(self.theta)

    @property
    def is_feasible(self) -> bool:
        """Whether the solve is ok and keeps all constraints."""
        return self.ok and self.violation <= FEASIBLE_VIOLATION

    @property
    def rank(self) -> tuple[float, float]:
        """What makes one solve better than another: the lower, feasible ones by their loss."""
        return (0.0 if self.is_feasible else self.violation, self.loss)

    @property
    def is_invalid(self) -> bool:
        """Whether the solver answered, but with nothing usable, whatever the reason."""
        return self.status in ("invalid", "wrong_shape", "rejected")


@final
class BestSoFar:
    """Keeps the solve of lowest loss, of equal ones the first.

    One that keeps all constraints is better than any that breaks one; of those that do, the one
    that breaks them least.

    Example:
        >>> from zo_bilevel.solve.evaluation import Point
        >>> best = BestSoFar()
        >>> solves = [Evaluation(Point([x]), "ok", [x], x**2) for x in (2.0, -1.0, 1.0)]
        >>> [best.see(solve) for solve in solves], best.loss
        ([True, True, False], 1.0)
    """

    __slots__ = ("_number", "evaluation")

    def __init__(self) -> None:
        self.evaluation: Evaluation | None = None
        self._number = 0

    @property
    def loss(self) -> float:
        """Its loss; infinity before any solve was ok."""
        return math.inf if self.evaluation is None else self.evaluation.loss

    @property
    def x(self) -> FloatArray | None:
        """Its point, or `None`."""
        return None if self.evaluation is None else self.evaluation.point.x

    def see(self, evaluation: Evaluation, number: int = 0) -> bool:
        """Look at one more solve.

        Args:
            evaluation: Any solve; one that is not ok is no candidate.
            number: Of two equal ones the lower is the first, where solves come out of order.
        """
        if not evaluation.ok:
            return False
        best = self.evaluation
        if best is None or (*evaluation.rank, number) < (*best.rank, self._number):
            self.evaluation, self._number = evaluation, number
            return True
        return False
