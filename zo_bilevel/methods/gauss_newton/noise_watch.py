"""Noise of the solves, and the radius of differences that goes with it."""

import math
from typing import final

import numpy as np

from zo_bilevel.methods.gauss_newton.answer_model import AnswerModel
from zo_bilevel.support.arrays import FloatArray

FINEST_RADIUS = 1e-5
"""Of a difference without noise, in units of a sixth of a parameter's range."""
NOISE_RADIUS = 2.0
"""Times the square root of noise over spread of theta: the radius under noise."""
LARGEST_RADIUS = 0.4
WIDER_FACTOR, WIDEST_REVIVAL = 30.0, 1e-2
"""Factor of the radius when a search is revived, and the radius above which it begins again."""
REPEAT_DISTANCE = 1e-10
"""From the center, of the solve that tells noise from steepness; less where theta is steep."""
STEEPER_FACTOR = 1e3
"""By this factor slopes not yet measured may be steeper than those that are."""
SUSPICIOUS_SPREADS = 5.0
"""A slope of this many spreads of theta, or misfits, may be noise."""
HARMLESS_SHARE = 0.003
"""Noise that is a smaller share of the change over one radius, at one spread a unit, is none."""
FROZEN_ROUNDINGS = 1e3
"""Rounding errors that a solve next to the center must move by if it is smooth."""
FEW_PARAMETERS, MOST_DISAPPOINTMENTS = 4, 1
"""With so few parameters that many disappointing steps in a row are no reason to suspect noise."""
BENT_SPREADS = 1e-2
"""A difference that changes theta by this many spreads is too long to be a derivative."""
SHORTEST_RADIUS = 1e-12


