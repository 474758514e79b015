"""A chat model behind an OpenAI-compatible API."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zo_bilevel.adapters.prompts.chat import Body, Chat, Remember
from zo_bilevel.adapters.prompts.chat_checks import endpoint, most_tokens, request_options
from zo_bilevel.adapters.prompts.chat_client import ChatClient
from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger
from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.errors import InputError, SolveError
from zo_bilevel.support.packages import import_optional


class ChatModel(Chat):
    """Ask an OpenAI-compatible endpoint. The key is read for each request and kept nowhere.

    Args:
        url: Address of the API ("https://host/v1"); `/chat/completions` is added.
        model: Name of the model.
        key_variable: Environment variable that holds the key, or `None` for none.
        prices: From names of models to the prices of a million tokens read and written.
        max_cost: End the run before a call that might exceed this sum, or `None`. It holds for all
            processes of a run and, where it has a store, for all runs there with this solver.
        temperature: Of sampling, >= 0; `None` sends none. Answers at 0 are remembered.
        max_tokens: Tokens an answer may have, >= 1; `None` sends no limit.
        logprobs: Ask for log-probabilities of the first token; where they come they are used.
        send_seed: Send the seed of each solve as `seed`.
        schema: A JSON schema that answers must follow, or `None`.
        extra: Further fields of the request ("top_p", for instance).
        max_tokens_field: Name of the field for `max_tokens`; newer models of some providers want
            "max_completion_tokens".
        timeout_s: Seconds one attempt may take, > 0.
        retries: Further attempts after faults, >= 0: refusals with 408, 409, 425, 429 and 5xx,
            broken connections, time limits, answers without choices. `Retry-After` is honoured.
        max_concurrent: Requests at once, >= 1.
        requests_per_minute: Rate limit, > 0, or `None`.
        keep_answers: Keep raw answers in the store of a run, for `zo-bilevel show`.

    Raises:
        InputError: If an argument breaks its rule, the key is missing, or the model has no price.
        MissingPackageError: If httpx or tenacity is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_variable: str | None = "OPENAI_API_KEY",
        prices: Mapping[str, tuple[float, float]] | None = None,
        max_cost: float | None = None,
        temperature: float | None = 0.0,
        max_tokens: int | None = 16,
        logprobs: bool = False,
        send_seed: bool = False,
        schema: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        max_tokens_field: str = "max_tokens",
        timeout_s: float = 60.0,
        retries: int = 4,
        max_concurrent: int = 4,
        requests_per_minute: float | None = None,
        keep_answers: bool = True,
    ) -> None:
        for package in ("httpx", "tenacity"):
            import_optional(package, "ChatAPI", "prompts")
        self.url = self._address(url)
        if max_tokens is not None:
            max_tokens = whole_number("max_tokens", max_tokens, least=1)
        if temperature is not None:
            finite_number("temperature", temperature, ">= 0")
        if requests_per_minute is not None:
            finite_number("requests_per_minute", requests_per_minute, "> 0")
        timeout_s = finite_number("timeout_s", timeout_s, "> 0")
        retries = whole_number("retries", retries, least=0)
        max_concurrent = whole_number("max_concurrent", max_concurrent, least=1)
        own = {"temperature": temperature, max_tokens_field: max_tokens, **_schema(schema)}
        options = request_options(own, logprobs, dict(extra or {}))
        most = most_tokens(options)
        if max_cost is not None and not most:
            raise InputError("max_cost needs max_tokens: an answer could cost any sum")
        ledger = ChatLedger(model, prices, most, max_cost)
        is_sure = temperature == 0.0
        super().__init__(
            model, self.url, options, ledger, is_sure=is_sure, keep_answers=keep_answers
        )
        self.send_seed = send_seed
        limits = (timeout_s, retries, max_concurrent, requests_per_minute)
        self.client = self._client(key_variable, limits)
        self.client.key()

    def _address(self, url: str) -> str:
        return endpoint(url)

    def _client(self, key_variable: str | None, limits: tuple[Any, ...]) -> ChatClient:
        return ChatClient(f"{self.url}/chat/completions", key_variable, *limits)

    def _answers(self, bodies: Sequence[Body], remember: Remember) -> None:
        """All requests, several at once; after a failure none is begun any more."""
        failed = threading.Event()

        def ask(place: int) -> Exception | None:
            if failed.is_set():
                return None
            try:
                remember(place, self.client.ask(bodies[place], self.ledger))
            except Exception as error:  # noqa: BLE001 - what was paid for the others must be told
                failed.set()
                error.place = place  # type: ignore[attr-defined]
                return error
            return None

        with ThreadPoolExecutor(min(self.client.max_concurrent, len(bodies))) as pool:
            errors = [error for error in pool.map(ask, range(len(bodies))) if error is not None]
        if errors:
            first = errors[0]
            error = type(first)(f"{self.url} {first}") if isinstance(first, SolveError) else first
            error.cost = sum(getattr(e, "cost", 0.0) for e in errors)  # type: ignore[attr-defined]
            error.place = first.place  # type: ignore[attr-defined]
            raise error

    def close(self) -> None:
        """Close idle connections."""
        self.client.close()


def _schema(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is None:
        return {}
    if not isinstance(schema, Mapping):
        raise InputError(f"schema must be a JSON schema as a dict, got {schema!r}")
    form = {"name": "answer", "strict": True, "schema": dict(schema)}
    return {"response_format": {"type": "json_schema", "json_schema": form}}
