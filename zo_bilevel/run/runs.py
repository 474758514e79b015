"""One method on one problem with one seed: what it found, and how its best point came about."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

from zo_bilevel.problem.constraints import FEASIBLE_VIOLATION
from zo_bilevel.support.tables import number, percent

RunStatus: TypeAlias = Literal[
    "finished", "broke off", "refused", "failed", "interrupted", "disqualified"
]
"""`broke off`: a library raised after some solves; `refused`: the method cannot work on this
problem, or its package is not there; `failed`: it raised, or not one solve succeeded;
`interrupted`: by Ctrl-C; `disqualified`: the method called the inner solver beside its budget."""
Axis: TypeAlias = Literal["solves", "rounds", "seconds"]
_FIELD_OF = {"solves": "solve", "rounds": "round", "seconds": "seconds"}


@final
@dataclass(frozen=True, slots=True)
class Improvement:
    """A solve that was better than all before it.

    Args:
        solve: Solves so far, this one included, from 1.
        round: Rounds so far, from 1.
        seconds: Since the start of the run.
        loss: Its loss, the lowest so far.
        relative_error: Of its meta-parameters, where the truth is known.
        values: Its meta-parameters that are single values; fields are too long to keep.
        judged_loss: Its loss without noise, where the task knows it.
    """

    solve: int
    round: int
    seconds: float
    loss: float
    relative_error: float | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    judged_loss: float | None = None

    @property
    def true_loss(self) -> float:
        """The loss without noise where that is known, else the loss."""
        return self.loss if self.judged_loss is None else self.judged_loss

    @property
    def error_in_percent(self) -> float:
        """The relative error; infinity where it is not known."""
        return math.inf if self.relative_error is None else 100 * self.relative_error

    def at(self, by: Axis) -> float:
        """When it was found."""
        return float(getattr(self, _FIELD_OF[by]))


@final
@dataclass(frozen=True, slots=True)
class Target:
    """What counts as solved.

    A method does not see the relative error; it is that of the point of lowest loss so far.

    Args:
        quantity: What is looked at.
        level: It must be at or below this.
    """

    quantity: Literal["loss", "relative error"]
    level: float

    def is_reached(self, step: Improvement) -> bool:
        """Whether an improvement is good enough."""
        value = step.true_loss if self.quantity == "loss" else step.relative_error
        return value is not None and value <= self.level

    def __str__(self) -> str:
        if self.quantity == "loss":
            return f"loss {number(self.level)}"
        return f"error {percent(self.level)}"


@final
@dataclass(frozen=True, slots=True)
class Run:
    """One row of a comparison.

    Args:
        method: Label of the method in the comparison.
        seed: Seed of the run.
        status: How the run ended.
        loss: At the final point: without noise, or a mean over fresh solves, where solves are
            noisy; infinity when there is none.
        solves: Solves spent, failed ones included.
        rounds: Rounds they were asked in.
        seconds: Wall-clock seconds.
        cost: Money spent.
        stop_reason: Why the run stopped, in words.
        failures: Solves by status, those that are not ok.
        error: Why the method refused, failed or broke off, in words; else empty.
        phi: Best meta-parameters by name.
        relative_error: Of `phi`, where the truth is known.
        improvements: The best point so far as a step function, in order.
        standard_error: Of the loss, when it is a mean over fresh solves.
        interval: That holds the true mean in 95 % of the cases, when it is one of at least two.
        draws: How many they are.
        reported_loss: What the run itself said, when the comparison judged it afresh.
        judged_by: "exact" (without noise), "fresh solves", or empty.
        held_out_loss: At the final point, on data that no method saw, where the task has them.
        violation: Of constraints at the final point; `loss` is infinite where they are broken.
        constraints: How the method keeps them; empty where the problem has none.
        reused: Solves whose answers a store already had; they took next to no time.
    """

    method: str
    seed: int
    status: RunStatus = "finished"
    loss: float = math.inf
    solves: int = 0
    rounds: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    stop_reason: str = ""
    failures: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    phi: Mapping[str, Any] = field(default_factory=dict)
    relative_error: float | None = None
    improvements: tuple[Improvement, ...] = field(default=(), repr=False)
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    draws: int = 0
    reported_loss: float | None = None
    judged_by: str = ""
    held_out_loss: float | None = None
    violation: float | None = None
    constraints: str = ""
    reused: int = 0

    @property
    def is_feasible(self) -> bool:
        """Whether the final point keeps all constraints."""
        return self.violation is None or self.violation <= FEASIBLE_VIOLATION

    @property
    def is_counted(self) -> bool:
        """Whether it says something about its method: under the same budget as the others."""
        return self.status in ("finished", "broke off", "failed")

    @property
    def is_cut_short(self) -> bool:
        """Whether an error of the method ended it after it had found something."""
        return self.status == "broke off" or (self.status == "failed" and bool(self.improvements))

    @property
    def effort(self) -> str:
        """Solves, rounds and seconds, in words."""
        words = f"{self.solves} in {self.rounds} rounds, {self.seconds:.2f} s"
        return f"{words}, {self.reused} of them known from the store" if self.reused else words

    @property
    def ending(self) -> str:
        """Why it ended, in words."""
        is_told = self.status == "broke off"  # by what it had to say, with its error
        return (self.stop_reason if is_told else self.error or self.stop_reason) or self.status

    def solves_to(self, target: Target) -> float:
        """Solves until the target was reached; infinity when it never was."""
        step = self.first_at(target)
        return math.inf if step is None else float(step.solve)

    def rounds_to(self, target: Target) -> float:
        """Rounds until the target was reached; infinity when it never was."""
        step = self.first_at(target)
        return math.inf if step is None else float(step.round)

    def first_at(self, target: Target) -> Improvement | None:
        """The improvement that reached the target, if any did.

        A noisy run whose final point does not stand up to fresh solves was only lucky; one whose
        final point does, while no single draw was low enough, has reached it at its end.
        """
        is_mean = self.standard_error is not None or self.judged_by == "fresh solves"
        end = None
        if is_mean and target.quantity == "loss":
            if not self.loss <= target.level:
                return None
            end = Improvement(self.solves, self.rounds, self.seconds, self.loss)
        return next((step for step in self.improvements if target.is_reached(step)), end)

    def curve(self, by: Axis = "solves") -> tuple[list[float], list[float]]:
        """The best loss so far as a step function.

        Args:
            by: What the steps are counted in.

        Returns:
            Positions where the loss drops, and the losses from there on; the last position is
            where the run ended.
        """
        at = {"solves": "solve", "rounds": "round", "seconds": "seconds"}[by]
        positions = [float(getattr(step, at)) for step in self.improvements]
        losses = [step.true_loss for step in self.improvements]
        if losses:
            positions.append(max(float(getattr(self, by)), positions[-1]))
            losses.append(losses[-1])
        return positions, losses
