"""New wordings of an instruction, written by a model from what was tried and what went wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, final

import numpy as np

from zo_bilevel.adapters.prompts.chat import Chat
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.errors import InputError

Item = TypeVar("Item")
Failure: TypeAlias = tuple[str, str, str]
"""A text, what was answered, and the right answer."""

TIPS = (
    "Say exactly what to write and in what form.",
    "Keep it short.",
    "Say what must not be written.",
    "Give the steps to take.",
    "Be precise about the format.",
    "Write it as a command.",
)
LONGEST_WORDING = 600
"""Characters of a wording; longer answers are no instruction."""
LEAD = re.compile(r"\A\W*(?:(?:new|better|improved|my)\s+)*instructions?\s*:?\W*", re.IGNORECASE)


@final
@dataclass(frozen=True, slots=True)
class Proposer:
    """Asks a model for instructions.

    In turn from examples of the task, from wordings with their scores (OPRO), and from failed
    examples with the answers seen (reflection, as in GEPA).

    Args:
        chat: The model that writes; its calls go on the bill of the search.
        about: What the task is, in words; may be empty.
        num_examples: Examples or failures that it is shown, >= 1.
        num_wordings: Wordings with scores that it is shown, >= 1.

    Source:
        OPRO: Yang et al. (2023), "Large language models as optimizers", arXiv 2309.03409.
        GEPA: Agrawal et al. (2025), "GEPA: reflective prompt evolution", arXiv 2507.19457.
    """

    chat: Chat
    about: str = ""
    num_examples: int = 3
    num_wordings: int = 6

    def __post_init__(self) -> None:
        if not isinstance(self.chat, Chat):
            raise InputError(f"a proposer must be a chat model, got {self.chat!r}")
        whole_number("num_examples", self.num_examples, least=1)
        whole_number("num_wordings", self.num_wordings, least=1)

    def propose(
        self,
        scored: Sequence[tuple[str, float]],
        examples: Sequence[tuple[str, str]],
        failures: Sequence[Failure],
        count: int,
        rng: np.random.Generator,
    ) -> tuple[list[str], float]:
        """Ask for new wordings.

        Args:
            scored: Wordings tried so far with their mean scores; the best is built upon.
            examples: Texts and right answers.
            failures: What went wrong under the best.
            count: How many to ask for.
            rng: Draws what is shown, so that every request is another.

        Returns:
            At most as many wordings, new ones only, and what asking cost.
        """
        kinds = ("examples", "scores", "failures") if failures else ("examples", "scores")
        asked = []
        for k in range(count):
            question = self._question(kinds[k % len(kinds)], scored, examples, failures, rng)
            asked.append(f"{self.about}\n\n{question}\n{TIPS[rng.integers(len(TIPS))]}".strip())
        answers = self.chat.ask_all([[{"role": "user", "content": text}] for text in asked], seed=0)
        known = {wording for wording, _ in scored}
        whole = [answer.text for answer in answers if answer.unread_as != "cut_short"]
        found = dict.fromkeys(map(cleaned, whole))
        new = [text for text in found if text and text not in known]
        return new, sum(answer.cost for answer in answers)

    def _question(
        self,
        kind: str,
        scored: Sequence[tuple[str, float]],
        examples: Sequence[tuple[str, str]],
        failures: Sequence[Failure],
        rng: np.random.Generator,
    ) -> str:
        """What is asked, about examples, scores or failures."""
        best, end = scored[0][0], "Write only the instruction."
        if kind == "examples":
            pairs = _drawn(examples, self.num_examples, rng)
            lines = "\n\n".join(f"Text: {text}\nAnswer: {answer}" for text, answer in pairs)
            return (
                f"Somebody answers texts like this:\n\n{lines}\n\nThe instruction was: "
                f'"{best}"\nWrite a better instruction that leads to exactly these answers. {end}'
            )
        if kind == "scores":
            known = sorted(_drawn(scored, self.num_wordings, rng), key=lambda pair: pair[1])
            lines = "\n".join(f'"{text}" scored {100 * score:.0f}' for text, score in known)
            text, answer = _drawn(examples, 1, rng)[0]
            return (
                f"Instructions and their scores, from bad to good:\n\n{lines}\n\nFor the text "
                f'"{text}" the right answer is "{answer}". Write a new instruction that differs '
                f"from all of these and scores higher. {end}"
            )
        lines = "\n\n".join(
            f"Text: {text}\nAnswer given: {given}\nRight answer: {right}"
            for text, given, right in _drawn(failures, self.num_examples, rng)
        )
        return (
            f'The instruction "{best}" led to these mistakes:\n\n{lines}\n\nWrite an instruction '
            f"that avoids them. {end}"
        )


def _drawn(items: Sequence[Item], count: int, rng: np.random.Generator) -> list[Item]:
    places = rng.choice(len(items), min(count, len(items)), replace=False)
    return [items[int(k)] for k in places]


def cleaned(answer: str) -> str:
    """The instruction in an answer, without quotes and announcements; empty where there is none.

    Example:
        >>> cleaned('New instruction: "Write only the year."')
        'Write only the year.'
    """
    text = LEAD.sub("", answer.strip(), count=1).strip().strip("\"'`*").strip()
    return text if 3 <= len(text) <= LONGEST_WORDING else ""
