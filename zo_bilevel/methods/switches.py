"""When a phase is over: rules that look at its losses, its hypergradients, or their bias."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, final, runtime_checkable

import numpy as np

from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.arrays import FloatArray


@final
@dataclasses.dataclass(slots=True)
class Progress:
    """What a phase has seen, round by round.

    Args:
        losses: Loss at the round's first point.
        solves: Solves of the phase up to and with the round.
        gradients: Hypergradients, shape `(N,)` each, scaled.
        agreement: By round, `<g, d> / <d, d>`: how much of the hypergradient d that the phase
            followed was found to be in the true one, g, where that was looked at.
    """

    losses: list[float] = dataclasses.field(default_factory=list)
    solves: list[int] = dataclasses.field(default_factory=list)
    gradients: list[FloatArray] = dataclasses.field(default_factory=list)
    agreement: dict[int, float] = dataclasses.field(default_factory=dict)


@runtime_checkable
class Switch(Protocol):
    """Decides when a phase is over."""

    @property
    def max_solves(self) -> int | None:
        """The phase ends after so many solves anyhow; `None` is no limit."""
        ...

    def reason(self, progress: Progress) -> str:
        """Why the phase is over, in words; empty when it is not."""
        ...


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Plateau:
    """Ends a phase when a solve gains little: when the loss has nearly stopped falling.

    The gain a solve, from the mean loss of the last but one window of rounds to that of the last,
    is compared with the gain a solve since the phase began.

    Args:
        below: The phase ends when the ratio falls below this, > 0.
        window: Rounds averaged, >= 2; more for noisier losses.
        max_solves: The phase ends after so many solves anyhow; `None` is no limit.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> seen = Progress([4.0, 2.0, 1.1, 1.0, 1.0, 1.0], [1, 2, 3, 4, 5, 6])
        >>> Plateau(window=2).reason(seen)
        'a solve gained 0.0212 times what it did before'
    """

    below: float = 0.1
    window: int = 10
    max_solves: int | None = None

    def __post_init__(self) -> None:
        _check(self, window=2)

    def reason(self, progress: Progress) -> str:
        """Whether losses have stopped falling."""
        width = self.window
        losses, solves = (np.array(part) for part in (progress.losses, progress.solves))
        finite = np.isfinite(losses)
        losses, solves = losses[finite], solves[finite]
        if len(losses) < 3 * width:
            return ""
        start, before, now = losses[0], losses[-2 * width : -width].mean(), losses[-width:].mean()
        middle = solves[-2 * width : -width].mean()
        ratio = (before - now) / (solves[-width:].mean() - middle)
        ratio /= max(start - before, np.finfo(float).tiny) / (middle - solves[0])
        return "" if ratio >= self.below else f"a solve gained {ratio:.3g} times what it did before"


@final
@dataclasses.dataclass(frozen=True, slots=True)
class BiasSeen:
    """Ends a phase whose hypergradients no longer point along the true one.

    Every so often the exact slope of the loss along the phase's hypergradient d is measured, with
    the estimator of the next phase: one direction. Of a true gradient it is `|d|^2`; where it is
    less than a share of that, following d gains no more than chance.

    Args:
        below: Share, > 0, of `|d|^2`; the phase ends when the median of the last three slopes
            is less.
        every: Rounds between two looks, >= 1.
        max_solves: The phase ends after so many solves anyhow; `None` is no limit.

    Raises:
        InputError: If an argument breaks its rule.
    """

    below: float = 0.25
    every: int = 5
    max_solves: int | None = None

    def __post_init__(self) -> None:
        _check(self, every=1)

    def reason(self, progress: Progress) -> str:
        """Whether the true slope is small along what the phase follows."""
        recent = list(progress.agreement.values())[-3:]
        if len(recent) < 3 or not np.median(recent) < self.below:
            return ""
        return f"the true slope is {np.median(recent):.3g} times what the hypergradients say"


@final
@dataclasses.dataclass(frozen=True, slots=True)
class SignalToNoise:
    """Ends a phase when its hypergradients no longer agree on a direction.

    Over the last `window` hypergradients, `|mean|^2 / (total variance / window)` compares their
    mean with its own standard error; 1 is what noise alone gives. Exact hypergradients that are
    biased agree for ever, at a point that they cannot leave: there a `Plateau` of the loss ends
    the phase.

    Args:
        below: The phase ends when the ratio falls below this, > 0.
        window: Hypergradients looked at, >= 2.
        max_solves: The phase ends after so many solves anyhow; `None` is no limit.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> SignalToNoise(2.0).ratio([np.array([1.0, 0.0]), np.array([1.0, 0.2])])
        101.0
    """

    below: float = 2.0
    window: int = 10
    max_solves: int | None = None

    def __post_init__(self) -> None:
        _check(self, window=2)

    def ratio(self, gradients: Sequence[FloatArray]) -> float:
        """Squared length of the mean in units of its squared standard error."""
        stacked = np.stack(gradients)
        mean = stacked.mean(axis=0)
        noise = float(stacked.var(axis=0, ddof=1).sum()) / len(stacked)
        signal = float(mean @ mean)
        return float(np.round(signal / noise, 12)) if noise > 0 else np.inf

    def reason(self, progress: Progress) -> str:
        """Whether hypergradients are mostly noise, or lead nowhere."""
        if len(progress.gradients) < self.window:
            return ""
        ratio = self.ratio(progress.gradients[-self.window :])
        if ratio < self.below:
            return f"signal-to-noise {ratio:.3g} fell below {self.below:g}"
        return Plateau(window=self.window).reason(progress)


def check_solves(limit: object) -> None:
    """Refuse what is no number of solves; `InputError` saying so."""
    whole_number("a phase's budget", limit, least=1)


def _check(switch: Plateau | BiasSeen | SignalToNoise, **least: int) -> None:
    finite_number("below", switch.below, "> 0")
    for name, smallest in least.items():
        object.__setattr__(switch, name, whole_number(name, getattr(switch, name), smallest))
    if switch.max_solves is not None:
        check_solves(switch.max_solves)
