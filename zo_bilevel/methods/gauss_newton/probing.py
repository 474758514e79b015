"""Between a local search, which thinks in continuous coordinates, and the rounds of a method."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from zo_bilevel.estimators.differences import Change, DifferenceKind, Differences
from zo_bilevel.estimators.fg2u import FG2U
from zo_bilevel.estimators.fg2u_zo import FG2UZO
from zo_bilevel.estimators.sparse_zo import SparseZO
from zo_bilevel.methods.base import Search
from zo_bilevel.methods.gauss_newton.answer_model import AnswerModel
from zo_bilevel.methods.gauss_newton.outer_model import OuterModel
from zo_bilevel.methods.gauss_newton.output_rounding import OutputRounding
from zo_bilevel.methods.shared.discontinuity import DiscontinuityDetector, DiscontinuityError
from zo_bilevel.methods.shared.exploration import candidate_directions
from zo_bilevel.methods.state import Slopes
from zo_bilevel.problem.theta import UNMEASURED_VALUE
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray

MOST_SLOPES, MOST_NUMBERS = 2**31, 2**25
"""Of m N^2 and m N: slopes of more are not left behind, as they cost seconds or 256 MiB."""
SAME_SLOPES = 1e-4
"""Lengths of the model from its center within which slopes are the same: differences are tried
there, and one of them may have the lowest loss."""
ROUNDING_DEVIATION = 0.3
"""Standard deviation of rounding, in units of the type's resolution."""


@final
@dataclass(slots=True)
class StepPlan:
    """One round: points to solve, then differences.

    Args:
        points: Solved as they are, each of shape `(N,)`.
        role: What they are for, for the history.
        base: Where differences are taken, shape `(N,)`: the center, or the first of the points.
        probes: Displacements from the base, each of shape `(N,)`.
        differences: What the probes became as solves, once they were asked for.
    """

    points: list[FloatArray] = field(default_factory=list)
    role: str = "trial"
    base: FloatArray | None = None
    probes: list[FloatArray] = field(default_factory=list)
    differences: Differences | None = None


@final
@dataclass(frozen=True, slots=True)
class Answers:
    """What became of a plan; `None` stands for a failure.

    Args:
        thetas: Modelled vectors at the points, in order.
        changes: Along the probes, in order.
        nearby: Every solve of a difference that came back: its point `(N,)` and modelled vector.
    """

    thetas: list[FloatArray | None]
    changes: list[Change | None] = field(default_factory=list)
    nearby: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)


