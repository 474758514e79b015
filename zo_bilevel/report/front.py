"""The front of two objectives: what the one costs in the other."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np

from zo_bilevel.methods.base import Method
from zo_bilevel.problem.constraints import FEASIBLE_VIOLATION, Output
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.report.figures import COLOURS, DOTS_PER_INCH, check_plot_path
from zo_bilevel.run.loop import minimize
from zo_bilevel.run.result import Result
from zo_bilevel.solve.dispatch.base import Dispatcher
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.tables import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Objective: TypeAlias = SquaredError | Callable[[Any, dict[str, Any]], Any]
Solved: TypeAlias = tuple[dict[str, Any], Any]


MOST_ROWS = 15
"""Points printed, evenly among all."""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Front:
    """Points of which none is better than another in both objectives.

    Args:
        names: Of the two objectives.
        phi: Parameters of each point, in the order of the first objective.
        values: Both objectives there, shape `(k, 2)`.
        others: Both objectives of every other solve that keeps the constraints, shape `(p, 2)`.
        broken: The same of those that break one, which are no points of the front, `(q, 2)`.
        solves: Solves spent.
    """

    names: tuple[str, str]
    phi: tuple[dict[str, Any], ...]
    values: FloatArray
    others: FloatArray
    broken: FloatArray
    solves: int

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the front and all other solves; needs matplotlib.

        Args:
            path: File to write, its type by its ending.
        """
        from matplotlib.figure import Figure

        file = None if path is None else check_plot_path(os.fspath(path))
        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        panel = figure.subplots()
        seen = self.values if len(self.values) else self.broken
        low, high = seen.min(axis=0), seen.max(axis=0)
        margin = 0.15 * np.where(high > low, high - low, 1.0)
        if len(self.broken):
            panel.plot(*self.broken.T, "x", color="#cc6666", ms=4, label="break constraints")
        panel.plot(*self.others.T, ".", color="#999999", ms=4, label="other solves")
        panel.plot(*self.values.T, "o-", color=COLOURS[0], ms=5, label="front")
        panel.set_xlim(low[0] - margin[0], high[0] + margin[0])
        panel.set_ylim(low[1] - margin[1], high[1] + margin[1])
        panel.set_xlabel(self.names[0])
        panel.set_ylabel(self.names[1])
        panel.legend(frameon=False)
        if file is not None:
            figure.savefig(file, dpi=DOTS_PER_INCH)
        return figure

    def __str__(self) -> str:
        lines = [f"{self.names[0]:>12}  {self.names[1]:>12}  at"]
        count = len(self.phi)
        for place in np.unique(np.linspace(0, count - 1, min(count, MOST_ROWS)).round()).astype(
            int
        ):
            first, second = self.values[place]
            shown = ", ".join(f"{name}={_shown(v)}" for name, v in self.phi[place].items())
            lines.append(f"{number(first):>12}  {number(second):>12}  {shown}")
        few = "" if count else "no solve keeps the constraints: "
        broke = f", {len(self.broken)} solves break constraints" if len(self.broken) else ""
        return "\n".join([*lines, f"{few}after {self.solves} solves{broke}"])


