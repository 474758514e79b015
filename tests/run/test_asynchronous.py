"""Runs without rounds: recorded arrivals, budgets, and that nobody waits."""

import sqlite3
import time

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.testing import SimulatedClock

SPACE = zb.Space(a=zb.Real(-2, 2), b=zb.Real(-2, 2))
TARGET = np.array([1.0, 0.5, -0.25])
METHODS = {
    "default": zb.DefaultMethod,
    "trust-region": zb.TrustRegion,
    "random": zb.RandomSearch,
    "nevergrad": lambda: zb.Nevergrad("CMA"),
    "optuna": lambda: zb.Optuna("TPE"),
}


def solve(phi):
    a, b = phi["a"], phi["b"]
    return np.array([a, a * b + 0.1 * np.sin(a), b**2 - b])


def clock(seed=0, workers=4):
    return SimulatedClock(workers, lambda rng: float(rng.lognormal()), seed)


def run(method, dispatcher=None, inner=solve, **options):
    options = {"max_solves": 40, "round_width": 4, "asynchronous": True, **options}
    problem = zb.Problem(SPACE, inner, zb.SquaredError(TARGET), name="p")
    return zb.minimize(problem, method, dispatcher=dispatcher or clock(), **options)


def bits(result):
    history = [(r.solve, r.role, r.status, r.loss, r.cost, r.phi["a"]) for r in result.history]
    return history, result.loss


@pytest.mark.parametrize("name", METHODS)
class TestEveryMethod:
    def test_two_runs_on_a_simulated_clock_agree(self, name):
        first = run(METHODS[name]())
        assert first.solves == 40
        assert bits(run(METHODS[name]())) == bits(first)
        assert bits(run(METHODS[name](), clock(seed=1))) != bits(first)

    def test_the_store_gives_the_same_bits_without_a_solve(self, name, tmp_path):
        first = run(METHODS[name](), store=tmp_path / "runs.sqlite")
        idle = clock(seed=7)
        assert bits(run(METHODS[name](), idle, store=tmp_path / "runs.sqlite")) == bits(first)
        assert idle.busy == 0.0

    def test_a_shorter_run_leaves_the_longer_one_on_record(self, name, tmp_path):
        store = tmp_path / "runs.sqlite"
        first = run(METHODS[name](), store=store)
        shorter = run(METHODS[name](), clock(seed=7), store=store, max_solves=20)
        assert 14 <= shorter.solves <= 20  # as far as the record tells of the shorter one
        assert bits(shorter)[0] == bits(first)[0][: shorter.solves]
        idle = clock(seed=8)
        assert bits(run(METHODS[name](), idle, store=store)) == bits(first)
        assert idle.busy == 0.0

    def test_an_interrupted_run_goes_on_and_is_then_replayed(self, name, tmp_path):
        store, starts = tmp_path / "runs.sqlite", []

        def counted(rng):
            starts.append(0)
            return float(rng.lognormal())

        def stop(record):
            if record.solve == 17:
                raise KeyboardInterrupt

        part = run(METHODS[name](), SimulatedClock(4, counted), store=store, callback=stop)
        assert part.stop_reason == "interrupted"
        assert len(starts) == 20  # 17 that arrived and 3 beside the last of them
        whole = run(METHODS[name](), SimulatedClock(4, counted, 3), store=store)
        assert bits(whole)[0][:17] == bits(part)[0]
        assert len(starts) == 20 + 40 - 17
        assert bits(run(METHODS[name](), clock(seed=9), store=store)) == bits(whole)


