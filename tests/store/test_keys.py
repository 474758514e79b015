"""What a stored solve is found by: change any of it, and it is not; and each is given out once."""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np
import pytest
from two_numbers import TARGET, problem

import zo_bilevel as zb
from zo_bilevel.estimators.orders import Push
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.run.identity import open_recorder
from zo_bilevel.solve.evaluation import Outcome, Point
from zo_bilevel.store.own_solves import OwnSolves
from zo_bilevel.store.records import StoredSolve
from zo_bilevel.store.solve_keys import SolveKeys


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


def key(point=None, seed=7, solver="s", **facts):
    return SolveKeys(problem(**facts), {"": solver}).key(point or Point(np.ones(2)), seed)


def test_a_key_is_made_of_solver_seed_point_level_and_derivative():
    steps, cells = zb.Fidelity("steps", 10, 100), zb.Fidelity("cells", 10, 100)
    low, full = (Point(np.ones(2), level=level) for level in (10, 100))
    pulled, plain = Pulled(), Pulled(uses_outer=False)
    keys = [
        key(),
        key(seed=8),
        key(solver="t"),
        key(solver="\ud800"),
        key(Point(np.array([1.0, 2.0]))),
        key(low, fidelity=steps),
        key(full, fidelity=steps),
        key(full, fidelity=cells),
        key(Point(np.ones(2), derivative=pulled)),
        key(Point(np.ones(2), derivative=pulled), outer=zb.SquaredError(TARGET + 1.0)),
        key(Point(np.ones(2), derivative=plain)),
        key(Point(np.ones(2), derivative=Pulled(b"another", uses_outer=False))),
    ]
    assert len(set(keys)) == len(keys)
    assert {len(found) for found in keys} == {32}
    assert key(Point(np.ones(2)), fidelity=steps) == keys[6]  # no level is the full one
    assert key(outer=zb.SquaredError(TARGET + 1.0)) == keys[0]
    other = key(Point(np.ones(2), derivative=plain), outer=zb.SquaredError(TARGET + 1.0))
    assert other == keys[10]
    # stores keep keys: made of other words, nothing that was paid for would be found
    written = b"s\x007" + np.ones(2).tobytes() + b"\0derivative\0pulled"
    assert keys[10] == hashlib.sha256(written).digest()
    big_endian = Point(np.array([1.0, 2.0], ">f8"))
    assert key(big_endian) == keys[4]
    assert key(Point(np.array([[1.0, 9.0], [2.0, 9.0]])[:, 0])) == keys[4]


def test_experiments_have_keys_of_their_own():
    keys = SolveKeys(problem(), {"one": "s", "two": "s", "three": "t"})
    one, two, three = (keys.key(Point(np.ones(2), part=(p, 0)), 7) for p in ("one", "two", "three"))
    assert one == two == key() != three
    assert keys.key(Point(np.ones(2), part=("one", 0)), 7) == one  # asked twice, the same


def test_an_objective_that_cannot_be_told_from_others_is_refused():
    with pytest.raises(zb.InputError, match=r"^the outer objective holds "):
        key(outer=functools.partial(len, (k for k in "ab")))


class Shelf:
    """Solves by number from 1, all of run 5, as a store reads them."""

    def __init__(self, *places):
        facts = (b"point", 7, "trial", 1, "ok", 0.5, 0.0, "me", "")
        self.solves = {
            number: StoredSolve(5, *place, *facts, number=number, judged="ok", loss=1.0)
            for number, place in enumerate(places, 1)
        }
        self.places = dict(enumerate(places, 1))
        self.asked = []

    def index(self, run):
        assert run == 5
        return [(number, *place) for number, place in self.places.items()]

    def read(self, numbers, *, with_theta=True):
        self.asked.append((list(numbers), with_theta))
        return {number: self.solves[number] for number in numbers if number in self.solves}


class TestOwnSolves:
    """What a run stored before is given out once, in the places where it was asked for."""

    def shelf(self):
        return Shelf((1, 0, b"a"), (1, 1, b"b"), (2, 0, b"a"), (3, 0, b"a"))

    def test_a_place_gets_its_own_and_another_place_the_oldest_that_is_left(self):
        shelf = self.shelf()
        own = OwnSolves(shelf, 5)
        assert own.arrivals == {1: 0, 2: 0, 3: 0}
        assert own.take(2, 0, b"a").number == 3
        assert own.take(9, 9, b"a").number == 1
        assert own.take(9, 9, b"a").number == 4
        assert own.take(9, 9, b"a") is None
        assert own.take(1, 1, b"c") is None
        assert own.damaged == []
        (left,) = own.forgotten()
        assert (left.number, left.judged, left.loss) == (2, "", None)

    def test_the_next_ones_are_read_ahead(self):
        shelf = Shelf(*((step, 0, b"a") for step in range(1, 41)))
        own = OwnSolves(shelf, 5)
        assert [own.take(step, 0, b"a").step for step in range(1, 41)] == list(range(1, 41))
        assert shelf.asked == [(list(range(1, 33)), True), (list(range(33, 41)), True)]

    @pytest.mark.parametrize("change", [{"run": 6}, {"step": 7}, {"place": 7}, {"key": b"x"}, None])
    def test_one_that_is_not_what_the_index_says_is_dropped_and_none_moves_up(self, change):
        shelf = self.shelf()
        damaged = shelf.solves.pop(1)
        if change is not None:
            shelf.solves[1] = dataclasses.replace(damaged, **change)
        own = OwnSolves(shelf, 5)
        assert own.take(1, 0, b"a") is None
        assert own.damaged == [1]
        assert own.take(9, 9, b"a") is None
        assert own.take(3, 0, b"a").number == 4

    def test_one_that_is_there_twice_is_dropped(self):
        own = OwnSolves(Shelf((1, 0, b"a"), (1, 0, b"a"), (1, 0, b"b")), 5)
        assert own.damaged == [2]
        assert own.take(1, 0, b"a").number == 1

    def test_seals_of_what_came_from_other_runs(self):
        shelf = self.shelf()
        shelf.solves[2] = dataclasses.replace(shelf.solves[2], source=b"there")
        del shelf.solves[3]
        own = OwnSolves(shelf, 5)
        assert own.sources() == {b"there"}
        assert own.damaged == [3]
        assert own.sources() == {b"there"}
        assert own.damaged == [3]
        assert shelf.asked == [([1, 2, 3, 4], False)] * 2
        assert {solve.number for solve in own.forgotten()} == {1, 2, 4}

    def test_what_was_never_judged_is_not_forgotten_anew(self):
        shelf = self.shelf()
        shelf.solves[1] = dataclasses.replace(shelf.solves[1], judged="")
        assert {solve.number for solve in OwnSolves(shelf, 5).forgotten()} == {2, 3, 4}
