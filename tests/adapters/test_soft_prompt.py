"""A soft prompt: what phi moves, what is saved, named and refused."""

import json
import logging
import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_models
import tiny_topics
import torch
from tiny_topics import LABELS, TEXTS, TOLERANCE, WORDS, frozen

import zo_bilevel as zb
from zo_bilevel.adapters import FrozenTransformer, LanguageModel, SoftPrompt
from zo_bilevel.adapters.prompts.prompt_reader import PromptReader
from zo_bilevel.adapters.prompts.transformer_head import Head
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.support.errors import InputError, MissingPackageError

models = tiny_topics.models


def test_phi_moves_the_prompt_by_spreads_of_the_embeddings(models):
    model = models("bert-encoder")
    direct = SoftPrompt("the file").bind(model)
    assert direct.space.parameters["prompt"].shape == (2, model.width)
    np.testing.assert_array_equal(direct.start, model.embed(model.word_ids("the file")))
    moved = direct.matrices({"prompt": np.ones((1, 2, model.width))})[0] - direct.start
    np.testing.assert_allclose(moved, model.spread, rtol=1e-6)
    latent = SoftPrompt("the", num_tokens=40, latent_size=50, seed=1).bind(model)
    assert latent.num_tokens == 40
    assert (latent.start == latent.start[0]).all()
    unit = np.random.default_rng(0).normal(size=(1, 50))
    moved = latent.matrices({"latent": unit})[0] - latent.start
    rms = np.sqrt(np.mean(unit**2))
    assert float(moved.std()) == pytest.approx(model.spread * rms, rel=0.05)
    other = SoftPrompt("the", num_tokens=40, latent_size=50, seed=2).bind(model)
    assert not torch.equal(other.matrices({"latent": unit}), latent.matrices({"latent": unit}))
    random = SoftPrompt(num_tokens=3).bind(model)
    assert torch.equal(random.start, SoftPrompt(num_tokens=3).bind(model).start)


def test_gauss_newton_lowers_the_cross_entropy_and_the_prompt_is_saved(models, tmp_path):
    name = str(tiny_models.save("llama-causal", tmp_path / "model"))
    solver = FrozenTransformer(
        name, TEXTS, LABELS, WORDS, prompt=SoftPrompt("the topic", latent_size=10)
    )
    problem = solver.problem()
    before = problem.outer.loss(solver({"latent": np.zeros(10)}).astype(float).ravel())
    result = zb.minimize(problem, max_solves=40, seed=0, dispatcher=zb.Batched())
    assert result.loss < 0.8 * before
    tuned = solver.prompted(result.phi)
    np.testing.assert_allclose(tuned.logits(TEXTS), result.theta, atol=TOLERANCE)
    folder = tuned.save(tmp_path / "saved", result, {"accuracy": 0.5})
    loaded = FrozenTransformer.load(folder)
    assert loaded.predict(TEXTS) == tuned.predict(TEXTS)
    np.testing.assert_array_equal(loaded.logits(TEXTS), tuned.logits(TEXTS))
    card = json.loads((folder / "prompt.json").read_text())
    assert card["scores"] == {"accuracy": 0.5}
    assert card["run"]["solves"] == 40
    assert card["started_from"] == "the topic"
    assert loaded.logits([]).shape == (0, 3)
    copy = pickle.loads(pickle.dumps(solver))
    np.testing.assert_array_equal(copy(result.phi), solver(result.phi))
    assert copy.name == solver.name


def test_a_saved_prompt_fits_its_own_model_only(models, tmp_path):
    solver = frozen(models("bert-encoder"))
    solver.prompted().save(tmp_path)
    with pytest.raises(InputError, match="found for another model"):
        FrozenTransformer.load(tmp_path, models("bert-masked"))
    assert FrozenTransformer.load(tmp_path, models("bert-encoder")).predict(TEXTS)
    (tmp_path / "prompt.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot read the prompt"):
        FrozenTransformer.load(tmp_path, models("bert-encoder"))
    (tmp_path / "prompt.json").write_text("[]")
    with pytest.raises(InputError, match="no card of a soft prompt"):
        FrozenTransformer.load(tmp_path)
    with pytest.raises(InputError, match="no saved prompt"):
        FrozenTransformer.load(tmp_path / "nowhere")


def test_mini_batches_are_stratified_and_shared_by_a_seed(models):
    solver = frozen(models("bert-encoder"), examples_per_class=1)
    assert takes_seed(solver)
    assert not takes_seed(frozen(models("bert-encoder")))
    assert solver.labels == [0, 1, 2]
    whole = frozen(models("bert-encoder"))
    phi = {"latent": np.ones(6)}
    for seed in (1, 2, 3):
        rows = solver.rows(seed)
        assert [LABELS[k] for k in rows] == ["files", "numbers", "thread"]
        np.testing.assert_allclose(solver(phi, seed=seed), whole(phi)[rows], atol=TOLERANCE)
    stacked = {"latent": np.stack([np.zeros(6), np.ones(6), np.ones(6)])}
    mixed = solver.solve_batch(stacked, seeds=[5, 7, 5])
    for row, (latent, seed) in enumerate(((0, 5), (1, 7), (1, 5))):
        alone = solver({"latent": np.full(6, float(latent))}, seed=seed)
        np.testing.assert_array_equal(mixed[row], alone)
    method = zb.GradientMethod(zb.FG2UZO(4, radius=0.1), lr=0.1)
    result = zb.minimize(solver.problem(), method, max_solves=30, seed=0)
    assert result.standard_error is not None


