"""A chat model: what it is asked, what it answered before, what that cost."""

from __future__ import annotations

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias

from zo_bilevel.adapters.prompts.answer_store import AnswerStore
from zo_bilevel.adapters.prompts.chat_answer import Answer
from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger
from zo_bilevel.adapters.prompts.prompt_template import Message

Body: TypeAlias = dict[str, Any]
Remember: TypeAlias = Callable[[int, Answer], None]
SEEN: ContextVar[dict[str, object] | None] = ContextVar("requests of a search", default=None)
"""The requests that the search at work in this thread has an answer to, whoever paid for it."""


@contextmanager
def priced_anew() -> Iterator[dict[str, object]]:
    """Let each answer have its recorded price once in here, known or not, and none after that.

    Yields:
        The requests answered so far in here, as keys.
    """
    seen: dict[str, object] = {}
    token = SEEN.set(seen)
    try:
        yield seen
    finally:
        SEEN.reset(token)


class Chat(ABC):
    """Answers conversations. An answer that cannot change is asked for once.

    Args:
        model: Name of the model.
        name: Everything that decides its answers besides what a request holds.
        options: Settings of every request.
        ledger: Books what is spent.
        is_sure: Whether the same request gets the same answer; others are remembered by seed.
        keep_answers: Keep the answers in the store of the run, beside the bill.
    """

    def __init__(
        self,
        model: str,
        name: str,
        options: Mapping[str, Any],
        ledger: ChatLedger,
        *,
        is_sure: bool,
        keep_answers: bool = True,
    ) -> None:
        self.model, self.name, self.options, self.ledger = model, name, dict(options), ledger
        self._is_sure, self._keeps, self.send_seed = is_sure, keep_answers, False
        self._store = AnswerStore()
        self._known: dict[str, Answer] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}

    @abstractmethod
    def _answers(self, bodies: Sequence[Body], remember: Remember) -> None:
        """Answer requests; `remember(place, answer)` is called as each answer comes.

        Raises:
            SolveError: If one has no answer; its `cost` is what that one may have cost, its
                `place` which one it is.
        """

    def ask_all(
        self, conversations: Sequence[Sequence[Message]], seed: int | None = None
    ) -> list[Answer]:
        """Answer conversations; `SolveError` if one has no answer; its `cost` was paid for all.

        Its `place` is the number of that conversation, where it is known.

        Args:
            conversations: The messages of each.
            seed: Of the sampling; `None` for an answer that is never remembered, unless the
                model gives the same one always.

        Returns:
            One answer each. What is known already costs nothing, unless an earlier process of the
            same run paid for it or a search meets it for the first time: then its price is told
            once more, and not billed.
        """
        bodies = [self._body(messages, seed) for messages in conversations]
        keys = [self._key(body, seed) for body in bodies]
        found: dict[int, Answer] = {}
        for place, key in enumerate(keys):
            if key and (answer := self._recall(key)) is not None:
                found[place] = answer
        firsts = {k: place for place, k in reversed(list(enumerate(keys))) if k}
        todo = [p for p, k in enumerate(keys) if p not in found and (not k or firsts[k] == p)]
        seen = SEEN.get()  # another one in the threads that ask
        seen = {} if seen is None else seen

        def remember(place: int, answer: Answer) -> None:
            found[todo[place]] = answer
            seen[keys[todo[place]]] = None
            self._note(keys[todo[place]], bodies[todo[place]], answer)

        if todo:
            try:
                self._answers([bodies[place] for place in todo], remember)
            except Exception as error:
                _tell(error, found.values(), todo)
                raise
        for place, key in enumerate(keys):
            if place not in found:  # the same request twice in one call
                found[place] = self._recall(key) or found[firsts[key]]
        return [found[place] for place in range(len(bodies))]

    def _body(self, messages: Sequence[Message], seed: int | None) -> Body:
        body = {"model": self.model, "messages": list(messages), **self.options}
        return body | ({"seed": seed} if self.send_seed and seed is not None else {})

    def _key(self, body: Body, seed: int | None) -> str:
        if not self._is_sure and seed is None:
            return ""
        return json.dumps([self.name, body, None if self._is_sure else seed], sort_keys=True)

    def _recall(self, key: str) -> Answer | None:
        known, seen, mark = self._known.get(key), SEEN.get(), object()
        answer = known or self._store.find(key)
        if answer is None:
            return None
        self.ledger.count("cached")
        self._known[key] = answer
        is_first = known is None if seen is None else seen.setdefault(key, mark) is mark
        if not is_first:
            return answer.for_nothing()
        return answer if known is None else dataclasses.replace(answer, is_known=True)

    def unseen(self, conversations: Sequence[Sequence[Message]], seed: int) -> int:
        """How many distinct ones of these the search at work has no answer to yet."""
        keys = {self._key(self._body(messages, seed), seed) for messages in conversations}
        return len(keys - (SEEN.get() or {}).keys())

    def most(self, conversations: Sequence[Sequence[Message]], seed: int) -> tuple[float, float]:
        """The most that these can cost, and that those of them can that are not known yet."""
        bodies = [self._body(messages, seed) for messages in conversations]
        asked = {self._key(body, seed): self.ledger.most(body) for body in bodies}
        new = [k for k in asked if k not in self._known and self._store.find(k) is None]
        return math.fsum(asked.values()), math.fsum(asked[key] for key in new)

    def _note(self, key: str, body: Body, answer: Answer) -> None:
        if key:
            self._known[key] = answer
        if self._keeps:
            self._store.add(key, body, answer)

    def keep_books(self, file: Path) -> None:
        """Keep the bill, and the answers unless that was opted out of, in a file."""
        self.ledger.bill.keep_in(file)
        if self._keeps:
            self._store.keep_in(file)

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Give back connections."""


def _tell(error: Any, answers: Iterable[Answer], todo: Sequence[int]) -> None:  # noqa: ANN401
    """Let an error tell what was paid in all, and which conversation has no answer."""
    error.cost = getattr(error, "cost", 0.0) + math.fsum(answer.cost for answer in answers)
    if (place := getattr(error, "place", None)) is not None:
        error.place = todo[place]
