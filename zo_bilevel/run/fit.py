"""A least-squares fit linearised at its answer: what the data say of the parameters.

With residuals r, weights w, p values observed and n free parameters (Bates and Watts, Nonlinear
Regression Analysis, 1988, section 2.2):

    s^2 = sum(w r^2) / (p - n)                    residual variance                       (1)
    C   = s^2 (J' W J)^-1                          covariance of the parameters            (2)
    b_k +- t(p - n) sqrt(C_kk)                     interval of one of them                 (3)

Where standard deviations or a covariance of the data are given they are believed: s^2 = 1, and t is
normal; weights alone are relative. With priors, which need them, the residuals of these stand below
those of the data (`Residuals`).
"""

import math
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from zo_bilevel.methods.state import Slopes
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.prior_term import Residuals
from zo_bilevel.problem.space import Space
from zo_bilevel.run.confidence import Uncertainty, block_names, describe_direction, flat_names
from zo_bilevel.run.tied_errors import tied_errors
from zo_bilevel.support.arrays import FloatArray

SINGULAR_SHARE = 1e-7
"""Directions less stiff than this share of the stiffest are lost in the error of differences."""
HELD_SHARE = 0.5
"""Of a stiffness: what is the priors' to that share is no error of differences."""
OPEN_COMPONENT = 1e-3
"""A parameter with a larger part in a direction that the data leave open is not determined."""
BLOCK_OUTPUTS = 1000
"""Outputs that are decomposed at once."""
MOST_NAMED = 4
"""Parameters, or combinations of them, that one warning names."""
UNSEEN_SHARE = 1e-4
"""The same for directions whose stiffness the slopes cannot tell from zero."""
ROUNDING_SHARE = 16 * float(np.finfo(float).eps)
"""Of the largest number of theta or target, up to which a residual is rounding."""
MOST_DOUBT = 0.02
"""Of a stiffness, relative, up to which slopes are sure."""


