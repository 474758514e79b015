"""Answers that are no numbers, of another shape or rejected by a rule of the user's."""

from __future__ import annotations

import re

import numpy as np
import pytest
from one_round import evaluate

import zo_bilevel as zb
from zo_bilevel.adapters import Function
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Point
from zo_bilevel.support.errors import (
    InputError,
)


def answer(kind: float) -> np.ndarray:
    theta = {0: [1.0, 2.0], 1: [1.0, np.nan], 2: [1.0], 3: [-9e6, 0.0]}
    return np.array(theta[int(kind)])


SPACE = zb.Space(kind=zb.Integer(0, 3))


def test_not_finite_wrong_shape_and_rejected_are_three_statuses_with_values_in_the_message():
    problem = zb.Problem(
        SPACE, Function(answer), zb.SquaredError([1.0, 2.0]), valid=lambda t, phi: t.min() > -1e6
    )
    got = evaluate(problem, *({"kind": k} for k in range(4)))
    assert [e.status for e in got] == ["ok", "invalid", "wrong_shape", "rejected"]
    assert [e.is_invalid for e in got] == [False, True, True, True]
    for k in (1, 2, 3):
        assert f"(at kind={k})" in got[k].error
        assert got[k].theta is None
        assert got[k].loss == np.inf
    assert "shape (1,), but shape (2,) before" in got[2].error


def test_a_first_solve_that_is_rejected_or_unusable_is_a_failed_solve():
    outer = zb.SquaredError([1.0, 2.0])
    absurd = zb.Problem(SPACE, Function(answer), outer, valid=lambda t, phi: bool(t.min() > -1e6))
    assert [e.status for e in evaluate(absurd, {"kind": 3}, {"kind": 0})] == ["rejected", "ok"]
    (bad,) = evaluate(zb.Problem(SPACE, Function(answer), outer), {"kind": 1})
    assert bad.status == "invalid"
    assert re.search(r"shape \(2,\) has 1 values .* \(at kind=1\)", bad.error)
    (short,) = evaluate(zb.Problem(SPACE, Function(answer), expected_length=2), {"kind": 2})
    assert short.status == "wrong_shape"
    assert re.search(r"shape \(1,\), expected_length is 2 \(at kind", short.error)


def test_a_first_answer_of_the_wrong_length_does_not_become_the_rule():
    short = zb.Problem(SPACE, Function(answer), lambda t, phi: float(t.sum()), expected_length=2)
    evaluator = Evaluator(short, Serial(), 0)
    failing = zb.Problem(SPACE, Function(lambda kind: 1 / 0), expected_length=2)
    assert evaluate(failing, {"kind": 0})[0].status == "failed"
    got = evaluator.evaluate([Point(SPACE.encode({"kind": k})) for k in (0, 2, 0)])
    assert [e.status for e in got] == ["ok", "wrong_shape", "ok"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid": 3}, "valid must be callable, got int"),
        ({"expected_length": 0}, "expected_length must be a whole number >= 1, got 0"),
        ({"expected_length": True}, "expected_length must be a whole number >= 1, got True"),
    ],
)
def test_bad_rules_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        zb.Problem(SPACE, Function(answer), **options)


def test_a_rule_that_does_not_work_says_so():
    outer = zb.SquaredError([1.0, 2.0])
    with pytest.raises(InputError, match="valid raised KeyError: 'u'"):
        evaluate(
            zb.Problem(SPACE, Function(answer), outer, valid=lambda t, phi: phi["u"]), {"kind": 0}
        )
    with pytest.raises(InputError, match="must return True or False, got None"):
        evaluate(zb.Problem(SPACE, Function(answer), outer, valid=lambda t, phi: None), {"kind": 0})
    later = zb.Problem(SPACE, Function(answer), outer, valid=lambda t, phi: 1 / t[1] > 0)
    got = evaluate(later, {"kind": 0}, {"kind": 3})
    assert got[1].status == "rejected"
    assert "valid raised ZeroDivision" in got[1].error or "divide by zero" in got[1].error
