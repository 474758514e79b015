"""What a search knows of its prompts: their scores on examples, the races, the money."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, final

import numpy as np

from zo_bilevel.adapters.prompts.metrics import as_text
from zo_bilevel.adapters.prompts.prompt_moves import Prompt
from zo_bilevel.adapters.prompts.prompt_task import PromptTask
from zo_bilevel.adapters.prompts.prompt_template import Message
from zo_bilevel.adapters.prompts.proposer import Failure
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import SolveError, StopRunError

FIRST_ROWS = 4
"""Examples of the first rung of a race; each further rung has twice as many."""
NUM_BEST, FEWEST_JUDGED = 3, 2
"""Prompts that a race hands on, and those that are judged where money is short, with the start."""
MOST_FAILURES = 3
"""After so many prompts in a row without an answer the search ends with the words of the fault."""
SPENT = "what is left of the budget is less than the next answers may cost"
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
        self._rows, self._each, self.finalists, self._most = 0, 1.0, 1, 0.0
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
        if (
            self.cost + self._dearest * length + self._later > self.max_cost
            or self.count + self._each * (count + self._kept) > self.max_answers
        ):
            raise SpentError(SPENT)

    def _check_most(self, asked: Sequence[Sequence[Message]], length: int) -> None:
        """Refuse the first answer by the most it can cost, and what the model's limit forbids.

        Nothing is refused by that limit which is known already: the same call again goes the same
        way.
        """
        chat = self.task.chat
        limit = chat.ledger.max_cost
        if not self._dearest:
            most = chat.most(asked, 0)[0] * self.task.steps
            self._most = self._most or most / len(asked)
            if self.cost + most > self.max_cost:
                raise SpentError(SPENT)
        elif limit is not None and self.task.is_one_prompt and not self.is_final:
            new = chat.most(asked, 0)[1]
            later = self._later * min(1.0, FEWEST_JUDGED / self.finalists)
            need = self._dearest * length + later + new / len(asked)
            if new and chat.ledger.bill.total + need > limit:
                self.finalists = min(self.finalists, FEWEST_JUDGED)
                raise SpentError(
                    f"what is left of the model's max_cost={limit:g} is for the judging"
                )

    @property
    def _kept(self) -> int:
        """Answers of the final judgement."""
        return 0 if self.is_final else self.finalists * len(self.validation) * self.task.steps

    @property
    def _later(self) -> float:
        """What these cost, about."""
        return RESERVE_FACTOR * self._kept * self._dearest * self._longest()

    def least(self) -> tuple[int, float]:
        """Answers, and about the money, with which two prompts can be raced and judged."""
        count = math.ceil(2 * (FIRST_ROWS + len(self.validation)) * self.task.steps * self._each)
        price = (
            RESERVE_FACTOR * self._dearest * len(self.text(tuple(self.task.template.start.items())))
        )
        return count, count * (price or self._most / self.task.steps)

    def _entrants(self, pool: Sequence[Prompt]) -> list[Prompt]:
        """Those that the budget can race: all, or as many as leaves the best of them some rows."""
        price = RESERVE_FACTOR * self._dearest * max(len(self.text(pool[0])), 1) or math.inf
        left = min(self.max_answers - self.count, (self.max_cost - self.cost) / price)
        each = FIRST_ROWS * self.task.steps * self._each
        self.finalists = NUM_BEST + 1
        if left - self._kept * self._each >= each * (len(pool) - 1):
            return list(pool)
        self.finalists = FEWEST_JUDGED
        room = left - self._kept * self._each
        return list(pool[: 1 + max(int(room // (2 * each)), int(room >= each))])

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
            self._check_most(asked, len(self.text(prompt)) * new)
            found, said, cost = self._asked(prompt, todo)
            self.cost, self._rows = self.cost + cost, self._rows + len(todo)
            self._each = max(self._each, (self.count - before) / max(new, 1))
            price = cost / max(new, 1) / max(len(self.text(prompt)), 1)
            self._dearest = max(self._dearest, price)
            for row, score, text in zip(todo, found, said, strict=True):
                known[row], self._said[prompt, row] = float(score), text
        return np.array([known[row] for row in rows])

    def _asked(self, prompt: Prompt, rows: Sequence[int]) -> tuple[FloatArray, list[str], float]:
        """Scores, answers and their cost; a prompt that has no answer for one scores 0."""
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
            warnings.warn(f"a prompt scores 0: {error}", stacklevel=2)
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
        if not self._rows:  # what an answer costs is known after the first
            if math.isfinite(self.max_cost):
                self.scores(alive[0], order[:1])
            self.scores(alive[0], order[:count])
            alive = self._entrants(alive)
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

    def compared(self, start: Prompt) -> tuple[Prompt, FloatArray, FloatArray] | None:
        """The one that came farthest, its scores and the start's where both were asked about."""
        if not self.seen(start):
            return None
        best = self.ranked()[0]
        mine, base = self._known[best], self._known[start]
        rows = [row for row in self.training if row in mine and row in base]
        scores = np.array([[known[row] for row in rows] for known in (mine, base)])
        return best, scores[0], scores[1]

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
