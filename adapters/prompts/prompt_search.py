"""Search among wordings and shown examples: raced on few examples, judged on a validation share."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import final

import numpy as np

from zo_bilevel.adapters.prompts.bill import alone_at, bill_file
from zo_bilevel.adapters.prompts.chat import priced_anew
from zo_bilevel.adapters.prompts.chat_ledger import CostLimitError
from zo_bilevel.adapters.prompts.found_prompt import FoundPrompt
from zo_bilevel.adapters.prompts.metrics import WholeSet
from zo_bilevel.adapters.prompts.prompt_book import FIRST_ROWS, SPENT, PromptBook, SpentError
from zo_bilevel.adapters.prompts.prompt_breeder import PromptBreeder
from zo_bilevel.adapters.prompts.prompt_moves import Prompt
from zo_bilevel.adapters.prompts.prompt_task import PromptTask
from zo_bilevel.adapters.prompts.proposer import Proposer
from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

INTERRUPTED = "interrupted"
"""Why a search ended, as runs say it."""
LOCK_PLACE = 2
"""Of the lock beside a store that a search holds; the command line's own is the first."""


@final
@dataclass(frozen=True, slots=True)
class _Verdict:
    """The best prompt of a book, its scores and the hand-written one's on the validation share."""

    book: PromptBook
    prompt: Prompt
    scores: FloatArray
    start: FloatArray
    reason: str
    is_judged: bool = True

    @property
    def mean(self) -> float:
        """Mean score on every example that it was asked about, less what its length costs."""
        return self.book.overall(self.prompt) - self.book.fee(self.prompt)