@final
@dataclass(frozen=True, slots=True)
class Fit:
    """An answer and how the inner solution changes around it.

    Args:
        space: The parameters, all of them continuous.
        objective: Target and weights.
        slopes: Where, and how theta changes there.
        theta: Inner solution there, shape `(m,)`.

    Attributes:
        stiffness: Of the eigen-directions of the data per scaled unit, `(N,)`, falling.
        error: Its standard error, from doubt about the slopes, `(N,)`.
        rows: The directions, one a row, `(N, N)`.
        is_held: Which of them the priors hold, exactly and however little, `(N,)`.
    """

    space: Space
    objective: SquaredError
    slopes: Slopes
    theta: FloatArray
    stiffness: FloatArray = field(init=False)
    error: FloatArray = field(init=False)
    rows: FloatArray = field(init=False)
    is_held: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        used = self.objective.weights > 0
        roots = np.sqrt(self._weights[used])
        parts = Residuals(self.space, self.objective)
        if parts.is_plain:
            triangle = _triangle(self.slopes.jacobian[used], roots)
        else:
            known = np.where(used[:, None], self.slopes.jacobian, 0.0)
            rows = parts.slopes(known, self.slopes.x, np.eye(self.space.size))
            triangle = np.asarray(np.linalg.qr(rows, mode="r"))
        _, stiffness, rows = np.linalg.svd(triangle)
        stiffness = np.append(stiffness, np.zeros(len(rows) - stiffness.size))
        along = np.einsum("kn,nm,km->k", rows, self.slopes.doubt, rows)
        error = np.sqrt(float(roots @ roots) * np.maximum(along, 0.0))
        held = np.zeros(stiffness.size)
        if parts.prior is not None:
            held = np.linalg.norm(parts.prior.tangents(self.slopes.x, rows.T), axis=0)
        is_held = (held > 0) & (held >= HELD_SHARE * stiffness)
        found = {"stiffness": stiffness, "error": error, "rows": rows, "is_held": is_held}
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def _weights(self) -> FloatArray:
        """Those of the sum of squares; in the loss, a mean, missing numbers raise the others'."""
        return self.objective.weights * (self.objective.rows.size / self.objective.target.size)

    @property
    def _left(self) -> int:
        """Data and priors less the directions that they tell of."""
        told = np.count_nonzero(self.stiffness > SINGULAR_SHARE * self.stiffness[0])
        prior = Residuals(self.space, self.objective).prior
        held = 0 if prior is None else prior.size
        return int(np.count_nonzero(self.objective.weights) + held - told)

    @property
    def freedom(self) -> float:
        """Data less directions that they tell of; infinite where their deviations are given."""
        return math.inf if self.objective.is_absolute else self._left

    @property
    def scatter(self) -> float:
        """Of residuals, for a measurement of weight 1 (eq. 1); NaN where none are left over."""
        rows = self.objective.whiten(self.objective.difference(self.theta))
        prior = Residuals(self.space, self.objective).prior
        if prior is not None:
            rows = np.append(rows, prior.residuals(self.slopes.x))
        return math.sqrt(float(rows @ rows) / self._left) if self._left > 0 else math.nan

    @property
    def residual_variance(self) -> float:
        """Of a measurement of weight 1 that errors rest on: 1 where deviations are given."""
        return 1.0 if self.objective.is_absolute else self.scatter**2

    @property
    def is_rounding(self) -> bool:
        """Whether the residuals are the rounding error of theta: there is nothing to explain."""
        size = np.abs(self.theta) + np.abs(self.objective.target)
        difference = np.abs(self.objective.difference(self.theta))
        return bool((difference[self.objective.weights > 0] <= ROUNDING_SHARE * np.max(size)).all())

    def _are_open(self, stiffness: FloatArray) -> NDArray[np.bool_]:
        """Which directions the data leave open, if they are that stiff."""
        width = self.space.upper[0] - self.space.lower[0]
        lost = math.sqrt(self.residual_variance) / width
        is_lost = stiffness <= max(SINGULAR_SHARE * self.stiffness[0], lost)
        return np.asarray(is_lost & ~self.is_held)

    def _are_hardly(self, stiffness: FloatArray) -> NDArray[np.bool_]:
        """Which others have intervals as long as the bounds are apart, if they are that stiff."""
        width = self.space.upper[0] - self.space.lower[0]
        reach = 2.0 * float(stdtrit(self.freedom, 0.975)) * math.sqrt(self.residual_variance)
        return np.asarray((stiffness < reach / width) & ~self._are_open(stiffness))

    @property
    def is_sure(self) -> bool:
        """Whether doubt about the slopes changes no standard error by much, nor what is open."""
        is_known = self.error <= MOST_DOUBT * self.stiffness
        return bool((is_known | self._are_open(self.stiffness + self.error)).all())

    def undetermined(self) -> tuple[str, ...]:
        """What the data leave open for sure, in words, however little else is known."""
        at_most = self.stiffness + self.error
        is_unseen = (self.stiffness <= 2.0 * self.error) & (
            at_most <= UNSEEN_SHARE * self.stiffness[0]
        )
        return self._described((is_unseen & ~self.is_held) | self._are_open(at_most))

    def hardly(self) -> tuple[str, ...]:
        """What the data determine for sure no better than the bounds do, in words."""
        is_told = self.error <= MOST_DOUBT * self.stiffness
        return self._described(is_told & self._are_hardly(self.stiffness + self.error))

    def moves(self) -> FloatArray:
        """Where a Gauss-Newton step would lead from the answer, scaled, `(N,)`; zero at a minimum.

        Along what the data determine.
        """
        parts, used = Residuals(self.space, self.objective), self.objective.weights > 0
        jacobian = self.slopes.jacobian
        if parts.is_plain:
            jacobian = jacobian if used.all() else jacobian[used]
            weighted = self._weights * self.objective.difference(self.theta)
            pull = weighted[used] @ jacobian
        else:
            known = np.where(used[:, None], jacobian, 0.0)
            slopes = parts.slopes(known, self.slopes.x, np.eye(self.space.size))
            pull = parts.at(self.theta, self.slopes.x) @ slopes
        along = self.rows @ pull
        is_open = self._are_open(self.stiffness)
        steps = np.divide(along, self.stiffness**2, out=np.zeros_like(along), where=~is_open)
        return np.asarray(-self.rows.T @ steps)

    def _described(self, is_open: NDArray[np.bool_]) -> tuple[str, ...]:
        x = self.slopes.x
        names, values, rates = flat_names(self.space), self.space.values(x), self.space.rates(x)
        open_ = self.rows[is_open]
        return tuple(dict.fromkeys(describe_direction(rates * r, values, names) for r in open_))

    def uncertainty(self, solves: int = 0) -> Uncertainty:
        """Covariance and what follows from it (eqs. 1 and 2)."""
        space, x, stiffness, rows = self.space, self.slopes.x, self.stiffness, self.rows
        is_open = self._are_open(stiffness)
        deviation = np.sqrt(self.residual_variance)
        spreads = np.divide(deviation, stiffness, out=np.zeros_like(stiffness), where=~is_open)
        rates, scaled = space.rates(x), np.linalg.norm(rows.T * spreads, axis=1)
        is_told = (scaled > 0) & (not self.is_rounding)
        factor = rates[:, None] * rows.T * spreads
        covariance = factor @ factor.T  # (2)
        touched = np.any(np.abs(rows[is_open]) > OPEN_COMPONENT, axis=0)
        covariance[touched, :], covariance[:, touched] = np.nan, np.nan
        covariance[touched, touched] = np.inf
        names, values = flat_names(space), space.values(x)
        return Uncertainty(
            names=names,
            values=values,
            covariance=covariance,
            degrees_of_freedom=self.freedom,
            residual_deviation=self.scatter,
            stiffness=stiffness,
            directions=rows.T,
            undetermined=self._described(is_open),
            hardly=self._described(self._are_hardly(stiffness)),
            steps=np.divide(self.moves(), scaled, out=np.zeros_like(scaled), where=is_told),
            on_bound=on_bound(space, x),
            solves=solves,
            space=space,
            factor=factor,
            jacobian=self.slopes.jacobian / rates,
            is_measured=self.objective.weights > 0,
            variances=self.residual_variance / self.objective.precisions,
            tied=tied_errors(space, x, rows.T * spreads, rows[is_open]),
        )


