"""What a search that keeps constraints has seen: what points are worth, and where solves fail."""

from typing import final

import numpy as np
from scipy.optimize import nnls

from zo_bilevel.methods.constrained.model_step import Prediction
from zo_bilevel.methods.constrained.smooth_model import FIRST_LENGTH, SmoothModel
from zo_bilevel.problem.constraints import FEASIBLE_VIOLATION, FeasibleSet
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray

LEAST_GAIN = 1e-10
LEAST_SHARE, ROUNDING_SHARE = 1e-8, 1e-14
"""Shares of the spread of all losses, and of the loss itself, that are not worth a solve."""
TOLERATED_VIOLATION = 0.5 * FEASIBLE_VIOLATION
REACH_RADII = 4.0
"""Points within so many radii tell of the edge; of fewer, where no plane parts them."""
MOST_HALVINGS = 4
SHARE_OF_WAY = 0.5
"""Of the way to the plane, which touches the nearest failure, that a step may go."""
SOLVED_DISTANCE = 1e-9


@final
class KnownPoints:
    """The points that solved since a start; one of them is the center."""

    def __init__(self, feasible: FeasibleSet, *, is_vector: bool) -> None:
        self._feasible, self._is_vector = feasible, is_vector
        self._evaluations: list[Evaluation] = []
        self._values: list[FloatArray] = []
        self.num_outputs = self.place = 0
        self._penalty, self._length = 0.0, FIRST_LENGTH

    def __len__(self) -> int:
        return len(self._evaluations)

    @property
    def center(self) -> Evaluation:
        """The point that steps begin at."""
        return self._evaluations[self.place]

    @property
    def points(self) -> FloatArray:
        """All of them, shape `(p, N)`."""
        return np.array([evaluation.point.x for evaluation in self._evaluations])

    @property
    def is_any_feasible(self) -> bool:
        """Whether any of them keeps all constraints."""
        return any(evaluation.is_feasible for evaluation in self._evaluations)

    def add(self, evaluation: Evaluation) -> bool:
        """Take in a solve; returns whether it is ok."""
        theta, layout = evaluation.theta, evaluation.layout
        if theta is None or layout is None:
            return False
        outputs = self._feasible.after(theta, layout, evaluation.point.x)
        own = theta if self._is_vector else np.array([evaluation.loss])
        self.num_outputs = outputs.size
        self._evaluations.append(evaluation)
        self._values.append(np.concatenate([outputs, own]))
        return True

    def merit(self, place: int) -> float:
        """The loss of a point, and the penalty for the constraint that it breaks most."""
        outputs = self._values[place][: self.num_outputs]
        return self._evaluations[place].loss + self._penalty * _broken(outputs)

    def choose_center(self) -> bool:
        """Begin steps at the best point; returns whether it is another one."""
        before = self.place
        self.place = min(range(len(self)), key=self.merit)
        return self.place != before

    def weigh(self, here: Prediction, there: Prediction) -> bool:
        """Raise the penalty where a step that mends constraints would look like a loss.

        Returns:
            Whether another point is the center then.
        """
        mended = _broken(here.outputs) - _broken(there.outputs)
        needed = (there.loss - here.loss) / mended if mended > FEASIBLE_VIOLATION else 0.0
        if self._penalty >= 1.5 * needed:
            return False
        self._penalty = 2.0 * needed
        return self.choose_center()

    def gain(self, here: Prediction, there: Prediction) -> float:
        """By how much a step lowers the merit, as the model has it."""
        before, after = (
            said.loss + self._penalty * _broken(said.outputs) for said in (here, there)
        )
        return before - after

    def least_gain(self) -> float:
        """What is worth a solve."""
        losses = [evaluation.loss for evaluation in self._evaluations]
        spread, size = max(losses) - min(losses), abs(self.center.loss)
        return max(min(LEAST_GAIN * spread, LEAST_SHARE * size), ROUNDING_SHARE * spread)

    def model(self) -> SmoothModel:
        """A smooth model through all points."""
        model = SmoothModel(self.points, np.array(self._values), self.place, self._length)
        self._length = model.length
        return model


def _broken(outputs: FloatArray) -> float:
    return max(0.0, float(outputs.max(initial=0.0)) - TOLERATED_VIOLATION)


@final
class FailureEdge:
    """The plane, as far from the center as it can be, that has all nearby failures beyond it.

    Steps along the plane are free, so that a search slides along an edge of failures, whose
    direction each further failure corrects. Source of the least-norm solution: Lawson and Hanson
    (1974), "Solving Least Squares Problems", chapter 23.
    """

    def __init__(self) -> None:
        self._failed: list[FloatArray] = []

    def add(self, x: FloatArray) -> None:
        """Remember where a solve failed, scaled, shape `(N,)`."""
        self._failed.append(x)

    def plane(self, center: FloatArray, solved: FloatArray, radius: float) -> FloatArray | None:
        """`w` such that steps `s` from the center with `w . s <= 1` are on its side.

        Args:
            center: A point that solves, shape `(N,)`.
            solved: Points that solve, shape `(p, N)`.
            radius: Of the region that is of interest.

        Returns:
            Shape `(N,)`; `None` when nothing failed nearby, or no plane parts the points.
        """
        if not self._failed:
            return None
        failed, good = np.array(self._failed) - center, solved - center
        reach = REACH_RADII * radius
        for _ in range(MOST_HALVINGS):
            beyond, within = (part[np.abs(part).max(axis=1) <= reach] for part in (failed, good))
            if not len(beyond):
                return None
            found = _least(np.vstack([beyond, -within]) / reach, len(beyond))
            if found is not None:
                return found / reach
            reach *= 0.5
        return None


def _least(rows: FloatArray, count: int) -> FloatArray | None:
    """The shortest `w` with `rows w >= 1` for the first rows and `>= -1` for the others."""
    limits = np.where(np.arange(len(rows)) < count, 1.0, -1.0)
    system = np.vstack([rows.T, limits])
    aim = np.append(np.zeros(rows.shape[1]), 1.0)
    residual = system @ nnls(system, aim)[0] - aim
    if -residual[-1] < SOLVED_DISTANCE:
        return None
    return np.asarray(-residual[:-1] / residual[-1])
