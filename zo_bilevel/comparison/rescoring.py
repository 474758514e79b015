"""Judging what runs recommend, the same way for every method, so that lucky draws do not win.

Three rules, the first that applies:

- the task knows its problem without noise: every best-so-far point and the final one are solved
  there, and only those losses count;
- the inner solver takes a seed: `minimize` has solved the final point with fresh seeds already;
  where it could not, because the budget was too small or the method failed, that is done here;
- the inner solver gave two losses for one point, so it draws random numbers of its own: the final
  point of every run is solved again, and the mean counts.
"""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, final

import numpy as np

from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.task import Task
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.run.runs import Improvement, Run
from zo_bilevel.solve.dispatch.base import Dispatcher, takes_seed
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.solve.streams import JUDGE_STREAM
from zo_bilevel.support.arrays import FloatArray

JudgedBy: TypeAlias = Literal["", "exact", "fresh solves"]
JUDGE_SOLVES = 8
"""Fresh solves of a final point where the inner solver has a randomness that no seed controls."""


@final
class Repeats:
    """Remembers losses by point, to see whether an inner solver repeats itself."""

    def __init__(self) -> None:
        self._losses: dict[bytes, float] = {}
        self.differ = False

    def add(self, x: FloatArray, loss: float) -> None:
        """Take note of a solve that is ok."""
        if self.differ:
            return
        key = hashlib.sha256(np.ascontiguousarray(x, dtype="<f8").tobytes()).digest()
        self.differ = self._losses.setdefault(key, loss) != loss


@final
class Judge:
    """Solves what runs recommend, at no charge to any of them.

    Args:
        task: The problem and, where known, the same without noise and on held-out data.
        dispatcher: Runs the solves.
        judge_solves: Fresh solves of each final point; `None` for 8 where the inner solver turned
            out to have a randomness that no seed controls, or the run could not judge it itself.
    """

    def __init__(self, task: Task, dispatcher: Dispatcher, judge_solves: int | None = None) -> None:
        self.task, self.dispatcher = task, dispatcher
        self.judge_solves = judge_solves
        self.solves = 0
        self._takes_seed = takes_seed(task.problem.inner)

    @property
    def has_exact(self) -> bool:
        """Whether the task knows its problem without noise, and it is another one."""
        exact = self.task.exact
        return exact is not None and exact.inner is not self.task.problem.inner

    def by_facts(self, run: Run, points: Sequence[FloatArray]) -> Run:
        """The run as the problem without noise and the held-out data see it, where there are."""
        if run.status in ("refused", "disqualified") or not points or not run.is_feasible:
            return run
        final_point = self._placed(self.task.problem, run).space.encode(run.phi)
        if self.has_exact and self.task.exact is not None:
            run = self._exactly(self._placed(self.task.exact, run), run, points, final_point)
        if self.task.held_out is not None:
            held_out = self._losses(self._placed(self.task.held_out, run), [final_point])[0]
            run = dataclasses.replace(run, held_out_loss=held_out)
        return run

    def _exactly(
        self, exact: Problem, run: Run, points: Sequence[FloatArray], final_point: FloatArray
    ) -> Run:
        *losses, loss = self._losses(exact, [*points, final_point])
        pairs = zip(run.improvements, losses, strict=True)
        steps = [dataclasses.replace(step, judged_loss=judged) for step, judged in pairs]
        single = {name: value for name, value in run.phi.items() if np.ndim(value) == 0}
        at = (run.solves, run.rounds, run.seconds)
        steps.append(Improvement(*at, run.loss, run.relative_error, single, loss))
        return dataclasses.replace(
            run,
            loss=loss,
            reported_loss=run.loss,
            standard_error=None,
            judged_by="exact",
            improvements=tuple(steps),
        )

    def by_fresh_solves(self, runs: Sequence[Run], *, is_noisy: bool) -> list[Run]:
        """The runs with the mean loss of fresh solves of their final points, where that is due."""
        return [self._freshly(run, self._due(run, is_noisy)) for run in runs]

    def _due(self, run: Run, is_noisy: bool) -> int:
        """How many fresh solves a run's final point is owed."""
        is_out = run.status in ("refused", "disqualified") or not run.is_feasible
        if self.has_exact or not run.phi or is_out:
            return 0
        if self.judge_solves is not None:
            return self.judge_solves
        is_unjudged = self._takes_seed and run.standard_error is None
        return JUDGE_SOLVES if is_noisy or is_unjudged else 0

    def _freshly(self, run: Run, count: int) -> Run:
        if not count:
            return run
        problem = self._placed(self.task.problem, run)
        x = problem.space.encode(run.phi)
        points = [Point(x, (JUDGE_STREAM, repeat), "judge") for repeat in range(count)]
        found = [e.loss for e in self._solve(problem, points, run.seed) if e.ok]
        mean = float(np.mean(found)) if found else math.inf
        error = float(np.std(found, ddof=1) / math.sqrt(len(found))) if len(found) > 1 else None
        return dataclasses.replace(
            run,
            loss=mean,
            reported_loss=run.loss,
            standard_error=error,
            judged_by="fresh solves",
        )

    def _placed(self, problem: Problem, run: Run) -> Problem:
        """The problem in the coordinates of the run."""
        return problem.placed_at(self.task.start(run.seed))

    def _losses(self, problem: Problem, points: Sequence[FloatArray]) -> list[float]:
        """Losses of scaled points, each solved once; infinity where the solve failed."""
        unique = {point.tobytes(): point for point in points}
        asked = [Point(x, (JUDGE_STREAM, 0), "judge") for x in unique.values()]
        found = dict(zip(unique, self._solve(problem, asked), strict=True))
        return [found[point.tobytes()].loss for point in points]

    def _solve(self, problem: Problem, points: list[Point], seed: int = 0) -> list[Evaluation]:
        self.solves += len(points)
        return Evaluator(problem, self.dispatcher, seed).evaluate(points)