EXPERIMENTS = zb.Experiments({"one": {"k": 1.0}, "two": {"k": 2.0}}, lambda phi, k: k * solve(phi))
KINDS = {
    "experiments": zb.Problem(
        SPACE, EXPERIMENTS, zb.SquaredError({"one": TARGET, "two": 2 * TARGET}), name="e"
    ),
    "linear": zb.Problem(SPACE, solve, zb.SquaredError(TARGET), "l", constraints=["a + b <= 1"]),
    "cheap": zb.Problem(
        SPACE, solve, zb.SquaredError(TARGET), "c", constraints=[lambda phi: phi["a"] ** 2 - 0.5]
    ),
    "output": zb.Problem(
        SPACE, solve, zb.SquaredError(TARGET), "o", constraints=[zb.Output("theta[0] <= 0.8")]
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["default", "nevergrad"])
class TestExperimentsAndConstraints:
    def test_an_interrupted_run_goes_on_and_is_then_replayed(self, name, kind, tmp_path):
        def go(seed, **options):
            options |= {"asynchronous": True, "round_width": 3, "store": tmp_path / "runs.sqlite"}
            return zb.minimize(
                KINDS[kind], METHODS[name](), max_solves=14, dispatcher=clock(seed), **options
            )

        def stop(record):
            if record.solve == 8:
                raise KeyboardInterrupt

        part = go(0, callback=stop)
        whole = go(1)
        assert bits(whole)[0][:8] == bits(part)[0]
        idle = clock(2)
        again = zb.minimize(
            KINDS[kind],
            METHODS[name](),
            max_solves=14,
            dispatcher=idle,
            asynchronous=True,
            round_width=3,
            store=tmp_path / "runs.sqlite",
        )
        assert (bits(again), idle.busy) == (bits(whole), 0.0)
        with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
            judged = "SELECT count(*) FROM solves WHERE judged = 'ok'"
            jobs = 2 if kind == "experiments" else 1
            assert connection.execute(judged).fetchone()[0] == jobs * whole.solves

    def test_the_answer_is_that_of_rounds(self, name, kind):
        options = {"dispatcher": clock(), "round_width": 3, "max_solves": 60}
        found = zb.minimize(KINDS[kind], METHODS[name](), asynchronous=True, **options)
        rounds = zb.minimize(KINDS[kind], **options)
        assert found.violation in (None, 0.0)
        assert found.loss <= rounds.loss + (0.05 if name == "nevergrad" else 1e-6)


def test_a_method_of_points_outside_only_ends():
    class Outside(zb.Method):
        name, constraints = "outside", "penalized"

        def rounds(self, search):
            raise NotImplementedError

        def arrivals(self, search):
            yield [search.point(search.start)]
            while True:
                yield [search.point(search.space.upper)]

    words = "constraints forbid the last 10001 points"
    options = {"asynchronous": True, "dispatcher": clock()}
    assert words in zb.minimize(KINDS["linear"], Outside(), **options).stop_reason


def test_solves_made_before_arrive_at_once_and_cost_nothing(tmp_path):
    first = run(zb.RandomSearch(), max_solves=20)
    idle = clock()
    start = {"a": 0.0, "b": 0.0}
    again = run(zb.RandomSearch(), idle, known=first, initial=start, max_solves=5)
    assert {r.phi["a"] for r in first.history} <= {r.phi["a"] for r in again.history}
    assert (again.solves, len(again.history), again.loss <= first.loss) == (5, 25, True)
    store = tmp_path / "runs.sqlite"
    found = run(None, known=first, store=store, max_solves=30)
    assert found.loss < 1e-3 * first.loss
    idle = clock(seed=5)
    assert bits(run(None, idle, known=first, store=store, max_solves=30)) == bits(found)
    assert idle.busy == 0.0


def test_what_is_damaged_or_gone_is_solved_again(tmp_path):
    store = tmp_path / "runs.sqlite"
    first = run(zb.RandomSearch(), store=store)
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE solves SET theta = x'00' WHERE number = 11")
    starts = []
    counting = SimulatedClock(4, lambda rng: starts.append(0) or 1.0)
    again = run(zb.RandomSearch(), counting, store=store)
    assert (len(starts), bits(again)) == (1, bits(first))
    with sqlite3.connect(store) as connection:
        connection.execute("DELETE FROM solves WHERE number = 11 OR step = 11")
    again = run(zb.RandomSearch(), store=store)
    assert {r.loss for r in again.history} == {r.loss for r in first.history}
    idle = clock(seed=9)
    assert (bits(run(zb.RandomSearch(), idle, store=store)), idle.busy) == (bits(again), 0.0)


def test_solves_of_another_run_arrive_at_once(tmp_path):
    store = tmp_path / "runs.sqlite"
    run(zb.RandomSearch(), store=store, asynchronous=False, round_width=1)
    idle = clock()
    taken = run(zb.RandomSearch(), idle, store=store)
    assert (idle.busy, taken.solves) == (0.0, 40)


def test_runs_with_and_without_rounds_are_not_the_same_run(tmp_path):
    store = tmp_path / "runs.sqlite"
    for asynchronous in (True, False, True):
        run(zb.RandomSearch(), store=store, asynchronous=asynchronous)
    with zb.Store(store, read_only=True) as opened:
        assert len(opened.runs()) == 2


class TestBudgets:
    def test_solves_are_never_overrun_and_nothing_is_started_that_is_not_counted(self):
        starts = []
        counting = SimulatedClock(4, lambda rng: starts.append(0) or float(rng.lognormal()))
        result = run(zb.RandomSearch(), counting, max_solves=9)
        assert (result.solves, len(starts)) == (9, 9)
        assert result.stop_reason == "budget of 9 solves spent"

    def test_cost_is_never_overrun(self):
        def priced(phi):
            return zb.WithCost(solve(phi), 1.0)

        result = run(zb.RandomSearch(), inner=priced, max_solves=None, max_cost=12.5)
        assert result.cost == 12.0
        assert "budget of 12.5 in cost" in result.stop_reason

    def test_seconds_end_the_run_and_kill_what_runs(self):
        def slow(phi):
            time.sleep(0.02 if phi["a"] == 0.0 else 86_400.0)
            return solve(phi)

        with zb.Joblib(2) as dispatcher:
            result = run(zb.RandomSearch(), dispatcher, slow, round_width=2, max_seconds=8.0)
        assert result.solves == 1
        assert result.stop_reason == "budget of 8 seconds spent"

    def test_a_target_a_callback_and_failures_end_it(self):
        assert "tolerance" in run(zb.RandomSearch(), tolerance=2.0).stop_reason

        def stop(record):
            if record.solve == 5:
                raise StopIteration("enough")

        assert run(zb.RandomSearch(), callback=stop).stop_reason == "enough"

        def failing(phi):
            if phi["a"] != 0.0:
                raise ValueError("no")
            return solve(phi)

        result = run(zb.RandomSearch(), inner=failing, max_solves=100)
        assert "19 of 20 solves failed" in result.stop_reason

    def test_noisy_final_points_are_judged_afresh(self):
        def noisy(phi, *, seed):
            return solve(phi) + 0.01 * np.random.default_rng(seed).standard_normal(3)

        result = run(zb.RandomSearch(), inner=noisy, max_solves=50)
        assert result.solves == 50
        assert [r.role for r in result.history].count("confirm") == 6
        assert result.standard_error is not None


def test_no_worker_waits_for_a_round():
    """Eight solves of 1 s while one takes 8 s: rounds of two would need at least 8 + 7 s."""

    def lengths():
        yield 0.5
        yield 8.0
        while True:
            yield 1.0

    seconds = lengths()
    machine = SimulatedClock(2, lambda _: next(seconds))
    run(zb.RandomSearch(), machine, round_width=2, max_solves=9)
    assert machine.now == 8.0
    seconds = lengths()
    rounds = SimulatedClock(2, lambda _: next(seconds))
    run(zb.RandomSearch(), rounds, round_width=2, max_solves=9, asynchronous=False)
    assert rounds.now == 0.5 + 8.0 + 3.0


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_real_workers_are_fed_as_they_come_free(backend):
    def slow(phi):
        time.sleep(0.01 + 0.1 * (phi["a"] > 1.5))
        return solve(phi)

    with zb.Joblib(3, backend) as dispatcher:
        result = run(zb.RandomSearch(), dispatcher, slow, round_width=3, max_solves=30)
    assert result.solves == 30
    assert len({record.phi["a"] for record in result.history}) == 30


class TestDefaults:
    """A method that is told one answer at a time finds what it finds in rounds, and sooner."""

    @pytest.mark.parametrize("method", [zb.DefaultMethod, zb.TrustRegion])
    def test_one_worker_is_the_search_with_rounds(self, method):
        options = {"round_width": 1, "max_solves": 30}
        alone = run(method(), zb.Serial(), **options)
        rounds = run(method(), zb.Serial(), asynchronous=False, **options)
        losses = [[record.loss for record in found.history] for found in (alone, rounds)]
        assert losses[0] == losses[1] or alone.loss <= 10 * rounds.loss + 1e-12

    @pytest.mark.parametrize("workers", [4, 16])
    @pytest.mark.parametrize("is_scalar", [False, True])
    def test_the_minimum_is_found_in_less_simulated_time(self, workers, is_scalar):
        matrix = np.random.default_rng(1).standard_normal((12, 8))
        space = zb.Space(x=zb.Real(-2, 2, shape=(8,)))

        def bent(phi):
            theta = matrix @ (phi["x"] + 0.1 * phi["x"] ** 2)
            return float(theta @ theta) if is_scalar else theta

        outer = {} if is_scalar else {"outer": zb.SquaredError(np.zeros(12))}
        problem = zb.Problem(space, bent, **outer)
        times = {False: [], True: []}
        for asynchronous, found in times.items():
            for seed in range(5):
                machine = clock(seed, workers)
                result = zb.minimize(
                    problem,
                    initial={"x": np.full(8, 0.7)},
                    tolerance=1e-4,
                    max_solves=800,
                    dispatcher=machine,
                    round_width=workers,
                    asynchronous=asynchronous,
                )
                assert result.loss <= 1e-4
                found.append(machine.now)
        assert np.median(times[True]) < 0.7 * np.median(times[False])

    @pytest.mark.parametrize("method", [zb.DefaultMethod, zb.TrustRegion])
    def test_failures_and_noise_do_not_end_it(self, method):
        rng = np.random.default_rng(5)

        def fragile(phi):
            if rng.random() < 0.2 and phi["a"] != 0.0:
                raise ValueError("no")
            return solve(phi) + 1e-3 * rng.standard_normal(3)

        result = run(method(), inner=fragile, max_solves=120)
        assert abs(result.phi["a"] - 1.0) < 0.1
        assert abs(result.phi["b"] - 0.45) < 0.1
        assert result.failures["failed"] > 5
        assert result.standard_error is not None

    def test_integers_are_searched_with_whole_rounds_where_they_are_polled(self):
        space = zb.Space(a=zb.Real(-2, 2), k=zb.Integer(0, 9))

        def mixed(phi):
            return np.array([phi["a"] - 1.0, phi["k"] - 6.0, phi["a"] * phi["k"] - 6.0])

        for outer in ({"outer": zb.SquaredError(np.zeros(3))}, {}):
            inner = mixed if outer else lambda phi: float(np.sum(mixed(phi) ** 2))
            result = zb.minimize(
                zb.Problem(space, inner, **outer),
                dispatcher=clock(),
                round_width=4,
                asynchronous=True,
                max_solves=80,
            )
            assert result.phi["k"] == 6
            assert abs(result.phi["a"] - 1.0) < 1e-3

    @pytest.mark.parametrize("late", [1, 2])
    def test_the_first_difference_of_a_direction_may_take_as_long_as_it_likes(self, late):
        """It is asked for again elsewhere: the search polished the other parameter till the end."""
        started = []

        def seconds(rng):
            started.append(0)
            return 50.0 if len(started) == late + 1 else 1.0

        machine = SimulatedClock(2, seconds)
        result = run(zb.GaussNewton(), machine, round_width=2, tolerance=1.7e-5)
        assert result.loss <= 1.7e-5
        assert machine.now < 25.0

    def test_a_probe_of_the_noise_is_held_against_the_point_it_was_asked_beside(self):
        """The best point moves meanwhile: an exact loss was taken for a noisy one."""

        def rosenbrock(phi):
            x = phi["x"]
            return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))

        problem = zb.Problem(zb.Space(x=zb.Real(-2, 2, shape=(3,))), rosenbrock)
        start = {"x": np.random.default_rng(0).uniform(-1, 1, 3)}
        options = {"initial": start, "round_width": 16, "asynchronous": True, "max_solves": 220}
        result = zb.minimize(problem, dispatcher=clock(0, 16), **options)
        assert "confirm" not in {record.role for record in result.history}

    def test_exact_derivatives_need_whole_rounds(self):
        with pytest.raises(zb.UnsupportedProblemError, match="gauss-newton needs whole rounds"):
            run(zb.GaussNewton(zb.FG2U()))


