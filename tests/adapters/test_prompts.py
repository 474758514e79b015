"""Prompt data, scores, templates, the task and the command line."""

import json
import pickle

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel import tasks
from zo_bilevel.adapters import PromptTemplate
from zo_bilevel.support.errors import InputError
from zo_bilevel.tasks.docstrings import TOPICS, docstring_rows
from zo_bilevel.tasks.prompt_data import Texts, from_rows, read_candidates, read_texts, split_shots
from zo_bilevel.tasks.scoring import macro_f1, score_classes, score_logits

# ---- data -------------------------------------------------------------------------------------


def test_docstrings_are_texts_with_one_topic_each():
    rows = docstring_rows()
    texts = [text for text, _ in rows]
    assert len(set(texts)) == len(texts)
    counts = {topic: sum(t == topic for _, t in rows) for topic in TOPICS}
    assert min(counts.values()) >= 64
    assert all(25 <= len(text) <= 110 and text.isascii() for text in texts)
    assert rows == docstring_rows.__wrapped__()


def test_csv_and_jsonl_say_the_same(tmp_path):
    rows = [('say "a, b"\nand c', "x"), ("d", "2"), ("é", "true")]
    (tmp_path / "a.csv").write_text(
        'text,label\n"say ""a, b""\nand c",x\nd,2\né,true\n', encoding="utf-8-sig"
    )
    lines = [{"text": rows[0][0], "label": "x"}, {"text": "d", "label": 2}]
    lines = [json.dumps(line) for line in lines] + ['{"text": "é", "label": "true"}', ""]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert read_texts(tmp_path / "a.csv") == from_rows(rows)
    assert read_texts(tmp_path / "a.jsonl") == from_rows(rows)
    (tmp_path / "b.csv").write_text("body,kind\na,x\nb,y\n")
    found = read_texts(tmp_path / "b.csv", text_column="body", label_column="kind")
    assert found.classes == ("x", "y")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "body,label\na,x\n", "unknown column 'text'"),
        ("a.csv", "text,label\na,x\n,y\n", "line 3: text is empty"),
        ("a.csv", "text,label\na,x\nb, \n", "line 3: label is empty"),
        ("a.csv", "text,label\na, b, x\n", "line 2: as many cells as the header"),
        ("a.csv", "text,label\n", "has no rows"),
        ("a.csv", b"text,label\n\xff,x\n", "is not UTF-8"),
        ("a.jsonl", '{"text": "a"\n', "line 1 is no JSON"),
        ("a.jsonl", "[1]\n", r"line 1 must be an object, got \[1\]"),
        ("a.jsonl", '{"text": 3, "label": "x"}\n', "line 1: text is empty or no text"),
        ("a.txt", "a", "must be a .csv or .jsonl file, got 'a.txt'"),
    ],
)
def test_bad_data_is_refused_by_name_and_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_texts(path)
    with pytest.raises(InputError, match="cannot read"):
        read_texts(tmp_path / "nowhere.csv")


def many(counts):
    return from_rows([(f"{name} {k}", name) for name, n in counts.items() for k in range(n)])


def test_a_split_is_by_seed_and_keeps_the_test_set_untouched():
    data = many({"x": 30, "y": 20})
    data = Texts((*data.texts, "x 0"), (*data.labels, "x"))  # one text twice
    with pytest.warns(UserWarning, match="'a' has 'x' and 'y'; the first is taken"):
        split_shots(Texts(("a", "b", "a", "c"), ("x", "y", "y", "x")), 1)
    one, same, other = (split_shots(data, 5, seed) for seed in (1, 1, 2))
    assert one == same != other
    assert one.train.labels == ("x",) * 5 + ("y",) * 5
    assert not set(one.train.texts) & set(one.test.texts)
    assert sorted((*one.train.texts, *one.test.texts)) == sorted(set(data.texts))
    fewer = split_shots(data, 5, 1, max_test=7)
    assert fewer.train == one.train
    assert len(fewer.test) == 7


