"""What a run gives back."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from zo_bilevel.methods.state import Minimum, Slopes
from zo_bilevel.problem.constraints import FEASIBLE_VIOLATION
from zo_bilevel.problem.objectives.robust_error import RobustError
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.space import Space
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.intervals import mean_in_words
from zo_bilevel.support.memory import Memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from zo_bilevel.problem.problem import Problem
    from zo_bilevel.run.confidence import Uncertainty

MOST_MINIMA = 10
"""Of them are printed."""
HISTORY_BYTES = 2**28
"""Of inner solutions that a history holds, and of meta-parameters."""


@final
@dataclass(frozen=True, slots=True)
class Record:
    """One solve in the history of a run.

    Args:
        solve: Solves so far, this one included, from 1.
        round: Rounds so far, from 1.
        seconds: Since the start of the run.
        role: What the method wanted the solve for.
        status: How it ended.
        loss: Its loss; infinity unless ok.
        best_loss: Lowest loss so far of solves that keep all constraints.
        cost: Money spent so far.
        phi: Its meta-parameters by name.
        theta: Its inner solution in the solver's structure, read-only; `None` unless ok. In a
            result's history `phi` and `theta` are kept up to `HISTORY_BYTES` each, and are empty
            and `None` from there on; a callback always gets them.
        error: Why it failed, in words; else empty.
        violation: Of the constraint that it breaks most, in that one's scale; 0 where all hold.
    """

    solve: int
    round: int
    seconds: float
    role: str
    status: str
    loss: float
    best_loss: float
    cost: float
    phi: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    theta: Any = field(default=None, repr=False, compare=False)
    error: str = field(default="", repr=False)
    violation: float = field(default=0.0, repr=False)


@final
@dataclass(frozen=True, slots=True)
class Result:
    """The best point of a run and how it was found.

    Args:
        phi: Best meta-parameters by name.
        loss: Loss there.
        theta: Inner solution there, in the user's structure.
        solves: Solves spent, failed ones included.
        rounds: Rounds they were asked in.
        seconds: Wall-clock seconds.
        cost: Money spent.
        stop_reason: Why the run stopped, in words.
        method: Name of the method.
        seed: Seed of the run.
        failures: Solves by status, those that are not ok.
        history: One record a solve, in order.
        x: Best point, scaled, shape `(N,)`.
        standard_error: Of the loss, when it is a mean over fresh solves: of one NaN, and where all
            agree, though they might have differed, from the interval; else `None`. Of few draws
            1.96 of them hold the truth less often than 95 %: take `interval`.
        interval: That holds the true mean loss at the point in 95 % of the cases; of at least two
            fresh solves, else `None`.
        draws: Fresh solves that the loss is the mean of; 0 where it is one of the search.
        memory: Peak memory of this process at the end of the run; workers have their own.
        warnings: What has to be said with it, in words: parameters on a bound, and what the data
            do not determine, where the method knows, and that constraints moved the start.
        space: The parameters; not saved.
        objective: The outer objective where it has a target; not saved.
        slopes: How theta changes around the point, from methods that model it; not saved.
        minima: That `MultiStart` found, the best first; not saved.
        violation: Of the constraint that the point breaks most, in its scale; 0 where all hold,
            up to 1e-6 counts as none, and `None` where the problem has no constraints.
        parts: What the loss is the sum of, by name: parts of the target, and "prior".
        reused: Solves whose answers the store already had; they took next to no time. Not saved.
    """

    phi: dict[str, Any]
    loss: float
    theta: Any
    solves: int
    rounds: int
    seconds: float
    cost: float
    stop_reason: str
    method: str
    seed: int
    failures: dict[str, int]
    history: tuple[Record, ...] = field(repr=False)
    x: FloatArray = field(repr=False)
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    draws: int = 0
    memory: Memory = field(default_factory=Memory, repr=False)
    warnings: tuple[str, ...] = ()
    space: Space | None = field(default=None, repr=False)
    objective: SquaredError | RobustError | None = field(default=None, repr=False)
    slopes: Slopes | None = field(default=None, repr=False)
    violation: float | None = None
    minima: tuple[Minimum, ...] = ()
    parts: dict[str, float] = field(default_factory=dict, repr=False)
    reused: int = field(default=0, repr=False)

    @property
    def is_feasible(self) -> bool:
        """Whether the point keeps all constraints."""
        return self.violation is None or self.violation <= FEASIBLE_VIOLATION

    @property
    def counted_loss(self) -> float:
        """The loss as statistics count it: infinite where a constraint is broken."""
        return self.loss if self.is_feasible else math.inf

    def to_pandas(self) -> Any:  # noqa: ANN401 - of an optional package
        """The history as a `DataFrame`, one row a solve, one column a number of `phi`.

        Raises:
            MissingPackageError: If pandas is not installed.
        """
        from zo_bilevel.bridges.pandas import history_frame

        return history_frame(self)

    def uncertainty(self, problem: Problem, **options: Any) -> Uncertainty:  # noqa: ANN401
        """Standard errors, correlations, intervals; see `zo_bilevel.run.uncertainty`.

        Args:
            problem: What was solved.
            **options: Of `uncertainty`.
        """
        from zo_bilevel.run.uncertainty import uncertainty

        return uncertainty(problem, self, **options)

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        x: Any = None,  # noqa: ANN401 - whatever numpy takes
        uncertainty: Uncertainty | None = None,
    ) -> Figure:
        """Draw data and fit, residuals, convergence, parameters and their correlations.

        Intervals are those of 95 %. Where there is no target, or no error bars, what there is.

        Args:
            path: Where to write it as well; the suffix tells the format (png, svg, pdf).
            x: Position of each output, in the target's structure; default 1, 2, ...
            uncertainty: From `uncertainty`; default what the run knew at no solve.

        Returns:
            The figure, of matplotlib.

        Raises:
            MissingPackageError: If matplotlib is not installed.
            InputError: If the suffix is no known format, or `x` does not fit the target.
        """
        from zo_bilevel.report.result_figure import result_figure

        return result_figure(self, path, x=x, uncertainty=uncertainty)

    def to_html(self, path: str | os.PathLike[str], **options: Any) -> Path:  # noqa: ANN401
        """Write one page that needs no network: what was found, how sure it is, the figure.

        Args:
            path: Where to; it must end in .html and its folder must exist.
            **options: `x` and `uncertainty`, as of `plot`.

        Raises:
            MissingPackageError: If matplotlib or jinja2 is not installed.
            InputError: If the path cannot be used.
        """
        from zo_bilevel.report.result_page import write_result_page

        return write_result_page(self, path, **options)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the result as `result.json` and `result.npz`; see `zo_bilevel.run.saving`.

        Args:
            folder: Where; made when missing.

        Returns:
            The folder.
        """
        from zo_bilevel.run.saving import save_result

        return save_result(self, folder)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Result:
        """Read what `save` wrote.

        Raises:
            InputError: If a file is missing or damaged.
        """
        from zo_bilevel.run.saving import load_result

        return load_result(folder)

    def __str__(self) -> str:
        values = _values(self.phi)
        failed = sum(self.failures.values())
        lost = f", {failed} failed" if failed else ""
        loss = mean_in_words(self.loss, self.interval, self.draws, 4)
        parts = ", ".join(f"{name} {part:.4g}" for name, part in self.parts.items())
        loss += f" ({parts})" if parts else ""
        broken = "" if self.is_feasible else f", breaks constraints by {self.violation:.2g},"
        found = (
            f"loss {loss} at {values}{broken} after {self.solves} solves in "
            f"{self.rounds} rounds{lost} ({self.method}; {self.stop_reason})"
        )
        lines = [
            f"  {place}. loss {end.loss:.4g} at {_values(end.phi)}, starts: {end.starts}"
            + ("" if end.has_converged else ", not converged")
            for place, end in enumerate(self.minima[:MOST_MINIMA], start=1)
        ]
        left = len(self.minima) - MOST_MINIMA
        lines += [f"  and {left} more"] if left > 0 else []
        return "\n".join([found, *lines, *self.warnings])


def _values(phi: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in phi.items())


def _short(value: Any) -> str:  # noqa: ANN401 - any parameter value
    if isinstance(value, float):
        return f"{value:.6g}"
    if not getattr(value, "shape", ()):
        return str(value)
    shown = np.array2string(np.asarray(value), precision=4, threshold=6, edgeitems=2)
    return " ".join(shown.split())
