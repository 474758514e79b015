"""scipy's optimizers, with finite differences taken a whole gradient a round."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, final

import numpy as np
from scipy import optimize

from zo_bilevel.methods.base import Search
from zo_bilevel.methods.baselines.coordinates import Coordinates
from zo_bilevel.methods.baselines.failure_values import refuse_discrete, residuals_of
from zo_bilevel.methods.baselines.scipy_differences import Differences, LimitedLoss
from zo_bilevel.methods.baselines.solves import Solves, restarted
from zo_bilevel.methods.baselines.threaded import Baseline
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, UnsupportedProblemError, unknown_name_message

WITHOUT_LIMIT = 10**9
SMALLEST_SIZE = 1e-15
LINE_ROUNDING = 1e-12
TIGHT: Final = {
    "ftol": SMALLEST_SIZE,
    "xtol": SMALLEST_SIZE,
    "gtol": SMALLEST_SIZE,
    "max_nfev": WITHOUT_LIMIT,
}
RESIDUAL_SOLVERS: Final = ("least_squares", "lm")


@final
@dataclass(frozen=True, slots=True)
class _Solver:
    """How one of scipy's solvers is called."""

    options: dict[str, Any]
    has_bounds: bool = True
    has_gradient: bool = False
    has_constraints: bool = False


SOLVERS: dict[str, _Solver] = {
    "COBYQA": _Solver(
        {"initial_tr_radius": 1.0, "final_tr_radius": SMALLEST_SIZE}
        | {"maxfev": WITHOUT_LIMIT, "maxiter": WITHOUT_LIMIT},
        has_constraints=True,
    ),
    "COBYLA": _Solver(
        {"rhobeg": 1.0, "tol": SMALLEST_SIZE, "maxiter": WITHOUT_LIMIT}, has_constraints=True
    ),
    "L-BFGS-B": _Solver(
        {"ftol": 0.0, "gtol": 0.0, "maxfun": WITHOUT_LIMIT, "maxiter": WITHOUT_LIMIT},
        has_gradient=True,
    ),
    "BFGS": _Solver({"gtol": 0.0, "maxiter": WITHOUT_LIMIT}, has_bounds=False, has_gradient=True),
    "Nelder-Mead": _Solver(
        {"adaptive": True, "xatol": 0.0, "fatol": 0.0}
        | {"maxfev": WITHOUT_LIMIT, "maxiter": WITHOUT_LIMIT}
    ),
    "Powell": _Solver({"ftol": SMALLEST_SIZE, "maxfev": WITHOUT_LIMIT, "maxiter": WITHOUT_LIMIT}),
    "SLSQP": _Solver(
        {"ftol": SMALLEST_SIZE, "maxiter": WITHOUT_LIMIT}, has_gradient=True, has_constraints=True
    ),
    "least_squares": _Solver(TIGHT, has_gradient=True),
    "lm": _Solver(TIGHT | {"method": "lm"}, has_bounds=False, has_gradient=True),
}


