"""A frozen transformer with a soft prompt put in: predicts, is saved, is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from zo_bilevel.adapters.prompts.language_model import EXTRA, OWNER, LanguageModel
from zo_bilevel.adapters.prompts.prompt_reader import PromptReader
from zo_bilevel.adapters.prompts.run_facts import RunFacts, run_facts
from zo_bilevel.adapters.prompts.transformer_head import Head
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.json_data import to_json
from zo_bilevel.support.packages import import_optional

FloatArray: TypeAlias = NDArray[np.floating[Any]]

FORMAT = 1
CARD, WEIGHTS, TENSOR = "prompt.json", "prompt.safetensors", "prompt"


@final
class PromptedTransformer:
    """A frozen model, its classes, and one soft prompt.

    Args:
        reader: The model with its classes and template.
        matrix: The soft prompt, shape `(n, width)`; n may be 0 for none.
        words: What it started from, for the record.
        card: What else is known of it.
    """

    def __init__(
        self,
        reader: PromptReader,
        matrix: torch.Tensor,
        words: str = "",
        card: Mapping[str, Any] | None = None,
    ) -> None:
        self.reader, self.matrix, self.words = reader, matrix, words
        self.card = dict(card or {})

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits."""
        return self.reader.head.classes

    def logits(self, texts: Sequence[str]) -> FloatArray:
        """One row a text, one column a class."""
        if not len(texts):
            return np.zeros((0, len(self.classes)), dtype=np.float32)
        ready = self.reader.ready(texts, len(self.matrix))
        found: FloatArray = self.reader.logits(self.matrix[None], ready)[0].numpy()
        return found

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The class of each text."""
        return [self.classes[int(k)] for k in self.logits(texts).argmax(axis=1)]

    def save(
        self,
        folder: str | os.PathLike[str],
        result: RunFacts | None = None,
        scores: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the prompt as safetensors and everything needed to use it as a JSON card.

        Args:
            folder: Where; made when missing.
            result: The run that found it, for the card: loss, solves, cost, seed, method.
            scores: Scores to note on the card, by name.

        Returns:
            The folder.

        Raises:
            MissingPackageError: If safetensors is not installed.
        """
        safetensors = import_optional("safetensors.torch", OWNER, EXTRA)
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        head, model = self.reader.head, self.reader.model
        card = {
            "format": FORMAT,
            "model": model.name,
            "revision": model.revision,
            "fingerprint": model.fingerprint(),
            "kind": model.kind,
            "words": list(head.words.items()),
            "template": head.template,
            "scale": head.scale,
            "max_length": model.max_length,
            "tokens": len(self.matrix),
            "width": model.width,
            "started_from": self.words,
            "scores": dict(scores or {}),
            "run": None if result is None else run_facts(result),
        }
        safetensors.save_file({TENSOR: self.matrix.contiguous()}, path / WEIGHTS)
        (path / CARD).write_text(to_json(card) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        model: str | os.PathLike[str] | LanguageModel | None = None,
    ) -> PromptedTransformer:
        """Read what `save` wrote.

        Args:
            folder: Where.
            model: The model, if it is elsewhere now; default the one of the card.

        Raises:
            InputError: If a file is missing or damaged, or the prompt was found for another model.
            MissingPackageError: If safetensors or transformers is not installed.
        """
        safetensors = import_optional("safetensors.torch", OWNER, EXTRA)
        path = Path(folder)
        card = _read_card(path)
        try:
            matrix = safetensors.load_file(path / WEIGHTS)[TENSOR]
        except Exception as error:
            raise InputError(f"cannot read the prompt in {path / WEIGHTS}: {error}") from error
        if not isinstance(model, LanguageModel):
            source = card["model"] if model is None else model
            options = {"revision": card["revision"], "max_length": card["max_length"]}
            model = LanguageModel(source, card["kind"], **options)
        if model.fingerprint() != card["fingerprint"] or matrix.shape[1:] != (model.width,):
            raise InputError(
                f"the prompt in {path} was found for another model than {model.name}: its word "
                "embeddings differ"
            )
        head = Head(model, dict(card["words"]), card["template"], card["scale"])
        return cls(PromptReader(head), matrix, card["started_from"], card)

    def __repr__(self) -> str:
        return (
            f"PromptedTransformer({self.reader.model.name}, {len(self.matrix)} tokens, "
            f"classes {', '.join(self.classes)})"
        )


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads((path / CARD).read_text(encoding="utf-8"))
        known = isinstance(card, dict) and card.get("format") == FORMAT
    except (OSError, ValueError) as error:
        raise InputError(f"there is no saved prompt in {path}: {error}") from error
    if not known:
        raise InputError(f"{path / CARD} is no card of a soft prompt of format {FORMAT}")
    return card
