"""From what a transformer computes to one logit a class: label texts, label words, or its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch

from zo_bilevel.adapters.prompts.language_model import LanguageModel
from zo_bilevel.support.errors import InputError

TEMPLATES = {"encoder": "{text}", "classifier": "{text}", "causal": "{text}\nLabel:"}
MASKED_TEMPLATE = "{text} It is {mask}."
MASK = "{mask}"
DEFAULT_SCALE = 20.0
"""Logits of a sentence encoder are so many times a cosine, as sentence-transformers trains them."""


@final
class Head:
    """Classes, the words they stand for, and the template around a text.

    Args:
        model: The frozen model.
        words: From each class to its label text (encoder) or label word (causal, masked); a
            classifier has its own classes.
        template: What surrounds a text: "{text}", and "{mask}" where a masked model answers.
        scale: How many times the cosine a logit of an encoder is, > 0.

    Raises:
        InputError: If two label words begin with the same token, the template lacks a field, or
            the classes are not those of a classifier.
    """

    def __init__(
        self,
        model: LanguageModel,
        words: Mapping[str, str],
        template: str = "",
        scale: float = DEFAULT_SCALE,
    ) -> None:
        if len(words) < 2:
            raise InputError(f"there must be at least 2 classes, got {list(words)}")
        if not scale > 0:
            raise InputError(f"scale must be > 0, got {scale}")
        self.model, self.words, self.scale = model, dict(words), scale
        self.template = template or TEMPLATES.get(model.kind, MASKED_TEMPLATE)
        self._check_template()
        self.columns = self._columns()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits."""
        return tuple(self.words)

    def _check_template(self) -> None:
        if self.template.count("{text}") != 1:
            raise InputError(f"template must hold {{text}} once, got {self.template!r}")
        wanted = 1 if self.model.kind == "masked" else 0
        if self.template.count(MASK) != wanted:
            raise InputError(
                f"template of a {self.model.kind} model must hold {{mask}} {wanted} times, "
                f"got {self.template!r}"
            )

    def wrap(self, text: str) -> str:
        """A text inside the template."""
        mask = self.model.tokenizer.mask_token if self.model.kind == "masked" else ""
        return self.template.replace(MASK, mask or "").replace("{text}", text)

    def _columns(self) -> list[int]:
        if self.model.kind == "classifier":
            return _classifier_columns(self.model.model.config, self.classes)
        if self.model.kind == "encoder":
            return []
        return _first_tokens(self.model, self.words)

    def label_texts(self) -> Sequence[str]:
        """What an encoder compares a text with."""
        return list(self.words.values())


def _first_tokens(model: LanguageModel, words: Mapping[str, str]) -> list[int]:
    """The token a label word begins with, different for each."""
    seen: dict[int, str] = {}
    for name, word in words.items():
        ids = model.word_ids(f" {word.strip()}")
        if not ids:
            raise InputError(f"the label word {word!r} of class {name!r} has no token")
        if ids[0] in seen:
            token = model.tokenizer.convert_ids_to_tokens(ids[0])
            raise InputError(
                f"label words must begin with different tokens: {seen[ids[0]]!r} and {word!r} both "
                f"begin with {token!r}; choose other words for these classes"
            )
        if ids[0] == model.tokenizer.unk_token_id:
            raise InputError(f"the label word {word!r} of class {name!r} is unknown to the model")
        seen[ids[0]] = word
    return list(seen)


def _classifier_columns(config: Any, classes: Sequence[str]) -> list[int]:  # noqa: ANN401
    """Where a classifier keeps each class: by its own names, or in its own order."""
    own = [str(config.id2label[k]) for k in range(config.num_labels)]
    if set(own) == set(classes):
        return [own.index(name) for name in classes]
    if len(own) != len(classes) or not all(name.startswith("LABEL_") for name in own):
        raise InputError(f"classes must be those of the classifier, {own}, got {list(classes)}")
    return list(range(len(own)))


def pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Sentence embeddings of unit length.

    Args:
        hidden: Shape `(rows, length, width)`.
        mask: Shape `(rows, length)`, one for tokens, zero for padding.
        pooling: "mean" or "cls".
    """
    if pooling == "cls":
        vectors = hidden[:, 0]
    else:
        weights = mask[:, :, None].to(hidden.dtype)
        vectors = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(vectors, dim=1)
