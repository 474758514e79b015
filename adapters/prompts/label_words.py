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

MOST_WORDS = 200
"""Words of the examples that are tried, the most frequent ones."""
SWEEPS = 3
WORD = re.compile(r"[^\W\d_]{3,}")


def better_label_words(
    reader: PromptReader, matrix: torch.Tensor, texts: Sequence[str], labels: Sequence[str]
) -> dict[str, str]:
    """Choose for each class the label that makes the cross-entropy of examples lowest.

    Tried are the present ones, the words of the examples and, with a sentence encoder, the examples
    themselves; one class after the other, while it helps. It takes one call of the model.

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
    names, words = list(head.words), _candidates(head.model, list(head.words.values()), texts)
    if head.model.kind == "classifier":
        return dict(head.words)
    wide = PromptReader(Head(head.model, {w: w for w in words}, head.template, head.scale))
    logits = wide.logits(matrix[None], wide.ready(texts, len(matrix)))[0].double().numpy()
    truth = np.array([names.index(label) for label in labels])
    chosen = list(range(len(names)))
    lowest = _cross_entropy(logits[:, chosen], truth)
    for k in [*range(len(names))] * SWEEPS:
        for column in range(len(words)):
            trial = [*chosen[:k], column, *chosen[k + 1 :]]
            if column in chosen:
                continue
            if (loss := _cross_entropy(logits[:, trial], truth)) < lowest:
                lowest, chosen = loss, trial
    return {name: words[column] for name, column in zip(names, chosen, strict=True)}


def _candidates(model: LanguageModel, own: Sequence[str], texts: Sequence[str]) -> list[str]:
    """The present words first; those that begin with a token of another one are left out."""
    counts = Counter(word for text in texts for word in WORD.findall(text))
    found = [*own, *(word for word, _ in counts.most_common(MOST_WORDS))]
    if model.kind == "encoder":
        return list(dict.fromkeys([*found, *texts]))
    tokens: dict[int, str] = {}
    for word in found:
        ids = model.word_ids(f" {word.strip()}")
        if ids and ids[0] != model.tokenizer.unk_token_id:
            tokens.setdefault(ids[0], word)
    return list(tokens.values())


def _cross_entropy(logits: FloatArray, truth: FloatArray) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(total - shifted[np.arange(len(truth)), truth]))
