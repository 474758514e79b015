"""DFO-LS: derivative-free Gauss-Newton on interpolated residuals."""

from typing import Any, final

import numpy as np

from zo_bilevel.methods.baselines.failure_values import residuals_of
from zo_bilevel.methods.baselines.solves import Solves
from zo_bilevel.methods.baselines.threaded import Baseline
from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.arrays import FloatArray

MANY_SOLVES = 10**5  # DFO-LS fills lists of this length: 10**9 takes a minute and gigabytes
GROW_ABOVE = 50
GROWING_DIRECTIONS = 20


@final
class DFOLS(Baseline):
    """DFO-LS on the residuals of a `SquaredError`, one solve a round.

    Its stopping tolerances are near zero, so that the budget ends the run and not a default.

    Args:
        coordinates: "scaled", or "prior" for white coordinates of the prior.
        growing: Directions of the first model, >= 1, which then grows; `None` for 20 when there
            are more than 50 parameters, else all of them.
        radius: First step, > 0; `None` for DFO-LS's own, a tenth of the largest coordinate of
            the start, at least 0.1.

    Raises:
        InputError: If `growing` is below 1 or the radius not positive.
        MissingPackageError: If DFO-LS is not installed.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, SquaredError, minimize
        >>> problem = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"] ** 2, SquaredError(4.0))
        >>> round(minimize(problem, DFOLS(), max_solves=30).phi["a"], 6)
        2.0

    Source:
        Cartis, Fiala, Marteau, Roberts (2019), "Improving the flexibility and robustness of
        model-based derivative-free optimization solvers", ACM TOMS 45(3).
    """

    label, package, needs_residuals = "dfols", ("dfols", "baselines"), True

    def __init__(
        self,
        coordinates: str = "scaled",
        *,
        growing: int | None = None,
        radius: float | None = None,
    ) -> None:
        super().__init__(coordinates)
        self.growing = None if growing is None else whole_number("growing", growing, least=1)
        self.radius = None if radius is None else finite_number("radius", radius, "> 0")

    def drive(self, solves: Solves) -> str:
        """Run DFO-LS to its end."""
        place, outer = solves.coordinates, residuals_of(solves.search, self.label)

        def residuals(row: FloatArray) -> FloatArray:
            return solves.rule.residuals(solves.evaluate([row]), outer)[0]

        options: dict[str, Any] = {"model.abs_tol": 1e-200, "model.rel_tol": 1e-200}
        directions = self.growing
        if directions is None and place.size > GROW_ABOVE:
            directions = GROWING_DIRECTIONS
        if directions is not None:
            options["growing.ndirs_initial"] = min(directions, place.size)
        solution = self.library().solve(
            residuals,
            place.start,
            bounds=None if place.is_white else (place.lower, place.upper),
            maxfun=max(MANY_SOLVES, 1 + (solves.search.max_solves or 0)),
            rhobeg=self.radius,
            rhoend=float(np.finfo(float).eps),
            user_params=options,
            do_logging=False,
        )
        return str(solution.msg)
