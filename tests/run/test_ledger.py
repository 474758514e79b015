"""The ledger by itself: what is counted, what is affordable, why a run ends."""

import dataclasses
import math

import numpy as np
import pytest

from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.run.budget import Budget
from zo_bilevel.run.ledger import Ledger
from zo_bilevel.run.runs import Improvement
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.errors import InputError


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Order:
    """A derivative that counts for some solves more."""

    def __init__(self, solves):
        self.solves = solves


def solved(loss=1.0, cost=0.0, status="ok", role="trial", error="", more=0, level=None, x=0.0):
    derivative = Order(more) if more else None
    point = Point(np.array([x]), role=role, derivative=derivative, level=level)
    found = loss if status == "ok" else math.inf
    return Evaluation(point, status, np.zeros(1), found, 0.0, cost, error)


def ledger(clock=None, **limits):
    return Ledger(Budget(**limits), clock or Clock())


def points(*more):
    return [Point(np.zeros(1), derivative=Order(k) if k else None) for k in more]


def levels(*asked):
    return [Point(np.zeros(1), level=level) for level in asked]


def test_no_limit_at_all_means_a_thousand_solves():
    assert Budget().max_solves == 1000
    for limits in ({"max_seconds": 1}, {"max_cost": 1.0}, {"max_solves": 7}):
        assert Budget(**limits).max_solves == limits.get("max_solves")
    assert Budget(max_seconds=2).max_seconds == 2
    assert Budget(max_cost=3).max_cost == 3


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_solves": 0}, "max_solves must be .*>= 1, got 0"),
        ({"max_solves": 1.5}, "max_solves must be .*got 1.5"),
        ({"max_seconds": 0.0}, "max_seconds must be .*> 0, got 0.0"),
        ({"max_cost": -1.0}, "max_cost must be .*> 0, got -1.0"),
        ({"max_cost": math.nan}, "max_cost must be .*got nan"),
    ],
)
def test_limits_that_are_none_are_refused_by_name(limits, message):
    with pytest.raises(InputError, match=message):
        Budget(**limits)
    assert Budget(max_solves=1).max_solves == 1
    assert Budget(max_solves=0, is_zero_enough=True).max_solves == 0


def test_every_solve_is_booked_and_the_best_is_the_lowest_that_is_ok():
    clock = Clock()
    books = ledger(clock, max_solves=99)
    books.rounds = 3
    clock.now = 107.5
    record = books.charge(solved(2.0, cost=0.25))
    assert (record.solve, record.round, record.seconds) == (1, 3, 7.5)
    assert (record.role, record.status, record.loss, record.best_loss) == ("trial", "ok", 2.0, 2.0)
    assert record.cost == 0.25
    assert books.charge(solved(3.0, cost=0.5)).best_loss == 2.0
    assert books.charge(solved(2.0)).best_loss == 2.0
    first = books.best
    assert books.best is first
    assert first.cost == 0.25  # a tie does not replace the best
    assert books.charge(solved(1.0, role="confirm")).best_loss == 2.0
    assert books.charge(solved(status="failed", error="broken")).best_loss == 2.0
    assert books.charge(solved(0.5, more=4)).best_loss == 0.5
    assert (books.solves, books.cost, books.prices.highest) == (10, 0.75, 0.5)
    assert books.failures == {"failed": 1}
    assert [r.solve for r in books.history] == [1, 2, 3, 4, 5, 10]


SPACE = Space(a=Real(-3, 3), field=Real(-3, 3, (2,)))


def at(a, loss, **facts):
    x = SPACE.encode({"a": a, "field": [a, -a]})
    facts = {"status": "ok", "theta": np.full(3, a), **facts}
    if facts["theta"] is not None:
        facts["layout"] = ThetaLayout((), (facts["theta"].shape,))
    return Evaluation(Point(x, role="trial"), loss=loss, **facts)


def with_space():
    clock = Clock()
    return clock, Ledger(Budget(), clock, SPACE)


def test_a_record_says_all_that_is_known_of_a_solve():
    clock, books = with_space()
    books.rounds, clock.now = 2, 101.5
    found = at(1.0, 4.0, cost=0.5, error="part: lost", violation=0.25)
    record = books.charge(found)
    assert record.phi["a"] == 1.0
    np.testing.assert_array_equal(record.phi["field"], [1.0, -1.0])
    np.testing.assert_array_equal(record.theta, np.full(3, 1.0))
    assert (record.error, record.violation) == ("part: lost", 0.25)
    assert books.history == [record]
    assert books.phi_of(found)["a"] == 1.0
    assert ledger().charge(solved()).phi == {}


