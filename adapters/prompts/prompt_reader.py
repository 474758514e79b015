"""Runs a frozen model on soft prompts x texts, in padded batches."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from zo_bilevel.adapters.prompts.transformer_head import Head, pooled
from zo_bilevel.support.errors import InputError

ROWS_ON_CPU, ROWS_ON_DEVICE = 32, 1024
"""Rows of a batch: on a CPU wider ones only add padding."""
CACHE_TOLERANCE = 1e-3
"""How far logits through the key-value cache may be from those without, for it to be used."""


@final
@dataclass(frozen=True, slots=True)
class ReadyTexts:
    """Tokenized texts.

    Args:
        ids: Tokens of each, special ones included.
        truncated: How many texts were cut to fit.
    """

    ids: tuple[tuple[int, ...], ...]
    truncated: int


@final
class PromptReader:
    """Logits of every class for every pair of a soft prompt and a text.

    A soft prompt goes where its words would: after the special tokens that open a sequence. Texts
    are padded here, on the right, whatever the tokenizer's side. On a CPU the batches of one
    prompt are its own, so that its logits do not depend, to the last bit, on what else is asked;
    on other devices prompts share batches.

    Args:
        head: Classes, template and model.
        max_rows: Rows a batch, or `None` for 32 on a CPU and 1,024 elsewhere.
    """

    def __init__(self, head: Head, max_rows: int | None = None) -> None:
        if max_rows is not None and max_rows < 1:
            raise InputError(f"max_rows must be >= 1, got {max_rows}")
        self.head, self.model = head, head.model
        is_cpu = torch.device(self.model.device).type == "cpu"
        self.max_rows = max_rows or (ROWS_ON_CPU if is_cpu else ROWS_ON_DEVICE)
        self.prompts_share_batches = not is_cpu
        self.pooling = self.model.pooling() if self.model.kind == "encoder" else ""
        forward = inspect.signature(self.model.model.forward).parameters
        self._keeps_some = "logits_to_keep" in forward
        # classifiers of this family look for the last token in input_ids, which they do not get
        self._pads = not (self.model.kind == "classifier" and hasattr(self.model.model, "score"))
        self._caches: bool | None = None if self.model.kind == "causal" else False
        self.lead, self._tail = _special_tokens(self.model.tokenizer)
        self._targets: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_targets": None}

    # ---- texts ------------------------------------------------------------------------------

    def ready(self, texts: Sequence[str], num_tokens: int) -> ReadyTexts:
        """Tokenize texts inside the template, cut so that a prompt of `num_tokens` fits.

        Only the text itself is cut, never the template; a warning says how many were.

        Raises:
            InputError: If a text is no string, or the template alone is too long.
        """
        limit = self.model.max_length - num_tokens
        ids, truncated = [], 0
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"texts must be strings, the one at {place} is {text!r}")
            row, was_cut = self._fit(text, limit)
            truncated += was_cut
            ids.append(tuple(row))
        if truncated:
            warnings.warn(
                f"{truncated} of {len(ids)} texts are longer than the model takes "
                f"({self.model.max_length} tokens, {num_tokens} of them the prompt) and were cut",
                stacklevel=3,
            )
        return ReadyTexts(tuple(ids), truncated)

    def _fit(self, text: str, limit: int) -> tuple[list[int], bool]:
        tokenizer, was_cut = self.model.tokenizer, False
        while True:
            row = self._tokens(text)
            if len(row) <= limit:
                return row, was_cut
            if not text:
                raise InputError(
                    f"the template and the prompt leave no room for a text: the model takes "
                    f"{self.model.max_length} tokens"
                )
            kept = self.model.word_ids(text)[: -(len(row) - limit)]
            shorter = tokenizer.decode(kept, clean_up_tokenization_spaces=False) if kept else ""
            text, was_cut = shorter if len(shorter) < len(text) else text[:-1], True

    def _tokens(self, text: str) -> list[int]:
        row: list[int] = self.model.tokenizer(self.head.wrap(text), verbose=False)["input_ids"]
        if self.model.kind == "causal" and self._tail:
            return row[: -self._tail]  # the answer follows the text, not its end
        return row

    # ---- logits -----------------------------------------------------------------------------

    def logits(
        self, prompts: torch.Tensor, texts: ReadyTexts, rows: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Run the model.

        Args:
            prompts: Shape `(prompts, n, width)`; n may be 0.
            texts: The texts.
            rows: Which of them; default all.

        Returns:
            Shape `(prompts, rows, classes)`, float32 (float64 for a model of that precision), on
            the host.
        """
        rows = range(len(texts.ids)) if rows is None else rows
        chosen = [texts.ids[row] for row in rows]
        dtype = torch.float64 if self.model.precision == "float64" else torch.float32
        answer = torch.empty(len(prompts), len(chosen), len(self.head.words), dtype=dtype)
        prompts = prompts.to(device=self.model.device, dtype=self.model.embeddings.dtype)
        with torch.inference_mode():
            for chunk in self._chunks(chosen):
                together = max(1, self.max_rows // len(chunk)) if self.prompts_share_batches else 1
                ids = [chosen[k] for k in chunk]
                for start in range(0, len(prompts), together):
                    found = self._run(prompts[start : start + together], ids)
                    answer[start : start + together, chunk] = found.to("cpu", dtype)
        return answer

    def vectors(self, texts: ReadyTexts) -> torch.Tensor:
        """Sentence embeddings of an encoder without any prompt, shape `(texts, width)`."""
        found = torch.empty(
            len(texts.ids),
            self.model.width,
            dtype=self.model.embeddings.dtype,
            device=self.model.device,
        )
        with torch.inference_mode():
            for chunk in self._chunks(texts.ids):
                embedded, mask = self._embedded([texts.ids[k] for k in chunk])
                output = self.model.model(inputs_embeds=embedded, attention_mask=mask)
                found[chunk] = pooled(output.last_hidden_state, mask, self.pooling)
        return found

    def _chunks(self, chosen: Sequence[Sequence[int]]) -> list[list[int]]:
        """Batches of texts of like length; of the same length for models that must not pad."""
        order = sorted(range(len(chosen)), key=lambda k: (len(chosen[k]), chosen[k]))
        chunks: list[list[int]] = []
        for place in order:
            same = chunks and len(chosen[chunks[-1][0]]) == len(chosen[place])
            if chunks and len(chunks[-1]) < self.max_rows and (self._pads or same):
                chunks[-1].append(place)
            else:
                chunks.append([place])
        return chunks

    def _run(self, prompts: torch.Tensor, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """One batch: every prompt with every text; shape `(prompts, texts, classes)`."""
        if self._caches is None and prompts.shape[1]:
            self._caches = self._cache_agrees(prompts[:1], ids[:1])
        run = self._cached if self._caches and prompts.shape[1] else self._plain
        return run(prompts, ids).reshape(len(prompts), len(ids), -1)

    def _cache_agrees(self, prompts: torch.Tensor, ids: Sequence[Sequence[int]]) -> bool:
        try:
            found = self._cached(prompts, ids).float()
        except (TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError):
            return False
        expected = self._plain(prompts, ids).float()
        half = self.model.precision in ("bfloat16", "float16")
        size = float(expected.abs().max()) + 1.0
        return float((found - expected).abs().max()) <= CACHE_TOLERANCE * size * (
            50.0 if half else 1.0
        )

    def _embedded(self, ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Padded embeddings `(texts, length, width)` and mask `(texts, length)`."""
        lengths = torch.tensor([len(row) for row in ids], device=self.model.device)
        longest = int(lengths.max())
        padded = torch.zeros(len(ids), longest, dtype=torch.long)
        for row, values in zip(padded, ids, strict=True):
            row[: len(values)] = torch.tensor(values)
        embedded = self.model.model.get_input_embeddings()(padded.to(self.model.device))
        places = torch.arange(longest, device=self.model.device)
        return embedded, (places[None, :] < lengths[:, None]).long()

    def _plain(self, prompts: torch.Tensor, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        embedded, mask = self._embedded(ids)
        count, tokens, width = prompts.shape
        rows = count * len(ids)
        whole = torch.cat(
            [
                _repeated(embedded[:, : self.lead], count),
                prompts[:, None].expand(-1, len(ids), -1, -1).reshape(rows, tokens, width),
                _repeated(embedded[:, self.lead :], count),
            ],
            dim=1,
        )
        full = torch.cat([mask.new_ones(len(ids), tokens), mask], dim=1).repeat(count, 1)
        return self._classes(whole, full, self._places(ids, tokens).repeat(count), {})

    def _cached(self, prompts: torch.Tensor, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """What comes before the texts is computed once a prompt, not once a text."""
        embedded, mask = self._embedded(ids)
        count = len(prompts)
        opening = embedded[:1, : self.lead].expand(count, -1, -1)
        prefix = torch.cat([opening, prompts], dim=1)
        keep = {"logits_to_keep": 1} if self._keeps_some else {}
        cache = self.model.model(inputs_embeds=prefix, use_cache=True, **keep).past_key_values
        cache.batch_repeat_interleave(len(ids))
        rest = _repeated(embedded[:, self.lead :], count)
        text_mask = mask[:, self.lead :]
        seen = torch.cat([mask.new_ones(len(ids), prefix.shape[1]), text_mask], dim=1)
        places = self._places(ids, -self.lead).repeat(count)
        return self._classes(rest, seen.repeat(count, 1), places, {"past_key_values": cache})

    def _places(self, ids: Sequence[Sequence[int]], shift: int) -> torch.Tensor:
        """Where each text is answered: at its mask, or at its last token."""
        if self.model.kind == "masked":
            mask_id = self.model.tokenizer.mask_token_id
            places = [row.index(mask_id) + shift for row in ids]
        else:
            places = [len(row) - 1 + shift for row in ids]
        return torch.tensor(places, device=self.model.device)

    def _classes(
        self,
        embeds: torch.Tensor,
        mask: torch.Tensor,
        places: torch.Tensor,
        options: dict[str, Any],
    ) -> torch.Tensor:
        """Run the model and read one logit a class, shape `(rows, classes)`."""
        kind, head, offset = self.model.kind, self.head, 0
        if kind == "causal" and self._keeps_some:
            offset = int(places.min())
            options = {**options, "logits_to_keep": embeds.shape[1] - offset}
        output = self.model.model(inputs_embeds=embeds, attention_mask=mask, **options)
        if kind == "encoder":
            vectors = pooled(output.last_hidden_state, mask, self.pooling)
            return head.scale * vectors @ self._label_vectors().T
        if kind == "classifier":
            return _picked(output.logits, head.columns)
        rows = torch.arange(len(embeds), device=embeds.device)
        return _picked(output.logits[rows, places - offset], head.columns)

    def _label_vectors(self) -> torch.Tensor:
        """Embeddings of the label texts, without any prompt, shape `(classes, width)`."""
        if self._targets is None:
            ids = [tuple(self.model.tokenizer(t)["input_ids"]) for t in self.head.label_texts()]
            self._targets = self.vectors(ReadyTexts(tuple(ids), 0))
        return self._targets


def _repeated(embedded: torch.Tensor, count: int) -> torch.Tensor:
    return embedded.repeat(count, 1, 1)


def _picked(logits: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
    return logits[:, torch.tensor(columns, device=logits.device)]


def _special_tokens(tokenizer: Any) -> tuple[int, int]:  # noqa: ANN401 - a tokenizer
    """How many special tokens open and close a sequence."""
    marks = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    lead = next((k for k, mark in enumerate(marks) if not mark), 0)
    tail = next((k for k, mark in enumerate(reversed(marks)) if not mark), 0)
    return lead, tail
