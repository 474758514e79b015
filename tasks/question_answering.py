"""Answers to questions: where they come from, and how good they are."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from zo_bilevel.support.errors import InputError


@final
@dataclass(frozen=True, slots=True)
class Question:
    """A question about a document.

    Args:
        document: Text that the answer is in.
        question: What is asked.
        answer: What is right.
    """

    document: str
    question: str
    answer: str

    @property
    def asked(self) -> str:
        """The question and what is right."""
        return self.question + self.answer


def read_questions(path: str) -> list[Question]:
    """Read a file of JSON lines, each with "document", "question" and "answer".

    Raises:
        InputError: If it cannot be read, naming the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"questions must be a file that can be read, got {path}: {error}"
        ) from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            parts = json.loads(line)
            found.append(Question(*(str(parts[k]) for k in ("document", "question", "answer"))))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"line {number} of {path} must be JSON with document, question and answer, "
                f"got {line[:60]!r}: {error!r}"
            ) from error
    if not found:
        raise InputError(f"questions must hold at least one line, got none in {path}")
    return found


@final
@dataclass(frozen=True, slots=True)
class Quality:
    """How well questions are answered.

    Args:
        loss: Cross-entropy of the right answers.
        exact_match: Share of answers that are right word for word.
        f1: Mean overlap of words, in [0, 1].
    """

    loss: float
    exact_match: float
    f1: float


def words(text: str) -> list[str]:
    """Words as they are compared: lower case, without articles and punctuation.

    Source: Rajpurkar et al. (2016), "SQuAD", arXiv 1606.05250.
    """
    plain = re.sub(r"[^\w\s]", "", text.lower())
    return [word for word in plain.split() if word not in ("a", "an", "the")]


def overlap(answer: str, right: str) -> float:
    """F1 of the words of two texts, in [0, 1].

    Example:
        >>> overlap("Return the sorted list.", "return a list")
        0.8
    """
    given, wanted = Counter(words(answer)), Counter(words(right))
    common = sum((given & wanted).values())
    if not common:
        return float(given == wanted)
    precision, recall = common / sum(given.values()), common / sum(wanted.values())
    return 2 * precision * recall / (precision + recall)


def greedy(
    logits: Callable[[torch.Tensor], torch.Tensor], prompts: Sequence[Sequence[int]], length: int
) -> list[list[int]]:
    """Continue each prompt with the likeliest token until code 0 or the length.

    Args:
        logits: From tokens `(1, k)` to logits `(1, k, codes)`.
        prompts: Codes.
        length: Tokens of prompt and answer together.
    """
    answers = []
    for prompt in prompts:
        codes = list(prompt)
        while len(codes) < length:
            code = int(logits(torch.tensor([codes]))[0, -1].argmax())
            if code == 0:
                break
            codes.append(code)
        answers.append(codes[len(prompt) :])
    return answers


def judged(answers: Sequence[str], right: Sequence[str], losses: Any) -> Quality:  # noqa: ANN401
    """Compare answers with what is right.

    Args:
        answers: Given.
        right: Wanted, in the same order.
        losses: Mean losses of the right answers.
    """
    pairs = list(zip(answers, right, strict=True))
    return Quality(
        float(sum(losses) / len(losses)),
        sum(words(a) == words(b) for a, b in pairs) / len(pairs),
        sum(overlap(a, b) for a, b in pairs) / len(pairs),
    )
