"""What a search knows of its prompts: their scores on examples, the races, the money."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, final

import numpy as np

from zo_bilevel.adapters.prompts.metrics import as_text
from zo_bilevel.adapters.prompts.prompt_moves import Prompt
from zo_bilevel.adapters.prompts.prompt_task import PromptTask
from zo_bilevel.adapters.prompts.proposer import Failure
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import SolveError, StopRunError

FIRST_ROWS = 4
"""Examples of the first rung of a race; each further rung has twice as many."""
NUM_BEST = 3
"""Prompts that a race hands on."""
MOST_FAILURES = 3
"""After so many requests in a row that a service did not answer the search ends with its words."""
RESERVE_FACTOR = 1.15
"""What the final judgement is expected to cost is set aside with this factor."""


class SpentError(Exception):
    """The budget does not allow the next answers."""


@final
class PromptBook:
    """Scores of prompts on examples, what they cost, and what may still be spent.

    Args:
        task: The prompt task.
        validation: Examples that only the final judgement sees.
        length_price: Score that a thousand characters of a prompt must earn.
        max_cost: Money for all answers; infinity for no limit.
        max_answers: Number of answers, or infinity.
        rng: Of everything drawn.
        seen: The requests that the search has answers to, as `priced_anew` counts them.
    """

    def __init__(
        self,
        task: PromptTask,
        validation: Sequence[int],
        length_price: float,
        max_cost: float,
        max_answers: float,
        rng: np.random.Generator,
        seen: Sized,
    ) -> None:
        self.task, self.length_price, self._seen = task, length_price, seen
        self.max_cost, self.max_answers = max_cost, max_answers
        self.rng, self.validation = rng, list(validation)
        self.training = [k for k in range(len(task.texts)) if k not in set(validation)]
        self.cost, self.count, self.is_final = 0.0, 0, False
        self._rows, self._each = 0, 1.0
        self._dearest, self._failures, self._fault = 0.0, 0, ""
        self._known: dict[Prompt, dict[int, float]] = {}
        self._said: dict[tuple[Prompt, int], str] = {}

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the answers in here that the search did not have before."""
        before = len(self._seen)
        try:
            yield
        finally:
            self.count += len(self._seen) - before

    def check(self, length: int, count: int) -> None:
        """Refuse answers that the budget may not allow; the final judgement has its own share."""
        kept = 0 if self.is_final else (NUM_BEST + 1) * len(self.validation) * self.task.steps
        later = RESERVE_FACTOR * kept * self._dearest * self._longest()
        if (
            self.cost + self._dearest * length + later > self.max_cost
            or self.count + self._each * (count + kept) > self.max_answers
        ):
            raise SpentError

    def _longest(self) -> int:
        return max((len(self.text(prompt)) for prompt in self.ranked()[:NUM_BEST]), default=0)

    def text(self, prompt: Prompt) -> str:
        """The prompt as one text."""
        return self.task.template.text(dict(prompt))

    def fee(self, prompt: Prompt) -> float:
        """What its length costs, in score."""
        return self.length_price * len(self.text(prompt)) / 1000.0

    def scores(self, prompt: Prompt, rows: Sequence[int]) -> FloatArray:
        """Scores on examples; those not known yet are asked for and paid.

        Raises:
            SpentError: If the budget does not allow it.
        """
        known = self._known.setdefault(prompt, {})
        todo = [row for row in rows if row not in known]
        if todo:
            asked = [self.task.template.messages(dict(prompt), self.task.texts[k]) for k in todo]
            new, before = self.task.chat.unseen(asked, 0) * self.task.steps, self.count
            self.check(len(self.text(prompt)) * new, new)
            found, said, cost = self._asked(prompt, todo)
            self.cost, self._rows = self.cost + cost, self._rows + len(todo)
            self._each = max(self._each, (self.count - before) / max(new, 1))
            price = cost / max(new, 1) / max(len(self.text(prompt)), 1)
            self._dearest = max(self._dearest, price)
            for row, score, text in zip(todo, found, said, strict=True):
                known[row], self._said[prompt, row] = float(score), text
        return np.array([known[row] for row in rows])

    def _asked(self, prompt: Prompt, rows: Sequence[int]) -> tuple[FloatArray, list[str], float]:
        """Scores, answers and their cost; a prompt that a service fails to answer scores 0."""
        texts = [self.task.texts[row] for row in rows]
        references = [self.task.references[row] for row in rows]
        try:
            with self.counted():
                answers = self.task.answers(dict(prompt), texts, seed=0)
            cost = math.fsum(answer.cost for answer in answers)
            found, more, _ = self.task.scores(texts, references, answers)
        except StopRunError:
            raise
        except SolveError as error:
            self._failures, self._fault = self._failures + 1, f": {error}"
            if self._failures >= MOST_FAILURES:
                raise
            return np.zeros(len(rows)), [""] * len(rows), getattr(error, "cost", 0.0)
        self._failures = 0
        return found, [answer.text for answer in answers], cost + more

    def refuse_mute(self) -> None:
        """End a search of which no answer could be read so far.

        Raises:
            SolveError: With what the service said last.
        """
        if self._rows and not self.task.is_read:
            last = self._fault or f": {self.task.fault}"
            raise SolveError(f"not one of {self._rows} answers could be read{last}")

    def race(self, pool: Sequence[Prompt]) -> list[Prompt]:
        """Halve the pool on growing shares of the training examples; the best, best first."""
        alive, count = list(pool), FIRST_ROWS
        order = [int(row) for row in self.rng.permutation(self.training)]  # others each time
        while True:
            rows = order[:count]
            means = {p: float(self.scores(p, rows).mean()) - self.fee(p) for p in alive}
            self.refuse_mute()
            luck = dict(zip(alive, self.rng.permutation(len(alive)), strict=True))
            is_last = count >= len(order)
            ties = {p: len(self.text(p)) if is_last else int(luck[p]) for p in alive}
            alive = sorted(alive, key=lambda p: (-means[p], ties[p], self.text(p)))
            if is_last:
                return alive[:NUM_BEST]
            alive = alive[: max(NUM_BEST, math.ceil(len(alive) / 2))]
            count *= 2

    def mean(self, prompt: Prompt) -> float:
        """Mean score on the training examples that it was asked about."""
        known = self._known.get(prompt, {})
        found = [known[row] for row in self.training if row in known]
        return float(np.mean(found)) if found else 0.0

    def overall(self, prompt: Prompt) -> float:
        """The same on all examples that it was asked about, the validation share included."""
        return float(np.mean(list(self._known[prompt].values())))

    def seen(self, prompt: Prompt) -> int:
        """On how many training examples it was measured."""
        return sum(row in self._known.get(prompt, {}) for row in self.training)

    def ranked(self) -> list[Prompt]:
        """Every prompt measured, those that came farthest in a race and then the best first."""
        measured = [p for p in self._known if self.seen(p)]
        return sorted(measured, key=lambda p: (-self.seen(p), self.fee(p) - self.mean(p)))

    def facts(self, prompt: Prompt) -> tuple[dict[str, Any], float, int]:
        """Its choices, mean score and examples."""
        return dict(prompt), self.mean(prompt), self.seen(prompt)

    def failures(self, prompt: Prompt) -> list[Failure]:
        """Examples it does not get wholly right, with the answers seen."""
        known, task = self._known[prompt], self.task
        return [
            (task.texts[row], self._said[prompt, row], as_text(task.references[row]))
            for row in self.training
            if known.get(row, 1.0) < 1.0
        ]
