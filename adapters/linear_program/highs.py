"""Solves one linear or mixed-integer program with HiGHS, alike in every process and order."""

from __future__ import annotations

import functools
import os
import sys
import threading
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from zo_bilevel.adapters.linear_program.units import Units
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import SolveError, SolveTimeoutError

FACE_TOLERANCE = 1e-9
"""Relative: prices below it are zero, costs that differ by less are the same. HiGHS itself works
to 1e-7, but prices that are zero come out as zero or to the last bits."""
CHECK_TOLERANCE = 1e-6
"""By which an answer may miss a bound or the best cost, relative to the terms of the sum."""
MIP_GAP, MIP_FEASIBILITY = 1e-9, 1e-7
"""Absolute. HiGHS's own 1e-6 takes worse answers for ties; at 1e-9 it missed some of the best."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Minimise `cost @ x` where `row_lower <= matrix @ x <= row_upper`, `lower <= x <= upper`.

    Args:
        cost: Shape `(columns,)`.
        matrix: Sparse, by columns, shape `(rows, columns)`.
        rows: Lower and upper bounds of rows.
        columns: Lower and upper bounds of columns.
        integer: Which columns are whole numbers, shape `(columns,)`.
    """

    cost: FloatArray
    matrix: Any
    rows: tuple[FloatArray, FloatArray]
    columns: tuple[FloatArray, FloatArray]
    integer: NDArray[np.bool_]

    def places(self) -> NDArray[np.int_]:
        """The column of each number in the matrix."""
        return np.repeat(np.arange(self.cost.size), np.diff(self.matrix.indptr))

    def on_best_face(self, best: Answer, cost: FloatArray) -> Program:
        """The same program with another cost, among all answers as good as the best one.

        Without whole numbers these are exactly the answers with complementary slackness: what
        has a price at the best answer stays where it is. With them, the cost is bounded.
        """
        if self.integer.any():
            slack = FACE_TOLERANCE * float(np.abs(self.cost) @ np.abs(best.solution))
            extra = scipy.sparse.csc_array(self.cost[None])
            matrix = scipy.sparse.vstack([self.matrix, extra], format="csc")
            top = np.append(self.rows[1], best.objective + slack)
            return replace(
                self, cost=cost, matrix=matrix, rows=(np.append(self.rows[0], -np.inf), top)
            )
        # what each reduced cost is summed from tells which of them are rounding, in any units
        places, prices = self.places(), np.abs(best.row_duals)
        shares = np.abs(self.matrix.data) * prices[self.matrix.indices]
        terms = np.abs(self.cost) + np.bincount(places, shares, self.cost.size)
        priced = np.abs(best.reduced_costs) > FACE_TOLERANCE * terms
        columns = _pinned(self.columns, best.solution, priced)
        binding = np.zeros(prices.size, dtype=bool)
        binding[self.matrix.indices[shares > FACE_TOLERANCE * terms[places]]] = True
        rows = _pinned(self.rows, self.matrix @ best.solution, binding)
        return replace(self, cost=cost, rows=rows, columns=columns)

    def check(self, x: FloatArray) -> None:
        """Refuse an answer that does not hold its bounds; made for a program in good units.

        Raises:
            SolveError: Naming the row or column.
        """
        matrix = self.matrix
        terms = np.abs(matrix.data * x[self.places()])
        size = np.bincount(matrix.indices, terms, matrix.shape[0])
        for what, values, sizes, (lower, upper) in (
            ("row", matrix @ x, size, self.rows),
            ("column", x, np.abs(x), self.columns),
        ):
            excess = np.maximum(lower - values, values - upper) / np.maximum(1.0, sizes)
            if excess.size and not excess.max() <= CHECK_TOLERANCE:
                k = int(excess.argmax())
                raise SolveError(
                    f"the follower's problem is too badly scaled for HiGHS: its answer misses the "
                    f"bounds of {what} {k} by {excess[k]:.1g} of what it is summed from"
                )


@final
@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """An optimum: point, value, and, without whole numbers, the duals."""

    solution: FloatArray
    objective: float
    row_duals: FloatArray
    reduced_costs: FloatArray


def solve_program(program: Program, time_limit_s: float | None = None) -> Answer:
    """Find an optimum, always from a cold start.

    Raises:
        SolveError: If there is none, saying why: infeasible, unbounded, or HiGHS's own word.
        SolveTimeoutError: If time ran out.

    Example:
        >>> one = np.ones(1)
        >>> program = Program(one, scipy.sparse.csc_array([[1.0]]), (2 * one, 5 * one),
        ...                   (0 * one, 9 * one), np.zeros(1, dtype=bool))
        >>> solve_program(program).objective
        2.0
    """
    _refuse_crossed_bounds(program)
    units = Units.of(program)
    scaled = units.scaled(program)
    try:
        solver = _idle.pop()
    except IndexError:
        solver = _make_solver()
    try:
        answer = _solve(solver, scaled, time_limit_s)
        if program.integer.any():
            answer = _rounded(solver, scaled, answer, time_limit_s)
    finally:
        _idle.append(solver)
    scaled.check(answer.solution)
    return units.restored(answer)