def test_points_that_are_better_than_all_before_are_kept_with_their_single_values():
    clock, books = with_space()
    for loss in (4.0, 5.0, 3.0):
        books.rounds += 1
        clock.now += 1.5
        books.charge(at(loss - 3.0, loss))
    books.charge(at(0.5, 1.0, violation=0.25))  # breaks a constraint
    books.charge(at(0.5, 2.0, status="failed"))
    assert books.improvements == [
        Improvement(1, 1, 1.5, 4.0, values={"a": 1.0}),
        Improvement(3, 3, 4.5, 3.0, values={"a": 0.0}),
    ]
    bare = ledger()
    bare.charge(solved(2.0))
    assert bare.improvements == [Improvement(1, 0, 0.0, 2.0)]


def test_solves_from_before_the_run_cost_nothing_and_are_the_best_until_beaten():
    _, books = with_space()
    books.know([at(1.0, 4.0), at(2.0, 5.0), at(0.5, 3.0), at(0.25, 1.0, violation=0.5)])
    assert (books.solves, books.history, books.best_loss) == (0, [], 3.0)
    assert books.improvements == [
        Improvement(0, 0, 0.0, 4.0, values={"a": 1.0}),
        Improvement(0, 0, 0.0, 3.0, values={"a": 0.5}),
    ]
    assert books.charge(at(1.0, 3.5)).best_loss == 3.0
    assert books.charge(dataclasses.replace(at(1.0, 2.5), is_known=True)).best_loss == 2.5
    assert books.solves == 1
    bare = ledger()
    bare.know([solved(2.0)])
    assert bare.improvements == [Improvement(0, 0, 0.0, 2.0)]


def test_a_history_that_grows_too_long_leaves_out_what_is_large(monkeypatch):
    size = 3 * 8  # bytes, of both phi and theta
    for room, kept in ((2 * size, 2), (2 * size - 1, 1)):
        monkeypatch.setattr("zo_bilevel.run.ledger.HISTORY_BYTES", room)
        _, books = with_space()
        for a in (1.0, 2.0, 3.0):
            books.charge(at(a, a))
        assert [bool(record.phi) for record in books.history].count(True) == kept
        assert [record.theta is not None for record in books.history].count(True) == kept
        assert [record.loss for record in books.history] == [1.0, 2.0, 3.0]
    monkeypatch.setattr("zo_bilevel.run.ledger.HISTORY_BYTES", 2 * size)
    _, books = with_space()
    for a in (1.0, 2.0, 3.0):
        books.charge(at(a, a, theta=None))
    books.charge(at(2.0, 4.0, theta=np.zeros(6)))
    books.charge(at(2.0, 5.0, theta=np.zeros(1)))
    assert [record.theta is None for record in books.history] == [True] * 3 + [False, True]
    assert [record.phi == {} for record in books.history] == [False] * 2 + [True] * 3


def test_other_limits_hold_from_now_on_and_earlier_sessions_count():
    clock = Clock()
    books = ledger(clock, max_seconds=10.0)
    books.time.spent_before(3.0)
    books.time.spent_before(1.0)
    clock.now += 2.0
    assert books.seconds_left() == 4.0
    assert books.seconds == 2.0
    books.steer({"max_solves": 5, "max_seconds": 7.0, "max_cost": 2.0})
    limits = books.budget
    assert (limits.max_solves, limits.max_seconds, limits.max_cost) == (5, 7.0, 2.0)
    assert books.seconds_left() == 1.0
    books.steer({"max_seconds": 6.0})
    assert (books.budget.max_solves, books.budget.max_cost) == (None, None)
    assert books.room(3) == 0


def test_the_first_failure_is_remembered_in_words():
    books = ledger()
    assert books.charge(solved(status="crashed", error="signal 6")).best_loss == math.inf
    books.charge(solved(status="failed", error="other"))
    assert books.first_error == "crashed: signal 6"
    assert books.failures == {"crashed": 1, "failed": 1}


