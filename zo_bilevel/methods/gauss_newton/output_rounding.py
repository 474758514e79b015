"""How coarsely a solver rounds its answers: programs that print a few digits are common."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.support.arrays import FloatArray

MOST_DIGITS = 13
"""Numbers that need more significant decimal digits are not rounded in decimals."""
BINARY_ERROR = 1e-15
"""Relative error of a decimal number held in binary."""
NUMBERS_THAT_TELL = 8
"""With so many numbers other than 0 one answer tells; fewer may be round by chance."""
ROUNDING_DEVIATION = 1.0 / np.sqrt(12.0)
"""Standard deviation of rounding, in units of the last place."""


@final
class OutputRounding:
    """The rounding that all answers seen so far agree with: decimals, or digits, or float32.

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
        self._decimals, self._digits = 0, 1
        self._last: FloatArray | None = None
        self._answers = 0

    def see(self, theta: FloatArray) -> None:
        """Take in one answer; `theta`: shape `(m,)`, finite."""
        if self._is_fine:
            return
        values = theta[theta != 0.0]
        if self._last is None or not np.array_equal(self._last, theta):
            self._answers += 1 if values.size else 0
            self._last = theta
        decimals, digits = _needed(values)
        self._decimals = max(self._decimals, decimals)
        self._digits = max(self._digits, digits)
        if self._digits >= MOST_DIGITS:
            self._is_fine, self.noise = True, 0.0
        elif values.size >= NUMBERS_THAT_TELL or self._answers > 1:
            self.noise = self._error(values)

    def _error(self, values: FloatArray) -> float:
        """The coarser of both readings: each holds, and the finer one is by chance."""
        if not values.size:
            return self.noise
        places = np.floor(np.log10(np.abs(values))) + 1.0 - self._digits
        by_digits = float(np.sqrt(np.mean(10.0 ** (2.0 * places))))
        return float(ROUNDING_DEVIATION) * max(10.0**-self._decimals, by_digits)


def _needed(values: FloatArray) -> tuple[int, int]:
    """Decimals and significant digits that write all values."""
    if not values.size:
        return 0, 1
    size = np.abs(values)
    lead = np.floor(np.log10(size)).astype(int)
    for digits in range(1, MOST_DIGITS):
        scaled = size * 10.0 ** (digits - 1.0 - lead)
        rest = np.abs(scaled - np.rint(scaled))
        if np.all(rest <= 4.0 * BINARY_ERROR * scaled):
            places = _places(values, lead, digits)
            return places, digits
    return 0, MOST_DIGITS


def _places(values: FloatArray, lead: NDArray[np.int_], digits: int) -> int:
    """Digits after the point."""
    for decimals in range(-int(lead.max()), digits - int(lead.min())):
        scaled = np.abs(values) * 10.0**decimals
        if np.all(np.abs(scaled - np.rint(scaled)) <= 4.0 * BINARY_ERROR * np.maximum(scaled, 1.0)):
            return decimals
    return digits - 1 - int(lead.min())
