"""A chat model behind an API as an inner solver: phi is a prompt, theta its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from zo_bilevel.adapters.prompts.answer_parsing import Parser
from zo_bilevel.adapters.prompts.chat_client import ChatClient
from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger
from zo_bilevel.adapters.prompts.chat_model import ChatModel
from zo_bilevel.adapters.prompts.prompt_task import PromptTask
from zo_bilevel.adapters.prompts.prompt_template import PromptTemplate


@final
class ChatAPI(PromptTask):
    """Ask an OpenAI-compatible endpoint for the class of every example, under one prompt.

    The same as `PromptTask(ChatModel(url, model, ...), template, texts, labels, ...)`.

    Args:
        url: Address of the API ("https://host/v1"); `/chat/completions` is added.
        model: Name of the model.
        template: The prompt and its slots.
        texts: The examples to tune on.
        labels: The class of each.
        classes: Names of the classes as the model should write them; default those of `labels`.
        parser: From an answer to a class or `None`; default by matching the names.
        examples_per_class: Draw so many of each class for every solve by its seed, or `None`.
        **options: Everything else that `ChatModel` takes: key, prices, limits, sampling.

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
        parser: Parser | None = None,
        examples_per_class: int | None = None,
        **options: Any,  # noqa: ANN401 - those of ChatModel
    ) -> None:
        self.service = ChatModel(url, model, **options)
        super().__init__(
            *(self.service, template, texts, labels),
            classes=classes,
            parser=parser,
            examples_per_class=examples_per_class,
        )

    @property
    def client(self) -> ChatClient:
        """Its connections."""
        return self.service.client

    @property
    def ledger(self) -> ChatLedger:
        """What was spent."""
        return self.service.ledger

    @property
    def url(self) -> str:
        """Address of the API."""
        return self.service.url
