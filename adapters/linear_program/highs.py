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

from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import SolveError, SolveTimeoutError

FACE_TOLERANCE = 1e-9
"""Relative: prices below it are zero, costs that differ by less are the same. HiGHS itself works
to 1e-7, but prices that are zero come out as zero or to the last bits."""


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

    def on_best_face(self, best: Answer, cost: FloatArray) -> Program:
        """The same program with another cost, among all answers as good as the best one.

        Without whole numbers these are exactly the answers with complementary slackness: what
        has a price at the best answer stays where it is. With them, the cost is bounded.
        """
        if self.integer.any():
            slack = FACE_TOLERANCE * max(1.0, abs(best.objective))
            extra = scipy.sparse.csc_array(self.cost[None])
            matrix = scipy.sparse.vstack([self.matrix, extra], format="csc")
            top = np.append(self.rows[1], best.objective + slack)
            return replace(
                self, cost=cost, matrix=matrix, rows=(np.append(self.rows[0], -np.inf), top)
            )
        least = FACE_TOLERANCE * max(1.0, float(np.abs(self.cost).max()))
        columns = _pinned(self.columns, best.solution, np.abs(best.reduced_costs) > least)
        rows = _pinned(self.rows, self.matrix @ best.solution, np.abs(best.row_duals) > least)
        return replace(self, cost=cost, rows=rows, columns=columns)


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
    try:
        solver = _idle.pop()
    except IndexError:
        solver = _make_solver()
    try:
        return _solve(solver, program, time_limit_s)
    finally:
        _idle.append(solver)


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
