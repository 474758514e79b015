"""POUNDERS: a quadratic model of each residual, interpolated at up to 2 N + 1 points."""

from typing import Final, final

from zo_bilevel.methods.baselines.failure_values import residuals_of
from zo_bilevel.methods.baselines.solves import Solves
from zo_bilevel.methods.baselines.threaded import Baseline
from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.arrays import FloatArray

# POUNDERS allocates every point and residual of the budget at once
SOLVES_WITHOUT_BUDGET: Final = 1000
OWN_SUBPROBLEM_SOLVER: Final = {"spsolver": 1}  # the other one is not on PyPI
NO_TOLERANCE: Final = 1e-13  # of the gradient, which must be above 0


@final
class POUNDERS(Baseline):
    """POUNDERS on the residuals of a `SquaredError`, one solve a round.

    Its tolerance of the gradient is near zero, so that the budget ends the run.

    Args:
        coordinates: "scaled", or "prior" for white coordinates of the prior.
        radius: First step, > 0.

    Raises:
        InputError: If the radius is not positive.
        MissingPackageError: If IBCDFO is not installed.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, SquaredError, minimize
        >>> problem = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"] ** 2, SquaredError(4.0))
        >>> round(minimize(problem, POUNDERS(), max_solves=30).phi["a"], 6)
        2.0

    Source:
        Wild (2017), "Solving derivative-free nonlinear least squares problems with POUNDERS", in
        Advances and Trends in Optimization with Engineering Applications, SIAM.
    """

    label, package, needs_residuals = "pounders", ("ibcdfo", "pounders"), True

    def __init__(self, coordinates: str = "scaled", *, radius: float = 1.0) -> None:
        super().__init__(coordinates)
        self.radius = finite_number("radius", radius, "> 0")

    def drive(self, solves: Solves) -> str:
        """Run POUNDERS to its end."""
        place, outer = solves.coordinates, residuals_of(solves.search, self.label)

        def residuals(row: FloatArray) -> FloatArray:
            return solves.rule.residuals(solves.evaluate([row]), outer)[0]

        *_, flag, _ = self.library("ibcdfo.pounders.pounders").pounders(
            residuals,
            place.start[None],
            place.size,
            max(solves.search.max_solves or SOLVES_WITHOUT_BUDGET, 2 * place.size) + 2,
            NO_TOLERANCE,
            self.radius,
            outer.size,
            place.lower,
            place.upper,
            Options=OWN_SUBPROBLEM_SOLVER,
        )
        return f"flag {flag:g}"
