"""What a stored solve is found by: change any of it, and it is not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.estimators.push import Push
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.run.identity import open_recorder
from zo_bilevel.solve.evaluation import Outcome, Point

SPACE = zb.Space(a=zb.Real(-3, 3, (2,)))
TARGET = np.zeros(2)


def inner(phi):
    return phi["a"]


def problem(outer=None, **facts):
    given = {"space": SPACE, "name": "p", "version": "1", "inner": inner, **facts}
    return zb.Problem(outer=zb.SquaredError(TARGET) if outer is None else outer, **given)


@dataclasses.dataclass(frozen=True)
class Pulled:
    """An order of a derivative that depends on the outer objective."""

    name: bytes = b"pulled"
    uses_outer: bool = True
    solves: int = 2

    def key(self):
        return self.name

    def bind(self, problem, x):
        raise NotImplementedError


ANSWER = Outcome("ok", np.array([1.0, 2.0]), ThetaLayout((), ((2,),)), 0.5, 0.25, "", "me")


def recorder(store, subject, method="m", seed=0):
    return open_recorder(store, subject, method, seed, None, {})


def stored(store, subject=None, point=None, solve_seed=7):
    """A store in which one run has one solve."""
    run = recorder(store, subject or problem())
    point = point or Point(np.ones(2))
    assert run.find(1, 0, point, solve_seed) is None
    run.add(1, 0, point, solve_seed, ANSWER)
    run.judged({})
    store.release(run.run.number)


def found(store, subject=None, point=None, solve_seed=7, method="other"):
    """What another run is given."""
    run = recorder(store, subject or problem(), method)
    answer = run.find(1, 0, point or Point(np.ones(2)), solve_seed)
    store.release(run.run.number)
    return answer


def test_the_same_question_of_another_run_is_answered_to_the_last_bit():
    store = zb.MemoryStore()
    stored(store)
    answer = found(store)
    assert dataclasses.replace(answer, theta=None) == dataclasses.replace(ANSWER, theta=None)
    assert np.array_equal(answer.theta, ANSWER.theta)


@pytest.mark.parametrize(
    "change",
    [
        {"subject": problem(name="q")},
        {"subject": problem(version="2")},
        {"subject": problem(space=zb.Space(a=zb.Real(-3, 3.5, (2,))))},
        {"subject": problem(space=zb.Space(b=zb.Real(-3, 3, (2,))))},
        {"subject": problem(space=zb.Space(a=zb.Log(1e-3, 3, (2,))))},
        {"point": Point(np.array([1.0, 1.0 + 1e-15]))},
        {"point": Point(np.array([1.0, -1.0]))},
        {"solve_seed": 8},
        {"point": Point(np.ones(2), derivative=Push(np.eye(2)))},
    ],
)
def test_another_question_is_not(change):
    store = zb.MemoryStore()
    stored(store)
    assert found(store, **change) is None


@pytest.mark.parametrize(
    "change", [{"subject": problem(outer=zb.SquaredError(TARGET + 1.0))}, {"solve_seed": 7}]
)
def test_the_outer_objective_does_not_matter_to_a_plain_solve(change):
    store = zb.MemoryStore()
    stored(store)
    assert found(store, **change) is not None


def test_it_does_to_a_gradient_that_was_pulled_back_through_it():
    store, pulled = zb.MemoryStore(), Point(np.ones(2), derivative=Pulled())
    stored(store, point=pulled)
    other = problem(outer=zb.SquaredError(TARGET + 1.0))
    assert found(store, point=pulled) is not None
    assert found(store, other, pulled) is None
    assert found(store, point=Point(np.ones(2), derivative=Pulled(b"another"))) is None
    plain = Point(np.ones(2), derivative=Pulled(uses_outer=False))
    stored(store, problem(version="2"), plain)
    assert found(store, problem(other.outer, version="2"), plain, method="third") is not None


def test_failures_are_taken_over_by_the_run_alone():
    store = zb.MemoryStore()
    run, point = recorder(store, problem()), Point(np.ones(2))
    run.find(1, 0, point, 7)
    run.add(1, 0, point, 7, Outcome("failed", error="why"))
    store.release(1)
    assert found(store) is None
    assert found(store, method="m").error == "why"


def test_the_charge_of_a_solve_is_what_its_point_counts_for():
    store, pulled = zb.MemoryStore(), Point(np.ones(2), derivative=Pulled())
    stored(store, point=pulled)
    assert [solve.charge for solve in store.solves(store.find_run(1))] == [3]
