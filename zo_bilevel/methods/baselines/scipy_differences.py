"""What scipy's optimizers are given in place of functions: a whole gradient is one round."""

from collections.abc import Callable
from typing import Any, final

import numpy as np
from scipy import optimize

from zo_bilevel.methods.baselines.coordinates import Coordinates
from zo_bilevel.methods.baselines.solves import GiveUpError, Solves
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray


@final
class Differences:
    """Values and forward differences of losses, or of residuals."""

    def __init__(
        self,
        solves: Solves,
        numbers: Callable[[list[Evaluation]], list[Any]] | None = None,
    ) -> None:
        self._solves = solves
        self._numbers = solves.rule.losses if numbers is None else numbers
        self._row: FloatArray | None = None
        self._stream = 0
        self._base: Any = None
        self._base_ok = False
        self._any_ok = False

    def value(self, row: FloatArray) -> Any:  # noqa: ANN401 - a number or a vector
        """The loss, or the residuals."""
        self._stream = self._solves.new_stream()
        evaluations = self._solves.evaluate([row], stream=self._stream)
        self._remember(row, evaluations[0], self._numbers(evaluations)[0])
        return self._base

    def derivative(self, row: FloatArray) -> FloatArray:
        """Derivatives along each coordinate, shape `(N,)` or `(N, m)`, one round."""
        if self._row is None or not np.array_equal(row, self._row):
            self.value(row)
        self._check_start()
        if not self._base_ok:
            return self._nothing(row)
        rows, steps = _forward(row, self._solves.coordinates)
        evaluations = self._solves.evaluate(rows, role="sketch", stream=self._stream)
        return self._quotients(row, evaluations, steps)

    def both(self, row: FloatArray) -> tuple[Any, FloatArray]:
        """Value and derivatives, one round."""
        rows, steps = _forward(row, self._solves.coordinates)
        stream = self._solves.new_stream()
        base, *others = self._solves.evaluate([row, *rows], role="sketch", stream=stream)
        self._remember(row, base, self._numbers([base])[0])
        self._check_start()
        if not self._base_ok:
            return self._base, self._nothing(row)
        self._stream = stream
        return self._base, self._quotients(row, others, steps)

    def _remember(self, row: FloatArray, evaluation: Evaluation, numbers: Any) -> None:  # noqa: ANN401
        self._row, self._base, self._base_ok = row.copy(), numbers, evaluation.ok
        self._any_ok |= evaluation.ok

    def _check_start(self) -> None:
        if not self._any_ok:
            raise GiveUpError("the solve at the start failed, so there is nothing to difference")

    def _nothing(self, row: FloatArray) -> FloatArray:
        return np.zeros((row.size, *np.shape(self._base)))

    def _quotients(
        self, row: FloatArray, evaluations: list[Evaluation], steps: FloatArray
    ) -> FloatArray:
        """Differences; of a solve that failed that to the other side, or else 0."""
        failed = [k for k, evaluation in enumerate(evaluations) if not evaluation.ok]
        if failed:
            turned = [self._turned(row, k, steps) for k in failed]
            again = self._solves.evaluate(turned, role="sketch", stream=self._stream)
            for k, evaluation in zip(failed, again, strict=True):
                evaluations[k] = evaluation
            if not any(evaluation.ok for evaluation in evaluations):
                raise GiveUpError("every solve beside the best point failed, on both sides")
        numbers = self._numbers(evaluations)
        return np.stack(
            [
                (number - self._base) / step if evaluation.ok else np.zeros_like(self._base)
                for number, step, evaluation in zip(numbers, steps, evaluations, strict=True)
            ]
        )

    def _turned(self, row: FloatArray, index: int, steps: FloatArray) -> FloatArray:
        """The point on the other side, within the bounds; the step becomes that to it."""
        place, turned = self._solves.coordinates, row.copy()
        turned[index] -= steps[index]
        if not place.lower[index] <= turned[index] <= place.upper[index]:
            turned[index] = row[index] + 0.5 * steps[index]
        steps[index] = turned[index] - row[index]
        return turned


@final
class LimitedLoss:
    """Loss and constraints on outputs, of the same solve, which scipy asks for more than once."""

    def __init__(self, solves: Solves) -> None:
        self._solves, self._feasible = solves, solves.search.problem.feasible
        self._place = solves.coordinates
        self._differences = Differences(solves, self._numbers)
        self._answers: dict[bytes, FloatArray] = {}
        self._slopes: dict[bytes, FloatArray] = {}
        self._outputs = np.zeros(0)

    def _numbers(self, evaluations: list[Evaluation]) -> list[FloatArray]:
        found = []
        losses = self._solves.rule.losses(evaluations)
        for evaluation, loss in zip(evaluations, losses, strict=True):
            outputs = self._outputs + 1.0  # of a failed solve
            if evaluation.theta is not None and evaluation.layout is not None:
                x = evaluation.point.x
                outputs = self._feasible.after(evaluation.theta, evaluation.layout, x)
                self._outputs = np.zeros_like(outputs)
            found.append(np.append(loss, outputs))
        return found

    def _at(self, row: FloatArray) -> FloatArray:
        key = row.tobytes()
        if key not in self._answers:
            self._answers[key] = self._differences.value(row)
        return self._answers[key]

    def loss(self, row: FloatArray) -> float:
        """The loss."""
        return float(self._at(row)[0])

    def loss_derivative(self, row: FloatArray) -> FloatArray:
        """Its derivative, shape `(N,)`."""
        return self._derivative(row)[:, 0].copy()  # SLSQP misreads what has strides

    def _derivative(self, row: FloatArray) -> FloatArray:
        key = row.tobytes()
        if key not in self._slopes:
            self._at(row)
            self._slopes[key] = self._differences.derivative(row)
        return self._slopes[key]

    def constraints(self, *, has_gradient: bool) -> list[Any]:
        """As scipy wants them."""
        found = []
        if self._feasible.is_cheap:
            before = lambda row: self._feasible.before(self._place.to_x(row))  # noqa: E731
            found.append(optimize.NonlinearConstraint(before, -np.inf, 0.0))
        if self._feasible.outputs:
            jac = (lambda row: self._derivative(row)[:, 1:].T) if has_gradient else "2-point"
            after = lambda row: self._at(row)[1:]  # noqa: E731
            found.append(optimize.NonlinearConstraint(after, -np.inf, 0.0, jac=jac))
        return found


def _forward(row: FloatArray, place: Coordinates) -> tuple[list[FloatArray], FloatArray]:
    """Points of scipy's "2-point" rule and the steps they really are, after rounding."""
    sign = np.where(row >= 0, 1.0, -1.0)
    steps = np.sqrt(np.finfo(float).eps) * sign * np.maximum(1.0, np.abs(row))
    outside = (row + steps < place.lower) | (row + steps > place.upper)
    steps = np.where(outside, -steps, steps)
    rows = []
    for index, step in enumerate(steps):
        moved = row.copy()
        moved[index] += step
        rows.append(moved)
    return rows, (row + steps) - row