@final
class NoiseWatch:
    """Suspects, then measures noise.

    Args:
        spread: Scale by which theta changes.
        rounding: Error of rounding of one component.
        radius: Length of a difference without noise, scaled, or `None` to choose it.
        input_rounding: Steps shorter than this are not seen by the solver, scaled.

    Attributes:
        variance: Of one component of one solve.
        radius: Length of a difference.
        wants_repeat: Whether a solve next to the center shall tell noise from steepness.
        is_coarse: Whether answers were found to be rounded, without knowing how.
    """

    def __init__(
        self,
        spread: float,
        rounding: float,
        radius: float | None = None,
        input_rounding: float = 0.0,
    ) -> None:
        self.variance = 0.0
        self._is_given = radius is not None
        self._finest = max(FINEST_RADIUS, math.sqrt(input_rounding))
        self._rounding, self._steepness = rounding, 0.0
        self._least = self._shortest(spread) if radius is None else radius
        self.radius = self._least
        self._before: float | None = None
        self._has_moved = False
        self.wants_repeat = False
        self._is_measured = False
        self._has_looked = False
        self.is_coarse = False

    @property
    def found(self) -> bool:
        """Whether solves are noisy."""
        return self.variance > 0.0

    @property
    def is_still(self) -> bool:
        """Whether no difference has moved a single component, and no step kept its promise."""
        return not self._has_moved

    def see_promise_kept(self) -> None:
        """A step gained what the model promised: its slopes are real."""
        self._has_moved = True

    def follow(self, rounding: float, model: AnswerModel) -> None:
        """Choose noise and radius anew when more is known of how answers are rounded."""
        is_news = not 0.5 * self._rounding < rounding < 2.0 * self._rounding
        if not is_news or self._is_given:
            return
        self._rounding, spread = rounding, model.outer.spread(model.theta)
        model.noise = max(self.variance, rounding**2)
        self._least = self._shortest(spread)
        self.radius = max(self._least, best_radius(math.sqrt(self.variance), spread))

    def fit(self, model: AnswerModel) -> None:
        """Balance noise or rounding with curvature as the model has found them."""
        steepness = model.steepness
        if self._is_given or steepness == 0.0:
            return
        noise = math.sqrt(model.noise) if self.found else self._rounding
        best = math.sqrt(2.0 * noise * model.length / steepness)
        if self.found or best > self._least:
            self.radius = min(max(best, self._least), LARGEST_RADIUS)

    def is_too_short(self, change: FloatArray) -> bool:
        """Whether a difference says nothing because the radius is below the rounding of answers.

        While no difference has moved a single component, each that does not is asked for again
        with a larger radius; what moves then shows how large it must be.
        """
        if np.any(change):
            self._has_moved, self._before = True, None
        if self._is_given or self._has_moved:
            return False
        if self.radius >= LARGEST_RADIUS:
            self.radius = self.radius if self._before is None else self._before
            return False
        self._before = self.radius if self._before is None else self._before
        self.radius = min(WIDER_FACTOR * self.radius, LARGEST_RADIUS)
        return True

    def suspect(self, model: AnswerModel, disappointments: int) -> None:
        """Ask for a repeat when differences look too steep, or steps disappoint."""
        if self._is_measured or not model.size:
            return
        if not self._has_looked:
            spread = model.outer.spread(model.theta)
            self._steepness = model.steepness / spread if spread > 0.0 else 0.0
            self._has_looked = True
        most = MOST_DISAPPOINTMENTS if model.center.size <= FEW_PARAMETERS else 0
        self.wants_repeat = self._steepness > SUSPICIOUS_SPREADS or disappointments > most

    def widen(self) -> None:
        """Take a larger radius for the differences of a search revived, the least in the end."""
        if not self.found and not self._is_given:
            wider = WIDER_FACTOR * self.radius
            self.radius = wider if wider <= WIDEST_REVIVAL else self._least

    @property
    def _repeat_distance(self) -> float:
        return REPEAT_DISTANCE / max(1.0, self._steepness)

    def nearby(self, center: FloatArray) -> FloatArray:
        """A point so close to the center that only noise can tell them apart."""
        distance = self._repeat_distance / math.sqrt(center.size)
        return np.asarray(center + np.where(center > 0.0, -distance, distance))

    def measure(self, model: AnswerModel, theta: FloatArray | None) -> bool:
        """Compare the solve next to the center with the center.

        Returns:
            Whether differences so far are worth nothing: solves are noisy, the radius was shorter
            than answers are rounded, or so long that the solution bends along it.
        """
        self.wants_repeat, self._is_measured = False, True
        if theta is None:
            return False
        if self._is_frozen(model, theta):
            self.radius = min(WIDER_FACTOR * self.radius, LARGEST_RADIUS)
            self._least = max(self._least, self.radius)
            self._is_measured = self._has_looked = False
            self.is_coarse = True
            return True
        variance = 0.5 * float(np.mean((theta - model.theta) ** 2))
        smooth = (STEEPER_FACTOR * model.steepness * self._repeat_distance) ** 2
        spread = model.outer.spread(theta)
        if variance > smooth and math.sqrt(variance) > HARMLESS_SHARE * self.radius * spread:
            self.variance = variance
            self.radius = max(self.radius, best_radius(math.sqrt(variance), spread))
            return True
        return not self._is_given and self._shorten(spread)

    def _shortest(self, spread: float) -> float:
        """The radius as rounding has it; less where the solution is steep, as in wide bounds."""
        radius = max(self._finest, best_radius(self._rounding, spread))
        is_steep = self._steepness > SUSPICIOUS_SPREADS and self._finest <= FINEST_RADIUS
        return max(radius / self._steepness, SHORTEST_RADIUS) if is_steep else radius

    def _shorten(self, spread: float) -> bool:
        """Whether differences were too long where the solution is smooth but steep."""
        before, self._least = self._least, self._shortest(spread)
        is_bent = self.radius * self._steepness > BENT_SPREADS and self._least < 0.5 * before
        self.radius = min(self.radius, self._least)
        if is_bent:
            self._has_looked = self._is_measured = False
        return is_bent

    def _is_frozen(self, model: AnswerModel, theta: FloatArray) -> bool:
        """Whether nothing moved, though by the differences far more than rounding should have."""
        if self._is_given or self.radius >= LARGEST_RADIUS or self.found:
            return False
        if self._finest > FINEST_RADIUS:  # the solver says which steps it does not see
            return False
        moved = model.steepness * self._repeat_distance
        return moved > FROZEN_ROUNDINGS * self._rounding and np.array_equal(theta, model.theta)


def best_radius(noise: float, spread: float) -> float:
    """The radius that balances noise with curvature."""
    return min(NOISE_RADIUS * math.sqrt(noise / (spread + 1e-300)), LARGEST_RADIUS)
