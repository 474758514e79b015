"""What must hold beside the bounds: among parameters, and in what the solver returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

import numpy as np

from zo_bilevel.problem.expression import Inequality
from zo_bilevel.problem.objectives.functions import NUMERICAL_ERRORS
from zo_bilevel.problem.parameters import Choice
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, described

FEASIBLE_VIOLATION: Final = 1e-6
"""Largest violation that counts as none, in units of each constraint's scale."""
KNOWN_VIOLATION: Final = 1e-9
"""The same where a constraint is known before the solve."""
DIFFERENCE_STEP: Final = 1e-5
"""Scaled, for derivatives of functions of phi: errors of rounding and curvature are alike."""
FAR_UNIT: Final = -0.5
MOST_UNITS: Final = 1e9
"""Scaled step at the start of a value without near bounds, and how many of them are looked at."""
BROKEN_VALUE: Final = 1e6
"""Stands for the value of a function of phi that gives none."""


@final
@dataclass(frozen=True, slots=True)
class Linear:
    """Linear inequalities among parameters; a plain text means the same.

    No solve is spent where one is broken. A violation counts in units of the most that the two
    sides can differ by within the bounds.

    Args:
        text: For instance `"a + b <= 1"`, `"a < b"`, `"0 <= k[1] - k[0] <= 2"`, `"sum(k) <= 1"`;
            `<` means `<=`.

    Raises:
        InputError: If the text is no linear inequality.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, minimize
        >>> space = Space(a=Real(0, 4), b=Real(0, 4))
        >>> problem = Problem(space, lambda phi: (phi["a"] - 3) ** 2 + (phi["b"] - 1) ** 2,
        ...                   constraints=[Linear("a <= b")])
        >>> round(minimize(problem, max_solves=40).phi["a"], 4)
        2.0
    """

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InputError(f"Linear text must be a text, got {self.text!r}")
        Inequality(self.text).check_linear()


@final
@dataclass(frozen=True, slots=True)
class Output:
    """What must hold for the inner solution: known only after a solve.

    Args:
        rule: Inequalities between formulas of parts of theta (`theta` itself where it is no dict)
            and of parameters, `"stress <= 200"`, `"u[3] - u[0] <= limit"`; or a function of theta
            and phi that returns a number or an array, at most 0 where it holds.
        scale: Size in which a violation counts, > 0: up to 1e-6 of it is none. Default: the number
            that a text compares with, else 1.

    Raises:
        InputError: If the rule is neither, or the scale not > 0.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, minimize
        >>> def beam(phi):
        ...     return {"mass": phi["d"] ** 2, "stress": 8 / phi["d"] ** 3}
        >>> problem = Problem(Space(d=Real(0.1, 9)), beam, lambda theta, phi: theta["mass"],
        ...                   constraints=[Output("stress <= 1")])
        >>> round(minimize(problem, max_solves=40).phi["d"], 4)
        2.0
    """

    rule: str | Callable[[Any, dict[str, Any]], Any]
    scale: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.rule, str):
            Inequality(self.rule)
        elif not callable(self.rule):
            raise InputError(f"Output rule must be a text or a function, got {self.rule!r}")
        if self.scale is not None:
            finite_number("Output scale", self.scale, "> 0")

    def values(self, theta: Any, phi: dict[str, Any]) -> FloatArray:  # noqa: ANN401 - user's value
        """By how much it is broken, in its scale; at most 0 where it holds.

        Args:
            theta: As the inner solver returned it, tensors as arrays.
            phi: Parameters by name.
        """
        if not isinstance(self.rule, str):
            return _numbers(self.rule(theta, phi), self.rule) / (self.scale or 1.0)
        rule = Inequality(self.rule)
        parts = theta if isinstance(theta, Mapping) else {"theta": theta}
        if both := sorted(rule.names & parts.keys() & phi.keys()):
            raise rule.refused(
                f"names {both[0]!r}, which is a parameter and a part of theta: give a function"
            )
        named = {**phi, **parts}
        if self.scale is not None:
            return rule.values(named) / self.scale
        return rule.relative_values(named)


Constraint: TypeAlias = str | Linear | Output | Callable[[dict[str, Any]], Any]
"""A text or `Linear`, an `Output`, or a function of phi that is at most 0 where it holds."""


