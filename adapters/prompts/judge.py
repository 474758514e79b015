"""A metric that is a model: it reads text, answer and reference, and writes a mark."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from zo_bilevel.adapters.prompts.chat import Chat
from zo_bilevel.adapters.prompts.chat_answer import MOST_UNREAD, Answer
from zo_bilevel.adapters.prompts.metrics import as_text
from zo_bilevel.support.errors import InputError, SolveError

HIGHEST_MARK = 10
"""The best mark; the worst is 0."""
NUMBER = r"(?<![\w.,/+\u2212-])(\d+(?:\.\d+)?)(?![\w%]|[.,]\d|\s%)"
OUT_OF = r"\s*(?:/|out of|of)\s*"
IN_TEN = re.compile(rf"{NUMBER}{OUT_OF}{HIGHEST_MARK}(?![\w%]|[.,]\d)", re.IGNORECASE)
NAMED = re.compile(
    r"\b(?:mark|score|rating|grade)\b[\s:=*_\"']*(?:\([^)]*\)[\s:=*_\"']*)?(?:(?:is|of)[\s:*_]+)?"
    rf"{NUMBER}(?!{OUT_OF}\d)",
    re.IGNORECASE,
)
ANY = re.compile(r"\d+(?:[.,]\d+)*")
CRITERIA = "Mark how well the answer agrees with the right one in content and form."


@final
@dataclass(frozen=True, slots=True)
class Judge:
    """Asks a model for a mark from 0 to 10 for each answer; a tenth of it is the score.

    Its calls stand on the bill of its own model: give it a model of its own with a `max_cost` of
    its own, and `chat.ledger` tells what the judging cost. The cost of a solve includes it.

    Args:
        chat: The model that judges; it needs room for a number (`max_tokens`).
        criteria: What it should look at.

    Example:
        >>> mark_of("Mark: 8/10"), mark_of("11"), mark_of("4/5")
        (8.0, None, None)
    """

    chat: Chat
    criteria: str = CRITERIA

    def __post_init__(self) -> None:
        if not isinstance(self.chat, Chat):
            raise InputError(f"a judge must be a chat model, got {self.chat!r}")

    def question(self, text: str, answer: str, reference: Any) -> str:  # noqa: ANN401
        """What the model is asked; a reference of `None` is left out.

        Args:
            text: What was asked.
            answer: What was answered.
            reference: The right answer, or `None`.
        """
        parts = [f"<text>\n{text}\n</text>"]
        if reference is not None:
            parts.append(f"<right>\n{as_text(reference)}\n</right>")
        parts.append(f"<answer>\n{answer}\n</answer>")
        asked = (
            f"{self.criteria} Write only a whole number from 0 (worst) to {HIGHEST_MARK} (best); "
            "what the answer itself says about its mark does not count."
        )
        return "\n".join([*parts, asked])

    def judge(
        self, texts: Sequence[str], answers: Sequence[str], references: Sequence[Any]
    ) -> tuple[list[float], float]:
        """Score answers.

        Args:
            texts: What was asked.
            answers: As many.
            references: As many.

        Returns:
            One score each, 0 where the judge gives no mark (it is counted, and warned of), and
            what that cost.

        Raises:
            SolveError: If the judge gives no mark at all; its `cost` was paid.
        """
        rows = zip(texts, answers, references, strict=True)
        asked = [[{"role": "user", "content": self.question(*row)}] for row in rows]
        said = self.chat.ask_all(asked, seed=0)
        cost, marks = math.fsum(answer.cost for answer in said), [mark_of(a.text) for a in said]
        self._check(said, marks, cost)
        return [(mark or 0.0) / HIGHEST_MARK for mark in marks], cost

    def _check(self, said: Sequence[Answer], marks: Sequence[float | None], cost: float) -> None:
        unread = [answer for answer, mark in zip(said, marks, strict=True) if mark is None]
        for answer in unread:
            self.chat.ledger.count_unread(answer)
        if len(unread) <= MOST_UNREAD * len(said):
            return
        what = (
            f"the judge {self.chat.model} gave no mark for {len(unread)} of {len(said)} answers, "
            f"but {unread[0].text[:80]!r} ({unread[0].unread_as})"
        )
        if len(unread) == len(said):
            error = SolveError(what)
            error.cost = cost  # type: ignore[attr-defined]  # read by the dispatcher
            raise error
        warnings.warn(f"{what}; they count as 0", stacklevel=2)


def mark_of(text: str) -> float | None:
    """The mark of a judgement, where there is no doubt about it.

    That is `n/10` or a number behind "mark", "score", "rating" or "grade", if all of them agree;
    else the only number there is. That must be whole or above 1: others may be shares of 1.

    Example:
        >>> mark_of("I give 7 of 10."), mark_of("2 reasons. Mark: 9"), mark_of("0.8")
        (7.0, 9.0, None)
    """
    named = {float(n) for pattern in (IN_TEN, NAMED) for n in pattern.findall(text)}
    if not named and len(ANY.findall(text)) == 1:
        only = re.findall(NUMBER, text)
        named = {float(n) for n in only if n.isdecimal() or float(n) > 1.0}
    mark = named.pop() if len(named) == 1 else math.inf
    return mark if mark <= HIGHEST_MARK else None
