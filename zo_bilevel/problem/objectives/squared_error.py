"""Weighted mean squared error against a target."""

import math
from typing import Any, final

import numpy as np

from zo_bilevel.problem.objectives.base import ThetaObjective
from zo_bilevel.problem.objectives.measurements import (
    check_weights,
    covariance_factor,
    essential,
    fitted,
    is_shorter,
    names_of,
)
from zo_bilevel.problem.theta import ThetaLayout, Unmeasured, flatten_theta
from zo_bilevel.support.arrays import FloatArray, frozen
from zo_bilevel.support.errors import InnerSolverError, InputError, WrongShapeError

SMALLEST_LOSS = float(np.finfo(np.float64).tiny)
"""Below it digits are lost, and then all of it."""


@final
class SquaredError(ThetaObjective):
    """Weighted mean squared difference between the inner solution and a target.

    `loss = mean(weights * (theta - target)**2)`, over the values of the target that are there; with
    a covariance C, `loss = (theta - target)' C^-1 (theta - target) / count`.

    Args:
        target: Number, array or dict of arrays, of the inner solution's structure. NaN and masked
            values are missing: they have no weight. Labels of tables must be those of the inner
            solution, in its order.
        weights: One number, or the target's structure: its shape, names and labels; parts of a
            dict also as numbers or arrays that broadcast. Finite and >= 0. Default 1.
        sigma: Standard deviations of the measurements, likewise; > 0. Each weight is divided by
            its square. Error bars take it as given, where weights alone are relative.
        covariance: Of the errors of measurement, in place of weights and sigma: a matrix for all
            numbers of the target in their order, or, for a dict, one for each part by the same
            names. Rows and columns of missing values are left out.

    Raises:
        InputError: If the target is empty, infinite or missing altogether, weights do not fit it,
            or the covariance is not symmetric and positive definite.

    Example:
        >>> objective = SquaredError([1.0, 2.0, np.nan], weights=[1.0, 0.5, 1.0])
        >>> objective.loss(np.array([0.0, 0.0, 7.0]))
        1.5
    """

    def __init__(
        self,
        target: Any,  # noqa: ANN401 - number to dict
        weights: Any = None,  # noqa: ANN401 - number to dict
        *,
        sigma: Any = None,  # noqa: ANN401 - number to dict
        covariance: Any = None,  # noqa: ANN401 - matrix or dict
    ) -> None:
        try:
            self.target, self.layout = flatten_theta(target)
        except (TypeError, ValueError) as error:
            raise InputError(f"target must be numbers, got {target!r} ({error})") from error
        bad = np.flatnonzero(np.isinf(self.target))
        if bad.size:
            raise InputError(
                f"target must be finite, or NaN where it is missing, got {self.target[bad[0]]} at "
                f"position {bad[0]} ({bad.size} of {self.target.size} values)"
            )
        missing = np.isnan(self.target)
        if missing.all():
            raise InputError("target must have at least one value that is not NaN or masked")
        self.rows = np.flatnonzero(~missing)
        self.is_absolute = sigma is not None or covariance is not None
        self._factor: FloatArray | None = None
        if covariance is not None:
            if weights is not None or sigma is not None:
                raise InputError("covariance takes the place of weights and sigma, got both")
            self._factor, deviations = covariance_factor(covariance, self.layout, self.rows)
        present = np.where(missing, 0.0, missing.size / self.rows.size)
        self.target = frozen(np.where(missing, 0.0, self.target))
        inverse = self._numbers("weights", weights)
        if covariance is None:
            deviations = self._numbers("sigma", sigma)
        inverse, deviations = (
            np.where(missing & ~(np.isfinite(part) & (part > 0)), 1.0, part)
            for part in (inverse, deviations)
        )
        check_weights(inverse, weights, deviations, sigma)
        self.precisions = frozen(np.where(inverse > 0, inverse, 1.0) / deviations**2)
        self.weights = frozen(inverse * present / deviations**2)
        if not self.weights.any():
            raise InputError("weights must not be 0 wherever target is given")
        self._scaled = self.weights * (1.0 / self.target.size)

    def _numbers(self, argument: str, given: Any) -> FloatArray:  # noqa: ANN401 - number to dict
        return np.ones(self.target.size) if given is None else self.lined_up(argument, given)

    def lined_up(self, argument: str, given: Any) -> FloatArray:  # noqa: ANN401 - number to dict
        """One number for each of the target, from numbers of its structure.

        Args:
            argument: What they are called, for messages.
            given: The target's structure, or one number; for a dict, parts by the same names, each
                of its part's shape or one that broadcasts to it. Labels are those of the target.

        Returns:
            Shape `(m,)`, in the target's order.

        Raises:
            InputError: If they are no numbers, or their names, shapes or labels are others.
        """
        target = self.layout
        try:
            flat, layout = flatten_theta(given)
        except (TypeError, ValueError) as error:
            raise InputError(f"{argument} must be numbers, got {given!r} ({error})") from error
        if flat.size == 1 and not layout.names:
            return np.full(self.target.size, flat[0])
        if sorted(layout.names) != sorted(target.names):
            raise InputError(
                f"{argument} must be one number or have the names of target, "
                f"{names_of(target)}, got {names_of(layout)}"
            )
        order = layout.order_of(target.names)
        if order is not None:
            flat, layout = flat[order], layout.reordered(target.names)
        parts = np.split(flat, np.cumsum([math.prod(shape) for shape in layout.shapes])[:-1])
        labels = layout.labels or ((),) * len(parts)
        tried = map(fitted, parts, layout.shapes, target.shapes, labels)
        there = [part for part in tried if part is not None]
        if len(there) < len(parts) or (not target.names and flat.size != target.size):
            raise InputError(
                f"{argument} must be one number or have the shape of target, "
                f"{target.describe()}, got {layout.describe()}"
            )
        if conflict := layout.label_conflict(target):
            raise InputError(
                f"{argument} and target are labelled differently: {conflict}; "
                f"put {argument} into the order of target"
            )
        return np.concatenate(there)

    def check(self, layout: ThetaLayout) -> None:
        """Refuse an inner solution that does not fit the target.

        Raises:
            WrongShapeError: If it is shorter, as of a solver that stopped early.
            InnerSolverError: If no other point would make it fit, naming both structures.
        """
        said = (
            f"the inner solver returned {layout.describe()}, "
            f"but the target of SquaredError has {self.layout.describe()}"
        )
        pairs = list(zip(layout.shapes, self.layout.shapes, strict=False))
        if layout.names == self.layout.names and all(is_shorter(*pair) for pair in pairs):
            if any(essential(shape) != essential(wanted) for shape, wanted in pairs):
                raise WrongShapeError(said)
            if conflict := layout.label_conflict(self.layout):
                raise InnerSolverError(
                    f"the inner solution and the target of SquaredError are labelled differently: "
                    f"{conflict}; put the target into the order of the inner solution"
                )
            return
        raise InnerSolverError(said)

    def check_scale(self, theta: FloatArray) -> None:
        """Refuse numbers so small that their squares are lost, which would look like a perfect fit.

        Args:
            theta: Of the first solve, flat, `(m,)`.

        Raises:
            InputError: If neither the target nor theta's difference from it has a loss that is
                kept in full, and they differ.
        """
        largest = float(np.max(np.abs(theta - self.target) * (self.weights > 0)))
        if largest > 0 and max(self.loss(theta), self.loss(0.0 * self.target)) < SMALLEST_LOSS:
            raise InputError(
                f"the inner solution differs from target by at most {largest:.3g}, whose weighted "
                "square double precision cannot hold: give both in other units"
            )

    def loss(self, theta: FloatArray) -> float:
        """The loss of an inner solution of the target's shape, or flat, `(m,)`."""
        shapes, given = {self.target.shape, *self.layout.shapes[:1]}, np.shape(theta)
        if given not in shapes or np.size(theta) != self.target.size:
            described = self.layout.describe()
            raise InputError(f"theta must have the target's {described}, got shape {given}")
        difference = self.difference(np.ravel(theta))
        return float(np.dot(self._half_slope(difference), difference))

    def _half_slope(self, difference: FloatArray) -> FloatArray:
        """`W d / m`, or `C^-1 d / count`; of the shape of d, `(m,)` or `(m, b)`."""
        if self._factor is None:
            weights = self._scaled if difference.ndim == 1 else self._scaled[:, None]
            return weights * difference
        from scipy.linalg import cho_solve  # slow to import, seldom needed

        out = np.zeros_like(difference)
        solved = cho_solve((self._factor, True), difference[self.rows])
        out[self.rows] = solved / self.rows.size
        return out

    @property
    def unmeasured(self) -> Unmeasured | None:
        """Where the target is missing; `None` where it is not."""
        missing = np.ones(self.target.size, dtype=bool)
        missing[self.rows] = False
        return Unmeasured(self.layout, missing) if missing.any() else None

    def difference(self, theta: FloatArray) -> FloatArray:
        """`theta - target`, flat, `(m,)`; 0 where both the target and theta are missing."""
        difference: FloatArray = theta - self.target
        if self.rows.size < self.target.size:
            difference[np.isnan(difference) & (self.weights == 0)] = 0.0
        return difference

    @property
    def has_covariance(self) -> bool:
        """Whether its residuals depend on each other."""
        return self._factor is not None

    def whiten(self, difference: FloatArray) -> FloatArray:
        """Differences from the target in standard deviations, independent of each other.

        Args:
            difference: Shape `(m,)`, or `(m, b)` for b of them.

        Returns:
            Shape `(count,)` or `(count, b)`, for the numbers that are there; the loss is the mean
            of their squares.
        """
        there = difference[self.rows]
        if self._factor is not None:
            from scipy.linalg import solve_triangular

            return np.asarray(solve_triangular(self._factor, there, lower=True))
        roots = np.sqrt(self.weights[self.rows] * (self.rows.size / self.target.size))
        return roots * there if there.ndim == 1 else roots[:, None] * there

    def unwhiten(self, rows: FloatArray) -> FloatArray:
        """Undo `whiten`; NaN where the target is missing or has no weight.

        Args:
            rows: Shape `(count, b)`.
        """
        found = np.full((self.target.size, rows.shape[1]), np.nan)
        if self._factor is not None:
            found[self.rows] = self._factor @ rows
            return found
        roots = self.whiten(np.ones(self.target.size))
        is_known = roots > 0
        found[self.rows[is_known]] = rows[is_known] / roots[is_known, None]
        return found

    def shares(self, theta: Any) -> dict[str, float]:  # noqa: ANN401 - as the solver returns it
        """How much of the loss each named part of the target makes up.

        Args:
            theta: An inner solution in the target's structure.

        Returns:
            Shares by name that add up to 1; all 0 for a loss of 0.

        Raises:
            InputError: If the target has no named parts.

        Example:
            >>> deviations = {"u": 1.0, "flux": 2.0}
            >>> objective = SquaredError({"u": [1.0, 2.0], "flux": 3.0}, sigma=deviations)
            >>> objective.shares({"u": np.array([2.0, 2.0]), "flux": 5.0})
            {'u': 0.5, 'flux': 0.5}
        """
        if not self.layout.names:
            raise InputError("shares needs a target with named parts, a dict")
        difference = self.difference(flatten_theta(theta)[0])
        terms = self._half_slope(difference) * difference
        ends = np.cumsum([math.prod(shape) for shape in self.layout.shapes])
        sums = [float(part.sum()) for part in np.split(terms, ends[:-1])]
        total = sum(sums) or 1.0
        return {name: part / total for name, part in zip(self.layout.names, sums, strict=True)}

    def theta_value(self, theta: FloatArray) -> float:
        """The loss."""
        return self.loss(theta)

    def theta_gradient(self, theta: FloatArray) -> FloatArray:
        """`2 w (theta - target) / m`."""
        return 2.0 * self._half_slope(theta - self.target)

    def theta_hessian_product(self, theta: FloatArray, tangents: FloatArray) -> FloatArray:  # noqa: ARG002
        """`diag(2 w / m) T`."""
        return 2.0 * self._half_slope(tangents)
