"""`zo-bilevel paper`: every table at its smallest size, what is missing said, bad input refused."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import zo_bilevel as zb
from zo_bilevel.cli.main import main
from zo_bilevel.cli.paper_tables import pde
from zo_bilevel.tasks import spectral
from zo_bilevel.tasks.facts import facts, rows_of_words, text_of_words
from zo_bilevel.tasks.question_answering import (
    Question,
    greedy,
    judged,
    overlap,
    read_questions,
)


def paper(*words):
    return CliRunner().invoke(main, ["paper", *words])


@pytest.mark.slow
def test_condensation_prints_every_method_beside_the_published_numbers():
    found = paper("condensation", "--size", "smoke")
    assert found.exit_code == 0, found.output
    for name, one in (("TRGU", "73.76"), ("(FG)2U", "82.44"), ("RGU", "92.32")):
        line = next(line for line in found.output.splitlines() if line.startswith(f"{name} "))
        assert one in line
    assert "Missing: MNIST" in found.output
    assert "Shortened: 10 inner steps for 100" in found.output


@pytest.mark.slow
def test_online_adaptation_says_how_questions_are_answered(tmp_path):
    lines = [
        {
            "document": f"The box {k} holds {k} balls of wood.",
            "question": f"{k}? ",
            "answer": "wood",
        }
        for k in range(4)
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    found = paper("online-adaptation", "--size", "smoke", "--questions", str(path))
    assert found.exit_code == 0, found.output
    assert "6.37" in found.output
    assert "(FG)2U, depth 24: here 4, rate" in found.output
    assert "F1, %" in found.output
    assert "Missing: StreamingQA" not in found.output


@pytest.mark.slow
def test_pde_compares_with_fields_that_are_given(tmp_path):
    fields = {name: spectral.reference_field(name) for name in ("burgers", "allen_cahn", "kdv")}
    fields["kdv"] = 2.0 * fields["kdv"]  # half of it is then missing from ours
    path = tmp_path / "fields.npz"
    np.savez(path, **fields)
    grid = pde("smoke", 1, str(path), lambda line: None)
    exact = {row[0]: row for row in grid.rows if "Gauss-Newton" in row[0]}
    assert float(exact["Burgers: Gauss-Newton, 80 solves"][1]) < 0.97
    assert float(exact["Burgers: Gauss-Newton, 80 solves"][3]) < 1e-4
    assert float(exact["KdV: Gauss-Newton, 80 solves"][3]) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("table", ["condensation"])
def test_a_dry_run_tells_memory_of_the_full_size(table):
    found = paper(table, "--size", "full", "--dry-run")
    assert found.exit_code == 0, found.output
    assert "605,590" in found.output  # weights of a network 128 wide, and its 256 .. 1,024 rows
    lines = dict(line.split("  ", 1) for line in found.output.splitlines() if "MiB" in line)
    graph, whole = (
        float(lines[name].strip(" MiB")) for name in ("graph of one step", "RGU, 100 steps")
    )
    assert whole == pytest.approx(100 * graph, rel=0.02)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pde", "--dry-run"), "pde has no training loop"),
        (("pde", "--size", "smoke", "--data", "nowhere.npz"), "data must be an .npz file"),
        (("online-adaptation", "--questions", "nowhere"), "questions must be a file of JSON lines"),
        (("burgers",), "is not one of"),
    ],
)
def test_bad_input_is_refused_before_anything_is_run(words, message):
    found = paper(*words)
    assert found.exit_code == 2
    assert message in found.output


class TestQuestions:
    def test_overlap_is_the_f1_of_words(self):
        assert overlap("A red box", "the red box") == 1.0
        assert overlap("red", "red box") == pytest.approx(2 / 3)
        assert overlap("blue", "red box") == 0.0
        assert overlap("the", "") == 1.0

    def test_answers_are_judged_word_by_word(self):
        found = judged(["The box.", "balls"], ["a box", "red balls"], [1.0, 3.0])
        assert (found.loss, found.exact_match) == (2.0, 0.5)
        assert found.f1 == pytest.approx((1 + 2 / 3) / 2)

    def test_greedy_answers_end_at_code_zero_or_at_the_length(self):
        import torch

        def counting(tokens):  # the next code is one less
            logits = torch.zeros(1, tokens.shape[1], 10)
            logits[0, -1, max(int(tokens[0, -1]) - 1, 0)] = 1.0
            return logits

        assert greedy(counting, [[3], [9, 8]], 6) == [[2, 1], [7, 6, 5, 4]]

    def test_the_end_of_a_text_is_learned_and_nothing_after_it(self):
        import torch

        pytest.importorskip("transformers")
        from zo_bilevel.tasks.language_models import token_losses

        tokens = torch.tensor([[5, 7, 0, 0]])
        losses = token_losses(torch.zeros(1, 4, 8), tokens)
        assert losses.tolist() == [pytest.approx([np.log(8), np.log(8), 0.0])]

    def test_facts_read_back_from_their_codes(self):
        asked = [fact.asked for fact in facts()]
        assert len(set(asked)) == 192
        for text, row in zip(asked, rows_of_words(asked, 8), strict=True):
            assert text_of_words([code for code in row if code]) == text
        assert text_of_words([999]) == ""

    def test_files_are_read_and_faults_named_by_line(self, tmp_path):
        path = tmp_path / "questions.jsonl"
        path.write_text('{"document": "d", "question": "q", "answer": "a"}\n{"document": 3}\n')
        with pytest.raises(zb.InputError, match=r"line 2 of .* document, question and answer"):
            read_questions(str(path))
        path.write_text('{"document": "d", "question": "q", "answer": "a"}\n')
        assert read_questions(str(path)) == [Question("d", "q", "a")]
        path.write_text("")
        with pytest.raises(zb.InputError, match="at least one line"):
            read_questions(str(path))
        with pytest.raises(zb.InputError, match="a file that can be read"):
            read_questions(str(tmp_path / "none"))
