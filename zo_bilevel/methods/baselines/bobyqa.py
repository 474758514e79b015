"""Py-BOBYQA: quadratic models of the loss in a trust region, with bounds."""

from typing import final

import numpy as np

from zo_bilevel.methods.baselines.solves import Solves, restarted
from zo_bilevel.methods.baselines.threaded import Baseline
from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.arrays import FloatArray

MANY_SOLVES = 10**5


@final
class BOBYQA(Baseline):
    """Py-BOBYQA on the loss, one solve a round.

    Its last radius is that of rounding, so that the budget ends the run and not a default.

    Args:
        coordinates: "scaled", or "prior" for white coordinates of the prior.
        radius: First step, > 0.
        noisy: Whether the library is told of noise: it then restarts from where it is.
        restarts: Whether to begin anew at random places until the budget is spent, where the
            library would stop, or nothing is gained any more among integers and choices (see
            `Plateau`).

    Raises:
        InputError: If the radius is not positive.
        MissingPackageError: If Py-BOBYQA is not installed.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, minimize
        >>> problem = Problem(Space(a=Real(-1, 1)), lambda phi: phi["a"] ** 2)
        >>> minimize(problem, BOBYQA(), max_solves=20).loss < 1e-6
        True

    Source:
        Cartis, Fiala, Marteau, Roberts (2019), "Improving the flexibility and robustness of
        model-based derivative-free optimization solvers", ACM TOMS 45(3).
    """

    package = "pybobyqa", "baselines"

    def __init__(
        self,
        coordinates: str = "scaled",
        *,
        radius: float = 1.0,
        noisy: bool = False,
        restarts: bool = False,
    ) -> None:
        super().__init__(coordinates)
        self.radius = finite_number("radius", radius, "> 0")
        self.noisy = noisy
        self.restarts = restarts

    @property
    def label(self) -> str:
        """Name without the coordinates."""
        return "bobyqa:restarts" if self.restarts else "bobyqa"

    def drive(self, solves: Solves) -> str:
        """Run Py-BOBYQA to its end."""
        place, library = solves.coordinates, self.library()

        def run(start: FloatArray) -> str:
            solution = library.solve(
                solves.loss,
                start,
                bounds=None if place.is_white else (place.lower, place.upper),
                maxfun=max(MANY_SOLVES, 1 + (solves.search.max_solves or 0)),
                rhobeg=self.radius,
                rhoend=float(np.finfo(float).eps),
                user_params={"model.abs_tol": -np.inf},
                objfun_has_noise=self.noisy,
                do_logging=False,
            )
            return str(solution.msg)

        return restarted(solves, run, is_endless=self.restarts)
