"""What was observed of theta in one search: values at points, and derivatives along ways."""

from __future__ import annotations

import copy
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.support.arrays import FloatArray


class RowTable(NamedTuple):
    """Where each row was observed, `(rows, b)`, and how.

    Args:
        places: Of values and derivatives, `(rows, b)`.
        ways: Of derivatives, `(rows, b)`; zero for values.
        is_derivative: Which are derivatives, `(rows,)`.
        errors: Variance of each from noise, in variances of one solve, `(rows,)`.
    """

    places: FloatArray
    ways: FloatArray
    is_derivative: NDArray[np.bool_]
    errors: FloatArray


@final
class ObservedRows:
    """Rows in the coordinates of a basis that grows: shorter ones end in zeros.

    Attributes:
        values: Theta at a point, or its derivative there, each of shape `(m,)`.
    """

    def __init__(self) -> None:
        self.values: list[FloatArray] = []
        none = np.zeros((0, 0))
        self._table = RowTable(none, none, np.zeros(0, dtype=bool), np.zeros(0))
        self._new: list[tuple[FloatArray, FloatArray | None, float]] = []

    def add(
        self, place: FloatArray, way: FloatArray | None, values: FloatArray, error: float
    ) -> None:
        """Take in theta at a place, `(b,)`, or its derivative along a way, `(b,)`."""
        self.values.append(values)
        self._new.append((place, way, error))

    def copy(self) -> ObservedRows:
        """The same rows, to be added to."""
        other = copy.copy(self)
        other.values, other._new = list(self.values), list(self._new)
        return other

    def table(self, size: int) -> RowTable:
        """All but the values, in so many coordinates: not to be written to."""
        known, width = self._table.places.shape
        if self._new or width < size:
            places, ways = np.zeros((2, len(self.values), size))
            places[:known, :width], ways[:known, :width] = self._table.places, self._table.ways
            for row, (place, way, _) in enumerate(self._new, known):
                places[row, : place.size] = place
                if way is not None:
                    ways[row, : way.size] = way
            kinds = [way is not None for _, way, _ in self._new]
            is_derivative = np.append(self._table.is_derivative, np.array(kinds, dtype=bool))
            errors = np.append(self._table.errors, [error for *_, error in self._new])
            self._table, self._new = RowTable(places, ways, is_derivative, errors), []
        return self._table