class TestBadInput:
    def test_a_method_that_needs_rounds(self):
        words = "scipy:COBYQA needs whole rounds: asynchronous must be False"
        with pytest.raises(zb.UnsupportedProblemError, match=words):
            run(zb.Scipy("COBYQA"))

    def test_a_dispatcher_that_runs_rounds(self):
        class Rounds:
            run, close = zb.Serial.run, zb.Serial.close

        words = "dispatcher Rounds runs whole rounds: asynchronous must be False"
        with pytest.raises(zb.InputError, match=words):
            run(zb.RandomSearch(), Rounds())

    def test_a_quorum(self):
        with pytest.raises(zb.InputError, match="quorum is a share of a round"):
            run(zb.RandomSearch(), zb.Joblib(2, quorum=0.5))

    def test_anything_but_a_truth_value(self):
        with pytest.raises(zb.InputError, match="asynchronous must be True or False, got 1"):
            run(zb.RandomSearch(), asynchronous=1)

    def test_a_method_that_asks_for_nothing(self):
        class Idle(zb.Method):
            name = "idle"

            def rounds(self, search):
                raise NotImplementedError

            def arrivals(self, search):
                yield [zb.Point(search.start)]
                yield []

        with pytest.raises(zb.InputError, match="idle must ask for a point when none"):
            run(Idle())


def test_solves_that_wait_share_a_call_of_a_batched_solver():
    sizes = []

    class Batch:
        def __call__(self, phi):
            return solve(phi)

        def solve_batch(self, phis):
            sizes.append(len(phis["a"]))
            rows = [dict(zip(phis, row, strict=True)) for row in zip(*phis.values(), strict=True)]
            return np.array([solve(row) for row in rows])

    batched = run(zb.RandomSearch(), zb.Batched(), Batch())
    assert max(sizes) == 4
    assert {r.loss for r in batched.history} == {r.loss for r in run(zb.RandomSearch()).history}
    with pytest.raises(zb.InputError, match="Batched needs an inner solver with a method"):
        run(zb.RandomSearch(), zb.Batched())
