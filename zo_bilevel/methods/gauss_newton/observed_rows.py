"""What was observed of theta in one search: values at points, and derivatives along ways."""

from __future__ import annotations

import copy
from typing import final

import numpy as np

from zo_bilevel.support.arrays import FloatArray


@final
class ObservedRows:
    """Rows in the coordinates of a basis that grows: shorter ones end in zeros.

    Attributes:
        values: Theta at a point, or its derivative there, each of shape `(m,)`.
        errors: Variance of each from noise, in variances of one solve.
        is_derivative: Which are derivatives.
    """

    def __init__(self) -> None:
        self.values: list[FloatArray] = []
        self.errors: list[float] = []
        self.is_derivative: list[bool] = []
        self._places = self._ways = np.zeros((0, 0))
        self._new: list[tuple[FloatArray, FloatArray | None]] = []

    def add(
        self, place: FloatArray, way: FloatArray | None, values: FloatArray, error: float
    ) -> None:
        """Take in theta at a place, `(b,)`, or its derivative along a way, `(b,)`."""
        self.values.append(values)
        self.errors.append(error)
        self.is_derivative.append(way is not None)
        self._new.append((place, way))

    def copy(self) -> ObservedRows:
        """The same rows, to be added to."""
        other = copy.copy(self)
        other.values, other.errors = list(self.values), list(self.errors)
        other.is_derivative, other._new = list(self.is_derivative), list(self._new)
        return other

    def coordinates(self, size: int) -> tuple[FloatArray, FloatArray]:
        """Places and ways, zero for values, each `(rows, size)`: not to be written to."""
        known, width = self._places.shape
        if self._new or width < size:
            places, ways = np.zeros((2, len(self.values), size))
            places[:known, :width], ways[:known, :width] = self._places, self._ways
            for row, (place, way) in enumerate(self._new, known):
                places[row, : place.size] = place
                if way is not None:
                    ways[row, : way.size] = way
            self._places, self._ways, self._new = places, ways, []
        return self._places, self._ways
