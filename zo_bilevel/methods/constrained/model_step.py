"""The best step of a model within a box, constraints and all; it costs no solve."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
from scipy.optimize import minimize

from zo_bilevel.problem.constraints import FEASIBLE_VIOLATION
from zo_bilevel.support.arrays import FloatArray

Function: TypeAlias = Callable[[FloatArray], FloatArray]
OUTPUT_MARGIN = 2e-7
"""By how much steps are to stay within constraints on outputs, in their scale."""
MARGIN_BEFORE = 1e-8
"""The same for constraints that are known before a solve."""
MOST_ITERATIONS = 100
STEP_ACCURACY = 1e-10


class Prediction(NamedTuple):
    """What a model says of a step.

    Args:
        loss: Of the outer objective.
        gradient: Its derivative, shape `(n,)`.
        outputs: Constraints on outputs, at most 0 where they hold, shape `(k,)`.
        slopes: Their derivatives, shape `(k, n)`.
    """

    loss: float
    gradient: FloatArray
    outputs: FloatArray
    slopes: FloatArray


@final
class ModelStep:
    """Programs over a model, in steps from its center: inside they are in units of the radius.

    Args:
        predict: The model.
        before: Constraints known before a solve at a step, at most 0 where they hold, shape
            `(k,)`, and their derivatives, `(k, n)`.
        room: Lowest and highest step within the bounds, shape `(n,)` each.
        radius: Most that a coordinate may change.
    """

    def __init__(
        self,
        predict: Callable[[FloatArray], Prediction],
        before: tuple[Function, Function],
        room: tuple[FloatArray, FloatArray],
        radius: float,
    ) -> None:
        self._predict, self._radius = predict, radius
        self._before, self._before_slopes = before
        self._low = np.maximum(room[0] / radius, -1.0)
        self._high = np.minimum(room[1] / radius, 1.0)
        self._seen: tuple[bytes, Prediction] | None = None
        self._here = self._at(np.zeros_like(self._low))
        self._unit = float(np.abs(self._here.gradient).max(initial=0.0)) or 1.0
        self._scales = np.abs(self._here.slopes).max(axis=1, initial=0.0)
        self._scales = np.maximum(self._scales, FEASIBLE_VIOLATION)

    def best(self) -> FloatArray:
        """The step of the lowest loss among those that break constraints on outputs least."""
        step, allowed = np.zeros_like(self._low), 0.0
        if self._here.outputs.max(initial=0.0) > 0.0:
            step = self._least_broken()
            left = float(((self._at(step).outputs + OUTPUT_MARGIN) / self._scales).max())
            allowed = max(0.0, left)
        return self._radius * self._solved(
            lambda s: (self._at(s).loss - self._here.loss) / self._unit,
            lambda s: self._at(s).gradient / self._unit,
            step,
            self._rules(lambda _: allowed, 0),
        )

    def _least_broken(self) -> FloatArray:
        """The step that breaks constraints on outputs least."""
        size = self._low.size
        most = float((self._here.outputs / self._scales).max())
        towards = np.append(np.zeros(size), 1.0)
        found = self._solved(
            lambda s: float(s[-1]),
            lambda _: towards,
            np.append(np.zeros(size), most),
            self._rules(lambda s: float(s[-1]), 1),
            slack=most,
        )
        return found[:size]

    def _rules(self, allowed: Callable[[FloatArray], float], extra: int) -> list[dict[str, Any]]:
        size = self._low.size
        rules: list[dict[str, Any]] = []
        if self._here.outputs.size:

            def slopes(step: FloatArray) -> FloatArray:
                own = -self._at(step[:size]).slopes / self._scales[:, None]
                return np.column_stack([own, np.ones((len(own), extra))])

            rules.append(
                {
                    "type": "ineq",
                    "fun": lambda s: (
                        allowed(s) - (self._at(s[:size]).outputs + OUTPUT_MARGIN) / self._scales
                    ),
                    "jac": slopes,
                }
            )
        if self._before(np.zeros(size)).size:

            def before_slopes(step: FloatArray) -> FloatArray:
                own = -self._before_slopes(self._radius * step[:size])
                return np.column_stack([own, np.zeros((len(own), extra))])

            rules.append(
                {
                    "type": "ineq",
                    "fun": lambda s: (
                        (-MARGIN_BEFORE - self._before(self._radius * s[:size])) / self._radius
                    ),
                    "jac": before_slopes,
                }
            )
        return rules

    def _solved(
        self,
        function: Callable[[FloatArray], float],
        gradient: Function,
        start: FloatArray,
        rules: list[dict[str, Any]],
        slack: float | None = None,
    ) -> FloatArray:
        low, high = self._low, self._high
        if slack is not None:
            low, high = np.append(low, 0.0), np.append(high, slack)
        found = minimize(
            function,
            start,
            jac=gradient,
            method="SLSQP",
            bounds=np.column_stack([low, high]),
            constraints=rules,
            options={"maxiter": MOST_ITERATIONS, "ftol": STEP_ACCURACY},
        )
        return np.asarray(np.clip(found.x, low, high) if np.isfinite(found.x).all() else start)

    def _at(self, step: FloatArray) -> Prediction:
        key = step.tobytes()
        if self._seen is None or self._seen[0] != key:
            found, radius = self._predict(self._radius * step), self._radius
            slopes = radius * found.gradient, found.outputs, radius * found.slopes
            self._seen = key, Prediction(found.loss, *slopes)
        return self._seen[1]
