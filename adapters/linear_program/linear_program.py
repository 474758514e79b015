"""A follower's linear or mixed-integer program, with the leader's parameters in it."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, final, get_args

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from zo_bilevel.adapters.linear_program.affine import AffineVector
from zo_bilevel.adapters.linear_program.highs import (
    CHECK_TOLERANCE,
    Answer,
    Program,
    solve_program,
)
from zo_bilevel.adapters.linear_program.units import Units
from zo_bilevel.problem.space import Space
from zo_bilevel.support.arguments import finite_number, refuse_unused
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, SolveError, unknown_name_message
from zo_bilevel.support.packages import import_optional

Ties: TypeAlias = Literal["first", "optimistic", "pessimistic", "refuse"]
Part: TypeAlias = Literal["solution", "objective", "row_duals", "reduced_costs"]

TIE_TOLERANCE = 1e-6
"""Answers that differ by less are the same answer, in units where the numbers are near one."""


@final
class LinearProgram:
    """Solve the follower's problem of a bilevel program, exactly, with HiGHS.

    `minimise cost @ x  where  row_lower <= matrix @ x <= row_upper,  lower <= x <= upper`

    with `cost = cost + sum(map @ parameter)` and rows shifted by `sum(map @ parameter)`: the
    leader's parameters stand in costs and right-hand sides. theta is the follower's answer.

    The follower may have several best answers, and theta is then not a function of phi until a
    rule says which one is meant; `ties` is that rule. "optimistic" is the one of the textbooks:
    among the follower's best answers the one that is best for the leader. It takes a second
    solve, among all answers that are exactly as good (with integer columns: within 1e-7 of the
    follower's optimum, relative). Columns and rows may be in any units. Every solve
    starts cold, so that the answer does not depend on what was solved before.

    Args:
        cost: Shape `(columns,)`.
        matrix: Shape `(rows, columns)`, dense or scipy sparse.
        row_lower: Least value of each row: a number or shape `(rows,)`; may be -inf.
        row_upper: Greatest value of each row; may be inf.
        lower: Least value of each column, a number or shape `(columns,)`; may be -inf.
        upper: Greatest value of each column; may be inf.
        integer: Columns that are whole numbers: positions, or shape `(columns,)` of truth values.
        maximize: Maximise the cost instead.
        cost_parameters: By parameter name: a matrix of shape `(columns, size of the parameter)`,
            or a list of columns, one for each value of the parameter.
        row_parameters: The same for the rows: both bounds of a row are shifted.
        theta: "solution" `(columns,)`, "objective" (a number), "row_duals" `(rows,)`,
            "reduced_costs" `(columns,)`; a tuple of them gives a dict.
        ties: Among several best answers: "first" (whichever HiGHS finds; it is always the
            same), "optimistic", "pessimistic", or "refuse" (the solve fails, naming a column
            that is not determined).
        leader_cost: What the leader pays for x, shape `(columns,)`, for the rules that need it.
        leader_cost_parameters: As `cost_parameters`, for the leader's cost.
        time_limit_s: Seconds a solve may take, or `None`.

    Raises:
        InputError: If a shape or option breaks its rule. When a `Problem` is made: if a parameter
            does not fit its map or is in no map.
        MissingPackageError: If highspy is not installed.

    Example:
        >>> buyer = LinearProgram(  # one unit: from us at our price, or from others at 1
        ...     [0.0, 1.0], [[1.0, 1.0]], row_lower=1.0, cost_parameters={"price": [0]}
        ... )
        >>> buyer({"price": 0.9}), buyer({"price": 1.1})
        (array([1., 0.]), array([0., 1.]))
    """

    def __init__(
        self,
        cost: ArrayLike,
        matrix: Any,  # noqa: ANN401 - dense or sparse
        *,
        row_lower: ArrayLike = -math.inf,
        row_upper: ArrayLike = math.inf,
        lower: ArrayLike = 0.0,
        upper: ArrayLike = math.inf,
        integer: ArrayLike = (),
        maximize: bool = False,
        cost_parameters: Mapping[str, Any] | None = None,
        row_parameters: Mapping[str, Any] | None = None,
        theta: Part | Sequence[Part] = "solution",
        ties: Ties = "first",
        leader_cost: ArrayLike | None = None,
        leader_cost_parameters: Mapping[str, Any] | None = None,
        time_limit_s: float | None = None,
    ) -> None:
        import_optional("highspy", "LinearProgram", "lp")
        base = _vector("cost", cost, np.size(cost))
        self._matrix = _sparse(matrix, base.size)
        num_rows, num_columns = self._matrix.shape
        self._rows = _bounds("row", row_lower, row_upper, num_rows)
        self._columns = _bounds("column", lower, upper, num_columns)
        self._integer = _mask(integer, num_columns)
        self._sign = -1.0 if maximize else 1.0
        self._cost = AffineVector("cost", base, cost_parameters or {})
        self._shift = AffineVector("row", np.zeros(num_rows), row_parameters or {})
        leader = np.zeros(num_columns) if leader_cost is None else leader_cost
        leader = _vector("leader_cost", leader, num_columns)
        self._leader = AffineVector("leader_cost", leader, leader_cost_parameters or {})
        self.theta = theta
        self.ties = ties
        self.time_limit_s = time_limit_s
        self._check_options(has_leader=leader_cost is not None or bool(leader_cost_parameters))
        self.name = f"LinearProgram#{self._identity()}"

    def __call__(self, phi: Mapping[str, Any]) -> Any:  # noqa: ANN401 - array, number or dict
        """Solve the follower's problem.

        Raises:
            InputError: If a parameter is missing, not finite, or of another size than its map.
            SolveError: If it is infeasible, unbounded, or not determined and ties are refused, or
                so badly scaled that the answer misses its bounds or the best cost.
        """
        shift = self._shift.at(phi)
        program = Program(
            cost=self._sign * self._cost.at(phi),
            matrix=self._matrix,
            rows=(self._rows[0] + shift, self._rows[1] + shift),
            columns=self._columns,
            integer=self._integer,
        )
        answer = solve_program(program, self.time_limit_s)
        solution = self._chosen(program, answer, phi)
        parts = {
            "solution": solution,
            "objective": self._sign * float(program.cost @ solution),
            "row_duals": self._sign * answer.row_duals,
            "reduced_costs": self._sign * answer.reduced_costs,
        }
        if isinstance(self.theta, str):
            return parts[self.theta]
        return {name: parts[name] for name in self.theta}

    def check(self, space: Space) -> None:
        """Refuse a space that does not fit the maps, before the first solve.

        Raises:
            InputError: Naming the parameter.
        """
        vectors = (self._cost, self._shift, self._leader)
        for vector in vectors:
            vector.check("LinearProgram", space)
        used = [name for vector in vectors for name in vector.maps]
        hint = "cost_parameters, row_parameters and leader_cost_parameters do not name them"
        refuse_unused("LinearProgram", space.names, used, hint)

    def __repr__(self) -> str:
        rows, columns = self._matrix.shape
        return f"{self.name}({rows} rows, {columns} columns, ties={self.ties!r})"

    def _chosen(self, program: Program, answer: Answer, phi: Mapping[str, Any]) -> FloatArray:
        """Apply the rule for ties."""
        if self.ties == "first":
            return answer.solution
        if self.ties == "refuse":
            return self._only(program, answer)
        sign = 1.0 if self.ties == "optimistic" else -1.0
        return self._on_face(program, answer, sign * self._leader.at(phi))

    def _only(self, program: Program, answer: Answer) -> FloatArray:
        """The answer, if a generic cost has the same least and greatest point on the best face."""
        unit = Units.of(program).columns
        probe = np.random.default_rng(0).uniform(1.0, 2.0, program.cost.size) / unit
        ends = [self._on_face(program, answer, sign * probe) for sign in (1.0, -1.0)]
        gap = np.abs(ends[0] - ends[1]) / np.maximum(unit, np.abs(ends[0]))
        k = int(gap.argmax())
        if gap[k] > TIE_TOLERANCE:
            raise SolveError(
                f"the follower's problem has several best answers: column {k} may be "
                f"{ends[0][k]:g} or {ends[1][k]:g}; set ties='optimistic' and leader_cost"
            )
        return answer.solution

    def _on_face(self, program: Program, best: Answer, cost: FloatArray) -> FloatArray:
        """The best answer of another cost among those that are as good for the follower."""
        try:
            x = solve_program(program.on_best_face(best, cost), self.time_limit_s).solution
        except SolveError as error:
            text = f"among the follower's best answers: {error}"
            raise type(error)(text) from error
        sizes = np.abs(program.cost) @ (np.abs(best.solution) + np.abs(x))
        if not abs(program.cost @ x - best.objective) <= CHECK_TOLERANCE * sizes:
            raise SolveError(
                "the follower's problem is too badly scaled for its ties to be told: the answer "
                f"among its best ones costs {program.cost @ x:g}, the best {best.objective:g}"
            )
        return x

    def _check_options(self, *, has_leader: bool) -> None:
        for value, kind, known in (
            *((part, "part of theta", get_args(Part)) for part in self._parts()),
            (self.ties, "rule for ties", get_args(Ties)),
        ):
            if value not in known:
                raise InputError(f"LinearProgram: {unknown_name_message(kind, str(value), known)}")
        if self.ties in ("optimistic", "pessimistic") and not has_leader:
            raise InputError(f"ties={self.ties!r} needs leader_cost or leader_cost_parameters")
        duals = [part for part in self._parts() if part in ("row_duals", "reduced_costs")]
        if duals and self._integer.any():
            raise InputError(f"theta={duals[0]!r} does not exist with integer columns")
        if self.time_limit_s is not None:
            finite_number("time_limit_s", self.time_limit_s, "> 0")

    def _parts(self) -> tuple[str, ...]:
        return (self.theta,) if isinstance(self.theta, str) else tuple(self.theta)

    def _identity(self) -> str:
        """A hash of all that decides the answer."""
        matrix = self._matrix
        digest = hashlib.blake2b(
            repr((self._sign, self._parts(), self.ties)).encode(), digest_size=6
        )
        arrays = [matrix.data, matrix.indices, matrix.indptr, self._integer]
        arrays += [*self._rows, *self._columns]
        for vector in (self._cost, self._shift, self._leader):
            arrays.append(vector.base)
            for name, given in vector.maps.items():
                digest.update(f"{vector.what} {name}".encode())
                arrays += [given.data, given.indices, given.indptr]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _vector(name: str, given: ArrayLike, length: int, *, finite: bool = True) -> FloatArray:
    try:
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers: {error}") from error
    if array.ndim == 0 and not finite:
        array = np.full(length, float(array))
    if array.shape != (length,) or length == 0:
        raise InputError(f"{name} must have shape ({max(length, 1)},), got {array.shape}")
    if np.isnan(array).any() or (finite and np.isinf(array).any()):
        raise InputError(f"{name} must {'be finite' if finite else 'not hold NaN'}")
    return array


def _sparse(matrix: Any, num_columns: int) -> Any:  # noqa: ANN401 - dense or sparse
    try:
        found = scipy.sparse.csc_array(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"matrix must be numbers in two axes: {error}") from error
    if found.ndim != 2 or found.shape[1] != num_columns or not np.isfinite(found.data).all():
        raise InputError(
            f"matrix must be finite, of shape (rows, {num_columns}) as cost has {num_columns} "
            f"columns, got shape {found.shape}"
        )
    return found


def _bounds(
    what: str, lower: ArrayLike, upper: ArrayLike, length: int
) -> tuple[FloatArray, FloatArray]:
    names = ("row_lower", "row_upper") if what == "row" else ("lower", "upper")
    low = _vector(names[0], lower, length, finite=False)
    high = _vector(names[1], upper, length, finite=False)
    crossed = np.flatnonzero(low > high)
    if crossed.size:
        k = int(crossed[0])
        raise InputError(f"{what} {k}: {names[0]} must be <= {names[1]}, got {low[k]}, {high[k]}")
    return low, high


def _mask(integer: ArrayLike, length: int) -> NDArray[np.bool_]:
    given = np.asarray(integer)
    if given.dtype == bool and given.shape == (length,):
        return given.astype(np.bool_)
    mask = np.zeros(length, dtype=np.bool_)
    if given.size == 0:
        return mask
    if given.ndim != 1 or given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= length:
        raise InputError(f"integer must hold columns from 0 to {length - 1}, got {integer!r}")
    mask[given] = True
    return mask
