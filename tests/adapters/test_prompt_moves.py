"""What a search of prompts is made of: forms of answers, examples as turns, paired tests."""

import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

from zo_bilevel.adapters import PromptTemplate
from zo_bilevel.adapters.prompts.answer_form import answer_forms
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.intervals import mean_interval
from zo_bilevel.tasks.scoring import (
    paired_difference,
    score_logits,
    score_values,
)


@pytest.mark.parametrize(
    ("references", "words"),
    [
        (["1848", "1901", "1777"], "Write only a number of 4 digits."),
        (["7", "12.5", "1,000"], "Write only a number."),
        (["no", "yes"] * 3, "Write only one of these: no, yes."),
        (["Ada Byron", "Omar Khayyam"], "Write only 2 words."),
        (['{"a": 1, "b": [2]}'] * 1, 'a JSON object with the keys "a" (number), "b" (JSON).'),
        (["1 + 2 = 3", "12 + 7 = 19"], "Write it exactly like this: 1 + 2 = 3"),
        (["[1, 2]", "{"], "Write it exactly like this: {"),
    ],
)
def test_the_form_of_answers_is_told_from_the_right_ones(references, words):
    forms = answer_forms(references)
    assert words in forms[0]
    assert forms[-1].startswith("Write it exactly like this: ") != (references[0] == "no")


def test_examples_as_turns_leave_the_text_itself_out():
    template = PromptTemplate(
        "T: {text}",
        slots={},
        examples=[("a", "1"), ("b", "2")],
        num_shown=2,
        as_turns=True,
        system="Be exact.",
        system_role="developer",
    )
    phi = {"shown_1": 1, "shown_2": 0}
    assert [tuple(m.values()) for m in template.messages(phi, "a")] == [
        ("developer", "Be exact."),
        ("user", "T: b"),
        ("assistant", "2"),
        ("user", "T: a"),
    ]
    assert len(template.messages({"shown_1": -1, "shown_2": -1}, "a")) == 2
    with pytest.raises(InputError, match="as_turns or in"):
        PromptTemplate("{examples} {text}", examples=["ab", "cd"], num_shown=1, as_turns=True)


def test_a_paired_test_sees_what_single_scores_hide():
    rng = np.random.default_rng(0)
    hard = rng.random(60)
    better = paired_difference(np.minimum(hard + 0.1, 1), hard)
    assert better.p_value < 0.001
    assert 0.0 < better.lower < better.mean < better.upper
    same = paired_difference(hard, hard)
    assert (same.mean, same.p_value) == (0.0, 1.0)
    ps = [paired_difference(*rng.random((2, 30)), seed=k).p_value for k in range(60)]
    assert 0.35 < np.mean(ps) < 0.65
    with pytest.raises(InputError, match="as many scores of both"):
        paired_difference([1.0], [])


FIELDS = ([0.0, 0.25, 0.5, 0.75, 1.0], [0.02, 0.02, 0.02, 0.02, 0.92])
FLIPS = ([-1.0, 0.0, 1.0], [0.0, 0.05, 0.95])


@pytest.mark.parametrize("count", [10, 20, 40])
@pytest.mark.parametrize(
    ("values", "chances", "least", "lowest"),
    [
        ([0.0, 1.0], [0.05, 0.95], 0.0, 0.9),
        ([0.0, 1.0], [0.1, 0.9], 0.0, 0.92),
        (*FIELDS, 0.0, 0.94),
        (*FLIPS, -1.0, 0.94),
    ],
)
def test_intervals_of_few_scores_near_the_best_cover_the_truth(
    values, chances, least, lowest, count
):
    rng, truth = np.random.default_rng(count), float(np.dot(values, chances))
    drawn = rng.choice(values, (600, count), p=chances)  # a percentile bootstrap covers 0.4 to 0.9
    scores = [mean_interval(row, least, 1.0) for row in drawn]
    assert all(least <= s.lower <= s.value <= s.upper <= 1.0 for s in scores)
    assert all(s.upper - s.lower > 0.05 for s in scores)
    assert np.mean([s.lower <= truth <= s.upper for s in scores]) >= lowest


def test_intervals_have_a_width_where_all_scores_are_the_same():
    assert score_values(np.ones(20)).lower == pytest.approx(0.8389, abs=1e-4)  # Wilson's
    assert paired_difference(np.ones(20), np.ones(20)).lower < -0.05
    assert paired_difference(np.full(5, 0.5), np.full(5, 0.5)).upper > 0.05
    assert score_logits([[2.0, 0.0]] * 8, [0] * 8).accuracy.lower < 0.7
    one = score_values([-3.0])  # of a metric without a range
    assert (one.lower, one.value, one.upper) == (-np.inf, -3.0, np.inf)
    free = score_values([-3.0, -1.0, -2.0])
    assert free.upper - free.value == pytest.approx(4.3027 / 3**0.5, abs=1e-3)  # Student's