def test_the_name_holds_everything_that_matters(models):
    model = models("bert-encoder")
    names = {
        frozen(model).name,
        frozen(model, template="it is {text}").name,
        frozen(model, scale=5.0).name,
        frozen(model, examples_per_class=1).name,
        frozen(model, prompt=SoftPrompt("the topic is", latent_size=6, bound=3.0, seed=1)).name,
        frozen(models("bert-masked")).name,
        FrozenTransformer(model, TEXTS, LABELS, {**WORDS, "files": "files"}).name,
        FrozenTransformer(model, TEXTS[::-1], LABELS[::-1], WORDS).name,
    }
    assert len(names) == 8
    assert frozen(model).name in names
    assert "topic" not in repr(names)


def test_long_texts_are_cut_and_counted_but_never_the_template(models):
    model = models("bert-masked", max_length=20)
    long = "the file opens a file and closes the file of text with one answer and one word of text"
    head = Head(model, WORDS)
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than the model takes \(20"):
        ready = PromptReader(head).ready(["a file", long], 4)
    assert ready.truncated == 1
    assert [len(row) for row in ready.ids] == [8, 16]
    assert model.tokenizer.mask_token_id in ready.ids[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PromptReader(head).ready(["a file"], 4).truncated == 0
    with pytest.raises(InputError, match="leave no room"):
        PromptReader(head).ready(["a file"], 19)


def test_bad_input_is_refused_by_name(models, tmp_path):
    causal, masked = models("llama-causal"), models("bert-masked")
    prompt = SoftPrompt("the")
    twins = {"files": "good file", "numbers": "good number", "thread": "thread"}
    with pytest.raises(InputError, match="'good file' and 'good number' both begin with 'good'"):
        FrozenTransformer(causal, TEXTS, LABELS, twins, prompt=prompt)
    with pytest.raises(InputError, match="'zebra' of class 'files' is unknown to the model"):
        FrozenTransformer(causal, TEXTS, LABELS, {**WORDS, "files": "zebra"}, prompt=prompt)
    with pytest.raises(InputError, match="class 'thread' has no word"):
        FrozenTransformer(causal, TEXTS, LABELS, {"files": "file", "numbers": "number"})
    with pytest.raises(InputError, match="class 'files' has 2 examples, examples_per_class is 3"):
        FrozenTransformer(causal, TEXTS, LABELS, WORDS, examples_per_class=3)
    with pytest.raises(InputError, match="as many, got 6 and 5"):
        FrozenTransformer(causal, TEXTS, LABELS[:5], WORDS)
    with pytest.raises(InputError, match="texts must be strings"):
        FrozenTransformer(causal, [*TEXTS[:5], 3], LABELS, WORDS, prompt=prompt)
    with pytest.raises(InputError, match=r"must hold \{text\} once"):
        FrozenTransformer(causal, TEXTS, LABELS, WORDS, template="nothing")
    with pytest.raises(InputError, match=r"masked model must hold \{mask\} 1 times"):
        FrozenTransformer(masked, TEXTS, LABELS, WORDS, template="{text}")
    with pytest.raises(InputError, match="at least 2 classes"):
        FrozenTransformer(causal, TEXTS[:2], LABELS[:2])
    with pytest.raises(InputError, match="classes must be those of the classifier"):
        FrozenTransformer(models("bert-classifier"), TEXTS[:4], LABELS[:4])
    with pytest.raises(InputError, match="words to start from or num_tokens"):
        SoftPrompt()
    with pytest.raises(InputError, match="latent_size must be a whole number >= 1, got 0"):
        SoftPrompt("a", latent_size=0)
    with pytest.raises(InputError, match="bound must be > 0"):
        SoftPrompt("a", bound=0)
    with pytest.raises(InputError, match="did you mean 'causal'"):
        LanguageModel(tiny_models.make("llama-causal"), "casual")
    with pytest.raises(InputError, match=r"max_length must lie in 1\.\.64"):
        LanguageModel(tiny_models.make("llama-causal"), max_length=65)
    with pytest.raises(
        InputError, match=r"model must be a folder, a .gguf file or a name on the hub"
    ):
        FrozenTransformer(tmp_path / "nothing", TEXTS, LABELS, WORDS)


def test_a_model_without_inputs_embeds_is_refused(models):
    model, tokenizer = tiny_models.make("bert-encoder")

    class OnlyIds(type(model)):
        def forward(self, input_ids, attention_mask=None):
            return super().forward(input_ids=input_ids, attention_mask=attention_mask)

    model.__class__ = OnlyIds
    with pytest.raises(InputError, match="model OnlyIds does not take inputs_embeds"):
        LanguageModel((model, tokenizer), "encoder")


def test_missing_transformers_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingPackageError, match=r"zo-bilevel\[prompts\]"):
        FrozenTransformer("some-model", TEXTS, LABELS, WORDS)


def test_nothing_of_the_prompt_is_logged(models, caplog):
    with caplog.at_level(logging.WARNING):
        solver = frozen(models("llama-causal"))
        zb.minimize(solver.problem(), max_solves=5)
    assert "topic" not in caplog.text
    assert TEXTS[0] not in caplog.text
