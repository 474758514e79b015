"""What the preflight found, in numbers and in words."""

import math
from dataclasses import dataclass, field
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found and what is suggested; `str()` says it in words.

    Args:
        solves: Solves spent.
        failures: Those that were not ok.
        picklable: Whether process dispatch is possible; `obstacle` says what is in the way.
        obstacle: The part that cannot travel to another process, or nothing.
        takes_seed: Whether the inner solver accepts a seed.
        deterministic: Same point and seed, same numbers, also after other solves.
        varies_with_seed: Other seed, other numbers.
        noise: Standard deviation of theta's noise over the spread of theta.
        grain: Smallest step in scaled units at which theta changed, where that is far above the
            last digits: parameters are rounded inside, or a tolerance hides them; 0 where it is
            not, infinite where no step changed theta.
        seconds: Median seconds a solve.
        theta: Structure of the inner solution in words.
        batchable: Whether `solve_batch` is offered and agrees with single solves.
        is_vector: Whether methods see more than the loss.
        radius: Suggested smoothing radius, scaled.
        difference: Suggested scheme.
        num_directions: Suggested directions a sketch.
        workers: Suggested number of workers.
        timeout_s: Suggested time limit of a solve.
        errors: First words of each failure.
    """

    solves: int
    failures: int
    picklable: bool
    obstacle: str
    takes_seed: bool
    deterministic: bool
    varies_with_seed: bool
    noise: float
    grain: float
    seconds: float
    theta: str
    batchable: bool
    is_vector: bool
    radius: float
    difference: str
    num_directions: int
    workers: int
    timeout_s: float
    errors: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return "\n".join(f"- {line}" for line in self.lines())

    def lines(self) -> list[str]:
        """One finding a line, the suggestions last."""
        said = [
            f"{self.solves} solves, {self.failures} failed, {_seconds(self.seconds)} a solve",
            f"the inner solution has {self.theta}"
            + ("" if self.is_vector else "; methods see only the loss"),
            "it can be sent to other processes"
            if self.picklable
            else f"it cannot be sent to other processes: {self.obstacle}; use threads",
            self._determinism(),
            f"noise is {self.noise:.1e} of theta's spread"
            if self.noise > 0
            else "no noise was seen, not even in the last digits",
            *self._coarseness(),
            "it solves a whole round in one call: use Batched()"
            if self.batchable
            else "it solves one point a call",
        ]
        said += [f"a solve failed: {error}" for error in self.errors]
        said.append(
            f"suggested: {self.difference} differences, radius {self.radius:.1e} scaled units, "
            f"{self.num_directions} directions a sketch"
        )
        said.append(self._dispatch())
        return said

    def _determinism(self) -> str:
        if not self.deterministic:
            return (
                "the same point and seed give other numbers each time: it has noise of its own, or "
                "remembers earlier solves"
            )
        if self.varies_with_seed:
            return "it is reproducible: the same seed gives the same numbers, another seed others"
        return "it is deterministic" + (": its seed changes nothing" if self.takes_seed else "")

    def _coarseness(self) -> list[str]:
        if self.grain == 0.0:
            return []
        if math.isinf(self.grain):
            return ["no step of all parameters together changed the inner solution"]
        return [
            f"steps below {self.grain:.0e} scaled units change nothing: parameters are rounded "
            "inside the solver, or lost in a tolerance"
        ]

    def _dispatch(self) -> str:
        if self.workers == 1:
            return "suggested: no parallel dispatch, a solve is too short to gain from it"
        backend = "" if self.picklable else ', backend="threading"'
        limit = f", timeout_s={self.timeout_s:g}" if self.picklable else ""
        return f"suggested: dispatcher=Joblib(n_jobs={self.workers}{backend}{limit})"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2g} ms" if seconds < 1 else f"{seconds:.3g} s"
