"""Gauss-Newton on a model of the inner solution: the default for vector problems."""

import dataclasses
from typing import final

from zo_bilevel.estimators.fg2u import FG2U
from zo_bilevel.estimators.fg2u_zo import FG2UZO
from zo_bilevel.estimators.sparse_zo import SparseZO
from zo_bilevel.methods.base import Arrivals, Method, Rounds, Search
from zo_bilevel.methods.constrained.constrained_search import ConstrainedSearch
from zo_bilevel.methods.gauss_newton.descents import descents
from zo_bilevel.methods.gauss_newton.outer_model import OuterModel
from zo_bilevel.methods.gauss_newton.probing import Probing
from zo_bilevel.methods.shared.discontinuity import DiscontinuityDetector
from zo_bilevel.methods.shared.mixed import Descent, mixed_search
from zo_bilevel.methods.shared.starts import find_start
from zo_bilevel.methods.shared.whole_rounds import whole
from zo_bilevel.problem.objectives.base import Identity
from zo_bilevel.problem.objectives.functions import PythonObjective
from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.errors import InputError, UnsupportedProblemError


@final
class GaussNewton(Method):
    """Trust-region Gauss-Newton in the span of the directions explored so far.

    Each solve, a difference or a trial step, is one observation of a smooth function; their
    regression gives theta's slopes, its curvature along the residuals, and how far to believe
    both. A step is tried as soon as it promises enough, until then solves explore further
    directions. Bounds are held by an active set; a search that ends with much unexplained starts
    again elsewhere. The algorithm is described in docs/methods/gauss-newton.md.

    Args:
        estimator: How directions are differenced: `FG2UZO(radius=..., difference=...)`;
            `SparseZO(pattern)` for a first sketch of all slopes from few solves (of any other
            length than its `radius`, and without it where the pattern is refuted); or
            `FG2U()` for exact derivatives of a differentiable inner solver. Which directions
            and how many is the method's own choice, so `num_directions`, `directions` and
            `chunk` are refused.

    Raises:
        InputError: If the estimator makes no sketches, or says which directions to take.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, SquaredError, minimize
        >>> def simulate(phi):
        ...     return [phi["a"] ** 2, phi["a"] * phi["b"]]
        >>> space = Space(a=Real(0.1, 4), b=Real(-2, 2))
        >>> problem = Problem(space, simulate, SquaredError([4.0, -1.0]))
        >>> result = minimize(problem, GaussNewton(), max_solves=30)
        >>> round(result.phi["a"], 5), round(result.phi["b"], 5)
        (2.0, -0.5)

    Source:
        Sketch: arXiv 2406.14095. Growing subspaces: Cartis, Roberts (2023), "Scalable
        subspace methods for derivative-free nonlinear least-squares optimization". Models of
        every output: Wild (2017), on POUNDERS; Astudillo, Frazier (2019), "Bayesian optimization
        of composite functions".
    """

    name = "gauss-newton"
    has_steps = True
    constraints = "kept"

    def __init__(self, estimator: FG2UZO | FG2U | SparseZO | None = None) -> None:
        self.estimator = FG2UZO() if estimator is None else estimator
        if isinstance(self.estimator, SparseZO):
            return
        if not isinstance(self.estimator, FG2UZO | FG2U):
            raise InputError(
                f"estimator must be FG2UZO, FG2U or SparseZO, got {type(self.estimator).__name__}"
            )
        for name in ("num_directions", "directions", "chunk"):
            value = getattr(self.estimator, name, None)
            if value != getattr(type(self.estimator)(), name, None):
                raise InputError(
                    f"estimator must leave {name} at its default, got {value!r}: GaussNewton "
                    "chooses which directions it differences, and how many"
                )

    def rounds(self, search: Search) -> Rounds:
        """Local searches, restarts, and steps to discrete neighbours.

        Raises:
            UnsupportedProblemError: At the start, if only the loss can be seen.
        """
        problem = search.problem
        if problem.is_scalar or isinstance(problem.outer, Identity | PythonObjective):
            raise UnsupportedProblemError(NEEDS_VECTOR)
        (first,) = yield [search.point(search.start, "start")]
        search, first = yield from whole(search, find_start(search, first))
        if not first.ok:
            return "no point was found that solves"
        if not search.bind(first).is_vector:
            raise UnsupportedProblemError(NEEDS_VECTOR)
        return (yield from self.continue_from(search, first))

    def arrivals(self, search: Search) -> Arrivals:
        """The same, told each answer as it arrives; exact derivatives need whole rounds."""
        if isinstance(self.estimator, FG2U):
            return super().arrivals(search)
        return self.rounds(dataclasses.replace(search, is_asynchronous=True))

    def continue_from(
        self, search: Search, first: Evaluation, detector: DiscontinuityDetector | None = None
    ) -> Rounds:
        """The same from a solved start; ends by `DiscontinuityError` where answers jump."""
        bound, feasible = search.bind(first), search.problem.feasible
        if isinstance(self.estimator, SparseZO) and (feasible or search.space.discrete.any()):
            raise UnsupportedProblemError(
                "gauss-newton with SparseZO needs continuous parameters and no constraints"
            )
        if feasible and search.space.discrete.any():
            raise UnsupportedProblemError(
                "gauss-newton cannot keep constraints where there are integers or choices"
            )
        if feasible:
            part = dataclasses.replace(search, is_asynchronous=False)
            return whole(search, ConstrainedSearch(part, first, is_vector=True).rounds())

        def descend(start: Evaluation, *, may_restart: bool) -> Descent:
            outer = OuterModel(bound, start)
            probing = Probing(self.estimator, search, outer, start, detector)
            return descents(probing, may_restart=may_restart and search.rules.restarts)

        return mixed_search(search, first, descend)


NEEDS_VECTOR = (
    "gauss-newton needs an inner solution that is seen whole and an outer objective whose "
    "derivative is known: SquaredError, CrossEntropy or a torch function of theta"
)
