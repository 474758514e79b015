"""Counts what a method asks for, and notes the noiseless loss of each point, unseen by it."""

from __future__ import annotations

import time
from typing import final

import numpy as np

from benchmarks.arena.problem import HUGE, ArenaProblem, FloatArray

LONGEST_SECONDS = 300.0
"""Of a library's run: POUNDERS and Py-BOBYQA take a tenth of a second a step at N = 12."""


class DoneError(BaseException):
    """Ends a library from within its own call: budget spent, or nothing left to measure."""


@final
class Watched:
    """One run's solver.

    Args:
        problem: What is solved.
        seed: Of the noise.
        enough: Noiseless loss at which the rest of a run could change no score.
    """

    def __init__(self, problem: ArenaProblem, seed: int, enough: float) -> None:
        self.problem = problem
        self.enough = enough
        self.seconds = 0.0
        self.true_losses: list[float] = []
        self.measured_losses: list[float] = []
        self._spoil = problem.spoiler(seed)
        self._begin = time.process_time()

    def __call__(self, x: FloatArray) -> FloatArray:
        """The noisy answer, as a simulator gives it: not finite where it overflows."""
        begin = time.process_time()
        clean = self.problem.theta(x)
        with np.errstate(all="ignore"):
            spoilt = self._spoil(clean)
        self.seconds += time.process_time() - begin
        self.true_losses.append(self.problem.loss_of(clean))
        self.measured_losses.append(self.problem.loss_of(spoilt))
        return spoilt

    @property
    def is_done(self) -> bool:
        """Whether a library's run may end."""
        late = time.process_time() - self._begin > LONGEST_SECONDS
        spent = late or len(self.true_losses) >= self.problem.max_solves
        return spent or (bool(self.true_losses) and self.true_losses[-1] <= self.enough)

    def residuals(self, x: FloatArray) -> FloatArray:
        """For libraries: finite residuals; ends the run when it is done.

        Raises:
            DoneError: When the budget is spent or the loss is low enough.
        """
        if self.is_done:
            raise DoneError
        residuals = self(np.array(x, dtype=np.float64)) - self.problem.target
        return np.clip(np.nan_to_num(residuals, nan=HUGE), -HUGE, HUGE)

    def loss(self, x: FloatArray) -> float:
        """For libraries that see one number.

        Raises:
            DoneError: When the budget is spent or the loss is low enough.
        """
        if self.is_done:
            raise DoneError
        self(np.array(x, dtype=np.float64))
        return min(self.measured_losses[-1], HUGE)
