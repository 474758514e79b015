"""What the data say of fitted parameters: errors, correlations, what they leave open."""

import math
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from zo_bilevel.problem.space import Block, Space
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.tables import Grid, number

SAME_RATIO = 0.02
"""Two components of a direction count as equal within this share."""
SMALL_COMPONENT = 0.1
"""Components of a unit vector below it are left out of its description."""
FAR_STEP = 1.0
"""Standard errors that a further step may move a parameter before the answer is no minimum."""
MOST_ROWS = 30
"""Parameters that the printed table shows."""


@final
@dataclass(frozen=True, slots=True)
class Uncertainty:
    """How sure fitted parameters are. Flat arrays run over `names`, in the user's units.

    Args:
        names: One a number: "a", or "field[3]" for arrays. Length N.
        values: The parameters, shape `(N,)`.
        covariance: Shape `(N, N)`; infinite variances for what the data do not determine.
        degrees_of_freedom: Data less parameters; infinite where sigma or covariance are given,
            which are taken as they are.
        residual_deviation: Of a measurement of weight 1, estimated from the residuals: the errors
            are scaled by it unless sigma or covariance are given, of which it then is a multiple.
        stiffness: Singular values of the weighted Jacobian per scaled unit, `(N,)`, falling.
        directions: The eigen-directions they belong to, one a column, scaled, `(N, N)`.
        undetermined: What the data leave open, in words.
        hardly: What they determine, but no better than the bounds do: 95 % intervals are longer.
        steps: By how many standard errors a Gauss-Newton step from the answer would move each
            parameter, `(N,)`; about 0 at a minimum.
        on_bound: Names of parameters on a bound: their intervals end there.
        solves: What it cost.
        space: The parameters.
        factor: Root of the covariance of what is determined, `(N, N)`.
        jacobian: Derivatives of theta, `(m, N)`.
        is_measured: Which outputs have a measurement of weight, `(m,)`.
        variances: Of a measurement of each output, `(m,)`, missing ones by the sigma given for
            them, else as of weight 1.
        tied: Of each tied parameter the value and its standard error, to first order.
    """

    names: tuple[str, ...]
    values: FloatArray
    covariance: FloatArray = field(repr=False)
    degrees_of_freedom: float
    residual_deviation: float
    stiffness: FloatArray = field(repr=False)
    directions: FloatArray = field(repr=False)
    undetermined: tuple[str, ...]
    hardly: tuple[str, ...]
    steps: FloatArray = field(repr=False)
    on_bound: tuple[str, ...]
    solves: int
    space: Space = field(repr=False)
    factor: FloatArray = field(repr=False)
    jacobian: FloatArray = field(repr=False)
    is_measured: NDArray[np.bool_] = field(repr=False)
    variances: FloatArray = field(repr=False)
    tied: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def deviations(self) -> FloatArray:
        """Standard errors, flat, shape `(N,)`; infinite where the data do not determine one."""
        deviations: FloatArray = np.sqrt(np.diag(self.covariance))
        return deviations

    @property
    def standard_error(self) -> dict[str, Any]:
        """Standard errors by name, arrays in the parameter's shape; tied ones come last."""
        return self._named(self.deviations) | {n: error for n, (_, error) in self.tied.items()}

    @property
    def correlation(self) -> FloatArray:
        """Correlations, shape `(N, N)`; NaN for what the data do not determine."""
        with np.errstate(invalid="ignore"):
            correlation: FloatArray = self.covariance / np.outer(self.deviations, self.deviations)
        return correlation

    def intervals(self, level: float = 0.95) -> dict[str, tuple[Any, Any]]:
        """Intervals of Student's t around each parameter (eq. 3 of `zo_bilevel.run.fit`).

        Of a `Log` they lie around its logarithm, so that they hold no negative values.

        Args:
            level: Share of repetitions in which an interval holds the true value, in (0, 1).

        Raises:
            InputError: If `level` is outside (0, 1).
        """
        low, high = (self._named(end) for end in self.flat_intervals(level))
        reach = self._reach(level)
        ends = {name: (low[name], high[name]) for name in low}
        return ends | {n: (v - reach * e, v + reach * e) for n, (v, e) in self.tied.items()}

    def flat_intervals(self, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends of the free parameters, shape `(N,)` each; as `intervals`.

        Those of a parameter on a bound end there.
        """
        reach = self._reach(level) * self.deviations
        is_log = self.space.is_log
        shares = np.divide(reach, self.values, out=np.zeros_like(reach), where=is_log)
        with np.errstate(over="ignore"):
            factor = np.exp(shares)
        low = np.where(is_log, self.values / factor, self.values - reach)
        high = np.where(is_log, self.values * factor, self.values + reach)
        kept, space = np.isin(self.names, self.on_bound), self.space
        low = np.where(kept, np.maximum(low, space.lowest), low)
        return low, np.where(kept, np.minimum(high, space.highest), high)

    def _reach(self, level: float) -> float:
        if not 0 < level < 1:
            raise InputError(f"level must lie in (0, 1), got {level}")
        return float(stdtrit(self.degrees_of_freedom, 0.5 + level / 2))

    def fitted_deviations(self) -> FloatArray:
        """Standard errors of the fitted theta, `(m,)`; NaN where its derivatives are not known."""
        return np.asarray(np.linalg.norm(self.jacobian @ self.factor, axis=1))

    def next_measurements(self, count: int = 5) -> list[tuple[int, float]]:
        """Which outputs without a measurement would tell most if they were measured.

        The gain is that of D-optimal design, `log(1 + j C j' / v)` for an output with derivative j
        and variance v of its measurement: how much the volume of the confidence region shrinks, in
        nepers of its square.

        Args:
            count: How many.

        Returns:
            Place in the flat inner solution and gain, the best first; outputs of weight 0 are the
            candidates.

        Raises:
            InputError: If their derivatives are not known, those that a run left behind.
        """
        places = np.flatnonzero(~self.is_measured)
        candidates = self.jacobian[places]
        if not np.isfinite(candidates).all():
            raise InputError(
                "next_measurements needs the derivatives of outputs without a measurement, which a "
                "run does not leave behind: take zb.uncertainty(problem, result.phi)"
            )
        variances = np.maximum(self.variances[places], np.finfo(float).tiny)
        finite = np.where(np.isfinite(self.covariance), self.covariance, 1e300)
        spread = np.einsum("kn,nm,km->k", candidates, finite, candidates)
        gains = np.log1p(np.maximum(spread, 0.0) / variances)
        best = np.argsort(-gains, kind="stable")[:count]
        return [(int(places[k]), float(gains[k])) for k in best]

    def _named(self, flat: FloatArray) -> dict[str, Any]:
        named = {}
        for block in self.space.blocks:
            part = flat[block.section].reshape(block.parameter.shape)
            named[block.name] = part if block.parameter.shape else float(part)
        return named

    def grid(self) -> Grid:
        """The table that `print` shows, before it is drawn."""
        shown = self.intervals()
        flat = [np.concatenate([np.ravel(ends[k]) for ends in shown.values()]) for k in (0, 1)]
        values = np.concatenate([self.values, *(np.ravel(v) for v, _ in self.tied.values())])
        errors = np.concatenate([self.deviations, *(np.ravel(e) for _, e in self.tied.values())])
        tied = (array_names(name, np.shape(value)) for name, (value, _) in self.tied.items())
        names = [*self.names, *(name for some in tied for name in some)]
        rows = tuple(
            (name, number(value, 6), number(error), interval_text(low, high))
            for name, value, error, low, high in zip(names, values, errors, *flat, strict=True)
        )
        notes = [f"not determined by the data: {words}" for words in self.undetermined]
        notes += [f"hardly determined by the data: {words}" for words in self.hardly]
        notes += [f"on a bound: {name}" for name in self.on_bound]
        far = int(np.argmax(np.abs(self.steps)))
        if abs(self.steps[far]) > FAR_STEP and not self.on_bound:
            notes.append(
                f"no minimum of the data: a step from here would move {self.names[far]} by "
                f"{abs(self.steps[far]):.2g} standard errors"
            )
        if len(rows) > MOST_ROWS:
            notes.append(f"... and {len(rows) - MOST_ROWS} more parameters")
        title = (
            f"{self.degrees_of_freedom} degrees of freedom, residual standard deviation "
            f"{number(self.residual_deviation, 4)}"
            if np.isfinite(self.degrees_of_freedom)
            else "sigma as given"
        )
        if np.isinf(self.degrees_of_freedom) and np.isfinite(self.residual_deviation):
            title += f"; the data scatter {number(self.residual_deviation, 3)} of it"
        header = ("parameter", "value", "standard\nerror", "95 % interval")
        return Grid(title, header, rows[:MOST_ROWS], tuple(notes))

    def __str__(self) -> str:
        return self.grid().text()


def interval_text(low: float, high: float) -> str:
    """The ends with as many digits as tell them apart."""
    width, size = high - low, max(abs(low), abs(high))
    is_told = math.isfinite(width) and width > 0
    digits = max(4, 2 + math.ceil(math.log10(size / width))) if is_told else 4
    return f"{number(low, digits)}..{number(high, digits)}"


def flat_names(space: Space) -> tuple[str, ...]:
    """A name for each number of a space.

    Example:
        >>> from zo_bilevel import Real, Space
        >>> flat_names(Space(a=Real(0, 1), field=Real(0, 1, shape=(2,))))
        ('a', 'field[0]', 'field[1]')
    """
    return tuple(name for block in space.blocks for name in block_names(block))


def block_names(block: Block) -> list[str]:
    """A name for each number of a parameter."""
    return array_names(block.name, block.parameter.shape)


def array_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """A name for each number of an array."""
    return [f"{name}[{', '.join(map(str, i))}]" if i else name for i in np.ndindex(shape)]


def describe_direction(direction: FloatArray, values: FloatArray, names: tuple[str, ...]) -> str:
    """What is determined although its parts are not, in words.

    Args:
        direction: Along which the data say nothing, in the user's units, shape `(N,)`.
        values: The parameters, shape `(N,)`.
        names: Of the parameters.

    Returns:
        For two parameters the product, quotient, sum or difference that the direction leaves alone;
        else the direction itself.

    Example:
        >>> describe_direction(np.array([2.0, -3.0]), np.array([2.0, 3.0]), ("a", "b"))
        'a * b is determined, a and b are not'
    """
    moved = np.abs(direction) > SMALL_COMPONENT * np.linalg.norm(direction)
    is_relative = bool(np.all(values[moved]))  # no share of zero
    relative = np.divide(direction, np.abs(values), out=np.zeros(len(names)), where=values != 0)
    alone, pairs = [], []
    for parts, signs in ((relative, ("*", "/")), (direction, ("+", "-")))[not is_relative :]:
        length = np.linalg.norm(parts)
        large = [k for k, part in enumerate(parts) if abs(part) > SMALL_COMPONENT * length]
        if len(large) == 1:
            alone.append(names[large[0]])
        if len(large) == 2:
            one, two = parts[large] * (np.sign(values[large]) if signs[0] == "*" else 1.0)
            difference = abs(abs(one) - abs(two)) / abs(one)
            pairs.append((difference, signs[0] if one * two < 0 else signs[1], large))
    difference, sign, large = min(pairs, default=(math.inf, "", []))
    if difference <= SAME_RATIO:
        first, second = (names[k] for k in large)
        return f"{first} {sign} {second} is determined, {first} and {second} are not"
    if alone:
        return alone[-1]
    unit, kind = (relative, " (relative changes)") if is_relative else (direction, "")
    unit = unit / np.linalg.norm(unit)
    terms = [
        f"{unit[k]:+.2g} {names[k]}" for k in np.argsort(-np.abs(unit))[:6] if abs(unit[k]) > 0.05
    ]
    return f"the combination{kind} {' '.join(terms)}"
