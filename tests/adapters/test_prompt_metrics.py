"""What metrics and judges read in an answer, case by case."""

import pytest

from zo_bilevel.adapters.prompts.judge import mark_of
from zo_bilevel.adapters.prompts.metrics import (
    Bleu,
    NumberMatch,
    PatternMatch,
    Rouge,
    corpus_bleu,
    exact_match,
    json_match,
)
from zo_bilevel.support.errors import InputError


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("\N{MINUS SIGN}5", -5, 1.0),
        ("-5", "\N{MINUS SIGN}5", 1.0),
        ("10-20", 20, 1.0),
        ("10%-20%", 20, 1.0),
        ("2019-05-07", 7, 1.0),
        ("07.05.2019", 2019, 1.0),
        ("1,2,3", 3, 1.0),
        ("1,2,3", 123, 0.0),
        ("1999,2000", 2000, 1.0),
        ("it is 1,234,567.5", "1,234,567.5", 1.0),
        ("1234567891", 1234567890, 0.0),
        ("12345678901234567891", 12345678901234567890, 0.0),
        ("12.0", 12, 1.0),
        ("0.30000000000000004", 0.3, 1.0),
        ("x = -.5", -0.5, 1.0),
        ("1e-3", 0.001, 1.0),
    ],
)
def test_numbers_are_read_as_people_write_them(answer, reference, score):
    assert NumberMatch()(answer, reference) == score


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("[]", [], 1.0),
        ("{}", {}, 1.0),
        ("[1]", [], 0.0),
        ('{"a": true}', {"a": 1}, 0.0),
        ('{"a": 0, "b": 2.0}', {"a": False, "b": 2}, 0.5),
        ("[true, 1]", [1, True], 1.0),
        ("[[true]]", [[1]], 0.0),
        ('{"a": {"b": [true]}}', {"a": {"b": [True]}}, 1.0),
        ("2.0", 2, 1.0),
    ],
)
def test_json_is_compared_as_json(answer, reference, score):
    assert json_match(answer, reference) == score


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("9", 9.0),
        ("**10**.", 10.0),
        ("7.5", 7.5),
        ("I give 2 reasons: Mark 9", 9.0),
        ("Mark (0-10): 8, as 1 of 3 facts is wrong", 8.0),
        ('{"score": 6}', 6.0),
        ("A score of 4 out of 10", 4.0),
        ("0.8/10", 0.8),
        *[(text, None) for text in ("4/5", "Score: 4/5", "0.8", "1.0", "-3", "Mark: -3", "7,5")],
        *[(text, None) for text in ("80%", "11", "Mark 3 or mark 9", "3 facts, 9 words", "8th")],
    ],
)
def test_only_marks_without_doubt_are_taken(text, mark):
    assert mark_of(text) == mark


def test_metrics_match_their_definitions():
    assert exact_match("The  Year", "the year") == 1.0
    assert NumberMatch(tolerance=0.1)("about 1,050.5", 1000) == 1.0
    assert NumberMatch(is_only=True)("1 or 2", 2) == 0.0
    assert NumberMatch()("none", 2) == 0.0
    assert PatternMatch(r"#\d+#")("#3#", "whatever") == 1.0
    assert json_match('```json\n{"a": [1]}\n```', {"a": [1]}) == 1.0
    assert json_match('{"a": 1, "b": 2, "c": 3}', {"a": 1, "b": 2}) == pytest.approx(2 / 3)
    assert json_match("[1, 1]", [1]) == 0.5
    assert json_match("true", 1) == 0.0
    with pytest.raises(InputError, match="no regular expression"):
        PatternMatch("(")
    pytest.importorskip("rouge_score", reason="rouge-score is not installed")
    pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    assert Bleu()("a cat sat on the mat", "a cat sat on a mat") == pytest.approx(0.5373, abs=1e-3)
    assert Bleu()("", "a cat") == 0.0
    assert corpus_bleu(["a cat sat on it"] * 2, ["a cat sat on it"] * 2) == pytest.approx(1.0)
    assert Rouge("rouge2")("the cat sat", "the cat") == pytest.approx(2 / 3)