@final
class PromptSearch:
    """Races prompts on growing shares of the examples and breeds new ones from the best.

    A race measures all its prompts on the same few examples, drops the worse half, and goes on
    with twice as many. New prompts differ from one of the best in a wording or in the examples
    shown (one more, one less, another one, another order), join two of them, or have a wording
    that a model proposed. At the end the best ones and the hand-written prompt are compared on a
    validation share that no race has seen, and the best there is kept. Examples with the same
    text are on the same side.

    Args:
        task: The prompt task; not one with a metric of the whole set.
        proposer: Writes new wordings for the slot; default none.
        slot: Which slot; default the first.
        validation: Share of the examples that only the final judgement sees, in (0, 1).
        folds: With few examples, cross-validation instead: search so many times, each time on
            all examples but one part, with that share of the budget and what those before left,
            and judge what was found on that part. The best is kept if these gains are above 0 in
            the mean. 0 for none.
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
        folds: int = 0,
        population: int = 12,
        patience: int = 6,
        length_price: float = 0.0,
    ) -> None:
        if not isinstance(task, PromptTask) or isinstance(task.metric, WholeSet):
            raise InputError("a search takes a PromptTask: give a metric of one answer")
        self.task, self.proposer, self.template = task, proposer, task.template
        self.slot = slot or next(iter(self.template.slots), "")
        if self.slot not in self.template.slots and (slot or proposer is not None):
            raise InputError(f"slot must be one of {list(self.template.slots)}, got {slot!r}")
        has_words = any(len(wordings) > 1 for wordings in self.template.slots.values())
        if proposer is None and not self.template.num_shown and not has_words:
            raise InputError("nothing to search: give wordings, examples to show or a proposer")
        population = whole_number("population", population, least=4)
        self._breeder = PromptBreeder(task, proposer, self.slot, population)
        self.patience = whole_number("patience", patience, least=1)
        self.length_price = finite_number("length_price", length_price, ">= 0")
        if not 0 < finite_number("validation", validation) < 1:
            raise InputError(f"validation must lie in (0, 1), got {validation}")
        count = len(set(task.texts))  # what repeats goes to one side
        self.folds = whole_number("folds", folds, least=0)
        if self.folds == 1 or self.folds > count:
            raise InputError(f"folds must be 0 or in 2..{count}, the examples, got {folds}")
        self.num_validation = -(-count // folds) if folds else round(validation * count)
        if not 0 < self.num_validation <= count - FIRST_ROWS:
            given = f"folds={folds}" if folds else f"validation={validation}"
            raise InputError(
                f"{given} of {count} different examples leaves {self.num_validation} to judge on "
                f"and {count - self.num_validation} to race on; at least 1 and {FIRST_ROWS} are "
                "needed"
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
            max_answers: The same as a number of distinct answers, without the marks of a judge.
            seed: Same seed, same prompts, same answers.
            store: Keep bill and answers beside this file (`STORE.bill`); the same call goes on
                where it was stopped, without asking again. Known answers count in the budget at
                the price on record: the call after that finds the same, and pays nothing.

        Raises:
            InputError: If there is no budget, not even enough to judge two prompts, or another
                process searches with the same store.
            SolveError: If no answer can be read, or a service leaves several prompts unanswered.

        Where Ctrl-C or the model's own `max_cost` ends it before the final judgement, the best of
        the races so far is given, with `is_judged` false; both are raised where there is none.
        """
        seed = whole_number("seed", seed, least=0)
        if max_cost is None and max_answers is None:
            raise InputError("a search needs max_cost or max_answers")
        if max_answers is not None:
            max_answers = whole_number("max_answers", max_answers, least=1)
        if max_cost is not None:
            max_cost = finite_number("max_cost", max_cost, "> 0")
            if self.task.chat.ledger.price == (0.0, 0.0):
                raise InputError(
                    f"max_cost={max_cost:g} needs prices of {self.task.chat.model}, else nothing "
                    "ends the search: give prices, or max_answers"
                )
        with alone_at(store, LOCK_PLACE):
            if store is not None:
                self.task.keep_books(bill_file(store))
                if self.proposer is not None:
                    self.proposer.chat.keep_books(bill_file(store))
            with priced_anew() as seen:
                return self._found(max_cost, max_answers, seed, seen)

    def _found(
        self, max_cost: float | None, max_answers: int | None, seed: int, seen: Sized
    ) -> FoundPrompt:
        began = time.perf_counter()
        repeats: dict[str, list[int]] = {}
        for row in np.random.default_rng([seed, 1]).permutation(len(self.task.texts)).tolist():
            repeats.setdefault(self.task.texts[row], []).append(row)
        order = list(repeats.values())
        folds = [order[k :: self.folds] for k in range(self.folds)]
        sides = folds or [order[: self.num_validation]]
        parts = [[row for same in side for row in same] for side in sides]
        verdicts: list[_Verdict] = []
        cost, answers, ended = 0.0, 0, ""
        for k, part in enumerate(parts, 1):  # what one leaves is for the next
            money = math.inf if max_cost is None else max_cost * k / len(parts) - cost
            count = math.inf if max_answers is None else max_answers * k // len(parts) - answers
            rng = np.random.default_rng([seed, 1 + k])
            limits = (self.length_price, money, count)
            try:
                verdict = self._judged(PromptBook(self.task, part, *limits, rng, seen))
            except (CostLimitError, KeyboardInterrupt) as error:
                if not verdicts:
                    raise
                ended = str(error) or INTERRUPTED
                break
            cost, answers = cost + verdict.book.cost, answers + verdict.book.count
            if verdict.is_judged or not verdicts:
                verdicts.append(verdict)
            if verdict.reason == INTERRUPTED or not verdict.is_judged:
                ended = verdict.reason
                break
        start = tuple(self.template.start.items())
        gains = [float(gain) for verdict in verdicts for gain in verdict.scores - verdict.start]
        best = max(verdicts, key=lambda verdict: verdict.mean)
        fees = [verdict.book.fee(verdict.prompt) for verdict in verdicts]
        is_better = np.mean(gains) > np.mean(fees) - verdicts[0].book.fee(start)
        kept = best.prompt if is_better else start
        scores = np.concatenate([v.scores if is_better else v.start for v in verdicts])
        return FoundPrompt(
            phi=dict(kept),
            text=self.template.text(dict(kept)),
            score=float(scores.mean()),
            start_score=float(np.concatenate([v.start for v in verdicts]).mean()),
            gains=tuple(gains if is_better else [0.0] * len(gains)),
            answers=answers,
            cost=cost,
            seconds=time.perf_counter() - began,
            seed=seed,
            stop_reason=ended or best.reason,
            is_judged=best.is_judged,
            tried=tuple(best.book.facts(p) for p in best.book.ranked()),
        )

    def _judged(self, book: PromptBook) -> _Verdict:
        """Races, then the best ones and the hand-written prompt on what no race has seen."""
        start = tuple(self.template.start.items())
        judged: dict[Prompt, FloatArray] = {}
        reason, ending = _ended(lambda: self._races(book, start))
        if reason != INTERRUPTED:
            last, fault = _ended(lambda: _judge(book, start, judged))
            reason, ending = (last, fault) if fault else (reason, ending)
        if ending is None:
            book.refuse_mute()
            if start in judged and not any(prompt != start for prompt in book.ranked()):
                why = self._too_little(book) if reason == SPENT else reason
                what = f"no prompt was raced against the hand-written one: {why}"
                warnings.warn(what, stacklevel=4)
        if start in judged:
            best = max(judged, key=lambda p: float(judged[p].mean()) - book.fee(p))
            return _Verdict(book, best, judged[best], judged[start], reason)
        if ending is None:
            raise InputError(f"the budget is too small: {self._too_little(book)}")
        if not (raced := book.compared(start)):
            raise ending
        return _Verdict(book, *raced, reason, is_judged=False)

    def _too_little(self, book: PromptBook) -> str:
        """What the budget is, and what would do."""
        parts = max(1, self.folds)
        count, money = book.least()
        given = {"max_cost": book.max_cost * parts, "max_answers": book.max_answers * parts}
        enough = {"max_cost": money * parts, "max_answers": count * parts}
        names = [name for name, value in given.items() if value < math.inf]
        have, need = ([f"{k}={v[k]:.4g}" for k in names] for v in (given, enough))
        done = f"{book.count} answers cost {book.cost:.3g}" if book.count else "nothing was asked"
        return f"{' and '.join(have)}; {done}. {' and '.join(need)} would do to race two prompts"

    def _races(self, book: PromptBook, start: Prompt) -> str:
        pool, unchanged, highest = self._breeder.first(book, start), 0, -math.inf
        while True:
            best = book.race(pool)
            top = book.mean(best[0]) - book.fee(best[0])
            unchanged = 0 if top > highest else unchanged + 1
            if unchanged >= self.patience:
                return f"{unchanged} races found nothing better"
            highest, pool = max(top, highest), self._breeder.following(book, best)


def _judge(book: PromptBook, start: Prompt, judged: dict[Prompt, FloatArray]) -> str:
    """Score the best ones and the hand-written prompt on what no race has seen."""
    book.is_final = True
    for prompt in [start, *(p for p in book.ranked() if p != start)][: book.finalists]:
        judged[prompt] = book.scores(prompt, book.validation)
    return ""


def _ended(work: Callable[[], str]) -> tuple[str, BaseException | None]:
    """Why it ended, and the error where that was not the search's own budget."""
    try:
        return work(), None
    except SpentError as spent:
        return str(spent), None
    except (CostLimitError, KeyboardInterrupt) as error:
        return str(error) or INTERRUPTED, error
