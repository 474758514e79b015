"""Which prompts race: those there are at first, then the best and what is bred from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from zo_bilevel.adapters.prompts.answer_form import answer_forms
from zo_bilevel.adapters.prompts.metrics import as_text
from zo_bilevel.adapters.prompts.prompt_book import PromptBook
from zo_bilevel.adapters.prompts.prompt_moves import Prompt, changed, child, shown_anew
from zo_bilevel.adapters.prompts.prompt_task import PromptTask
from zo_bilevel.adapters.prompts.proposer import Proposer

SHARE_FOR_PROPOSALS = 0.5
"""Of a generation's new prompts, where there is a proposer and a slot to fill."""
PROPOSAL_LENGTH = 1500
"""Characters of a request for a wording, about, to tell whether it can be paid."""


@final
class PromptBreeder:
    """Makes the prompts of each race.

    Args:
        task: The prompt task.
        proposer: Writes new wordings for the slot, or `None`.
        slot: Its name; empty where the template has none.
        population: Prompts of a race.
    """

    def __init__(
        self, task: PromptTask, proposer: Proposer | None, slot: str, population: int
    ) -> None:
        self.task, self.proposer, self.template = task, proposer, task.template
        self.slot, self.population = slot, population

    def first(self, book: PromptBook, start: Prompt) -> list[Prompt]:
        """The hand-written prompt, every wording there is, the form of answers, random examples."""
        pool = {start: None}
        for name, wordings in self.template.slots.items():
            pool |= {changed(start, name, wording): None for wording in wordings}
        if self.proposer is not None:
            told = [self.task.references[k] for k in book.training]
            plain = self.template.slots[self.slot][0]
            for form in answer_forms(told, self.task.classes):
                pool[changed(start, self.slot, f"{plain} {form}".strip())] = None
        while len(pool) < self.population and self.template.num_shown:
            count = len(pool)
            base = list(pool)[int(book.rng.integers(count))]
            pool[shown_anew(self.template, base, book.rng)] = None
            if len(pool) == count and book.rng.random() < 0.2:
                break
        return list(pool)

    def following(self, book: PromptBook, best: Sequence[Prompt]) -> list[Prompt]:
        """The best of the race before, and new ones: proposed, changed, or of two."""
        pool = dict.fromkeys(best)
        if self.proposer is not None:
            wanted = round(SHARE_FOR_PROPOSALS * (self.population - len(best)))
            for wording in self._proposed(book, best, wanted):
                parent = best[int(book.rng.integers(len(best)))]
                pool[changed(parent, self.slot, wording)] = None
        for _ in range(10 * self.population):
            if len(pool) >= self.population:
                break
            known = [p for p in book.ranked() if dict(p)[self.slot]] if self.slot else []
            pool[child(self.template, best, known, book.rng)] = None
        return list(pool)

    def _proposed(self, book: PromptBook, best: Sequence[Prompt], count: int) -> list[str]:
        assert self.proposer is not None  # noqa: S101 - for the type checker
        scored: dict[str, float] = {}
        for prompt in (*best, *book.ranked()):
            scored.setdefault(dict(prompt)[self.slot], book.mean(prompt))
        pairs = [(self.task.texts[k], as_text(self.task.references[k])) for k in book.training]
        book.check(count * PROPOSAL_LENGTH, count)
        with book.counted():
            wordings, cost = self.proposer.propose(
                list(scored.items()), pairs, book.failures(best[0]), count, book.rng
            )
        book.cost += cost
        return wordings
