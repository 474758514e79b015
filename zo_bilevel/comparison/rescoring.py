"""Judging what runs recommend, the same way for every method, so that lucky draws do not win.

Three rules, the first that applies:

- the task knows its problem without noise: every best-so-far point and the final one are solved
  there, and only those losses count;
- the inner solver takes a seed, and the runs saw that it matters: they have judged their final
  points by different numbers of draws, so those of all are solved again, as often and on the same
  seeds for every method, and the mean counts; so it does where a run could not judge its own;
- the inner solver gave two losses for one point, so it draws random numbers of its own: the same.

Source: post-replications, Eckman, Henderson, Shashaani (2023), "SimOpt: a testbed
for simulation-optimization experiments".
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
from zo_bilevel.run.final_point import solves_kept_back
from zo_bilevel.run.runs import Improvement, Run
from zo_bilevel.run.seen_losses import SeenLosses
from zo_bilevel.run.verdict import error_of
from zo_bilevel.solve.dispatch.base import Dispatcher, takes_seed
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.solve.streams import JUDGE_STREAM
from zo_bilevel.support.arrays import FloatArray

JudgedBy: TypeAlias = Literal["", "exact", "fresh solves"]
JUDGE_SOLVES = 8
"""Fresh solves of a final point, of small budgets; else a tenth of what a run may spend."""


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
        judge_solves: Fresh solves of each final point; `None` for as many as noise asks for.
        max_solves: Of a run; a tenth of it, and no less than 8, where noise asks for fresh solves.
    """

    def __init__(
        self,
        task: Task,
        dispatcher: Dispatcher,
        judge_solves: int | None = None,
        max_solves: int = 0,
    ) -> None:
        self.task, self.dispatcher = task, dispatcher
        self.judge_solves = judge_solves
        self._due_of_noise = max(JUDGE_SOLVES, solves_kept_back(max_solves))
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
            interval=None,
            draws=0,
            judged_by="exact",
            improvements=tuple(steps),
        )

    def by_fresh_solves(self, runs: Sequence[Run], *, is_noisy: bool) -> list[Run]:
        """The runs with the mean loss of fresh solves of their final points, where that is due."""
        is_noisy = is_noisy or any(self._shows_noise(run) for run in runs)
        found = [self._fresh_losses(run, self._due(run, is_noisy)) for run in runs]
        seen = SeenLosses()
        seen.look_at([loss for losses in found for loss in losses or ()])
        return [_judged(run, losses, seen) for run, losses in zip(runs, found, strict=True)]

    def _shows_noise(self, run: Run) -> bool:
        """Whether a run's own draws of its final point differed, or might have."""
        return self._takes_seed and run.standard_error not in (None, 0.0)

    def _due(self, run: Run, is_noisy: bool) -> int:
        """How many fresh solves a run's final point is owed."""
        is_out = run.status in ("refused", "disqualified") or not run.is_feasible
        if self.has_exact or not run.phi or is_out:
            return 0
        if self.judge_solves is not None:
            return self.judge_solves
        is_unjudged = self._takes_seed and run.standard_error is None
        return self._due_of_noise if is_noisy or is_unjudged else 0

    def _fresh_losses(self, run: Run, count: int) -> list[float] | None:
        """Of its final point; `None` where none are due."""
        if not count:
            return None
        problem = self._placed(self.task.problem, run)
        x = problem.space.encode(run.phi)
        points = [Point(x, (JUDGE_STREAM, repeat), "judge") for repeat in range(count)]
        return [e.loss for e in self._solve(problem, points, run.seed) if e.ok]

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


def _judged(run: Run, losses: list[float] | None, seen: SeenLosses) -> Run:
    """The run with the mean of fresh losses of its final point, where any were due."""
    if losses is None:
        return run
    draws, count = np.array(losses), len(losses)
    interval = seen.interval(draws) if count > 1 else None
    return dataclasses.replace(
        run,
        loss=float(draws.mean()) if count else math.inf,
        reported_loss=run.loss,
        standard_error=error_of(draws, seen) if count > 1 else math.nan if count else None,
        interval=None if interval is None else (interval.lower, interval.upper),
        draws=count,
        judged_by="fresh solves",
    )
