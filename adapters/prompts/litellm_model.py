"""A chat model of any provider that the package litellm knows."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, final

from zo_bilevel.adapters.prompts.chat_answer import (
    SHOWN_CHARACTERS,
    Answer,
    FaultError,
    Usage,
    answer_of,
    refusal,
)
from zo_bilevel.adapters.prompts.chat_checks import endpoint
from zo_bilevel.adapters.prompts.chat_client import ChatClient
from zo_bilevel.adapters.prompts.chat_model import ChatModel
from zo_bilevel.support.packages import import_optional
from zo_bilevel.support.redaction import hide


def _package() -> Any:  # noqa: ANN401 - a module
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network
    litellm = import_optional("litellm", "LiteLLM", "litellm")
    litellm.suppress_debug_info = True
    return litellm


@final
class LiteLLM(ChatModel):
    """Ask a model of any provider through litellm; limits, retries and the bill as in `ChatModel`.

    Args:
        model: As litellm names it: "anthropic/...", "gemini/...", "bedrock/...".
        url: Address of the API, where it is not the provider's own.
        key_variable: Environment variable that holds the key; default those that litellm reads.
        prices: As in `ChatModel`; default litellm's own table, where it has the model.
        **options: Everything else that `ChatModel` takes.

    Raises:
        InputError: If an argument breaks its rule, or there is a limit but no price.
        MissingPackageError: If litellm is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        url: str = "",
        key_variable: str | None = None,
        prices: Mapping[str, tuple[float, float]] | None = None,
        **options: Any,  # noqa: ANN401 - those of ChatModel
    ) -> None:
        known = _package().model_cost.get(model, {})
        if prices is None and known.get("input_cost_per_token") is not None:
            names = ("input_cost_per_token", "output_cost_per_token")
            read, written = (1e6 * float(known.get(name) or 0.0) for name in names)
            prices = {model: (read, written)}
        super().__init__(url, model, key_variable=key_variable, prices=prices, **options)
        self.name = f"litellm {self.url}".strip()

    def _address(self, url: str) -> str:
        return endpoint(url) if url else ""

    def _client(self, key_variable: str | None, limits: tuple[Any, ...]) -> ChatClient:
        return _LiteLLMClient(self.url, key_variable, *limits)


@final
class _LiteLLMClient(ChatClient):
    def _attempt(self, body: Mapping[str, Any], key: str) -> tuple[Answer, Usage | None]:
        litellm = _package()
        self._take_turn()
        where = {"api_base": self.url} if self.url else {}
        where |= {"api_key": key} if key else {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its own data classes
                found = litellm.completion(
                    **body, **where, timeout=self.timeout_s, num_retries=0, max_retries=0
                )
                fields = found.model_dump()
        except litellm.Timeout:
            what = f"gave no answer within timeout_s={self.timeout_s:g}"
            raise FaultError(what, may_be_charged=True, is_slow=True) from None
        except Exception as error:  # noqa: BLE001 - of litellm or of what it uses
            return _refused(litellm, error, hide(str(error), [key])), None
        return answer_of(fields)


def _refused(litellm: Any, error: Exception, words: str) -> Answer:  # noqa: ANN401 - a module
    """What an exception of litellm means, by the status that it stands for."""
    if isinstance(error, litellm.APIConnectionError):
        raise FaultError(
            f"cannot be reached: {words[:SHOWN_CHARACTERS]}", may_be_charged=False, is_away=True
        )
    marks = {
        "ContextWindowExceededError": "context_length",
        "ContentPolicyViolationError": "content_filter",
    }
    status = getattr(error, "status_code", 400)
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    response = SimpleNamespace(status_code=status, is_success=False, headers=headers)
    shown = f"{marks.get(type(error).__name__, '')} {words}".strip()
    return refusal(response, {}, shown[:SHOWN_CHARACTERS])
