"""A chat model behind an API as an inner solver: phi is a prompt, theta its answers."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import numpy as np

from zo_bilevel.adapters.prompts.answer_parsing import Parser, parsed, row_of_class, row_of_logprobs
from zo_bilevel.adapters.prompts.chat_answer import Answer
from zo_bilevel.adapters.prompts.chat_checks import (
    check_counts,
    check_limits,
    checked_classes,
    endpoint,
    most_tokens,
    request_options,
)
from zo_bilevel.adapters.prompts.chat_client import ChatClient
from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger
from zo_bilevel.adapters.prompts.prompt_template import PromptTemplate
from zo_bilevel.adapters.seeding import solver_signature
from zo_bilevel.problem.names import refuse_unknown, refuse_unused
from zo_bilevel.problem.objectives.cross_entropy import CrossEntropy
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.solver_identity import content_hash
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.dispatch.base import WithCost
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, SolveError
from zo_bilevel.support.packages import import_optional

MOST_UNREAD = 0.1
"""Share of a solve's answers above which a warning says why they cannot be read."""


@final
class ChatAPI:
    """Ask an OpenAI-compatible endpoint for the class of every example, under one prompt.

    theta is one row an example of log-probabilities, one column a class and a last one for answers
    that name none: those are counted in `ledger` and never guessed. Every solve reports what it
    cost, failed ones too. The key is read from the environment for each request and kept nowhere.

    Args:
        url: Address of the API ("https://host/v1"); `/chat/completions` is added.
        model: Name of the model.
        template: The prompt and its slots.
        texts: The examples to tune on.
        labels: The class of each.
        classes: Names of the classes as the model should write them; default those of `labels`.
        key_variable: Environment variable that holds the key, or `None` for none.
        prices: From names of models to the prices of a million tokens read and written.
        max_cost: End the run before a call that might exceed this sum, or `None`. It holds for all
            processes of a run and, where it has a store, for all runs there with this solver.
        temperature: Of sampling, >= 0; `None` sends none. Answers at 0 are remembered.
        max_tokens: Tokens an answer may have, >= 1; `None` sends no limit.
        logprobs: Ask for log-probabilities of the first token; where they come they are used.
        send_seed: Send the seed of each solve as `seed`.
        extra: Further fields of the request ("top_p", for instance).
        max_tokens_field: Name of the field for `max_tokens`; newer models of some providers want
            "max_completion_tokens".
        parser: From an answer to a class or `None`; default by matching the names.
        examples_per_class: Draw so many of each class for every solve by its seed, or `None`.
        timeout_s: Seconds one attempt may take, > 0.
        retries: Further attempts after faults, >= 0: refusals with 408, 409, 425, 429 and 5xx,
            broken connections, time limits, answers without choices. `Retry-After` is honoured.
        max_concurrent: Requests at once, >= 1.
        requests_per_minute: Rate limit, > 0, or `None`.

    Raises:
        InputError: If an argument breaks its rule, the key is missing, or the model has no price.
        MissingPackageError: If httpx or tenacity is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        template: PromptTemplate,
        texts: Sequence[str],
        labels: Sequence[str],
        *,
        classes: Sequence[str] | None = None,
        key_variable: str | None = "OPENAI_API_KEY",
        prices: Mapping[str, tuple[float, float]] | None = None,
        max_cost: float | None = None,
        temperature: float | None = 0.0,
        max_tokens: int | None = 16,
        logprobs: bool = False,
        send_seed: bool = False,
        extra: Mapping[str, Any] | None = None,
        max_tokens_field: str = "max_tokens",
        parser: Parser | None = None,
        examples_per_class: int | None = None,
        timeout_s: float = 60.0,
        retries: int = 4,
        max_concurrent: int = 4,
        requests_per_minute: float | None = None,
    ) -> None:
        for package in ("httpx", "tenacity"):
            import_optional(package, "ChatAPI", "prompts")
        self.url, self.model, self.template = endpoint(url), model, template
        self.classes = checked_classes(texts, labels, classes)
        self.texts, self._labels = tuple(texts), tuple(self.classes.index(k) for k in labels)
        self.examples_per_class = examples_per_class
        counts = {"max_tokens": max_tokens} if max_tokens is not None else {}
        check_counts({**counts, "max_concurrent": max_concurrent, "retries": retries})
        check_limits(0.0 if temperature is None else temperature, timeout_s, requests_per_minute)
        self.parser, self.send_seed, self.temperature = parser, send_seed, temperature
        self.options = request_options(
            {"temperature": temperature, max_tokens_field: max_tokens}, logprobs, dict(extra or {})
        )
        most = most_tokens(self.options)
        if max_cost is not None and not most:
            raise InputError("max_cost needs max_tokens: an answer could cost any sum")
        self.ledger = ChatLedger(model, prices, most, max_cost)
        limits = (timeout_s, retries, max_concurrent, requests_per_minute)
        self.client = ChatClient(f"{self.url}/chat/completions", key_variable, *limits)
        self.client.key()
        self._check_draws()
        self.__signature__ = solver_signature(with_seed=send_seed or examples_per_class is not None)
        self._known: dict[str, tuple[FloatArray, str, bool]] = {}
        self._has_warned = False
        self.name = self.ledger.bill.name = self._name()

    def _check_draws(self) -> None:
        count = self.examples_per_class
        if count is None:
            return
        check_counts({"examples_per_class": count})
        for k, name in enumerate(self.classes):
            if self._labels.count(k) < max(count, 1):
                raise InputError(
                    f"class {name!r} has {self._labels.count(k)} examples, examples_per_class is "
                    f"{count}"
                )

    def _name(self) -> str:
        """What tells stored answers apart: everything that is sent, and how answers are read."""
        reader = "match" if self.parser is None else content_hash(self.parser)
        facts = [
            [self.url, self.model, self.template.digest(), self.options, self.send_seed],
            [self.texts, self._labels, self.classes, reader, self.examples_per_class],
        ]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        return f"ChatAPI({self.url}, {self.model})#{digest}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}

    @property
    def labels(self) -> list[int]:
        """The class of every row of theta, as a number."""
        if self.examples_per_class is None:
            return list(self._labels)
        return [k for k in range(len(self.classes)) for _ in range(self.examples_per_class)]

    def problem(self) -> Problem:
        """Cross-entropy of the examples over the template's choices."""
        return Problem(self.template.space(), self, CrossEntropy(self.labels))

    def check(self, space: Space) -> None:
        """Refuse a space that does not fit the template, before the first solve.

        Raises:
            InputError: Naming the slot.
        """
        names = [*self.template.slots, *self.template.places]
        refuse_unknown("ChatAPI", "slot", space.names, names)
        refuse_unused("ChatAPI", names, space.names, "the space has no choice for them")

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> WithCost:
        """Ask about the examples.

        Raises:
            SolveError: If an example has no answer after all attempts; its `cost` was paid.
        """
        rows = range(len(self.texts)) if self.examples_per_class is None else self._rows(seed or 0)
        rows_of, cost = self._ask_all(phi, [self.texts[k] for k in rows], seed)
        return WithCost(rows_of, cost)

    def logits(self, phi: Mapping[str, Any], texts: Sequence[str]) -> FloatArray:
        """The same for other texts, held-out ones for instance: shape `(texts, classes + 1)`."""
        return self._ask_all(phi, texts, None)[0]

    def predict(self, phi: Mapping[str, Any], texts: Sequence[str]) -> list[str | None]:
        """The class of each text, `None` where the answer names none."""
        picks = self.logits(phi, texts).argmax(axis=1)
        return [self.classes[k] if k < len(self.classes) else None for k in picks]

    def keep_books(self, file: Path) -> None:
        """Keep the bill in a file; a run with a store does so by itself."""
        self.ledger.bill.keep_in(file)

    def close(self) -> None:
        """Close idle connections."""
        self.client.close()

    def __repr__(self) -> str:
        return f"{self.name}: {len(self.texts)} texts, {self.template!r}"

    def _rows(self, seed: int) -> list[int]:
        rng, count = np.random.default_rng(seed), self.examples_per_class
        found: list[int] = []
        for k in range(len(self.classes)):
            members = np.flatnonzero(np.array(self._labels) == k)
            found += [int(row) for row in np.sort(rng.choice(members, count, replace=False))]
        return found

    def _ask_all(
        self, phi: Mapping[str, Any], texts: Sequence[str], seed: int | None
    ) -> tuple[FloatArray, float]:
        """All examples, several at once; after a failure none is begun any more."""
        failed, costs = threading.Event(), [0.0] * len(texts)
        unread, is_mute = [""] * len(texts), [False] * len(texts)

        def ask(place: int) -> FloatArray | Exception | None:
            if failed.is_set():
                return None
            try:
                row, unread[place], is_mute[place], costs[place] = self._ask(
                    phi, texts[place], seed
                )
                return row
            except Exception as error:  # noqa: BLE001 - what was paid for the others must be told
                failed.set()
                costs[place] = getattr(error, "cost", 0.0)
                return error

        with ThreadPoolExecutor(min(self.client.max_concurrent, max(len(texts), 1))) as pool:
            answers = list(pool.map(ask, range(len(texts))))
        for found in answers:
            if isinstance(found, Exception):
                is_own = isinstance(found, SolveError)
                error = type(found)(f"{self.url} {found}") if is_own else found
                error.cost = math.fsum(costs)  # type: ignore[attr-defined]  # for the dispatcher
                raise error
        self._judge_unread([name for name in unread if name], is_mute, math.fsum(costs))
        return np.array(answers), math.fsum(costs)

    def _judge_unread(self, unread: list[str], is_mute: list[bool], cost: float) -> None:
        """Warn once of many answers that name no class; without any text at all it is an error."""
        total = len(is_mute)
        if len(unread) <= MOST_UNREAD * total:
            return
        kinds = ", ".join(f"{name}: {unread.count(name)}" for name in dict.fromkeys(unread))
        what = f"{len(unread)} of {total} answers name no class ({kinds})"
        if all(is_mute):
            error = SolveError(f"{self.url}: {what}")
            error.cost = cost  # type: ignore[attr-defined]  # for the dispatcher
            raise error
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(f"{self.url}: {what}; they count as wrong", stacklevel=2)

    def _ask(
        self, phi: Mapping[str, Any], text: str, seed: int | None
    ) -> tuple[FloatArray, str, bool, float]:
        body = {"model": self.model, "messages": self.template.messages(phi, text), **self.options}
        if self.send_seed and seed is not None:
            body["seed"] = seed
        key = json.dumps(body, sort_keys=True)
        if key in self._known:
            self.ledger.count("cached")
            return *self._known[key], 0.0
        answer = self.client.ask(body, self.ledger)
        try:
            found = self._row(answer)
        except Exception as error:
            error.cost = answer.cost  # type: ignore[attr-defined]  # the answer was paid
            raise
        if self.temperature == 0.0 or "seed" in body:
            self._known[key] = found
        return *found, answer.cost

    def _row(self, answer: Answer) -> tuple[FloatArray, str, bool]:
        """Log-probabilities of the classes and of none, why it is none, and if there is no text."""
        row = row_of_logprobs(answer.alternatives, self.classes)
        if row is not None:
            return row, "", False
        found = parsed(answer.text, self.classes, self.parser) if answer.text else None
        unread = answer.unread_as if found is None else ""
        if unread:
            self.ledger.count(unread)
        return row_of_class(found, len(self.classes)), unread, not answer.text
