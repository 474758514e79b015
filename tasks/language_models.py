"""Causal language models for online adaptation: a small one made here, or a checkpoint."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zo_bilevel.adapters.torch_unroll.state import seeded_generators
from zo_bilevel.support.packages import import_optional

NUM_CODES = 128


def make_gpt2(*, width: int, layers: int, length: int) -> torch.nn.Module:
    """A GPT-2 of characters, without dropout and with attention that forward mode passes.

    Raises:
        MissingPackageError: If transformers is not installed.
    """
    transformers = import_optional("transformers", "online-adaptation", "prompts")
    config = transformers.GPT2Config(
        vocab_size=NUM_CODES,
        n_positions=length,
        n_embd=width,
        n_layer=layers,
        n_head=max(1, width // 32),
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
        attn_implementation="eager",
    )
    with seeded_generators(0, torch.device("cpu")):
        model: torch.nn.Module = transformers.GPT2LMHeadModel(config)
    return model


def token_losses(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each next token, `(rows, length - 1)`, up to the 0 that ends a text."""
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    return losses.reshape(tokens[:, 1:].shape) * (tokens[:, :-1] != 0)


def train_on(model: torch.nn.Module, texts: torch.Tensor, num_steps: int) -> None:
    """Adam on random batches of eight.

    Args:
        model: A causal model, changed in place.
        texts: Tokens, shape `(rows, length)`, 0 where a text is over.
        num_steps: Steps.
    """
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        rows = torch.randint(len(texts), (8,), generator=generator)
        batch = texts[rows.to(texts.device)]
        optimizer.zero_grad()
        losses = token_losses(model(batch).logits, batch)
        mean: Any = losses.sum() / (batch[:, :-1] != 0).sum()
        mean.backward()
        optimizer.step()


def text_of_bytes(codes: list[int]) -> str:
    """ASCII codes as text."""
    return bytes(codes).decode("ascii")


def from_checkpoint(checkpoint: str) -> Any:  # noqa: ANN401 - model, encoder, decoder
    """A model by its name on the hub or on disk, its encoder and its decoder."""
    transformers = import_optional("transformers", "online-adaptation", "prompts")
    kind = transformers.AutoModelForCausalLM
    model = kind.from_pretrained(checkpoint, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)

    def encode(texts: list[str], length: int) -> NDArray[np.int64]:
        rows = np.zeros((len(texts), length), dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            codes = tokenizer(text)["input_ids"][:length]
            row[: len(codes)] = codes
        return rows

    return model, encode, tokenizer.decode