@pytest.mark.parametrize(
    ("counts", "shots", "message"),
    [
        ({"x": 30, "rare": 3}, 4, "class 'rare' has 3 examples, shots is 4"),
        ({"x": 3}, 1, "at least 2 classes"),
        ({"x": 3, "y": 3}, 0, "shots must be a whole number >= 1, got 0"),
        ({"x": 2, "y": 2}, 2, "leaves no example to test on"),
    ],
)
def test_bad_splits_are_refused_by_name(counts, shots, message):
    with pytest.raises(InputError, match=message):
        split_shots(many(counts), shots)


def test_candidates_come_from_a_file(tmp_path):
    path = tmp_path / "ask.txt"
    path.write_text("# wordings\nName the topic.\n\n What is it? \nName the topic.\n")
    assert read_candidates(path) == ("Name the topic.", "What is it?")
    (tmp_path / "ask.json").write_text('["a\\nb", "c"]')
    assert read_candidates(tmp_path / "ask.json") == ("a\nb", "c")
    (tmp_path / "one.txt").write_text("a\n")
    for name, message in (
        ("one.txt", "at least 2 different candidates, got 1"),
        ("none.txt", "cannot read candidates"),
    ):
        with pytest.raises(InputError, match=message):
            read_candidates(tmp_path / name)


# ---- scores -----------------------------------------------------------------------------------


def test_scores_match_their_definitions():
    logits = np.log([[0.7, 0.3], [0.4, 0.6], [0.2, 0.8], [0.9, 0.1]])
    scores = score_logits(logits, [0, 0, 1, 0])
    assert scores.accuracy.value == 0.75
    expected = -np.mean(np.log([0.7, 0.4, 0.8, 0.9]))
    assert scores.cross_entropy.value == pytest.approx(expected)
    assert scores.f1.value == pytest.approx((2 * 2 / 5 + 2 / 3) / 2)
    assert score_classes([0, 1, 1, 0], [0, 0, 1, 0]).f1 == scores.f1
    assert score_classes([-1, -1], [0, 1]).accuracy.value == 0.0
    assert macro_f1(np.array([0]), np.array([0]), 3) == 1.0
    extra = score_logits([[0.0, 0.0, 5.0]], [0])  # an answer that names no class is wrong
    assert extra.accuracy.value == 0.0
    with pytest.raises(InputError, match="one row for each of 2 labels"):
        score_logits(logits, [0, 1])


def test_half_a_character_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800", "label": "x"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl line 1: text holds '\\ud800'"):
        read_texts(tmp_path / "a.jsonl")


@pytest.mark.statistical
def test_intervals_cover_the_truth():
    rng, truth, hits = np.random.default_rng(0), 0.8, 0
    for seed in range(100):
        predicted = (rng.random(80) > truth).astype(int)
        score = score_classes(predicted.tolist(), [0] * 80, seed=seed).accuracy
        assert score.lower <= score.value <= score.upper
        hits += score.lower <= truth <= score.upper
    assert hits >= 88  # 95 % nominal; 4 standard errors of 100 draws are 9


# ---- templates --------------------------------------------------------------------------------

EXAMPLES = [("adds", "numbers"), ("opens", "files"), ("joins", "text")]


def shown_template(**options):
    slots = {"ask": ["Topic {?}", "What?"], "style": ["plain", "as JSON: {}"]}
    user = "{ask} ({style})\n{examples}\nText: {text}"
    options = {"slots": slots, "examples": EXAMPLES, "num_shown": 2, **options}
    return PromptTemplate(user, "Be {style}.", **options)


def test_a_template_fills_its_slots_and_shows_examples_in_order():
    template = shown_template()
    space = template.space()
    assert space.names == ("ask", "style", "shown_1", "shown_2")
    phi = {"ask": "What?", "style": "as JSON: {}", "shown_1": 2, "shown_2": 0}
    system, user = template.messages(phi, "a {text} with {braces}")
    assert system == {"role": "system", "content": "Be as JSON: {}."}
    assert user["content"] == (
        "What? (as JSON: {})\nText: joins\nLabel: text\n\nText: adds\nLabel: numbers\n"
        "Text: a {text} with {braces}"
    )
    twice = template.messages({**phi, "shown_2": 2}, "x")[1]["content"]
    assert twice.count("joins") == 1
    own = template.messages(phi, "joins")[1]["content"]
    assert "Label: text" not in own  # an example is never shown to itself
    start = template.start
    assert space.decode(space.encode(start)) == start
    assert "{text}" in template.text(start)
    digests = {template.digest(), shown_template(num_shown=1).digest()}
    assert len(digests | {shown_template(separator=" ").digest()}) == 3
    copy = pickle.loads(pickle.dumps(template))
    assert copy.digest() == template.digest()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": {"asks": ["a", "b"], "style": ["a", "b"]}}, "unknown slot 'ask'; did you mean"),
        ({"slots": {"ask": ["a"], "style": ["a", "b"]}}, "slot 'ask' must have at least 2 texts"),
        ({"num_shown": 0}, "num_shown >= 1 go together"),
        ({"num_shown": 4}, "num_shown=4 needs as many examples"),
        ({"example": "{text}"}, r"example must hold \{text\} and \{label\}"),
    ],
)
def test_bad_templates_are_refused_by_name(options, message):
    with pytest.raises(InputError, match=message):
        shown_template(**options).space()


