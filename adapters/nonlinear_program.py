"""A follower's nonlinear program: any smooth objective and constraints, several minima included."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final, get_args

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike
from scipy.stats import qmc

from zo_bilevel.adapters.linear_program.linear_program import Ties
from zo_bilevel.problem.solver_identity import content_hash
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, SolveError, unknown_name_message

Function: TypeAlias = Callable[[FloatArray, Mapping[str, Any]], Any]

TIE_TOLERANCE = 1e-8
"""Minima whose values differ by less, relative, are equally good for the follower."""
SAME_POINT = 1e-3
"""Points nearer than this share of the bounds are one point."""
CONSTANT_SPREAD = 1e-12
"""A function that varies by no more than this share of its values is constant."""
MOST_SPREAD = 1e4
"""Over which SLSQP's line search still finds its way; far larger values end it at once."""
CLOSER_SHARES = (1.0, 1e-2, 1e-4)
"""Of the tolerances: a flat minimum is searched again so closely, from where it ended."""
MOST_VIOLATION = 1e-7
"""Constraints may be violated by this much: the accuracy of the local solver."""


@final
class NonlinearProgram:
    """Solve the follower's problem of a bilevel program from several starts, with scipy's SLSQP.

    `minimise objective(y, phi)  where  constraints(y, phi) <= 0,  lower <= y <= upper`

    theta is the follower's answer y, shape `(n,)`. The starts are the same for every phi, so that
    the answer depends on phi alone; with enough of them the global minimum is found. Where several
    minima are equally good, theta is not a function of phi until a rule says which one is meant:
    `ties`. "optimistic" is the one of the textbooks, the answer that is best for the leader; it
    also searches along flat minima. A follower with a linear objective and constraints is solved
    exactly by `LinearProgram`.

    Args:
        objective: `objective(y, phi)`, a number; y has shape `(n,)`.
        lower: Least value of each y: shape `(n,)`, finite.
        upper: Greatest value of each y: shape `(n,)`, finite.
        constraints: `constraints(y, phi)`: a number or array that must be <= 0, or `None`.
        leader: `leader(y, phi)`: what the leader pays, for the rules that need it.
        ties: Among several best answers: "first" (from the earliest start; it is always the
            same), "optimistic", "pessimistic", or "refuse" (the solve fails).
        num_starts: Local searches, >= 1: from the middle, then from a Sobol sequence.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> def square(y, phi):
        ...     return (y[0] ** 2 - phi["x"]) ** 2
        >>> follower = NonlinearProgram(
        ...     square, [-2.0], [2.0], leader=lambda y, phi: y[0], ties="optimistic"
        ... )
        >>> follower({"x": 1.0}).round(4)
        array([-1.])
    """

    def __init__(
        self,
        objective: Function,
        lower: ArrayLike,
        upper: ArrayLike,
        *,
        constraints: Function | None = None,
        leader: Function | None = None,
        ties: Ties = "first",
        num_starts: int = 8,
    ) -> None:
        for name, function in (
            ("objective", objective),
            ("constraints", constraints),
            ("leader", leader),
        ):
            if not callable(function) and (function is not None or name == "objective"):
                raise InputError(f"{name} must be callable, got {function!r}")
        if ties not in get_args(Ties):
            text = unknown_name_message("rule for ties", str(ties), get_args(Ties))
            raise InputError(f"NonlinearProgram: {text}")
        if ties in ("optimistic", "pessimistic") and leader is None:
            raise InputError(f"ties={ties!r} needs leader")
        low, high = (np.atleast_1d(np.asarray(side, dtype=np.float64)) for side in (lower, upper))
        if low.ndim != 1 or low.shape != high.shape or not np.isfinite(low - high).all():
            raise InputError(
                f"lower and upper must be finite, of one shape (n,), got {lower!r} and {upper!r}"
            )
        if (low > high).any():
            raise InputError(f"lower must be <= upper, got {lower!r} and {upper!r}")
        self.objective, self.constraints, self.leader = objective, constraints, leader
        self.lower, self.upper, self.ties = low, high, ties
        self._width = np.where(high > low, high - low, 1.0)
        count = whole_number("num_starts", num_starts, least=1)
        self._starts = self._spread(count)

    def _spread(self, count: int) -> FloatArray:
        power = int(np.ceil(np.log2(max(count, 2))))
        shares = qmc.Sobol(self.lower.size, scramble=False).random_base2(power + 1)
        # the first point is a corner, the second the middle
        found: FloatArray = self.lower + (self.upper - self.lower) * shares[1 : count + 1]
        return found

    @property
    def name(self) -> str:
        """A hash of all that it is made of, by which a store tells followers apart."""
        parts = self.objective, self.constraints, self.leader, self.ties
        bounds = self.lower.tobytes(), self.upper.tobytes(), len(self._starts)
        return f"NonlinearProgram#{content_hash(*parts, *bounds)}"

    def __call__(self, phi: Mapping[str, Any]) -> FloatArray:
        """The follower's answer, shape `(n,)`.

        Raises:
            SolveError: If no start leads to a feasible point, the objective is not finite there,
                or the answer is not determined and ties are refused.
        """
        objective = self._scaled(self.objective, phi)
        found = [self._search(start, objective, phi) for start in self._starts]
        reached = [y for y in found if y is not None]
        if not reached:
            raise SolveError(
                f"the follower's problem is infeasible from all {len(found)} starts: no point met "
                "all its constraints"
            )
        values = np.array([float(objective(y, phi)) for y in reached])
        if not np.isfinite(values).any():
            raise SolveError(
                f"the follower's objective is not finite where its {len(reached)} local searches "
                f"ended, got {float(self.objective(reached[0], phi))} at {reached[0].tolist()}"
            )
        least = float(values[np.isfinite(values)].min())
        slack = TIE_TOLERANCE * max(1.0, abs(least))
        best = [y for y, value in zip(reached, values, strict=True) if value <= least + slack]
        return self._chosen(best, objective, least, phi)

    def _scaled(self, function: Function, phi: Mapping[str, Any]) -> Function:
        """The function varying by 1 to `MOST_SPREAD`: the tolerances are absolute."""
        with np.errstate(all="ignore"):
            points = [self.lower, self.upper, *self._starts]
            values = np.array([float(function(y, phi)) for y in points])
        values = values[np.isfinite(values)]
        spread = float(np.ptp(values)) if values.size else 0.0
        if spread <= CONSTANT_SPREAD * float(np.abs(values).max(initial=0.0)):
            return function
        unit = spread / min(max(spread, 1.0), MOST_SPREAD)
        return lambda y, phi: float(function(y, phi)) / unit

    def _chosen(
        self, best: list[FloatArray], objective: Function, least: float, phi: Mapping[str, Any]
    ) -> FloatArray:
        if self.ties == "first":
            return best[0]
        if self.ties == "refuse":
            for other in best[1:]:
                if self._is_elsewhere(other, best[0]):
                    raise SolveError(
                        f"the follower's problem has several best answers: {best[0].tolist()} and "
                        f"{other.tolist()}; set ties='optimistic' and leader"
                    )
            return best[0]
        sign = 1.0 if self.ties == "optimistic" else -1.0

        def pays(y: FloatArray, phi: Mapping[str, Any]) -> float:
            assert self.leader is not None  # noqa: S101 - checked with the rule for ties
            return sign * float(self.leader(y, phi))

        scaled = self._scaled(pays, phi)
        moved = [self._slid(y, scaled, phi, (objective, least)) for y in best]
        return min([*best, *moved], key=lambda y: pays(y, phi))

    def _slid(
        self, y: FloatArray, pays: Function, phi: Mapping[str, Any], at_most: tuple[Function, float]
    ) -> FloatArray:
        """Where a flat minimum is best for the leader; near a sharp one this goes nowhere."""
        moved = self._search(y, pays, phi, at_most)
        if moved is None or not self._is_elsewhere(moved, y):
            return y
        objective, least = at_most
        for share in CLOSER_SHARES:  # what was given away for the leader is taken back
            closer = (lambda y, phi, share=share: objective(y, phi) / share), least / share
            again = self._search(moved, pays, phi, closer)
            moved = moved if again is None else again
        return moved

    def _is_elsewhere(self, y: FloatArray, other: FloatArray) -> bool:
        return bool((np.abs(y - other) / self._width).max() > SAME_POINT)

    def _search(
        self,
        start: FloatArray,
        objective: Function,
        phi: Mapping[str, Any],
        at_most: tuple[Function, float] | None = None,
    ) -> FloatArray | None:
        """A local minimum, `at_most` bounding another function; None if infeasible."""
        width = self._width

        def placed(shares: FloatArray) -> FloatArray:
            y: FloatArray = np.clip(self.lower + width * shares, self.lower, self.upper)
            return y

        def room(y: FloatArray) -> FloatArray:
            """What must be >= 0."""
            parts = [] if self.constraints is None else [np.ravel(self.constraints(y, phi))]
            if at_most is not None:
                parts.append(np.atleast_1d(float(at_most[0](y, phi)) - at_most[1]))
            least: FloatArray = -np.concatenate(parts).astype(np.float64)
            return least

        bounded = self.constraints is not None or at_most is not None
        with np.errstate(all="ignore"):  # a line search may look where the functions overflow
            answer = scipy.optimize.minimize(
                lambda shares: float(objective(placed(shares), phi)),
                (start - self.lower) / width,
                method="SLSQP",
                jac="3-point",
                bounds=[
                    (0.0, float(high > low))
                    for low, high in zip(self.lower, self.upper, strict=True)
                ],
                constraints=[{"type": "ineq", "fun": lambda shares: room(placed(shares))}]
                if bounded
                else [],
                options={"ftol": 1e-15, "maxiter": 500},
            )
            y = placed(answer.x)
            slack = TIE_TOLERANCE * max(1.0, abs(at_most[1])) if at_most else 0.0
            kept = not bounded or (room(y) >= -MOST_VIOLATION - slack).all()
        return y if np.isfinite(y).all() and kept else None
