"""What a stored solve and a stored run are found by: change any of it, and they are not."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.estimators.push import Push
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.run.identity import facts_of_run, open_recorder
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


def identity(subject=None, method="m", seed=0, initial=None, width=1):
    facts = facts_of_run(subject or problem(), method, seed, initial, {"round_width": width})
    return facts.identity


def test_each_part_of_a_run_makes_it_another():
    others = [
        identity(),
        identity(problem(name="q")),
        identity(problem(version="2")),
        identity(problem(space=zb.Space(a=zb.Real(-3, 3.5, (2,))))),
        identity(problem().scalar),
        identity(problem(outer=zb.SquaredError(TARGET + 1.0))),
        identity(method="n"),
        identity(seed=1),
        identity(seed=2**70),
        identity(seed=2**70 + 1),
        identity(initial={"a": np.ones(2)}),
        identity(width=2),
    ]
    assert len(set(others)) == len(others)
    assert identity() == others[0]
    assert identity(initial=lambda seed: {"a": np.ones(2)}) == others[-2]


def conditions(subject=None, seed=0, initial=None, **settings):
    text = facts_of_run(subject or problem(), "m", seed, initial, settings).conditions
    assert all(len(pair) == 2 for pair in json.loads(text).values())
    return text


def test_each_condition_makes_runs_incomparable_and_the_seed_does_not():
    def far(seed):
        return {"a": np.full(2, 2.0)}

    def drawn(seed):
        return {"a": np.full(2, 1.0 + seed)}

    def drawn_otherwise(seed):
        return {"a": np.full(2, 1.0 - seed)}

    known = [
        conditions(),
        *(conditions(**{name: 3}) for name in ("max_solves", "max_seconds", "max_cost")),
        conditions(tolerance=0.1),
        conditions(tolerance=0.1 + 1e-12),
        conditions(round_width=2),
        conditions(problem(version="2")),
        conditions(problem(name="q")),
        conditions(problem(space=zb.Space(a=zb.Real(-3, 3.5, (2,))))),
        conditions(problem(outer=zb.SquaredError(TARGET + 1.0))),
        conditions(problem().scalar),
        *(conditions(initial=initial) for initial in (far, drawn, drawn_otherwise)),
    ]
    for one, other in itertools.combinations(known, 2):
        assert one != other
    assert conditions(seed=5) == known[0]
    assert conditions(seed=1, initial=drawn) == known[-2]
    assert conditions(initial={"a": np.full(2, 2.0)}) == known[-3]
    assert json.loads(known[-2])["start"][0] == "another for each seed"


def test_a_start_for_its_own_seeds_only_is_told_by_its_function():
    starts = [{"a": np.ones(2)}]
    found = json.loads(conditions(initial=lambda seed: starts[seed]))
    assert found["start"][0] == "another for each seed"
    assert conditions(initial=lambda seed: starts[seed]) == json.dumps(found)
