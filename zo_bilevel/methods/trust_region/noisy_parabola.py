"""The minimum of a noisy loss of one parameter: a parabola through many points of a window.

The window is as wide as makes the loss rise by a few times the noise towards its ends: narrower
windows see noise alone, wider ones see what is no parabola.
"""

from typing import final

import numpy as np

from zo_bilevel.support.arrays import FloatArray

RISE_AT_ENDS = 4.0
"""Rise of the loss from the middle of the window to its ends, in units of the noise."""
FIRST_SHARE = 0.125
NARROWEST_WINDOW = 1e-4


@final
class NoisyParabola:
    """Asks for points at both ends of the window and moves it to the parabola's minimum.

    Attributes:
        centre: The minimum as far as is known.
    """

    def __init__(self, centre: float, noise: float, low: float, high: float) -> None:
        self.centre, self._noise = centre, noise
        self._low, self._high = low, high
        self._half = FIRST_SHARE * (high - low)
        self._asked = 0

    def ask(self, count: int) -> list[float]:
        """Points in turns at both ends of the window."""
        points = []
        for _ in range(count):
            self._asked += 1
            shift = self._half * (1 - 0.5 * (self._asked % 4 >= 2))
            point = self.centre + (shift if self._asked % 2 else -shift)
            points.append(float(np.clip(point, self._low, self._high)))
        return points

    def tell(self, x: FloatArray, f: FloatArray) -> None:
        """Fit every finite loss within the window and move on."""
        inside = (np.abs(x - self.centre) <= 1.5 * self._half) & np.isfinite(f)
        if inside.sum() < 4:
            return
        t = (x[inside] - self.centre) / self._half
        powers = t[:, None] ** np.arange(3)
        fit = np.linalg.lstsq(powers, f[inside], rcond=None)[0]
        if len(t) > 6:
            left = f[inside] - powers @ fit
            self._noise = float(np.sqrt(left @ left / (len(t) - 3)))
        slope, bend = float(fit[1]), float(fit[2])
        move = -0.5 * slope / bend if bend > 0.5 * abs(slope) else -float(np.sign(slope))
        wanted = np.sqrt(RISE_AT_ENDS * self._noise / bend) if bend > 0 else 1.5
        self.centre = float(np.clip(self.centre + move * self._half, self._low, self._high))
        self._half *= float(np.clip(wanted, 0.7, 1.5))
        span = self._high - self._low
        self._half = float(np.clip(self._half, NARROWEST_WINDOW * span, 0.25 * span))
