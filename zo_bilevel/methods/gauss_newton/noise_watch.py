"""Noise of the solves, and the radius of differences that goes with it."""

from __future__ import annotations

from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.affine_model import AffineModel
from zo_bilevel.methods.gauss_newton.local_model import LocalModel
from zo_bilevel.support.arrays import FloatArray

RADIUS = 1e-5
"""Of a difference without noise, in units of a sixth of a parameter's range."""
NOISE_RADIUS = 6.0
"""Times the square root of noise over spread of theta: the radius under noise."""
LARGEST_RADIUS = 0.4
WIDER, WIDEST = 30.0, 1e-2
"""Factor of the radius when a search is revived, and where it begins again at the least."""
REPEAT_DISTANCE = 1e-8
"""From the center, of the solve that tells noise from steepness."""
SUSPICIOUS = 5.0
"""A difference quotient of this many spreads of theta, or misfits, may be noise."""
HARMLESS = 0.003
"""Noise that is a smaller share of the change over one radius, at one spread a unit, is none."""
FROZEN = 1e3
"""Rounding errors that a solve next to the center must move by if it is smooth."""
FEW_PARAMETERS, MOST_DISAPPOINTMENTS = 4, 2
"""With so few parameters that many disappointing steps in a row are no reason to suspect noise."""


@final
class NoiseWatch:
    """Suspects, then measures noise.

    Args:
        theta: Modelled vector at the start, shape `(m,)`.
        rounding: Error of rounding of one component.
        radius: Length of a difference without noise, scaled, or `None` to choose it.

    Attributes:
        variance: Of one component of one solve.
        radius: Length of a difference.
        wants_repeat: Whether a solve next to the center shall tell noise from steepness.
    """

    def __init__(self, theta: FloatArray, rounding: float, radius: float | None = None) -> None:
        self.variance = 0.0
        self._is_given = radius is not None
        chosen = max(RADIUS, best_radius(rounding, theta))
        self._least = chosen if radius is None else radius
        self.radius = self._least
        self._rounding = rounding
        self._before: float | None = None
        self._has_moved = False
        self.wants_repeat = False
        self._is_measured = False
        self._has_looked = False

    @property
    def found(self) -> bool:
        """Whether solves are noisy."""
        return self.variance > 0.0

    def follow(self, rounding: float, theta: FloatArray) -> None:
        """Choose the radius anew when more is known of how answers are rounded.

        Args:
            rounding: Error of rounding of one component.
            theta: At the center.
        """
        is_news = not 0.5 * self._rounding < rounding < 2.0 * self._rounding
        if not is_news or self._is_given:
            return
        self._rounding = rounding
        self._least = max(RADIUS, best_radius(rounding, theta))
        self.radius = max(self._least, best_radius(float(np.sqrt(self.variance)), theta))

    def is_too_short(self, change: FloatArray) -> bool:
        """Whether a difference says nothing because the radius is below the grain of the answers.

        While no difference has moved a single component, each that does not is asked for again
        with a larger radius; what moves then shows how large it must be.

        Args:
            change: Of the modelled vector along the first differences, shape `(m,)`.
        """
        if self._is_given or self._has_moved:
            return False
        if np.any(change):
            self._has_moved, self._before = True, None
            return False
        if self.radius >= LARGEST_RADIUS:
            self.radius = self.radius if self._before is None else self._before
            return False
        self._before = self.radius if self._before is None else self._before
        self.radius = min(WIDER * self.radius, LARGEST_RADIUS)
        return True

    def suspect(self, model: LocalModel, disappointments: int) -> None:
        """Ask for a repeat when differences look too steep, or steps disappoint.

        Args:
            model: With the differences so far.
            disappointments: Trial steps in a row that gained far less than predicted.
        """
        if self._is_measured or not model.size:
            return
        affine, steep = model.affine, False
        if not self._has_looked:
            limit = SUSPICIOUS * model.outer.scale(affine.theta)
            steep = bool(np.sqrt(affine.powers.max()) > limit)
            self._has_looked = True
        most = MOST_DISAPPOINTMENTS if affine.center.size <= FEW_PARAMETERS else 0
        self.wants_repeat = steep or disappointments > most

    def widen(self) -> None:
        """Take a larger radius for the differences of a search revived, the least in the end."""
        if not self.found:
            wider = WIDER * self.radius
            self.radius = wider if wider <= WIDEST else self._least

    def nearby(self, center: FloatArray) -> FloatArray:
        """A point so close to the center that only noise can tell them apart."""
        distance = REPEAT_DISTANCE / np.sqrt(center.size)
        nearby: FloatArray = center + np.where(center > 0.0, -distance, distance)
        return nearby

    def measure(self, model: AffineModel, theta: FloatArray | None, size: int) -> bool:
        """Compare the solve next to the center with the center.

        Args:
            model: At the center.
            theta: The solve, or `None` when it failed.
            size: How many of its components the inner solver answered.

        Returns:
            Whether they differ by more than a smooth solution would, and by enough to matter; or
            not at all, where a smooth one would: then answers have a grain, and the radius is
            larger from now on.
        """
        self.wants_repeat, self._is_measured = False, True
        if theta is None:
            return False
        if self._is_frozen(model, theta, size):
            self.radius = min(WIDER * self.radius, LARGEST_RADIUS)
            self._least = max(self._least, self.radius)
            self._is_measured = self._has_looked = False
            return True
        variance = 0.5 * float(np.mean((theta - model.theta) ** 2))
        smooth = 100.0 * float(model.powers.max()) * REPEAT_DISTANCE**2
        spread = float(np.std(theta))
        if variance <= smooth or np.sqrt(variance) <= HARMLESS * self.radius * spread:
            return False
        self.variance = variance
        self.radius = max(self.radius, best_radius(float(np.sqrt(variance)), theta))
        return True

    def _is_frozen(self, model: AffineModel, theta: FloatArray, size: int) -> bool:
        """Whether nothing moved, though by the differences far more than rounding should have."""
        if self._is_given or self.radius >= LARGEST_RADIUS or self.found:
            return False
        moved = float(np.sqrt(model.powers.max())) * REPEAT_DISTANCE
        least = FROZEN * float(np.finfo(float).eps) * float(np.sqrt(np.mean(theta**2)))
        return moved > least and np.array_equal(theta[:size], model.theta[:size])


def best_radius(noise: float, theta: FloatArray) -> float:
    """The radius that balances noise with curvature.

    Args:
        noise: Standard deviation of one component of a solve.
        theta: Shape `(m,)`; its spread stands for the scale of change.
    """
    spread = float(np.std(theta)) + 1e-300
    return min(NOISE_RADIUS * float(np.sqrt(noise / spread)), LARGEST_RADIUS)
