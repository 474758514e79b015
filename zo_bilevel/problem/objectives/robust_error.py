"""Robust errors against a target: outliers and one-sided measurements do not decide the fit.

With standardised residuals z = (theta - target) / sigma, the loss is the mean of rho(z^2), where
rho(s) is near s for small s and grows more slowly for large s. The second derivative is taken as
2 rho'(z^2), never negative, as in iteratively reweighted least squares (Holland and Welsch, 1977).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, final

import numpy as np

from zo_bilevel.problem.objectives.base import ThetaObjective
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, unknown_name_message

RobustLoss: TypeAlias = Literal["huber", "soft_l1", "student_t", "squared"]
Rho: TypeAlias = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""From s = z^2 to rho(s) and its derivative."""
DEGREES_OF_FREEDOM = 4.0
"""Of Student's t: heavy tails with a finite variance."""


def _huber(s: FloatArray) -> tuple[FloatArray, FloatArray]:
    root = np.sqrt(np.maximum(s, 1.0))
    return np.where(s <= 1, s, 2 * root - 1), 1 / root


def _soft_l1(s: FloatArray) -> tuple[FloatArray, FloatArray]:
    root = np.sqrt(1 + s)
    return 2 * (root - 1), 1 / root


def _student_t(s: FloatArray) -> tuple[FloatArray, FloatArray]:
    nu = DEGREES_OF_FREEDOM
    return (nu + 1) * np.log1p(s / nu), (nu + 1) / (nu + s)


RHO: Mapping[str, Rho] = {
    "huber": _huber,
    "soft_l1": _soft_l1,
    "student_t": _student_t,
    "squared": lambda s: (s, np.ones_like(s)),
}


@final
class RobustError(ThetaObjective):
    """Mean robust error between the inner solution and a target.

    Args:
        target: As in `SquaredError`: NaN and masked values are missing.
        loss: "huber" (squares up to one `scale`, then straight), "soft_l1", "student_t" (minus the
            log-likelihood of Student's t with 4 degrees of freedom) or "squared".
        sigma: Standard deviations of the measurements, as in `SquaredError`.
        scale: From how many sigmas on a residual counts as large, > 0.
        censored: Where a measurement is a limit only: 1 where the true value is above the target
            (the solver is wrong only below it), -1 where it is below, 0 else; the target's shape.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> objective = RobustError([0.0, 0.0], "huber", scale=1.0, censored=[0, 1])
        >>> objective.value(np.array([3.0, 9.0]), np.zeros(1), None)  # (2 * 3 - 1 + 0) / 2
        2.5
    """

    def __init__(
        self,
        target: Any,  # noqa: ANN401 - number to dict
        loss: RobustLoss = "huber",
        *,
        sigma: Any = None,  # noqa: ANN401 - number to dict
        scale: float = 1.345,
        censored: Any = None,  # noqa: ANN401 - number to dict
    ) -> None:
        if loss not in RHO:
            raise InputError(unknown_name_message("loss", loss, RHO))
        if not (np.isfinite(scale) and scale > 0):
            raise InputError(f"scale must be finite and > 0, got {scale}")
        self.squares = SquaredError(target, sigma=sigma)
        self.loss, self.scale = loss, float(scale)
        side = self.squares.lined_up("censored", 0.0 if censored is None else censored)
        if not np.isin(side, (-1, 0, 1)).all():
            raise InputError(f"censored must be -1, 0 or 1 everywhere, got {censored!r}")
        self.side = side
        rows = self.squares.rows
        self.unmeasured = self.squares.unmeasured
        self.count = rows.size
        self.roots = np.zeros(side.size)
        self.roots[rows] = self.squares.whiten(np.ones(side.size))

    @property
    def layout(self) -> ThetaLayout:
        """Structure of the target."""
        return self.squares.layout

    def check(self, layout: ThetaLayout) -> None:
        """Refuse an inner solution that does not fit the target, as `SquaredError` does."""
        self.squares.check(layout)

    def check_scale(self, theta: FloatArray) -> None:
        """Refuse numbers so small that their squares are lost, as `SquaredError` does."""
        self.squares.check_scale(theta)

    def _standardised(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Residuals in units of `scale` sigmas, 0 where a limit is kept, and d z / d theta."""
        difference = theta - self.squares.target
        rate = self.roots / self.scale
        rate = np.where(self.side * difference > 0, 0.0, rate)
        return rate * difference, rate

    def theta_value(self, theta: FloatArray) -> float:
        """The loss: `scale^2 mean(rho(z^2))`."""
        z, _ = self._standardised(theta)
        return float(self.scale**2 * np.sum(RHO[self.loss](z**2)[0]) / self.count)

    def theta_gradient(self, theta: FloatArray) -> FloatArray:
        """`2 scale^2 rho'(z^2) z dz / m`."""
        z, rate = self._standardised(theta)
        slope: FloatArray = RHO[self.loss](z**2)[1]
        return 2 * self.scale**2 * slope * z * rate / self.count

    def theta_hessian_product(self, theta: FloatArray, tangents: FloatArray) -> FloatArray:
        """`diag(2 scale^2 rho'(z^2) dz^2 / m) T`."""
        z, rate = self._standardised(theta)
        diagonal: FloatArray = 2 * self.scale**2 * RHO[self.loss](z**2)[1] * rate**2 / self.count
        return diagonal[:, None] * tangents
