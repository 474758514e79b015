"""Random transformers of a few thousand weights, with a tokenizer of a few words, for tests."""

import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

import tokenizers
import torch
import transformers

WORDS = (  # noqa: SIM905 - a list of so many words is unreadable
    "the a file opens closes reads number adds divides thread waits lock clock time date "
    "text string joins splits good bad great it is was : . Label system user assistant "
    "Topic files numbers sum of two what answer with one word"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CHAT = "{% for m in messages %}{{ m['role'] + ' : ' + m['content'] + ' ' }}{% endfor %}assistant :"


def make_tokenizer(opening="[CLS]", closing="[SEP]"):
    vocabulary = {word: k for k, word in enumerate([*SPECIAL, *WORDS])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    raw.post_processor = tokenizers.processors.TemplateProcessing(
        single=" ".join(part for part in (opening, "$A", closing) if part),
        special_tokens=[(token, vocabulary[token]) for token in (opening, closing) if token],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        eos_token="[SEP]",
        chat_template=CHAT,
        model_max_length=64,
    )


def _bert(kind, **options):
    config = transformers.BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
        **SIZES,
        **options,
    )
    return getattr(transformers, kind)(config), make_tokenizer()


def _llama(kind, **options):
    config = transformers.LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        **SIZES,
        **options,
    )
    return getattr(transformers, kind)(config), make_tokenizer(closing="")


def _gpt2(kind):
    config = transformers.GPT2Config(
        vocab_size=len(SPECIAL) + len(WORDS),
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
    )
    return getattr(transformers, kind)(config), make_tokenizer("", "")


MAKERS = {
    "bert-encoder": lambda: _bert("BertModel"),
    "bert-masked": lambda: _bert("BertForMaskedLM"),
    "bert-classifier": lambda: _bert("BertForSequenceClassification", num_labels=3),
    "llama-causal": lambda: _llama("LlamaForCausalLM"),
    "gpt2-causal": lambda: _gpt2("GPT2LMHeadModel"),
    "llama-classifier": lambda: _llama("LlamaForSequenceClassification", num_labels=3),
}


def make(name):
    """A pair of model and tokenizer, always the same."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model, tokenizer = MAKERS[name]()
    return model.eval(), tokenizer


def save(name, folder):
    """The same in a folder."""
    model, tokenizer = make(name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
