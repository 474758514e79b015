"""Texts of three topics, and small models that classify them."""

import pytest
import tiny_models

from zo_bilevel.adapters import FrozenTransformer, LanguageModel, SoftPrompt

TEXTS = [
    "a file opens",
    "the file reads a string of text and closes",
    "adds one number",
    "the sum of two numbers divides a number with one",
    "thread waits",
    "a lock of the thread waits with a clock",
]
LABELS = ["files", "files", "numbers", "numbers", "thread", "thread"]
WORDS = {"files": "file", "numbers": "number", "thread": "thread"}
PROMPT = "what is the topic"
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def models():
    made = {}

    def get(name, **options):
        if name not in made:
            made[name] = tiny_models.make(name)
        return LanguageModel(made[name], **options)

    return get


def frozen(model, **options):
    options = {"prompt": SoftPrompt("the topic is", latent_size=6, bound=3.0), **options}
    words = None if model.kind == "classifier" else WORDS
    return FrozenTransformer(model, TEXTS, LABELS, words, **options)
