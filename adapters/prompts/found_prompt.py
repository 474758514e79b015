"""What a search for a prompt found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final


@final
@dataclass(frozen=True, slots=True)
class FoundPrompt:
    """What a search found.

    Args:
        phi: The choices of the template.
        text: The prompt, to read.
        score: Mean score on the validation share; where `is_judged` is false, on the examples of
            the races that both it and the hand-written prompt were asked about.
        start_score: The same of the hand-written prompt.
        gains: Score minus the start's, for each of these examples.
        answers: Distinct answers that it is from, proposals included, a judge's marks left out.
        cost: Their price, marks included, whether it was paid now or by an earlier search.
        seconds: Wall-clock time.
        seed: Of the search.
        stop_reason: Why it ended; "interrupted" by Ctrl-C.
        tried: Every prompt raced, with its mean score and examples, those that came farthest first.
        is_judged: Whether the validation share decided; not where a limit of the model or Ctrl-C
            ended the search before.
    """

    phi: dict[str, Any]
    text: str
    score: float
    start_score: float
    gains: tuple[float, ...]
    answers: int
    cost: float
    seconds: float
    seed: int
    stop_reason: str
    tried: tuple[tuple[dict[str, Any], float, int], ...] = field(repr=False)
    is_judged: bool = True
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    draws: int = 0
    method: str = "prompt search"

    @property
    def loss(self) -> float:
        """1 - score."""
        return 1.0 - self.score

    @property
    def solves(self) -> int:
        """Answers."""
        return self.answers