@final
class Scipy(Baseline):
    """One of scipy's optimizers, from the start: it stops when it has converged, or starts anew.

    Solvers with gradients get forward differences with scipy's own rule for `jac="2-point"`:
    the step is `sqrt(eps) * max(1, |x|)`, away from zero, turned around at a bound. They cost
    the solves they cost scipy, but are one round, as they may run at once. A failed difference
    counts as a zero derivative.

    Tolerances are near zero, so that the budget ends the run and not a default, and first steps
    are 1, the step of every method.

    COBYQA, COBYLA and SLSQP are given constraints as scipy's own, and may then ask for points
    outside all of them on their way, as they do in scipy; the others are penalized.

    Args:
        solver: "COBYQA", "COBYLA", "L-BFGS-B", "BFGS", "Nelder-Mead", "Powell", "SLSQP" or
            on the residuals of a `SquaredError` "least_squares" (trust region) or "lm"
            (Levenberg-Marquardt, without bounds: what it asks for outside is solved at the edge).
        coordinates: "scaled", or "prior" for white coordinates of the prior.
        restarts: Whether to begin anew at random places until the budget is spent, where scipy
            would stop, or nothing is gained any more among integers and choices (see `Plateau`);
            not on residuals.
        **options: scipy's options of this solver, in place of the above.

    Raises:
        InputError: If the name is unknown, or a solver on residuals shall start anew.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, minimize
        >>> problem = Problem(Space(a=Real(-1, 1)), lambda phi: phi["a"] ** 2)
        >>> minimize(problem, Scipy("COBYQA"), max_solves=20).loss < 1e-6
        True
    """

    def __init__(
        self,
        solver: str,
        coordinates: str = "scaled",
        *,
        restarts: bool = False,
        **options: Any,  # noqa: ANN401 - passed through to scipy
    ) -> None:
        super().__init__(coordinates)
        plain, colon, words = solver.partition(":")
        if colon and plain in SOLVERS:
            raise InputError(
                f"solver must be a plain name, got {solver!r}: write {_as_python(plain, words)}"
            )
        if solver not in SOLVERS:
            raise InputError(unknown_name_message("scipy solver", solver, SOLVERS))
        if restarts and solver in RESIDUAL_SOLVERS:
            raise InputError(f"restarts must be False for {solver}, got True")
        self.solver, self.restarts = solver, restarts
        self.options = {**SOLVERS[solver].options, **options}

    @property
    def label(self) -> str:
        """Name without the coordinates."""
        return f"scipy:{self.solver}" + (":restarts" if self.restarts else "")

    @property
    def constraints(self) -> str:
        """How the solver keeps constraints."""
        return "kept in the end" if SOLVERS[self.solver].has_constraints else "penalized"

    def refuse(self, search: Search) -> None:
        """Raise where the solver needs residuals or derivatives that there are not."""
        if self.solver in RESIDUAL_SOLVERS:
            numbers = residuals_of(search, self.label).size
            if self.solver == "lm" and numbers < search.space.size:
                raise UnsupportedProblemError(
                    f"{self.label} needs at least as many residuals as coordinates, "
                    f"got {numbers} for {search.space.size}"
                )
        if SOLVERS[self.solver].has_gradient:
            refuse_discrete(search, self.label, "needs derivatives")

    def drive(self, solves: Solves) -> str:
        """Run scipy to its end."""
        if self.solver in RESIDUAL_SOLVERS:
            return self._least_squares(solves)
        run = self._cobyqa if self.solver == "COBYQA" else self._minimize
        has_limits = SOLVERS[self.solver].has_constraints and bool(solves.search.problem.feasible)
        has_sweeps = self.solver == "Powell" or has_limits  # it may go uphill to keep constraints
        return restarted(
            solves, partial(run, solves), is_endless=self.restarts, has_sweeps=has_sweeps
        )

    def _minimize(self, solves: Solves, start: FloatArray) -> str:
        place = solves.coordinates
        solver, options = SOLVERS[self.solver], dict(self.options)
        # silenced like all that a library says, an option that it does not know would be lost
        warnings.filterwarnings("error", "Unknown solver options", optimize.OptimizeWarning)
        if self.solver == "Nelder-Mead":
            options.setdefault("initial_simplex", _unit_simplex(place, start))
        function: Callable[..., Any] = solves.loss
        derivative: Any = None
        constraints: list[Any] = []
        if solver.has_constraints and solves.search.problem.feasible:
            limited = LimitedLoss(solves)
            function, constraints = (
                limited.loss,
                limited.constraints(has_gradient=solver.has_gradient),
            )
            derivative = limited.loss_derivative if solver.has_gradient else None
        elif self.solver == "L-BFGS-B":  # always wants both: one round
            function, derivative = Differences(solves).both, True
        elif solver.has_gradient:
            differences = Differences(solves)
            function, derivative = differences.value, differences.derivative
        result = optimize.minimize(
            function,
            start,
            method=self.solver,
            jac=derivative,
            bounds=_bounds(place) if solver.has_bounds else None,
            constraints=constraints,
            options=options,
        )
        return str(result.message)

    def _cobyqa(self, solves: Solves, start: FloatArray) -> str:
        place = solves.coordinates
        try:
            # scipy's own entry holds a lock as long as it runs, so that two runs whose turns
            # alternate would wait for each other for ever; the code behind it needs none
            from scipy._lib.cobyqa import minimize
        except ImportError:
            return self._minimize(solves, start)
        names = {"initial_tr_radius": "radius_init", "final_tr_radius": "radius_final"}
        options = {names.get(name, name): value for name, value in self.options.items()}
        function: Callable[..., Any] = solves.loss
        constraints: list[Any] = []
        if solves.search.problem.feasible:
            limited = LimitedLoss(solves)
            function, constraints = limited.loss, limited.constraints(has_gradient=False)
        result = minimize(
            function, start, bounds=_bounds(place), constraints=constraints, options=options
        )
        return str(result.message)

    def _least_squares(self, solves: Solves) -> str:
        place = solves.coordinates
        has_bounds = SOLVERS[self.solver].has_bounds
        outer = residuals_of(solves.search, self.label)

        def residuals(evaluations: list[Evaluation]) -> list[FloatArray]:
            return solves.rule.residuals(evaluations, outer)

        differences = Differences(solves, residuals)
        # scipy's first trust region is as large as the start, or 1 when that is zero exactly:
        # a start in the middle that is off zero by rounding would never get anywhere
        start = np.where(np.abs(place.start) < LINE_ROUNDING, 0.0, place.start)
        result = optimize.least_squares(
            differences.value,
            start,
            jac=lambda row: differences.derivative(row).T,
            bounds=(place.lower, place.upper) if has_bounds else (-np.inf, np.inf),
            **self.options,
        )
        return str(result.message)


def _as_python(solver: str, words: str) -> str:
    """What a name of the command line, such as "COBYQA:prior:restarts", is in Python."""
    options = "".join(
        ", restarts=True" if word == "restarts" else f", {word!r}"
        for word in sorted(words.split(":"), key="restarts".__eq__)
    )
    return f"zb.Scipy({solver!r}{options})"


def _bounds(place: Coordinates) -> optimize.Bounds | None:
    return None if place.is_white else optimize.Bounds(place.lower, place.upper)


def _unit_simplex(place: Coordinates, start: FloatArray) -> FloatArray:
    """The start and one step of 1 along each coordinate, turned around at a bound."""
    step = np.where(start + 1.0 > place.upper, -1.0, 1.0)
    return np.vstack([start, start + np.diag(step)])
