"""Noise of the solves, and the radius of differences that goes with it."""

from __future__ import annotations

from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.methods.affine_model import AffineModel
from zo_bilevel.methods.local_model import LocalModel

FloatArray: TypeAlias = NDArray[np.float64]

RADIUS = 1e-5
"""Of a difference without noise, in units of a sixth of a parameter's range."""
NOISE_RADIUS = 6.0
"""Times the square root of noise over spread of theta: the radius under noise."""
LARGEST_RADIUS = 0.4
WIDER, WIDEST = 30.0, 1e-2
"""Factor of the radius when a search is revived, and where it begins again at the least."""
ROUNDING = 0.3
"""Standard deviation of rounding, in units of the type's resolution."""
REPEAT_DISTANCE = 1e-8
"""From the center, of the solve that tells noise from steepness."""
SUSPICIOUS = 5.0
"""A difference quotient of this many spreads of theta, or misfits, may be noise."""
HARMLESS = 0.003
"""Noise that is a smaller share of the change over one radius, at one spread a unit, is none."""
FEW_PARAMETERS, MOST_DISAPPOINTMENTS = 4, 2
"""With so few parameters that many disappointing steps in a row are no reason to suspect noise."""


@final
class NoiseWatch:
    """Suspects, then measures noise.

    Args:
        theta: Modelled vector at the start, shape `(m,)`.
        resolution: Relative rounding error of a solve.
        radius: Length of a difference without noise, scaled, or `None` to choose it.

    Attributes:
        variance: Of one component of one solve.
        radius: Length of a difference.
        wants_repeat: Whether a solve next to the center shall tell noise from steepness.
    """

    def __init__(self, theta: FloatArray, resolution: float, radius: float | None = None) -> None:
        self.variance = 0.0
        rounding = ROUNDING * resolution * float(np.sqrt(np.mean(theta**2)))
        chosen = max(RADIUS, best_radius(rounding, theta))
        self._least = chosen if radius is None else radius
        self.radius = self._least
        self.wants_repeat = False
        self._is_measured = False
        self._has_looked = False

    @property
    def found(self) -> bool:
        """Whether solves are noisy."""
        return self.variance > 0.0

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

    def measure(self, model: AffineModel, theta: FloatArray | None) -> bool:
        """Compare the solve next to the center with the center.

        Args:
            model: At the center.
            theta: The solve, or `None` when it failed.

        Returns:
            Whether they differ by more than a smooth solution would, and by enough to matter.
        """
        self.wants_repeat, self._is_measured = False, True
        if theta is None:
            return False
        variance = 0.5 * float(np.mean((theta - model.theta) ** 2))
        smooth = 100.0 * float(model.powers.max()) * REPEAT_DISTANCE**2
        spread = float(np.std(theta))
        if variance <= smooth or np.sqrt(variance) <= HARMLESS * self.radius * spread:
            return False
        self.variance = variance
        self.radius = max(self.radius, best_radius(float(np.sqrt(variance)), theta))
        return True


def best_radius(noise: float, theta: FloatArray) -> float:
    """The radius that balances noise with curvature.

    Args:
        noise: Standard deviation of one component of a solve.
        theta: Shape `(m,)`; its spread stands for the scale of change.
    """
    spread = float(np.std(theta)) + 1e-300
    return min(NOISE_RADIUS * float(np.sqrt(noise / spread)), LARGEST_RADIUS)
