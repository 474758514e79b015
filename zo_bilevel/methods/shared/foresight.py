"""Whether the model of a trust region foresees its steps, while its radius becomes small."""

from collections import deque
from typing import final

import numpy as np

STEPS_A_DIRECTION, SPARE_STEPS = 2, 4
"""The last steps, which are judged."""
LEAST_GAIN = 1e-13
"""Share of the loss: of a step that was to gain less, rounding decides what it gains."""
FORESEEN_RATIO, FORESEEN_SHARE = 0.1, 0.5
"""A step that gains so much of what was predicted was foreseen, and so many must be."""
EXACT_SHARE = 0.125
"""Error of the last step, as a share of the lowest curvature, at which geometry can wait."""
LARGEST_FLOOR = 0.02
"""Of the radius: above it a smooth loss need not look like a quadratic yet."""


@final
class Foresight:
    """The last steps, and what looks at the loss say where they were not foreseen.

    Args:
        size: Number of parameters.

    Attributes:
        may_pause: Whether the search pauses where it foresees too few steps.
        is_in_doubt: Whether it pauses for that.
    """

    def __init__(self, size: int) -> None:
        self._foreseen: deque[bool] = deque(maxlen=STEPS_A_DIRECTION * size + SPARE_STEPS)
        self._gains: deque[float] = deque(maxlen=self._foreseen.maxlen)
        self._missed_curvature, self._since_pause = np.inf, 0
        self.may_pause = self.is_in_doubt = False

    def judge(self, before: float, after: float, gain: float, length: float) -> float:
        """One more step: the ratio of actual to predicted gain.

        Args:
            before: Loss where it began.
            after: Loss where it led.
            gain: That was predicted.
            length: In the metric of the trust region.
        """
        ratio = (before - after) / gain if gain > 0 else -1.0
        self._gains.append(max(before - after, 0.0))
        if gain > LEAST_GAIN * abs(before):
            self._foreseen.append(ratio > FORESEEN_RATIO)
            self._since_pause += 1
        self._missed_curvature = abs(before - after - gain) / max(length**2, 1e-300)
        return ratio

    def is_exact(self, curvature: float) -> bool:
        """Whether the last step was foreseen so well, for a curvature, that geometry can wait."""
        return self._missed_curvature <= EXACT_SHARE * curvature

    @property
    def gain(self) -> float:
        """Of the last steps, in the mean."""
        return float(np.mean(self._gains)) if self._gains else 0.0

    @property
    def is_poor(self) -> bool:
        """Whether too few of enough steps were foreseen."""
        steps = self._foreseen
        return len(steps) == steps.maxlen and sum(steps) < FORESEEN_SHARE * len(steps)

    def pauses(self, floor: float) -> bool:
        """Whether to pause before the radius becomes smaller than a floor.

        It takes new steps for another pause, half as many as are judged.
        """
        is_due = floor <= LARGEST_FLOOR and 2 * self._since_pause >= len(self._foreseen)
        if self.may_pause and is_due and self.is_poor:
            self._since_pause, self.is_in_doubt = 0, True
        return self.is_in_doubt


def next_radius(radius: float, floor: float, ratio: float, length: float) -> float:
    """The trust radius after a step (eq. 5).

    Args:
        radius: Before it.
        floor: The radius is never smaller.
        ratio: Of actual to predicted gain.
        length: Of the step.
    """
    if ratio > 0.7:
        radius = max(radius, 2 * length)
    elif ratio > 0.1:
        radius = max(0.5 * radius, length)
    else:
        radius = 0.5 * min(length, radius)
    return floor if radius <= 1.5 * floor else radius