def front(
    problem: Problem,
    objectives: Mapping[str, Objective],
    *,
    num_points: int = 7,
    max_solves: int = 60,
    method: Method | None = None,
    initial: Mapping[str, Any] | None = None,
    seed: int = 0,
    dispatcher: Dispatcher | None = None,
) -> Front:
    """Find what a gain in one objective costs in another, by bounding the one and descending.

    Both are minimised alone; then the first one under bounds on the second that lie evenly between.
    Solves are shared by all searches, and every solve that keeps the constraints of the problem and
    that no other such beats in both is on the front.

    Args:
        problem: Space and inner solver; its own outer objective is not used.
        objectives: Two by name: `SquaredError`, or functions of theta and phi that return a number.
        num_points: Searches, >= 2.
        max_solves: Of each search, >= 1.
        method: How to search, with constraints on outputs; default the default method.
        initial: Start of the first searches, by name.
        seed: Of the runs.
        dispatcher: Runs the solves.

    Returns:
        The front.

    Raises:
        InputError: If an argument breaks its rule.
        InnerSolverError: If no solve succeeded.

    Example:
        >>> from zo_bilevel import Real, Space
        >>> problem = Problem(Space(x=Real(-1, 3)), lambda phi: phi["x"])
        >>> both = {"left": lambda x, phi: x**2, "right": lambda x, phi: (x - 2) ** 2}
        >>> found = front(problem, both)
        >>> bool(np.abs(np.sqrt(found.values).sum(axis=1) - 2).max() < 1e-3)
        True

    Source:
        The epsilon-constraint method: Haimes, Lasdon, Wismer (1971), "On a bicriterion formulation
        of the problems of integrated system identification and system optimization".
    """
    if len(objectives) != 2:
        raise InputError(f"objectives must be two by name, got {list(objectives)}")
    for name, objective in objectives.items():
        if not isinstance(objective, SquaredError) and not callable(objective):
            raise InputError(
                f"objective {name!r} must be a SquaredError or a function, got {objective!r}"
            )
    num_points = whole_number("num_points", num_points, least=2)
    names, solved, spent = list(objectives), list[Solved](), 0

    def search(outer: Objective, start: Any, more: Sequence[Output] = ()) -> Result:  # noqa: ANN401
        nonlocal spent
        constraints = [*problem.constraints, *more]
        posed = dataclasses.replace(problem, outer=outer, constraints=constraints)
        found = minimize(
            posed,
            method,
            initial=start,
            known=solved or None,
            max_solves=max_solves,
            seed=seed,
            dispatcher=dispatcher,
        )
        spent += found.solves
        solved.extend(
            (dict(record.phi), record.theta)
            for record in found.history
            if record.status == "ok" and record.phi is not None and record.theta is not None
        )
        return found

    first, second = objectives.values()
    ends = [search(outer, initial) for outer in (first, second)]
    high, low = (_value(second, end.theta, end.phi) for end in ends)
    start = ends[1].phi
    for bound in np.linspace(low, high, num_points)[1:-1] if high > low else ():
        rule = Output(_below(second, float(bound)), scale=high - low)
        start = search(first, start, [rule]).phi
    values = np.array(
        [[_value(one, theta, phi) for one in (first, second)] for phi, theta in solved]
    )
    keeps = np.array([_keeps_constraints(problem, theta, phi) for phi, theta in solved])
    order = np.flatnonzero(keeps)[_nondominated(values[keeps])]
    others = np.delete(values, [*order, *np.flatnonzero(~keeps)], axis=0)
    phis = tuple(solved[place][0] for place in order)
    return Front((names[0], names[1]), phis, values[order], others, values[~keeps], spent)


def _keeps_constraints(problem: Problem, theta: Any, phi: dict[str, Any]) -> bool:  # noqa: ANN401
    known = problem.feasible.before(problem.space.encode(phi))
    found = (output.values(theta, phi) for output in problem.feasible.outputs)
    return bool((np.concatenate([known, *found]) <= FEASIBLE_VIOLATION).all())


def _below(objective: Objective, bound: float) -> Callable[[Any, dict[str, Any]], float]:
    return lambda theta, phi: _value(objective, theta, phi) - bound


def _value(objective: Objective, theta: Any, phi: dict[str, Any]) -> float:  # noqa: ANN401
    if isinstance(objective, SquaredError):
        return float(objective.loss(flatten_theta(theta)[0]))
    return float(objective(theta, phi))


def _nondominated(values: FloatArray) -> list[int]:
    """Rows that no other beats in both columns, by the first."""
    best, kept = np.inf, []
    for place in np.lexsort((values[:, 1], values[:, 0])):
        if values[place, 1] < best:
            best = values[place, 1]
            kept.append(int(place))
    return kept


def _shown(value: Any) -> str:  # noqa: ANN401 - any parameter value
    return number(value) if isinstance(value, float) else str(value)