def _rounded(
    solver: Any,  # noqa: ANN401 - a HiGHS object
    program: Program,
    answer: Answer,
    time_limit_s: float | None,
) -> Answer:
    """Whole numbers exactly whole, and the rest solved again for them."""
    whole = program.integer
    x = np.where(whole, np.round(answer.solution), answer.solution)
    if not whole.all():
        lower, upper = (np.where(whole, x, side) for side in program.columns)
        fixed = replace(program, columns=(lower, upper), integer=np.zeros_like(whole))
        x = np.where(whole, x, _solve(solver, fixed, time_limit_s).solution)
    return replace(answer, solution=x, objective=float(program.cost @ x))


def _solve(solver: Any, program: Program, time_limit_s: float | None) -> Answer:  # noqa: ANN401 - a HiGHS object
    solver.setOptionValue("time_limit", np.inf if time_limit_s is None else float(time_limit_s))
    solver.setOptionValue("presolve", "choose")
    if _is_error(solver.passModel(_as_lp(program))):
        raise SolveError("the follower's problem is refused by HiGHS: a number is too large or NaN")
    status = _run(solver)
    if status == "kUnboundedOrInfeasible":
        solver.setOptionValue("presolve", "off")
        solver.clearSolver()
        status = _run(solver)
    if status == "kTimeLimit":
        raise SolveTimeoutError(f"the follower's problem took more than {time_limit_s:g} s")
    if status != "kOptimal":
        raise SolveError(f"the follower's problem {_REASONS.get(status, f'ended with {status}')}")
    found = solver.getSolution()
    return Answer(
        np.array(found.col_value),
        float(solver.getInfo().objective_function_value),
        np.array(found.row_dual),
        np.array(found.col_dual),
    )


_REASONS = {
    "kInfeasible": "is infeasible: no answer meets all its constraints",
    "kUnbounded": "is unbounded: its cost can fall without end",
    "kUnboundedOrInfeasible": "is infeasible or unbounded",
}
_idle: list[Any] = []
_making = threading.Lock()


def _make_solver() -> Any:  # noqa: ANN401 - a HiGHS object
    """A silent, single-threaded solver; its own greeting cannot be switched off, only diverted."""
    with _making:
        sys.stdout.flush()
        nowhere, stdout = os.open(os.devnull, os.O_WRONLY), os.dup(1)
        try:
            os.dup2(nowhere, 1)
            solver = _highspy().Highs()
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
            os.close(nowhere)
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("parallel", "off")
    solver.setOptionValue("mip_rel_gap", 0.0)
    solver.setOptionValue("mip_abs_gap", MIP_GAP)
    solver.setOptionValue("mip_feasibility_tolerance", MIP_FEASIBILITY)
    return solver


def _pinned(
    bounds: tuple[FloatArray, FloatArray], values: FloatArray, pinned: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Bounds that hold what is pinned at the one of its bounds where it is."""
    lower, upper = bounds
    nearest = np.where(np.abs(values - lower) <= np.abs(upper - values), lower, upper)
    held = pinned & np.isfinite(nearest)
    return np.where(held, nearest, lower), np.where(held, nearest, upper)


@functools.cache
def _highspy() -> Any:  # noqa: ANN401 - a module
    import highspy

    return highspy


def _run(solver: Any) -> str:  # noqa: ANN401 - a HiGHS object
    if _is_error(solver.run()):
        raise SolveError("the follower's problem could not be solved: HiGHS gave up")
    name: str = solver.getModelStatus().name
    return name


def _is_error(status: Any) -> bool:  # noqa: ANN401 - a HiGHS status
    return bool(status == _highspy().HighsStatus.kError)


def _refuse_crossed_bounds(program: Program) -> None:
    for what, (lower, upper) in (("row", program.rows), ("column", program.columns)):
        crossed = np.flatnonzero(lower > upper)
        if crossed.size:
            k = int(crossed[0])
            raise SolveError(
                f"the follower's problem is infeasible: {what} {k} must be at least {lower[k]:g} "
                f"and at most {upper[k]:g}"
            )


def _as_lp(program: Program) -> Any:  # noqa: ANN401 - a HiGHS program
    highspy = _highspy()
    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = program.matrix.shape
    lp.col_cost_ = program.cost
    lp.col_lower_, lp.col_upper_ = program.columns
    lp.row_lower_, lp.row_upper_ = program.rows
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.num_row_, lp.a_matrix_.num_col_ = program.matrix.shape
    lp.a_matrix_.start_ = program.matrix.indptr
    lp.a_matrix_.index_ = program.matrix.indices
    lp.a_matrix_.value_ = program.matrix.data
    if program.integer.any():
        kinds = highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger
        lp.integrality_ = [kinds[int(whole)] for whole in program.integer]
    return lp
