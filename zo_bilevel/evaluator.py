"""From points to evaluations: decode, seed, dispatch, judge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from zo_bilevel.dispatch.base import Dispatcher, Solve
from zo_bilevel.errors import InnerSolverError
from zo_bilevel.evaluation import Evaluation, Job, Outcome, Point, solve_seed
from zo_bilevel.problem import BoundProblem, Problem


@final
class Evaluator:
    """Turns points into evaluations: decode, seed, dispatch, bind, in the order of the round.

    Args:
        problem: The problem.
        dispatcher: Runs the solves.
        seed: Seed of the run.
    """

    def __init__(self, problem: Problem, dispatcher: Dispatcher, seed: int) -> None:
        self.problem = problem
        self.dispatcher = dispatcher
        self.seed = seed
        self.solve = Solve(problem.inner)
        self.bound: BoundProblem | None = None
        self._seen_any = False

    def jobs(self, points: Sequence[Point]) -> list[Job]:
        """The round as a dispatcher sees it."""
        decode, seeded = self.problem.space.decode, self.solve.with_seed
        return [
            Job(index, decode(point.x), solve_seed(self.seed, point.stream) if seeded else 0)
            for index, point in enumerate(points)
        ]

    def outcomes(self, points: Sequence[Point]) -> list[Outcome]:
        """Run one round.

        Args:
            points: Independent points.

        Returns:
            Outcomes in the order of the points.
        """
        found: dict[int, Outcome] = {}
        for index, outcome in self.dispatcher.run(self.solve, self.jobs(points)):
            found[index] = outcome
        return [found[index] for index in range(len(points))]

    def evaluate(self, points: Sequence[Point]) -> list[Evaluation]:
        """Run one round and judge it.

        Args:
            points: Independent points.

        Returns:
            Evaluations in the order of the points.

        Raises:
            InnerSolverError: If the very first solve gives an unusable inner solution.
        """
        return [
            self.judge(point, outcome)
            for point, outcome in zip(points, self.outcomes(points), strict=True)
        ]

    def judge(self, point: Point, outcome: Outcome) -> Evaluation:
        """Check one outcome against the structure of theta and compute its loss."""
        is_first, self._seen_any = not self._seen_any, True
        status, error, loss = outcome.status, outcome.error, math.inf
        theta, layout = outcome.theta, outcome.layout
        if status == "ok" and theta is not None and layout is not None:
            if self.bound is None:
                self.bound = self.problem.bind(theta, layout, point.x)
            if layout.shapes != self.bound.layout.shapes or layout.names != self.bound.layout.names:
                status, error = (
                    "invalid",
                    (
                        f"the inner solver returned {layout.describe()}, "
                        f"but {self.bound.layout.describe()} before"
                    ),
                )
            else:
                loss = self.bound.value(theta, point.x)
                if not math.isfinite(loss):
                    status, error = "invalid", f"the outer objective is {loss}"
        if status != "ok":
            theta, layout, loss = None, None, math.inf
        if is_first and status == "invalid":
            raise InnerSolverError(
                f"the first solve gave nothing usable: {error} "
                f"(at {_few(self.problem.space.decode(point.x))})"
            )
        return Evaluation(point, status, theta, loss, outcome.seconds, outcome.cost, error, layout)


def _few(phi: Mapping[str, Any]) -> str:
    shown = [f"{name}={np.asarray(value).ravel()[:3].tolist()}" for name, value in phi.items()]
    return ", ".join(shown[:4]) + (", ..." if len(shown) > 4 else "")