@final
class Probing:
    """Turns a plan into points and their evaluations into the plan's answers.

    Attributes:
        best: Lowest loss so far.
        start: Continuous coordinates of the start, and the modelled vector there.
        solves: Asked for so far.
    """

    def __init__(
        self,
        estimator: FG2UZO | FG2U | SparseZO,
        search: Search,
        outer: OuterModel,
        first: Evaluation,
        detector: DiscontinuityDetector | None = None,
    ) -> None:
        self.search, self.outer, self.best = search, outer, first
        self._detector = detector
        self.is_free = ~search.space.discrete
        theta = outer.observe(first)
        assert theta is not None  # noqa: S101 - the start is ok
        self.start = first.point.x[self.is_free], theta
        self.lower = search.space.lower[self.is_free]
        self.upper = search.space.upper[self.is_free]
        self.width = search.round_width
        self.solves = 0
        self.sparse = estimator if isinstance(estimator, SparseZO) else None
        self._kind: DifferenceKind = "exact" if isinstance(estimator, FG2U) else "forward"
        self.radius: float | None = None
        if isinstance(estimator, FG2UZO):
            self._kind = estimator.difference
            self.radius = None if estimator.radius == "auto" else float(estimator.radius)
        lost = search.problem.input_rounding(search.start)
        self.input_rounding = float(lost[self.is_free].max(initial=0.0))
        self._rounding = OutputRounding()

    @property
    def is_exact(self) -> bool:
        """Whether derivatives are what they are, and no differences."""
        return self._kind == "exact"

    def directions(self) -> Iterator[FloatArray]:
        """Directions to explore, the most promising first."""
        return (direction[self.is_free] for direction in candidate_directions(self.search.space))

    def straight(self, point: FloatArray, way: FloatArray) -> FloatArray:
        """Where a step straight in the values of the parameters leads."""
        embed, space = self.outer.embed, self.search.space
        return space.straight(embed(point), embed(way))[self.is_free]

    @property
    def variance(self) -> Callable[[FloatArray], float] | None:
        """Prior variance along a direction; `None` where there is no field of known length."""
        prior = self.search.space.prior
        if prior.is_white:
            return None
        return lambda way: float(np.sum(prior.apply_sqrt(self.outer.embed(way[:, None])) ** 2))

    def rounding(self, theta: FloatArray) -> float:
        """Error of rounding of one component: of the type of theta, or what is seen of it."""
        size = float(np.sqrt(np.mean(theta**2)))
        return max(ROUNDING_DEVIATION * self.outer.resolution * size, self._rounding.noise)

    def refuse_stillness(self) -> None:
        """Hand over a search along which the inner solution never changed.

        Raises:
            DiscontinuityError: If another method stands by.
        """
        if self._detector is not None:
            raise DiscontinuityError(self.best)

    def known(self, evaluations: Sequence[Evaluation]) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Points and modelled vectors of solves with the start's discrete parameters."""
        rest = ~self.is_free
        for evaluation in evaluations:
            x, seen = evaluation.point.x, self.outer.observe(evaluation)
            if seen is not None and np.array_equal(x[rest], self.search.start[rest]):
                yield x[self.is_free], seen

    def recommend(self, center: FloatArray) -> None:
        """Tell the loop that solves are noisy, and which point to report."""
        self.search.notes.noisy = True
        self.search.notes.recommended = self.outer.embed(center)

    def judge_step(
        self, x: FloatArray, moved_to: FloatArray, before: float, after: float, agreement: float
    ) -> None:
        """`Search.judge_step`, of continuous coordinates, once every direction is known."""
        places = self.outer.embed(x), self.outer.embed(moved_to)
        self.search.judge_step(*places, before, after, agreement)

    def note_slopes(self, model: AnswerModel) -> None:
        """Leave the model's slopes to the loop where they are those of the point to report.

        Not where the solver sees rounded points: slopes by the last, short steps are wrong.
        """
        notes, theta = self.search.notes, model.theta
        reported = self.best.point.x if notes.recommended is None else notes.recommended
        away = self.outer.embed(model.center) - reported
        is_near = np.linalg.norm(away) <= SAME_SLOPES * model.length
        is_seen = is_near and not self.input_rounding
        numbers = theta.size * away.size
        is_cheap = numbers <= MOST_NUMBERS and numbers * away.size <= MOST_SLOPES
        if is_seen and is_cheap and model.size:
            jacobian, doubt = model.slopes()
            notes.slopes = Slopes(reported, self.outer.of_theta(jacobian), doubt)

    def points(self, plan: StepPlan) -> list[Point]:
        """The solves of the plan; those that are no differences first."""
        search, embed = self.search, self.outer.embed
        points = [search.point(embed(point), plan.role) for point in plan.points]
        if plan.probes and plan.base is not None:
            ways = np.zeros((self.is_free.size, len(plan.probes)))
            ways[self.is_free] = np.column_stack(plan.probes)
            plan.differences = Differences(self._kind, embed(plan.base), ways, search.space)
            points += plan.differences.points(search.stream)
        self.solves += len(points)
        return points

    def answers(
        self, plan: StepPlan, evaluations: Sequence[Evaluation], theta: FloatArray | None
    ) -> Answers:
        """What the plan wanted to know; `DiscontinuityError` when a detector sees a jump.

        Args:
            plan: What `points` were made of.
            evaluations: Theirs.
            theta: Modelled vector at the base of differences, unless one of the points is it;
                `None` where that solve failed.
        """
        self.best = min((e for e in (self.best, *evaluations) if e.ok), key=lambda e: e.loss)
        if self._detector is not None and self._detector.sees_jump(evaluations):
            raise DiscontinuityError(self.best)
        for evaluation in evaluations:
            if evaluation.ok and evaluation.theta is not None:
                self._rounding.see(evaluation.theta[evaluation.theta != UNMEASURED_VALUE])
        count, outer = len(plan.points), self.outer
        thetas = [outer.observe(evaluation) for evaluation in evaluations[:count]]
        if plan.differences is None:
            return Answers(thetas)
        others = evaluations[count:]
        changes = plan.differences.changes(others, thetas[0] if thetas else theta, outer)
        nearby = [
            (e.point.x[self.is_free], seen)
            for e in others
            if (seen := outer.observe(e)) is not None
        ]
        own = [
            None if c is None else Change(c.displacement[self.is_free], c.change, c.noise_share)
            for c in changes
        ]
        return Answers(thetas, own, [] if self.is_exact else nearby)
