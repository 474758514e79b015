"""A soft prompt: embeddings of no words in particular, and the numbers they are made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from zo_bilevel.adapters.prompts.language_model import LanguageModel
from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.space import Space
from zo_bilevel.support.errors import InputError

LATENT, DIRECT = "latent", "prompt"


@final
@dataclass(frozen=True, slots=True)
class SoftPrompt:
    """How a soft prompt is made from phi.

    With `latent_size` d, phi is `latent`, d numbers z, and the prompt is
    `start + spread * (A z)`: A is a fixed random matrix whose rows have squared length 1 on
    average, so that z of unit size moves every number of the prompt by one spread of the
    embeddings. Without, phi is `prompt`, one number for each of `num_tokens x width` in units of
    the spread.

    Args:
        words: Words whose embeddings the prompt starts from, repeated or cut to `num_tokens`.
            Without words it starts from tokens drawn at random.
        num_tokens: Length n of the prompt; default as many as the words have tokens.
        latent_size: Numbers d, or `None` to tune the embeddings directly.
        bound: Bounds of phi, > 0: how many spreads it may go. Methods step and difference in
            shares of the bounds: 300 lets Gauss-Newton difference float32 logits over a
            thousandth of a spread; methods that draw points (CMA, random search) want 3.
        seed: Of the random matrix and the random tokens.

    Raises:
        InputError: If there are neither words nor a length, or a number breaks its rule.

    Source:
        The random matrix: Sun et al. (2022), "Black-box tuning for language-model-as-a-service",
        arXiv 2201.03514.

    Example:
        >>> SoftPrompt("the topic is", latent_size=200).space(384, 3).size
        200
        >>> SoftPrompt(num_tokens=4).space(384, 4).size
        1536
    """

    words: str = ""
    num_tokens: int | None = None
    latent_size: int | None = None
    bound: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.words.strip() and self.num_tokens is None:
            raise InputError("SoftPrompt needs words to start from or num_tokens, got neither")
        for name in ("num_tokens", "latent_size"):
            count = getattr(self, name)
            if count is not None and (
                not isinstance(count, int) or isinstance(count, bool) or count < 1
            ):
                raise InputError(f"{name} must be a whole number >= 1, got {count!r}")
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise InputError(f"bound must be > 0, got {self.bound}")
        if self.seed < 0:
            raise InputError(f"seed must be >= 0, got {self.seed}")

    def space(self, width: int, num_tokens: int) -> Space:
        """The meta-parameters of a prompt of so many tokens of this width."""
        if self.latent_size is not None:
            return Space({LATENT: Real(-self.bound, self.bound, (self.latent_size,))})
        return Space({DIRECT: Real(-self.bound, self.bound, (num_tokens, width))})

    def bind(self, model: LanguageModel) -> BoundPrompt:
        """The same for one model."""
        return BoundPrompt(self, model)


@final
class BoundPrompt:
    """A soft prompt of one model: turns phi into embeddings."""

    def __init__(self, settings: SoftPrompt, model: LanguageModel) -> None:
        self.settings = settings
        ids = model.word_ids(settings.words) if settings.words.strip() else []
        rng = np.random.default_rng(np.random.SeedSequence(settings.seed))
        if not ids:
            count = settings.num_tokens or 1
            ids = [int(i) for i in rng.integers(len(model.embeddings), size=count)]
        count = settings.num_tokens or len(ids)
        ids = [ids[k % len(ids)] for k in range(count)]
        self.start: torch.Tensor = model.embed(ids).double().cpu()
        self.spread = model.spread
        self.num_tokens, self.width = count, model.width
        self._projection = self._draw(rng)

    def _draw(self, rng: np.random.Generator) -> torch.Tensor | None:
        size = self.settings.latent_size
        if size is None:
            return None
        rows = self.num_tokens * self.width
        drawn = rng.standard_normal((rows, size), dtype=np.float32) / np.float32(math.sqrt(size))
        return torch.from_numpy(drawn)

    @property
    def space(self) -> Space:
        """The meta-parameters."""
        return self.settings.space(self.width, self.num_tokens)

    def matrices(self, phis: Mapping[str, Any]) -> torch.Tensor:
        """The prompts of a stack of points: shape `(batch, n, width)`, float64 on the host.

        Args:
            phis: `latent` of shape `(batch, d)` or `prompt` of shape `(batch, n, width)`.
        """
        name = DIRECT if self._projection is None else LATENT
        values = torch.as_tensor(np.asarray(_on_host(phis[name])), dtype=torch.float64)
        if self._projection is not None:
            # one row at a time: the same numbers in a batch of any size
            values = torch.stack([self._projection.double() @ row for row in values])
        return self.start + self.spread * values.reshape(-1, self.num_tokens, self.width)


def _on_host(value: Any) -> Any:  # noqa: ANN401 - array or tensor
    return value.detach().cpu() if hasattr(value, "detach") else value