@final
class FeasibleSet:
    """Where the constraints of a problem hold, in scaled coordinates.

    Raises:
        InputError: If one is of no kind there is, names what there is not, or cannot be computed.

    Attributes:
        texts: What must hold among parameters.
        outputs: What must hold for theta.
        functions: What must hold among parameters, as functions.
    """

    def __init__(self, space: Space, constraints: Sequence[Constraint]) -> None:
        if isinstance(constraints, str) or not isinstance(constraints, Sequence):
            raise InputError(f"constraints must be a list, got {constraints!r}")
        self._space = space
        self.texts = [self._read(given) for given in constraints if isinstance(given, str | Linear)]
        self.outputs = [given for given in constraints if isinstance(given, Output)]
        others = [c for c in constraints if not isinstance(c, str | Linear | Output)]
        self.functions = [self._checked(given) for given in others]
        self.slopes, self.offset = self._affine()
        self._scales = np.abs(self.slopes).sum(axis=1)
        self._scales[self._scales == 0.0] = 1.0

    def __bool__(self) -> bool:
        return self.is_cheap or bool(self.outputs)

    @property
    def is_cheap(self) -> bool:
        """Whether any constraint is known before the solve."""
        return bool(self.texts or self.functions)

    def before(self, x: FloatArray) -> FloatArray:
        """What is known before the solve; at most 0 where it holds; `x`: scaled, shape `(N,)`."""
        if not self.is_cheap:
            return np.zeros(0)
        phi = self._space.decode(x)
        found = [_safe(function, phi) for function in self.functions]
        return np.concatenate([self._linear(phi) / self._scales, *found])

    def slopes_before(self, x: FloatArray) -> FloatArray:
        """Derivatives of `before`, by central differences, shape `(k, N)`; no solve is made."""
        columns = []
        for index in range(x.size):
            ahead, behind = x.copy(), x.copy()
            ahead[index] = min(x[index] + DIFFERENCE_STEP, self._space.upper[index])
            behind[index] = max(x[index] - DIFFERENCE_STEP, self._space.lower[index])
            change = self.before(ahead) - self.before(behind)
            columns.append(change / (ahead[index] - behind[index]))
        return np.stack(columns, axis=1)

    def after(self, theta: FloatArray, layout: ThetaLayout, x: FloatArray) -> FloatArray:
        """What is known after it: the constraints on outputs."""
        if not self.outputs:
            return np.zeros(0)
        packed, phi = layout.pack(theta.copy()), self._space.decode(x)
        return np.concatenate([output.values(packed, phi) for output in self.outputs])

    def violation(self, theta: FloatArray, layout: ThetaLayout, x: FloatArray) -> float:
        """The largest violation of all constraints, 0 where all hold; NaN where one is."""
        worst = [0.0, *self.before(x), *self.after(theta, layout, x)]
        return float(np.max(worst))

    def allows(self, x: FloatArray) -> bool:
        """Whether a solve may be spent here."""
        return not self.is_cheap or bool((self.before(x) <= KNOWN_VIOLATION).all())

    def _read(self, given: str | Linear) -> Inequality:
        text = Inequality((given if isinstance(given, Linear) else Linear(given)).text)
        for name in sorted(text.names):
            if isinstance(self._space.parameters.get(name), Choice):
                raise text.refused(f"names the choice {name!r}, which is no number")
        try:
            values = text.values(self._space.decode(self._space.lower))
        except InputError as error:
            is_unknown = text.names - set(self._space.names)
            hint = "; what the solver returns is constrained by zb.Output" if is_unknown else ""
            raise InputError(f"{error}{hint}") from None
        if not np.isfinite(values).all():
            raise text.refused("is not finite")
        return text

    def _checked(self, function: Any) -> Callable[[dict[str, Any]], Any]:  # noqa: ANN401
        if not callable(function):
            raise InputError(
                "a constraint must be a text, zb.Linear, zb.Output or a function of phi, got "
                f"{function!r}"
            )
        middle = self._space.decode(np.zeros(self._space.size))
        try:
            _numbers(function(middle), function)
        except InputError:
            raise
        except (*NUMERICAL_ERRORS, ValueError):
            pass  # the middle need not keep it
        except Exception as error:
            raise InputError(
                f"constraint {_name(function)} raised {described(error)} at {middle}"
            ) from error
        found: Callable[[dict[str, Any]], Any] = function
        return found

    def _linear(self, phi: dict[str, Any]) -> FloatArray:
        return np.concatenate([np.zeros(0), *(text.values(phi) for text in self.texts)])

    def _affine(self) -> tuple[FloatArray, FloatArray]:
        """The texts as `slopes @ units + offset <= 0`: values are `base + size * units`.

        A unit is a value's range, from its lower end; or, of a value without near bounds, what one
        scaled unit at its start makes up.
        """
        space = self._space
        begin = np.where(space.is_far, space.middle, space.lower)
        ends = np.where(space.is_far, space.middle + FAR_UNIT, space.upper)
        offset = self._linear(space.decode(begin))
        slopes = np.zeros((offset.size, space.size))
        for index in np.flatnonzero(~space.is_choice) if self.texts else ():
            corner = begin.copy()
            corner[index] = ends[index]
            slopes[:, index] = self._linear(space.decode(corner)) - offset
        self.base, low, high = (space.values(x) for x in (begin, space.lower, space.upper))
        size = space.values(ends) - self.base
        self.size = np.where(size == 0.0, 1.0, size)  # of an integer that has one value
        units = np.column_stack([low - self.base, high - self.base]) / self.size[:, None]
        self.units = np.clip(np.sort(units, axis=1), -MOST_UNITS, MOST_UNITS)
        return slopes, offset


def _safe(function: Callable[[dict[str, Any]], Any], phi: dict[str, Any]) -> FloatArray:
    try:
        values = _numbers(function(phi), function)
    except InputError:
        raise
    except (*NUMERICAL_ERRORS, ValueError):  # the square root of a negative number
        return np.array([BROKEN_VALUE])
    return np.where(np.isnan(values), BROKEN_VALUE, np.minimum(values, BROKEN_VALUE))


def _numbers(answer: Any, function: Callable[..., Any]) -> FloatArray:  # noqa: ANN401
    try:
        values = np.asarray(answer)
        if values.dtype == bool or values.dtype.kind not in "fiu":
            raise TypeError
    except (TypeError, ValueError):
        raise InputError(
            f"constraint {_name(function)} must return numbers, at most 0 where it holds, got "
            f"{answer!r}"
        ) from None
    return np.ravel(values).astype(np.float64)


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