class TestRoom:
    def test_solves_less_those_kept_back(self):
        books = ledger(max_solves=10)
        books.reserve = 3
        for _ in range(2):
            books.charge(solved())
        assert [books.room(n) for n in (4, 5, 6)] == [4, 5, 5]
        books.reserve = 9
        assert books.room(1) == 0

    def test_seconds(self):
        clock = Clock()
        books = ledger(clock, max_seconds=5)
        clock.now = 104.0
        assert books.room(7) == 7
        assert books.seconds_left() == 1.0
        clock.now = 105.0
        assert books.room(7) == 0
        assert ledger(max_solves=1).seconds_left() == math.inf

    def test_prices_are_learnt_before_rounds_are_wide(self):
        books = ledger(max_cost=10.0)
        assert books.room(16) == 1  # no price is known
        books.charge(solved(cost=1.0))
        assert books.room(16) == 1  # one price was seen
        books.charge(solved(cost=0.5))
        assert books.room(16) == 2
        for _ in range(2):
            books.charge(solved(cost=0.5))
        assert books.cost == 2.5
        assert books.room(16) == 4  # as many as prices were seen
        books.cost_reserve = 6.5
        assert books.room(16) == 1
        books.cost_reserve = 6.6
        assert books.room(16) == 0

    @pytest.mark.parametrize(("limit", "count"), [(11.86, 1), (11.88, 2)])
    def test_prices_that_vary_have_a_margin(self, limit, count):
        books = ledger(max_cost=limit)
        for price in (3.0, 0.5, 0.5):
            books.charge(solved(cost=price))
        # 3 + 4 / 3 + 3 sqrt(9.5 / 3 - 16 / 9) = 7.869 are set aside for two
        assert books.room(16) == count

    def test_prices_that_do_not_vary_may_still_double(self):
        books = ledger(max_cost=14.0)
        for _ in range(6):
            books.charge(solved(cost=1.0))
        assert books.room(16) == 4  # 8 left

    def test_solves_without_a_price_let_rounds_grow_slowly(self):
        books = ledger(max_cost=1.0)
        rooms = []
        for _ in range(12):
            rooms.append(books.room(99))
            books.charge(solved())
        assert rooms == [1] * 8 + [2] * 4

    def test_each_level_has_its_price(self):
        books = ledger(max_cost=1000.0)
        for _ in range(20):
            books.charge(solved(cost=20.0, level=20))
        for _ in range(2):
            books.charge(solved(cost=200.0))
        # 200 left: a full solve alone, or five cheap ones, which may double
        assert books.room(5) == 1
        assert books.affordable(levels(*[20] * 9)) == 5
        assert books.affordable(levels(20, None)) == books.affordable(levels(None, 20)) == 1
        assert books.affordable(levels(40, 40)) == 1  # none of its level had a price

    def test_cheap_solves_go_on_where_a_full_one_would_cost_too_much(self):
        books = ledger(max_cost=100.0)
        books.charge(solved(cost=64.0))
        for _ in range(2):
            books.charge(solved(cost=4.0, role="cheap", level=4))
        assert books.room(3) == 0  # 28 left
        assert books.affordable(levels(4, 4, 4)) == 2  # as many as prices of that level were seen
        assert books.affordable(levels(8)) == 0  # none was
        assert books.affordable(levels(4, None)) == 1
        for _ in range(7):
            books.charge(solved(cost=4.0, role="cheap", level=4))
        assert books.affordable(levels(4)) == 0

    def test_money_that_is_exactly_enough_is_enough(self):
        books = ledger(max_cost=0.3)
        for _ in range(2):
            books.charge(solved(cost=0.1))
        assert books.room(1) == 1  # 0.3 - 0.2 is a little less than 0.1
        books.charge(solved(cost=0.1))
        assert books.room(1) == 0


def test_points_with_derivatives_take_their_share_of_the_solves():
    books = ledger(max_solves=10)
    books.charge(solved())
    assert books.affordable(points(0, 3, 4)) == 2  # 1 + 4 + 5 solves, 9 left
    assert books.affordable(points(0, 3, 3)) == 3
    books.reserve = 1
    assert books.affordable(points(0, 3, 3)) == 2
    assert books.affordable(points(9)) == 0
    assert ledger(max_seconds=9).affordable(points(50, 50)) == 2


