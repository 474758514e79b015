"""How coarsely a solver rounds its answers: programs that print a few digits are common."""

from typing import final

import numpy as np

from zo_bilevel.support.arrays import FloatArray

MOST_DIGITS = 13
"""Numbers that need more significant decimal digits are not rounded to digits."""
FINEST_UNIT = 1e-7
"""Share of the largest number below which a common unit of all is chance."""
BINARY_ERROR = 4e-15
"""Relative error of a rounded number held in binary."""
SMALLEST_NUMBER = 1e-290
"""Numbers below it are as good as 0: those that underflow have lost their digits."""
NUMBERS_THAT_TELL = 8
"""With so many numbers other than 0 one answer tells; fewer may be round by chance."""
ROUNDING_DEVIATION = 1.0 / np.sqrt(12.0)
"""Standard deviation of rounding, in units of the last place."""


@final
class OutputRounding:
    """The rounding that all answers seen so far agree with: multiples of a unit, or digits.

    Attributes:
        noise: Root mean square over the components of the error of rounding; 0 when answers are
            not rounded, or too few were seen to tell.

    Example:
        >>> grain = OutputRounding()
        >>> grain.see(np.round(np.sin(np.arange(9.0)), 3))
        >>> round(grain.noise, 6)
        0.000289
        >>> grain.see(np.sin(np.arange(9.0)))
        >>> grain.noise
        0.0
    """

    def __init__(self) -> None:
        self.noise = 0.0
        self._is_fine = False
        self._unit, self._digits = 0.0, 1
        self._last: FloatArray | None = None
        self._answers = 0

    def see(self, theta: FloatArray) -> None:
        """Take in one answer; `theta`: shape `(m,)`, finite."""
        if self._is_fine:
            return
        values = np.abs(theta)
        values = values[values >= SMALLEST_NUMBER]
        if self._last is None or not np.array_equal(self._last, theta):
            self._answers += 1 if values.size else 0
            self._last = theta
        if not values.size:
            return
        is_first = self._answers == 1 and self._unit == 0.0
        if is_first or self._unit > 0.0:
            self._unit = common_unit(np.append(values, [] if is_first else [self._unit]))
        self._digits = max(self._digits, _digits(values))
        self._is_fine = self._unit == 0.0 and self._digits >= MOST_DIGITS
        if values.size >= NUMBERS_THAT_TELL or self._answers > 1:
            self.noise = self._error(values)

    def _error(self, values: FloatArray) -> float:
        """The coarser of both readings: each holds, and the finer one is by chance."""
        by_digits = 0.0
        if self._digits < MOST_DIGITS:
            places = np.floor(np.log10(values)) + 1.0 - self._digits
            top = float(places.max())
            by_digits = 10.0**top * float(np.sqrt(np.mean(10.0 ** (2.0 * (places - top)))))
        # of one answer a common unit may be chance: a straight line at even distances has one
        is_told = self._answers > 1 or (
            self._unit > 0.0 and _digits(np.array([self._unit])) < MOST_DIGITS
        )
        return float(ROUNDING_DEVIATION) * max(self._unit if is_told else 0.0, by_digits)


def common_unit(values: FloatArray) -> float:
    """The largest number of which all are multiples, by Euclid's algorithm; 0 if there is none.

    Args:
        values: Above 0, shape `(m,)`.

    Example:
        >>> round(common_unit(0.3 * np.array([14.0, 35.0, 6.0])), 12)
        0.3
    """
    values = np.sort(values)
    numbers, largest = values[:NUMBERS_THAT_TELL], float(values[-1])
    unit, error = float(numbers[0]), BINARY_ERROR * float(numbers[-1])
    while numbers.size > 1 and unit >= FINEST_UNIT * largest:
        rest = np.abs(numbers - unit * np.rint(numbers / unit))
        error *= float(numbers[-1]) / unit
        numbers = np.append(np.sort(rest[rest > error]), unit)
        unit = float(numbers[0])
    for value in values[:: max(1, values.size // NUMBERS_THAT_TELL)]:
        unit = value / max(np.rint(value / unit), 1.0)  # free of errors, from small to large
    is_unit = np.abs(values - unit * np.rint(values / unit)) <= BINARY_ERROR * values
    return float(unit) if is_unit.all() and unit >= FINEST_UNIT * largest else 0.0


def _digits(values: FloatArray) -> int:
    """Significant digits that write all values, at most `MOST_DIGITS`."""
    lead = np.floor(np.log10(values))
    for digits in range(1, MOST_DIGITS):
        scaled = values * 10.0 ** (digits - 1.0 - lead)
        if np.all(np.abs(scaled - np.rint(scaled)) <= BINARY_ERROR * scaled):
            return digits
    return MOST_DIGITS
