"""A bilevel problem: the space, the inner solver that can only be run, the outer objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, final, runtime_checkable

import numpy as np

from zo_bilevel.problem.bound_problem import BoundProblem
from zo_bilevel.problem.constraints import Constraint, FeasibleSet
from zo_bilevel.problem.content import DerivedName
from zo_bilevel.problem.feasible_start import check_consistent, nearest_allowed
from zo_bilevel.problem.fidelity import Fidelity
from zo_bilevel.problem.objectives.base import Identity, OuterContext
from zo_bilevel.problem.objectives.cross_entropy import CrossEntropy
from zo_bilevel.problem.objectives.functions import (
    NUMERICAL_ERRORS,
    PythonObjective,
    TorchObjective,
    resolve_callable,
)
from zo_bilevel.problem.objectives.robust_error import RobustError
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.prior_term import prior_share
from zo_bilevel.problem.solver_identity import solver_name
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.space_values import by_name
from zo_bilevel.problem.theta import ThetaLayout, Unmeasured, flatten_theta
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError, described, shown

InnerSolver: TypeAlias = Callable[..., Any]
OBJECTIVES = (SquaredError, RobustError, CrossEntropy, TorchObjective, PythonObjective, Identity)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """Minimise `outer(theta, phi)` over the space, where `theta = inner(phi)`.

    Args:
        space: The meta-parameters.
        inner: Called as `inner(phi)`, or `inner(phi, seed=seed)` when it takes a seed, with a
            dict of named values; returns a number, array, tensor or dict of them.
        outer: `SquaredError`, `CrossEntropy`, a torch function `f(theta, phi)`, a Python
            function that returns a number, or `None` when the inner solver returns the loss.
        name: What the inner solver is called in stores and reports; default from `inner`.
        version: Change it when the inner solver changes: stored solves of other versions are
            not used again.
        is_scalar: Hide the inner solution from methods: only the loss is seen.
        valid: The user's own rule for answers that are finite but absurd: called as
            `valid(theta, phi)` with theta as the inner solver returned it (tensors as arrays)
            and named values; where it returns False the solve is "rejected".
        expected_length: How many numbers an inner solution has in all; a solve that returns
            more or fewer is "wrong_shape". Default: as many as the first one.
        constraints: What must hold beside the bounds: texts, `"a + b <= 1"`, and functions of
            named values that are at most 0 where they hold, both known before a solve; and
            `Output("stress <= 200")`, known after it.
        fidelity: Which of the solver's values says how exactly it solves, or `None`; not together
            with constraints.

    Raises:
        InputError: If the space is no `Space`, `inner`, `outer` or `valid` cannot be called, the
            expected length is no whole number >= 1, an adapter refuses the space, or constraints
            cannot be read or contradict each other, or the fidelity is called like a parameter.

    Example:
        >>> from zo_bilevel import Real
        >>> problem = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"] ** 2, SquaredError(4.0))
        >>> problem.scalar.is_scalar
        True
    """

    space: Space
    inner: InnerSolver
    outer: Any = None
    name: str = ""
    version: str = "1"
    is_scalar: bool = False
    valid: Callable[[Any, dict[str, Any]], bool] | None = None
    expected_length: int | None = None
    constraints: Sequence[Constraint] = ()
    fidelity: Fidelity | None = None
    feasible: FeasibleSet = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.space, Space):
            raise InputError(f"space must be a zb.Space, got {type(self.space).__name__}")
        _check_inner(self.inner)
        outer = Identity() if self.outer is None else self.outer
        if not isinstance(outer, OBJECTIVES) and not callable(outer):
            raise InputError(f"outer must be callable or an objective, got {type(outer).__name__}")
        object.__setattr__(self, "outer", outer)
        if not self.name:
            object.__setattr__(self, "name", DerivedName(solver_name(self.inner)))
        if self.valid is not None and not callable(self.valid):
            raise InputError(f"valid must be callable, got {type(self.valid).__name__}")
        if self.expected_length is not None:
            length = whole_number("expected_length", self.expected_length, least=1)
            object.__setattr__(self, "expected_length", length)
        feasible = FeasibleSet(self.space, self.constraints)
        check_consistent(self.space, feasible)
        object.__setattr__(self, "feasible", feasible)
        _check_fidelity(self.fidelity, self.space, self.constraints)
        if isinstance(self.inner, ChecksSpace):
            self.inner.check(self.space)
        if self.space.has_prior:
            prior_share(outer)

    def start_at(self, initial: Mapping[str, Any] | None) -> FloatArray:
        """Where a search begins, scaled, shape `(N,)`.

        Args:
            initial: By name; missing names take the middle of their range. One that constraints
                forbid is moved to the nearest point that keeps them.

        Raises:
            InputError: If it breaks a rule, or constraints leave no start that could be found.
        """
        return nearest_allowed(self.space, self.feasible, self.space.encode(initial))

    def start_note(self, initial: Mapping[str, Any] | None) -> str:
        """That constraints moved a start, in words; empty where they did not.

        Args:
            initial: By name.

        Raises:
            InputError: As `start_at`.
        """
        wanted = self.space.encode(initial)
        start = self.start_at(initial)
        if np.array_equal(start, wanted):
            return ""
        before = self.space.decode(wanted)
        changes = (
            f"{name} from {_told_apart(before[name], value)}"
            for name, value in self.space.decode(start).items()
            if not np.array_equal(value, before[name])
        )
        return "the start was moved to where constraints hold: " + ", ".join(changes)

    @property
    def unmeasured(self) -> Unmeasured | None:
        """Where an inner solution may be NaN, as the target is missing there."""
        return self.outer.unmeasured if isinstance(self.outer, SquaredError | RobustError) else None

    def flat(self, theta: Any) -> FloatArray:  # noqa: ANN401 - the user's structure
        """An inner solution as one vector, `(m,)`, as methods and stores hold it."""
        found, layout = flatten_theta(theta)
        return found if self.unmeasured is None else self.unmeasured.filled(found, layout)

    @property
    def scalar(self) -> Problem:
        """The same problem seen as a scalar black box: only the loss is visible."""
        return dataclasses.replace(self, is_scalar=True)

    def placed_at(self, phi: Mapping[str, Any] | None) -> Problem:
        """The same problem, searched around a start where bounds are far; see `Space.placed_at`."""
        space = self.space.placed_at(phi)
        return self if space is self.space else dataclasses.replace(self, space=space)

    def placed_around(self, phi: Mapping[str, Any] | None) -> Problem:
        """The same problem around an answer: numbers without bounds only, whatever the others."""
        given = by_name(phi)
        free = {name: value for name, value in given.items() if name in self.space.placements}
        return self.placed_at(free)

    def input_rounding(self, x: FloatArray) -> FloatArray:
        """Steps of the coordinates that the inner solver does not see, where it says so.

        Args:
            x: Where, scaled, shape `(N,)`.

        Returns:
            Scaled, shape `(N,)`; 0 for solvers without an `input_rounding` of their own.
        """
        say = getattr(self.inner, "input_rounding", None)
        return np.zeros(self.space.size) if say is None else say(self.space, x)

    def bind(self, theta: FloatArray, layout: ThetaLayout, x: FloatArray) -> BoundProblem:
        """Fix the structure of the inner solution from the first solve.

        Args:
            theta: First inner solution, flat, shape `(m,)`.
            layout: Its structure.
            x: Where it was solved, scaled, shape `(N,)`.

        Returns:
            The problem as methods see it.

        Raises:
            InnerSolverError: If the outer objective cannot work on this inner solution.
        """
        context = OuterContext(self.space, layout)
        outer = self.outer
        if isinstance(outer, SquaredError | RobustError | CrossEntropy):
            outer.check(layout)
        elif isinstance(outer, Identity):
            if layout.size != 1:
                raise InnerSolverError(
                    f"the inner solver returned {layout.describe()}, but without an outer "
                    "objective it must return one number, the loss"
                )
        elif not isinstance(outer, OBJECTIVES):
            outer = resolve_callable(outer, theta, x, context)
        return BoundProblem(self.space, outer, context, self.is_scalar)

    def refusal(
        self, theta: FloatArray, layout: ThetaLayout, x: FloatArray, *, must_work: bool = False
    ) -> str:
        """Why the user's rule refuses an inner solution, in words; empty when it does not.

        Args:
            theta: Flat inner solution, shape `(m,)`.
            layout: Its structure.
            x: Where it was solved, scaled, shape `(N,)`.
            must_work: Raise where the rule itself raises, as long as it never worked.

        Raises:
            InputError: If the rule gives no truth value, or raises while it must work.
        """
        if self.valid is None:
            return ""
        phi = self.space.decode(x)
        try:
            answer = self.valid(layout.pack(theta.copy()), phi)
        except Exception as error:
            text = f"valid raised {type(error).__name__}: {shown(error)}"
            if must_work and not isinstance(error, NUMERICAL_ERRORS):
                raise InputError(f"{text} (at {phi})") from error
            return text
        if not isinstance(answer, bool | np.bool_):
            raise InputError(f"valid must return True or False, got {answer!r} (at {phi})")
        return "" if answer else "the inner solution is refused by valid"


def _told_apart(before: Any, after: Any) -> str:  # noqa: ANN401 - any parameter values
    if not isinstance(after, float):
        return f"{before} to {after}"
    shown = (f"{before:.{digits}g} to {after:.{digits}g}" for digits in range(6, 18))
    return next(text for text in shown if len(set(text.split(" to "))) == 2)


def _check_fidelity(fidelity: object, space: Space, constraints: Sequence[Constraint]) -> None:
    if fidelity is None:
        return
    if not isinstance(fidelity, Fidelity):
        raise InputError(f"fidelity must be a zb.Fidelity, got {type(fidelity).__name__}")
    if fidelity.name in space.names:
        raise InputError(f"fidelity must not be called like a parameter, got {fidelity.name!r}")
    if constraints:
        raise InputError("fidelity must be left out where there are constraints")


def _check_inner(inner: object) -> None:
    if not callable(inner):
        raise InputError(f"inner must be callable, got {type(inner).__name__}")
    try:
        hasattr(inner, "no_such_attribute")
    except Exception as error:
        raise InputError(
            f"inner must raise AttributeError for an attribute that it has not, got "
            f"{described(error)}"
        ) from error


@runtime_checkable
class ChecksSpace(Protocol):
    """An adapter that can refuse a space before the first solve."""

    def check(self, space: Space) -> None:
        """Raise `InputError`, by name, for parameters that do not fit."""
        ...