def _triangle(jacobian: FloatArray, roots: FloatArray) -> FloatArray:
    """The triangle of a QR decomposition of the weighted Jacobian, by blocks that fit a cache."""
    triangles = [
        np.linalg.qr(roots[k : k + BLOCK_OUTPUTS, None] * jacobian[k : k + BLOCK_OUTPUTS], mode="r")
        for k in range(0, len(roots), BLOCK_OUTPUTS)
    ]
    return np.asarray(np.linalg.qr(np.concatenate(triangles), mode="r"))


def linearised(
    space: Space, outer: object, slopes: Slopes | None, x: FloatArray, theta: FloatArray | None
) -> Fit | None:
    """An answer linearised, where a method knows its slopes and it is a fit of data."""
    if slopes is None or theta is None or not isinstance(outer, SquaredError):
        return None
    is_finite = np.isfinite(slopes.jacobian[outer.weights > 0]).all()
    if not is_finite or space.discrete.any() or not np.array_equal(slopes.x, x):
        return None
    fit = Fit(space, outer, slopes, theta)
    return fit if fit.freedom > 0 else None


def on_bound(space: Space, x: FloatArray) -> tuple[str, ...]:
    """Names of the continuous parameters that lie on a bound that they were given."""
    values = space.values(x)
    return _names_where(space, (values <= space.lowest) | (values >= space.highest))


def at_end(space: Space, x: FloatArray) -> tuple[str, ...]:
    """Names of those without a bound there that lie where their scale ends."""
    values = space.values(x)
    is_low = (values <= space.values(space.lower)) & np.isinf(space.lowest)
    is_high = (values >= space.values(space.upper)) & np.isinf(space.highest)
    return _names_where(space, is_low | is_high)


def _names_where(space: Space, is_at: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(
        name
        for block in space.blocks
        if not space.discrete[block.section].any()
        for name, is_there in zip(block_names(block), is_at[block.section], strict=True)
        if is_there
    )


def warnings_of(fit: Fit | None, space: Space, x: FloatArray) -> tuple[str, ...]:
    """What has to be said with an answer, in words."""
    undetermined, hardly = ((), ()) if fit is None else (fit.undetermined(), fit.hardly())
    found = [
        (undetermined, "not determined by the data"),
        (hardly, "hardly determined by the data"),
        (on_bound(space, x), "on a bound"),
        (at_end(space, x), "at the end of the scale, which is no bound (give scale=)"),
    ]
    return tuple(f"{words}: {_listed(names)}" for names, words in found if names)


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return "; ".join(names[:MOST_NAMED]) + more
