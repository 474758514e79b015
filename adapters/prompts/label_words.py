"""Better label words for a frozen model, from the words of its examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from zo_bilevel.adapters.prompts.language_model import LanguageModel
from zo_bilevel.adapters.prompts.prompt_reader import PromptReader
from zo_bilevel.adapters.prompts.transformer_head import Head
from zo_bilevel.support.arrays import FloatArray

MOST_WORDS = 30
"""Words of a class's examples that are tried, the most frequent ones."""
MOST_SWEEPS = 3
WORD = re.compile(r"[^\W\d_]{3,}")


def better_label_words(
    reader: PromptReader, matrix: torch.Tensor, texts: Sequence[str], labels: Sequence[str]
) -> dict[str, str]:
    """Choose for each class the label that makes the cross-entropy of examples lowest.

    Tried are the present one and the words of the class's own examples; a sentence encoder has them
    behind the present one, as any word alone would fit a few examples by chance. One class after
    the other, while it helps. It takes one call of the model.

    Args:
        reader: The model with its present words and template.
        matrix: The prompt, shape `(n, width)`.
        texts: The examples.
        labels: The class of each.

    Returns:
        A label for each class, in the order of the present ones.

    Source:
        After the label words of Gao, Fisch and Chen (2021), "Making pre-trained language models
        better few-shot learners", arXiv 2012.15723.
    """
    head = reader.head
    if head.model.kind == "classifier":
        return dict(head.words)
    tried = {name: _candidates(head, name, texts, labels) for name in head.words}
    words = list(dict.fromkeys([*head.words.values(), *(w for k in tried.values() for w in k)]))
    if head.model.kind != "encoder":
        words = _of_different_tokens(head.model, words)
    wide = PromptReader(Head(head.model, {w: w for w in words}, head.template, head.scale))
    logits = wide.logits(matrix[None], wide.ready(texts, len(matrix)))[0].double().numpy()
    names = list(head.words)
    truth = np.array([names.index(label) for label in labels])
    chosen = [words.index(word) for word in head.words.values()]
    lowest = _cross_entropy(logits[:, chosen], truth)
    for k in [*range(len(names))] * MOST_SWEEPS:
        for word in tried[names[k]]:
            column = words.index(word) if word in words else chosen[k]
            trial = [*chosen[:k], column, *chosen[k + 1 :]]
            if len(set(trial)) < len(trial):
                continue
            if (loss := _cross_entropy(logits[:, trial], truth)) < lowest:
                lowest, chosen = loss, trial
    return {name: words[column] for name, column in zip(names, chosen, strict=True)}


def _candidates(head: Head, name: str, texts: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Labels for a class from its own examples."""
    own = [text for text, label in zip(texts, labels, strict=True) if label == name]
    counts = Counter(word for text in own for word in WORD.findall(text))
    found = [word for word, _ in counts.most_common(MOST_WORDS)]
    return [f"{head.words[name]} {w}" for w in found] if head.model.kind == "encoder" else found


def _of_different_tokens(model: LanguageModel, words: Sequence[str]) -> list[str]:
    """Those that begin with a token of none before."""
    tokens: dict[int, str] = {}
    for word in words:
        ids = model.word_ids(f" {word.strip()}")
        if ids and ids[0] != model.tokenizer.unk_token_id:
            tokens.setdefault(ids[0], word)
    return list(tokens.values())


def _cross_entropy(logits: FloatArray, truth: FloatArray) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(total - shifted[np.arange(len(truth)), truth]))