class TestReasons:
    def test_the_limit_that_is_reached_is_named(self):
        clock = Clock()
        books = ledger(clock, max_solves=2, max_seconds=5.0, max_cost=8.0)
        books.charge(solved(cost=3.0))
        assert books.spent_reason() == "budget of 8 in cost: 3 spent, the next solve may cost 3"
        books.reserve = 1
        assert books.spent_reason() == "budget of 2 solves spent"
        books.reserve = 0
        clock.now = 105.0
        assert books.spent_reason() == "budget of 5 seconds spent"
        books.charge(solved())
        assert books.spent_reason() == "budget of 2 solves spent"

    def test_a_round_that_does_not_fit_is_named(self):
        assert ledger(max_solves=3).spent_reason() == (
            "budget of 3 solves: the next round needs more than is left"
        )

    @pytest.mark.parametrize(("failed", "ends"), [(16, False), (17, True)])
    def test_a_run_is_hopeless_when_more_than_the_share_failed(self, failed, ends):
        books = ledger()
        for k in range(20):
            assert books.failure_reason(0.8) == ""
            books.charge(solved(status="failed" if k < failed else "ok", error="no licence"))
        assert bool(books.failure_reason(0.8)) is ends
        if ends:
            assert books.failure_reason(0.8) == (
                "17 of 20 solves failed, more than max_failure_rate=0.8 allows; the first one "
                "failed: no licence"
            )

    @pytest.mark.parametrize(("failed", "is_believed"), [(4, True), (5, False)])
    def test_a_search_that_ended_among_failures_has_not_converged(self, failed, is_believed):
        books, claim = ledger(), "converged: nothing left to gain within the bounds"
        for k in range(30):
            is_ok = k >= 20 + failed or k < 5
            books.charge(solved(1.0, status="ok" if is_ok else "failed", x=-k if is_ok else k))
        assert books.believed("stopped by the user") == "stopped by the user"
        assert (books.believed(claim) == claim) is is_believed
        if not is_believed:
            assert "solves fail: 5 of the last 10" in books.believed(claim)
        assert "4 of the last" in books.believed(claim, has_slid=True) or not is_believed

    @pytest.mark.parametrize(("beyond", "is_edge"), [(-9.0, True), (9.0, False)])
    def test_failures_among_good_solves_are_no_edge(self, beyond, is_edge):
        books = ledger()
        for k in range(10):
            is_failed = k % 2 == 1
            books.charge(solved(1.0 + k, status="failed" if is_failed else "ok", x=0.5 * is_failed))
        assert "along that edge" in books.believed("converged: nothing left to gain")
        books.charge(solved(99.0, x=beyond))
        text = books.believed("converged: nothing left to gain")
        assert ("along that edge" in text) is is_edge
        assert "5 of the last 10" in text

    def test_a_mistake_of_the_user_ends_the_run_at_once(self):
        books = ledger()
        books.charge(solved(status="failed", error="InputError: no such field"))
        assert books.failure_reason(1.0) == ("the first solve failed: InputError: no such field")
        books.charge(solved(1.0))
        assert books.failure_reason(1.0) == ""  # something was solved, so it was no mistake

    def test_a_budget_in_cost_without_prices_would_never_end(self):
        books = ledger(max_cost=2.0)
        for _ in range(99):
            books.charge(solved())
            assert books.failure_reason(0.8) == ""
        books.charge(solved())
        assert books.failure_reason(0.8) == (
            "max_cost=2 never ends this run: 100 solves had no price; return "
            "zb.WithCost(theta, cost), or give max_solves"
        )
        for limits in ({"max_solves": 500}, {"max_seconds": 9.0}):
            other = ledger(max_cost=2.0, **limits)
            for _ in range(100):
                other.charge(solved())
            assert other.failure_reason(0.8) == ""


def test_all_are_booked_when_a_callback_ends_the_run():
    books, told = ledger(), []

    def callback(record):
        told.append(record.solve)
        if record.solve == 2:
            raise StopIteration

    with pytest.raises(StopIteration):
        books.charge_all([solved(k) for k in (3.0, 2.0, 1.0)], callback)
    assert told == [1, 2]
    assert books.solves == 3
    assert books.best.loss == 1.0
    books.charge_all([solved()], None)
    assert books.solves == 4


def test_a_replay_takes_no_time_until_the_record_ends():
    clock = Clock()
    books = ledger(clock, max_seconds=10.0)
    books.time.replay((4.0, 0, 3.0))
    books.time.spent_before(3.0)  # what its solves took is less than what it took
    clock.now += 100.0
    assert (books.seconds_left(), books.spent) == (math.inf, (4.0, 0, 3.0))
    books.time.go_on()
    clock.now += 2.0
    assert (books.seconds_left(), books.spent) == (4.0, (6.0, 0, 10.0))
    assert books.out_of_time() == "budget of 10 seconds spent"
    assert books.spent == (10.0, 0, 10.0)
    books = ledger(clock, max_seconds=10.0)
    books.time.replay((10.0, 0, 10.0))
    assert (books.room(3), books.spent_reason()) == (0, "budget of 10 seconds spent")
    books.steer({"max_seconds": 2.0})
    assert books.spent_reason() == "budget of 2 seconds spent: 10 are on record"


def test_a_round_that_was_cut_uses_up_the_seconds_to_the_last_and_no_more():
    clock = Clock()
    books = ledger(clock, max_seconds=10)
    clock.now += 9.5
    assert books.spent_reason() != "budget of 10 seconds spent"  # half a second is left
    books.out_of_time()
    assert books.seconds_left() == 0.0
    clock.now += 2.0
    books.out_of_time()  # what is overrun is not given back
    assert books.seconds_left() == -2.0
    endless = ledger(clock, max_solves=5)
    endless.out_of_time()
    assert endless.time.before == 0.0
