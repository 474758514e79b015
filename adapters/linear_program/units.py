"""Units in which a program's numbers are near one: HiGHS's tolerances are absolute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from zo_bilevel.support.arrays import FloatArray

if TYPE_CHECKING:
    from zo_bilevel.adapters.linear_program.highs import Answer, Program

SCALING_PASSES = 2
"""Of geometric scaling; more change little."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Powers of two, so that nothing is rounded.

    Args:
        cost: Factor of the cost.
        rows: Factor of each row, shape `(rows,)`.
        columns: One of a scaled column in the user's unit, shape `(columns,)`; 1 for whole numbers.
    """

    cost: float
    rows: FloatArray
    columns: FloatArray

    @classmethod
    def of(cls, program: Program) -> Units:
        """Geometric scaling of the matrix, then of the bounds and of the cost."""
        by_row, by_column = _exponents(program)
        costs = _log2(program.cost)
        given, whole = np.isfinite(costs), program.integer
        alone = given & ~whole & (np.diff(program.matrix.indptr) == 0)
        by_column[alone] = -costs[alone]  # in no row: only its cost tells its unit
        if not whole.any():
            sizes = _sizes(program.rows) + by_row
            sizes = sizes[np.isfinite(sizes)]
            if not sizes.size:
                sizes = _sizes(program.columns) - by_column
                sizes = sizes[np.isfinite(sizes)]
            size = round(float(np.median(sizes))) if sizes.size else 0
            by_column, by_row = by_column + size, by_row - size
        by_row, by_column = np.round(by_row), np.round(by_column)
        largest = float((costs + by_column)[given].max(initial=-np.inf))
        factor = 2.0 ** -round(largest) if np.isfinite(largest) else 1.0
        return cls(factor, 2.0**by_row, 2.0**by_column)

    def scaled(self, program: Program) -> Program:
        """The program of `x / columns`."""
        matrix = program.matrix
        data = matrix.data * self.rows[matrix.indices] * self.columns[program.places()]
        lower, upper = program.columns
        return replace(
            program,
            cost=self.cost * program.cost * self.columns,
            matrix=scipy.sparse.csc_array((data, matrix.indices, matrix.indptr), matrix.shape),
            rows=(program.rows[0] * self.rows, program.rows[1] * self.rows),
            columns=(lower / self.columns, upper / self.columns),
        )

    def restored(self, answer: Answer) -> Answer:
        """The answer in the user's units."""
        return replace(
            answer,
            solution=answer.solution * self.columns,
            objective=answer.objective / self.cost,
            row_duals=answer.row_duals * self.rows / self.cost,
            reduced_costs=answer.reduced_costs / self.columns / self.cost,
        )


def _exponents(program: Program) -> tuple[FloatArray, FloatArray]:
    """Of the factors that bring the geometric middle of each row and column to one."""
    matrix = program.matrix
    kept = matrix.data != 0
    columns = program.places()[kept]
    rows, sizes = matrix.indices[kept], np.log2(np.abs(matrix.data[kept]))
    by_row, by_column = np.zeros(matrix.shape[0]), np.zeros(matrix.shape[1])
    for _ in range(SCALING_PASSES):
        by_row = -_middles(sizes + by_column[columns], rows, by_row.size)
        by_column = -_middles(sizes + by_row[rows], columns, by_column.size)
        by_column[program.integer] = 0.0
    by_row = -_middles(sizes + by_column[columns], rows, by_row.size)
    return by_row, by_column


def _middles(sizes: FloatArray, places: NDArray[np.int_], count: int) -> FloatArray:
    """Half-way between the least and the greatest at each place; 0 where there is none."""
    least, most = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(least, places, sizes)
    np.maximum.at(most, places, sizes)
    seen = most >= least
    return np.where(seen, 0.5 * (np.where(seen, least, 0) + np.where(seen, most, 0)), 0.0)


def _sizes(bounds: tuple[FloatArray, FloatArray]) -> FloatArray:
    """Binary exponents of the smaller bound of each; infinite where there is none but zero."""
    found = np.minimum(*(np.where(side != 0, np.abs(side), np.inf) for side in bounds))
    return _log2(found)


def _log2(values: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        exponents: FloatArray = np.log2(np.abs(values))
    return exponents
