"""Tune a prompt on examples: classes by their cross-entropy, anything else by a metric."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zo_bilevel.adapters.prompts import chat_checks
from zo_bilevel.adapters.prompts.answer_parsing import Parser, parsed, row_of_class, row_of_logprobs
from zo_bilevel.adapters.prompts.chat import Chat
from zo_bilevel.adapters.prompts.chat_answer import MOST_UNREAD, Answer, unread_words
from zo_bilevel.adapters.prompts.judge import Judge
from zo_bilevel.adapters.prompts.metrics import (
    Metric,
    WholeSet,
    grade,
    mean_loss,
)
from zo_bilevel.adapters.prompts.prompt_template import PromptTemplate
from zo_bilevel.adapters.seeding import solver_signature
from zo_bilevel.problem.objectives.cross_entropy import CrossEntropy
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.solver_identity import content_hash
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.dispatch.base import WithCost
from zo_bilevel.support.arguments import refuse_unknown, refuse_unused, whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, SolveError


class PromptTask:
    """Ask a chat model about every example under one prompt, and score what it answers.

    With classes, theta is one row an example of log-probabilities, one column a class and a last
    one for answers that name none, and the loss is their cross-entropy. With a metric, theta is
    1 - score of each example, and the loss is their mean. Every solve reports what it cost.

    Args:
        chat: The model that is asked.
        template: The prompt and its slots.
        texts: The examples to tune on.
        references: The right answer of each: the class, or what the metric compares with.
        metric: `metric(answer, reference)`, the higher the better; a `WholeSet`; a `Judge`; or
            `None` for classes. An answer without text (a refusal, for instance) scores 0.
        classes: Names of the classes as the model should write them; default those that occur.
        parser: From an answer to a class or `None`; default by matching the names.
        examples_per_class: Draw so many of each class for every solve by its seed, or `None`.

    Raises:
        InputError: If an argument breaks its rule, or the metric cannot score a right answer.
    """

    steps = 1
    """Answers that one text takes, about."""
    is_one_prompt = True
    """Whether the template's messages are what is sent."""

    def __init__(
        self,
        chat: Chat,
        template: PromptTemplate,
        texts: Sequence[str],
        references: Sequence[Any],
        metric: Metric | WholeSet | Judge | None = None,
        *,
        classes: Sequence[str] | None = None,
        parser: Parser | None = None,
        examples_per_class: int | None = None,
    ) -> None:
        chat_checks.checked_examples(texts, references)
        self.chat, self.template, self.metric, self.parser = chat, template, metric, parser
        self.texts, self.references = tuple(texts), tuple(references)
        self.examples_per_class = examples_per_class
        self.classes: tuple[str, ...] = ()
        if metric is None:
            self.classes = chat_checks.checked_classes(references, classes)
            self._labels = tuple(self.classes.index(k) for k in references)
            self._check_draws()
        else:
            self._check_metric(classes, parser)
        has_seed = chat.send_seed or examples_per_class is not None
        self.__signature__ = solver_signature(with_seed=has_seed)
        self._has_warned, self.is_read, self.fault = False, False, ""
        self.name = self._name()
        for part, whose in zip(self.chats, ("", " judge"), strict=False):
            part.ledger.bill.name = part.ledger.bill.name or self.name + whose

    @property
    def judge(self) -> Chat | None:
        """The model that judges answers, where one does; it has a bill of its own."""
        return self.metric.chat if isinstance(self.metric, Judge) else None

    @property
    def chats(self) -> list[Chat]:
        """The model that is asked, and the judge where there is one."""
        return [self.chat, *filter(None, [self.judge])]

    def _check_draws(self) -> None:
        count = self.examples_per_class
        if count is None:
            return
        whole_number("examples_per_class", count, least=1)
        for k, name in enumerate(self.classes):
            if self._labels.count(k) < count:
                raise InputError(
                    f"class {name!r} has {self._labels.count(k)} examples, examples_per_class is "
                    f"{count}"
                )

    def _check_metric(self, classes: Sequence[str] | None, parser: Parser | None) -> None:
        if classes is not None or parser is not None or self.examples_per_class is not None:
            raise InputError("classes, parser and examples_per_class go without a metric")
        if not isinstance(self.metric, WholeSet | Judge) and not callable(self.metric):
            raise InputError(f"metric must be a function, got {type(self.metric).__name__}")
        self.try_metric(self.texts, self.references)

    def try_metric(self, texts: Sequence[str], references: Sequence[Any]) -> None:
        """Score right answers, held-out ones too, and warn of those below 1: it costs nothing.

        Raises:
            InputError: If the metric cannot, or a right answer is NaN, naming the example.
        """
        if self.metric is not None:
            chat_checks.check_right_answers(self.metric, texts, references)

    def _name(self) -> str:
        """What tells stored answers apart: everything that is sent, and how answers are read."""
        reader = "match" if self.parser is None else content_hash(self.parser)
        chat = self.chat
        scorer: list[Any] = [] if self.metric is None else [content_hash(self.metric)]
        if isinstance(self.metric, Judge):
            judge = self.metric.chat
            scorer = [judge.name, judge.model, judge.options, self.metric.criteria]
        facts = [
            [chat.name, chat.model, self.template.digest(), chat.options, chat.send_seed, *scorer],
            [self.texts, self.references, self.classes, reader, self.examples_per_class],
        ]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode())
        return f"{type(self).__name__}({chat.name}, {chat.model})#{digest.hexdigest()[:16]}"

    @property
    def labels(self) -> list[int]:
        """The class of every row of theta, as a number."""
        if self.examples_per_class is None:
            return list(self._labels)
        return [k for k in range(len(self.classes)) for _ in range(self.examples_per_class)]

    def problem(self) -> Problem:
        """Cross-entropy of the examples, or 1 - score, over the template's choices."""
        outer = CrossEntropy(self.labels) if self.metric is None else mean_loss
        return Problem(self.template.space(), self, outer)

    def check(self, space: Space) -> None:
        """Refuse a space that does not fit the template, before the first solve.

        Raises:
            InputError: Naming the slot.
        """
        names, owner = [*self.template.slots, *self.template.places], type(self).__name__
        refuse_unknown(owner, "slot", space.names, names)
        refuse_unused(owner, names, space.names, "the space has no choice for them")

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> WithCost:
        """Ask about the examples.

        Raises:
            SolveError: If an example has no answer after all attempts, or no answer can be read;
                its `cost` was paid.
        """
        rows: Sequence[int] = range(len(self.texts))
        if self.examples_per_class is not None:
            rows = self._rows(seed or 0)
        texts = [self.texts[k] for k in rows]
        answers = self.answers(phi, texts, seed)
        cost = math.fsum(answer.cost for answer in answers)
        try:
            found, more, unread = self._graded(texts, self.references, answers)
            if len(unread) == len(answers):
                raise SolveError(self.fault)
        except Exception as error:
            error.cost = getattr(error, "cost", 0.0) + cost  # type: ignore[attr-defined]
            raise
        return WithCost(found if self.metric is None else 1.0 - found, cost + more)

    def answers(
        self, phi: Mapping[str, Any], texts: Sequence[str], seed: int | None = None
    ) -> list[Answer]:
        """What the model answers for each text."""
        return self.chat.ask_all([self.template.messages(phi, text) for text in texts], seed)

    def scores(
        self, texts: Sequence[str], references: Sequence[Any], answers: Sequence[Answer]
    ) -> tuple[FloatArray, float, float]:
        """Score answers: with classes 1 where right.

        Args:
            texts: What was asked.
            references: The right answer of each.
            answers: What was answered.

        Returns:
            One score each (one for all by a `WholeSet`), what a judge cost, and the share of
            answers that cannot be read.

        Raises:
            SolveError: If a judge judges none of them.
            StopRunError: If the metric raises or gives no finite number, naming the example.
        """
        found, cost, unread = self._graded(texts, references, answers)
        if self.metric is None:
            names = [*self.classes, None]
            right = [names[k] == r for k, r in zip(found.argmax(axis=1), references, strict=True)]
            found = np.array(right, dtype=np.float64)
        return found, cost, len(unread) / len(answers)

    def logits(self, phi: Mapping[str, Any], texts: Sequence[str]) -> FloatArray:
        """Log-probabilities for other texts, held-out ones for instance: `(texts, classes + 1)`."""
        return self._logits(self.answers(phi, texts))[0]

    def predict(self, phi: Mapping[str, Any], texts: Sequence[str]) -> list[str | None]:
        """The class of each text, `None` where the answer names none; with a metric the answer."""
        if self.metric is not None:
            return [answer.text for answer in self.answers(phi, texts)]
        picks = self.logits(phi, texts).argmax(axis=1)
        return [self.classes[k] if k < len(self.classes) else None for k in picks]

    def keep_books(self, file: Path) -> None:
        """Keep bill and answers in a file; a run with a store does so by itself."""
        for chat in self.chats:
            chat.keep_books(file)

    def close(self) -> None:
        """Close idle connections."""
        for chat in self.chats:
            chat.close()

    def __repr__(self) -> str:
        return f"{self.name}: {len(self.texts)} texts, {self.template!r}"

    def _rows(self, seed: int) -> list[int]:
        rng, count = np.random.default_rng(seed), self.examples_per_class
        found: list[int] = []
        for k in range(len(self.classes)):
            members = np.flatnonzero(np.array(self._labels) == k)
            found += [int(row) for row in np.sort(rng.choice(members, count, replace=False))]
        return found

    def _graded(
        self, texts: Sequence[str], references: Sequence[Any], answers: Sequence[Answer]
    ) -> tuple[FloatArray, float, list[Answer]]:
        """Log-probabilities or scores, what a judge cost, and the answers that cannot be read."""
        if self.metric is None:
            rows, unread = self._logits(answers)
            return rows, 0.0, unread
        found, cost = grade(self.metric, texts, [answer.text for answer in answers], references)
        scores = np.broadcast_to(found, len(answers))
        noted = [
            (answer, score)
            for answer, score in zip(answers, scores, strict=True)
            if not answer.text or (answer.unread_as == "cut_short" and score < 1.0)
        ]
        unread = [answer for answer, score in noted if score <= 0.0]
        self._note_unread([answer for answer, _ in noted], len(answers), len(unread))
        return found, cost, unread

    def _logits(self, answers: Sequence[Answer]) -> tuple[FloatArray, list[Answer]]:
        """Log-probabilities of the classes and of none, and the answers that name none."""
        rows, unread = [], []
        for answer in answers:
            row = row_of_logprobs(answer.alternatives, self.classes)
            if row is None:
                found = parsed(answer.text, self.classes, self.parser) if answer.text else None
                row = row_of_class(found, len(self.classes))
                unread += [answer] if found is None else []
            rows.append(row)
        self._note_unread(unread, len(answers), len(unread))
        return np.array(rows), unread

    def _note_unread(self, unread: Sequence[Answer], count: int, num_lost: int) -> None:
        """Count answers that cannot be read, or not whole, and warn once of many."""
        for answer in unread:
            self.chat.ledger.count_unread(answer)
        self.is_read = self.is_read or num_lost < count
        if unread:
            words = unread_words(unread, count, is_scored=self.metric is not None)
            self.fault = f"{self.chat.name}: {words}"
        if len(unread) > MOST_UNREAD * count and not self._has_warned:
            self._has_warned = True
            ending = "wrong" if self.metric is None else "they are scored"
            warnings.warn(f"{self.fault}; they count as {ending}", stacklevel=2)