def test_bad_fields_are_refused_by_name():
    for user, message in (
        ("no field", r"must hold \{text\}"),
        ("{text} {0}", "must hold plain fields"),
        ("{text!r}", "must hold plain fields"),
        ("{text", "is no template"),
    ):
        with pytest.raises(InputError, match=message):
            PromptTemplate(user)
    with pytest.raises(InputError, match="slot 'other' is no field"):
        PromptTemplate("{text}", slots={"other": ["a", "b"]})
    with pytest.raises(InputError, match="nothing to tune"):
        PromptTemplate("{text}").space()


def test_smoothing_over_scores_tunes_a_template_without_a_model():
    template = shown_template(num_shown=2)

    def loss(phi):
        content = template.messages(phi, "x")[1]["content"]
        return len(content) + 5.0 * content.startswith("Topic")

    problem = zb.Problem(template.space(), loss)
    best = min(
        loss(template.space().decode(x)) for x in np.random.default_rng(0).normal(size=(500, 10))
    )
    method = zb.GradientMethod(zb.FG2UZO(8, directions="gaussian"), lr=0.3)
    found = zb.minimize(problem, method, max_solves=150, seed=0, initial=template.start)
    assert found.loss <= best + 1e-9
    pytest.importorskip("nevergrad", reason="nevergrad is not installed")
    rival = zb.Nevergrad("DiscreteOnePlusOne")
    assert zb.minimize(problem, rival, max_solves=20, initial=template.start).solves == 20


# ---- results on disk --------------------------------------------------------------------------


def test_a_result_comes_back_from_its_folder(tmp_path):
    def simulate(phi):
        if phi["b"] > 0.9:
            raise ValueError("too large")
        return {"u": phi["f"] * phi["b"], "v": float(phi["c"] == "x")}

    options = zb.Choice(["x", "y"])
    space = zb.Space(
        b=zb.Real(0, 1),
        c=options,
        k=zb.Integer(1, 4),
        f=zb.Real(0, 1, (3,)),
        d=zb.Choice([*"pq"], (2,)),
    )
    problem = zb.Problem(space, simulate, lambda theta, phi: theta["u"].sum() + theta["v"])
    result = zb.minimize(problem, zb.RandomSearch(), max_solves=30, seed=0)
    assert result.failures
    loaded = zb.Result.load(result.save(tmp_path / "saved"))
    assert str(loaded) == str(result)
    assert loaded.history == result.history
    np.testing.assert_array_equal(loaded.x, result.x)
    np.testing.assert_equal(loaded.phi, result.phi)
    assert type(loaded.phi["k"]) is int
    np.testing.assert_equal(loaded.theta, result.theta)
    (tmp_path / "saved" / "result.npz").write_bytes(b"no zip")
    for folder in (tmp_path / "saved", tmp_path):
        with pytest.raises(InputError, match="holds no saved result"):
            zb.Result.load(folder)


# ---- task and command line ----------------------------------------------------------------------


def test_the_task_knows_its_space_without_loading_a_model(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    task = tasks.load("prompts", shots=2, latent_size=12)
    assert task.problem.space.size == 12
    assert task.problem.expected_length is None
    other = tasks.load("prompts", shots=2, latent_size=12, seed=1)
    assert other.problem.name != task.problem.name
    with pytest.raises(InputError, match="shots is 2000"):
        tasks.load("prompts", shots=2000)
