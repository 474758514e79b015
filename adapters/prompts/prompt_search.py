"""Search among wordings and shown examples: raced on few examples, judged on a validation share."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

from zo_bilevel.adapters.prompts.metrics import WholeSet, as_text
from zo_bilevel.adapters.prompts.prompt_book import (
    FIRST_ROWS,
    NUM_BEST,
    Prompt,
    PromptBook,
    SpentError,
)
from zo_bilevel.adapters.prompts.prompt_task import PromptTask
from zo_bilevel.adapters.prompts.proposer import Proposer
from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

SHARE_FOR_PROPOSALS = 0.5
"""Of a generation's new prompts, where there is a proposer and a slot to fill."""
PROPOSAL_LENGTH = 1500
"""Characters of a request for a wording, about, to tell whether it can be paid."""


@final
@dataclass(frozen=True, slots=True)
class FoundPrompt:
    """What a search found.

    Args:
        phi: The choices of the template.
        text: The prompt, to read.
        score: Mean score on the validation share.
        start_score: The same of the hand-written prompt.
        gains: Score minus the start's, for each example of the validation share.
        answers: Distinct answers that were paid for, proposals included.
        cost: Their price.
        seconds: Wall-clock time.
        seed: Of the search.
        stop_reason: Why it ended.
        tried: Every prompt that finished a race, with its mean score and examples, best first.
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
    standard_error: float | None = None
    method: str = "prompt search"

    @property
    def loss(self) -> float:
        """1 - score."""
        return 1.0 - self.score

    @property
    def solves(self) -> int:
        """Answers."""
        return self.answers


@final
class PromptSearch:
    """Races prompts on growing shares of the examples and breeds new ones from the best.

    A race measures all its prompts on the same few examples, drops the worse half, and goes on
    with twice as many. New prompts differ from one of the best in a wording or in the examples
    shown (one more, one less, another one, another order), join two of them, or have a wording
    that a model proposed. At the end the best ones and the hand-written prompt are compared on a
    validation share that no race has seen, and the best there is kept.

    Args:
        task: The prompt task; not one with a metric of the whole set.
        proposer: Writes new wordings for the slot; default none.
        slot: Which slot; default the first.
        validation: Share of the examples that only the final judgement sees, in (0, 1).
        population: Prompts of a race, >= 4.
        patience: End after so many races that find nothing better, >= 1.
        length_price: Score that a thousand characters of a prompt must earn, >= 0.

    Raises:
        InputError: If an argument breaks its rule, or a share has no example.
    """

    def __init__(
        self,
        task: PromptTask,
        proposer: Proposer | None = None,
        *,
        slot: str = "",
        validation: float = 0.4,
        population: int = 12,
        patience: int = 6,
        length_price: float = 0.0,
    ) -> None:
        if isinstance(task.metric, WholeSet):
            raise InputError("prompts are raced on single examples: give a metric of one answer")
        self.task, self.proposer, self.template = task, proposer, task.template
        self.slot = slot or next(iter(self.template.slots), "")
        if self.slot not in self.template.slots and (slot or proposer is not None):
            raise InputError(f"slot must be one of {list(self.template.slots)}, got {slot!r}")
        self.population = whole_number("population", population, least=4)
        self.patience = whole_number("patience", patience, least=1)
        self.length_price = finite_number("length_price", length_price, ">= 0")
        if not 0 < validation < 1:
            raise InputError(f"validation must lie in (0, 1), got {validation}")
        self.num_validation = round(validation * len(task.texts))
        if not 0 < self.num_validation <= len(task.texts) - FIRST_ROWS:
            raise InputError(
                f"validation={validation} of {len(task.texts)} examples leaves "
                f"{self.num_validation} to judge on and "
                f"{len(task.texts) - self.num_validation} to race on; at least 1 and "
                f"{FIRST_ROWS} are needed"
            )
        if proposer is not None and proposer.chat is not task.chat:
            proposer.chat.ledger.bill = task.chat.ledger.bill

    def run(
        self,
        *,
        max_cost: float | None = None,
        max_answers: int | None = None,
        seed: int = 0,
        store: str | os.PathLike[str] | None = None,
    ) -> FoundPrompt:
        """Search within a budget.

        Args:
            max_cost: Money for all answers, proposals and the final judgement included.
            max_answers: The same as a number of answers.
            seed: Same seed, same prompts, same answers.
            store: Keep bill and answers beside this file (`STORE.bill`); the same call goes on
                where it was stopped, without asking again.

        Raises:
            InputError: If there is no budget, or not even enough to judge two prompts.
        """
        if max_cost is None and max_answers is None:
            raise InputError("a search needs max_cost or max_answers")
        if store is not None:
            file = Path(store).resolve().with_name(f"{Path(store).name}.bill")
            for chat in {self.task.chat, self.proposer.chat if self.proposer else self.task.chat}:
                chat.keep_books(file)
        book = PromptBook(
            *(self.task, self.num_validation, self.length_price, max_cost, max_answers, seed)
        )
        began, start = time.perf_counter(), tuple(self.template.start.items())
        try:
            reason = self._races(book, start)
        except SpentError:
            reason = "the budget is spent"
        book.is_final = True
        finalists = [start, *(p for p in book.ranked() if p != start)][: NUM_BEST + 1]
        judged: dict[Prompt, FloatArray] = {}
        for prompt in finalists:
            try:
                judged[prompt] = book.scores(prompt, book.validation)
            except SpentError:
                break
        if start not in judged:
            raise InputError(
                f"the budget is too small: {book.count} answers cost {book.cost:.4g}, and judging "
                f"one prompt needs {len(book.validation)} more"
            )
        best = max(judged, key=lambda p: float(judged[p].mean()) - book.fee(p))
        gains = judged[best] - judged[start]
        return FoundPrompt(
            phi=dict(best),
            text=self.template.text(dict(best)),
            score=float(judged[best].mean()),
            start_score=float(judged[start].mean()),
            gains=tuple(float(gain) for gain in gains),
            answers=book.count,
            cost=book.cost,
            seconds=time.perf_counter() - began,
            seed=seed,
            stop_reason=reason,
            tried=tuple(book.facts(p) for p in book.ranked()),
        )

    def _races(self, book: PromptBook, start: Prompt) -> str:
        pool, unchanged, highest = self._first(book, start), 0, -math.inf
        while True:
            best = book.race(pool)
            top = book.mean(best[0]) - book.fee(best[0])
            unchanged = 0 if top > highest else unchanged + 1
            if unchanged >= self.patience:
                return f"{unchanged} races found nothing better"
            highest, pool = max(top, highest), self._next(book, best)

    def _first(self, book: PromptBook, start: Prompt) -> list[Prompt]:
        """The hand-written prompt, every wording there is, and random examples."""
        pool = {start: None}
        for name, wordings in self.template.slots.items():
            pool |= {_with(start, name, wording): None for wording in wordings}
        while len(pool) < self.population and self.template.num_shown:
            count = len(pool)
            base = list(pool)[int(book.rng.integers(count))]
            pool[self._shown_anew(base, book.rng)] = None
            if len(pool) == count and book.rng.random() < 0.2:
                break
        return list(pool)

    def _next(self, book: PromptBook, best: Sequence[Prompt]) -> list[Prompt]:
        pool = dict.fromkeys(best)
        if self.proposer is not None:
            wanted = round(SHARE_FOR_PROPOSALS * (self.population - len(best)))
            for wording in self._proposed(book, best, wanted):
                parent = best[int(book.rng.integers(len(best)))]
                pool[_with(parent, self.slot, wording)] = None
        for _ in range(10 * self.population):
            if len(pool) >= self.population:
                break
            pool[self._child(best, book)] = None
        return list(pool)

    def _proposed(self, book: PromptBook, best: Sequence[Prompt], count: int) -> list[str]:
        assert self.proposer is not None  # noqa: S101 - for the type checker
        scored: dict[str, float] = {}
        for prompt in (*best, *book.ranked()):
            scored.setdefault(dict(prompt)[self.slot], book.mean(prompt))
        pairs = [(self.task.texts[k], as_text(self.task.references[k])) for k in book.training]
        book.check(count * PROPOSAL_LENGTH, count)
        wordings, cost = self.proposer.propose(
            list(scored.items()), pairs, book.failures(best[0]), count, book.rng
        )
        book.pay(cost, count)
        return wordings

    def _child(self, best: Sequence[Prompt], book: PromptBook) -> Prompt:
        """One of the best with another wording, other examples, or both of another one."""
        rng = book.rng
        parent, other = (best[int(k)] for k in rng.integers(len(best), size=2))
        known = [p for p in book.ranked() if dict(p)[self.slot]] if self.slot else []
        if self.template.num_shown and (rng.random() < 0.6 or not self.template.slots):
            return self._shown_anew(parent, rng)
        if len(best) > 1 and rng.random() < 0.5:
            names = {name for name, _ in parent if rng.random() < 0.5}
            joined = {name: dict(other)[name] if name in names else v for name, v in parent}
            return self._packed(joined, [joined[place] for place in self.template.places])
        name = list(self.template.slots)[int(rng.integers(len(self.template.slots)))]
        wordings = [dict(p)[name] for p in known] or list(self.template.slots[name])
        return _with(parent, name, wordings[int(rng.integers(len(wordings)))])

    def _shown_anew(self, prompt: Prompt, rng: np.random.Generator) -> Prompt:
        """Show one more example, one less, another one, or the same in another order."""
        places, values = self.template.places, dict(prompt)
        shown = [values[name] for name in places if values[name] >= 0]
        move = int(rng.integers(4))
        fresh = int(rng.integers(len(self.template.examples)))
        if move == 0 and len(shown) < len(places) and fresh not in shown:
            shown.insert(int(rng.integers(len(shown) + 1)), fresh)
        elif move == 1 and shown:
            shown.pop(int(rng.integers(len(shown))))
        elif move == 2 and shown and fresh not in shown:
            shown[int(rng.integers(len(shown)))] = fresh
        else:
            rng.shuffle(shown)
        return self._packed(values, shown)

    def _packed(self, values: dict[str, Any], shown: Sequence[int]) -> Prompt:
        """A prompt that shows each of these examples once, then none."""
        places = self.template.places
        once = list(dict.fromkeys(k for k in shown if k >= 0))
        padded = [*once, *[-1] * (len(places) - len(once))]
        return tuple({**values, **dict(zip(places, padded, strict=True))}.items())


def _with(prompt: Prompt, name: str, value: Any) -> Prompt:  # noqa: ANN401 - a choice
    return tuple((key, value if key == name else old) for key, old in prompt)
