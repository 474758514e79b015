"""What a solve came to: checked against the structure of theta, with its loss."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, final

import numpy as np

from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.objectives.functions import NUMERICAL_ERRORS
from zo_bilevel.problem.objectives.robust_error import RobustError
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.theta import UNMEASURED_VALUE, ThetaLayout
from zo_bilevel.solve.evaluation import Evaluation, Outcome, Point, Status
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, WrongShapeError, ZoBilevelError, described

FREE = "known"
"""In the place of the worker of an answer that costs nothing."""


@final
class OutcomeJudge:
    """Turns outcomes into evaluations; the first good one fixes the structure of theta.

    Attributes:
        bound: The problem for that structure, once it is known.
    """

    def __init__(self, problem: Problem, decoded: Callable[[Point], Mapping[str, Any]]) -> None:
        self.problem, self._decoded = problem, decoded
        self.bound: BoundProblem | None = None
        unmeasured = problem.unmeasured
        self._may_be_missing = None if unmeasured is None else unmeasured.is_missing
        self._base: Evaluation | None = None

    def judge(self, point: Point, outcome: Outcome) -> Evaluation:
        """Check one outcome against the structure of theta and compute its loss."""
        if point.derivative is not None and point.derivative.hides_theta:
            return _with_theta_of(self._base, point, outcome)
        status, error, loss, violation = outcome.status, outcome.error, math.inf, 0.0
        theta, layout, derivative = outcome.theta, outcome.layout, outcome.derivative
        if status == "ok" and theta is not None and layout is not None:
            wanted = self._part_names()
            order = layout.order_of(wanted)
            if order is not None:
                theta, layout = theta[order], layout.reordered(wanted)
                if derivative is not None and derivative.ndim == 2:
                    derivative = derivative[order]
            must_work = self.bound is None
            status, error, loss = self._verdict(point, theta, layout)
            if status == "ok" and self.problem.feasible:
                status, error, violation = self._violation(point, theta, layout, must_work)
        if status != "ok":
            theta, layout, derivative, loss = None, None, None, math.inf
            error = f"{error} (at {_few(self._decoded(point))})"
        is_known = outcome.worker == FREE
        facts = (outcome.seconds, outcome.cost, error, layout, derivative, violation, is_known)
        self._base = Evaluation(point, status, theta, loss, *facts)
        return self._base

    def _part_names(self) -> tuple[str, ...]:
        """The order of a dict's parts: the target's, or the one that came first."""
        if self.bound is not None:
            return self.bound.layout.names
        outer = self.problem.outer
        return outer.layout.names if isinstance(outer, SquaredError | RobustError) else ()

    def _verdict(
        self, point: Point, theta: FloatArray, layout: ThetaLayout
    ) -> tuple[Status, str, float]:
        """Status, reason and loss of a finite inner solution.

        What the user's functions raise ends the run as long as they never worked, unless it is of
        the numbers: such a solve has failed.
        """
        if fault := self._misfit(theta, layout):
            return *fault, math.inf
        must_work = self.bound is None
        refusal = self.problem.refusal(theta, layout, point.x, must_work=must_work)
        if refusal:
            return "rejected", refusal, math.inf
        try:
            bound = self.bound or self.problem.bind(theta, layout, point.x)
            loss = bound.value(theta, point.x)
            if must_work and isinstance(bound.outer, SquaredError | RobustError):
                bound.outer.check_scale(theta)
        except WrongShapeError as error:
            return "wrong_shape", str(error), math.inf
        except Exception as error:  # noqa: BLE001 - the user's function may raise anything
            if must_work and not isinstance(error, NUMERICAL_ERRORS):
                _refuse(error)
            return "failed", f"the outer objective raised {described(error)}", math.inf
        if not math.isfinite(loss):
            return "invalid", f"the outer objective is {loss}", math.inf
        self.bound = bound
        return "ok", "", loss

    def _misfit(self, theta: FloatArray, layout: ThetaLayout) -> tuple[Status, str] | None:
        if fault := self._other_structure(layout):
            return "wrong_shape", fault
        if self._lacks_data(theta):
            return "invalid", "the inner solution is NaN where the target has a value"
        return None

    def _lacks_data(self, theta: FloatArray) -> bool:
        """Whether theta is NaN where the target is not."""
        places = theta == UNMEASURED_VALUE
        allowed = self._may_be_missing
        if allowed is not None and allowed.size == places.size:
            places = places & ~allowed
        return bool(places.any())

    def _violation(
        self, point: Point, theta: FloatArray, layout: ThetaLayout, must_work: bool
    ) -> tuple[Status, str, float]:
        """Status, reason and violation of constraints; a rule that never worked ends the run."""
        try:
            violation = self.problem.feasible.violation(theta, layout, point.x)
        except Exception as error:
            if must_work and not isinstance(error, NUMERICAL_ERRORS):
                raise
            return "failed", f"a constraint raised {described(error)}", 0.0
        if not math.isfinite(violation):
            return "invalid", f"a constraint is {violation}", 0.0
        return "ok", "", violation

    def _other_structure(self, layout: ThetaLayout) -> str:
        """What is wrong with the structure of an inner solution, in words, if anything is."""
        wanted, given = self.problem.expected_length, layout.describe()
        if wanted is not None and layout.size != wanted:
            return f"the inner solver returned {given}, expected_length is {wanted}"
        if self.bound is None:
            return ""
        known = self.bound.layout
        if layout.shapes != known.shapes or layout.names != known.names:
            return f"the inner solver returned {given}, but {known.describe()} before"
        conflict = layout.label_conflict(known)
        return f"the inner solution is labelled otherwise than before: {conflict}" * bool(conflict)


def _refuse(error: Exception) -> NoReturn:
    if isinstance(error, ZoBilevelError):
        raise error
    raise InputError(f"the outer objective raised {described(error)}") from error


def _with_theta_of(base: Evaluation | None, point: Point, outcome: Outcome) -> Evaluation:
    """What a point adds whose theta is that of the point before it."""
    facts = (outcome.seconds, outcome.cost)
    shared = base is not None and base.point.stream == point.stream
    if base is None or not shared or not np.array_equal(base.point.x, point.x):
        error = "the solve that it belongs to is missing"  # time ran out before
        return Evaluation(point, "failed", None, math.inf, *facts, error)
    if not base.ok:
        return Evaluation(point, base.status, None, math.inf, *facts, base.error)
    if outcome.status != "ok":
        return Evaluation(point, outcome.status, None, math.inf, *facts, outcome.error)
    derivative = outcome.derivative
    seconds, cost, theirs = outcome.seconds, outcome.cost, (derivative, base.violation)
    return Evaluation(point, "ok", base.theta, base.loss, seconds, cost, "", base.layout, *theirs)


def _few(phi: Mapping[str, Any]) -> str:
    shown = []
    for name, value in phi.items():
        if np.ndim(value) == 0:
            shown.append(f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}")
            continue
        numbers = np.asarray(value).ravel()
        more = ", ...]" if numbers.size > 3 else "]"
        shown.append(f"{name}={str(numbers[:3].tolist())[:-1]}{more}")
    return ", ".join(shown[:4]) + (", ..." if len(shown) > 4 else "")
