"""Budgets in money: prices are learnt before rounds widen, and no method is ended by one."""

import time

import numpy as np
import pytest

import zo_bilevel as zb

SPACE = zb.Space(a=zb.Real(0, 1), b=zb.Real(0, 1))
METHODS = {
    "default": zb.DefaultMethod(),
    "gradient": zb.GradientMethod(),
    "cma": zb.CMA(),
    "nevergrad": zb.Nevergrad("CMA"),
    "esmda": zb.ESMDA(),
    "random": zb.RandomSearch(),
}


def priced(prices):
    given = iter(prices)

    def solve(phi):
        return zb.WithCost(np.array([phi["a"] ** 2, phi["b"] - 0.3, 1.0]), next(given))

    return zb.Problem(SPACE, solve, zb.SquaredError([0.1, 0.2, 0.9]))


class Rounds(zb.Serial):
    """Notes how many solves it is asked for at once."""

    def __init__(self):
        self.sizes = []

    def run(self, solve, jobs):
        self.sizes.append(len(jobs))
        return super().run(solve, jobs)


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("name", METHODS)
def test_a_budget_in_money_alone_is_spent_by_every_method(name, width):
    prices = [1.0] * 41
    found = zb.minimize(priced(prices), METHODS[name], max_cost=40.0, round_width=width)
    assert found.cost == found.solves <= 40
    assert found.solves == 40 or found.stop_reason.startswith("converged")


@pytest.mark.parametrize("first", [0.0, 0.01, 0.1])
def test_a_first_price_that_is_not_typical_overruns_by_one_solve_at_most(first):
    for limit in (0.5, 3.0, 10.0):
        found = zb.minimize(
            priced([first] + [1.0] * 30), zb.RandomSearch(), max_cost=limit, round_width=8
        )
        assert found.cost < limit + 1.0


def test_the_highest_price_seen_decides():
    found = zb.minimize(priced([0.4, 0.1] + [0.4] * 9), zb.RandomSearch(), max_cost=0.8)
    assert (found.solves, found.cost) == (2, 0.5)


def test_a_round_widens_once_prices_are_known():
    result = zb.minimize(priced([1.0] * 100), zb.RandomSearch(), max_cost=64.0, round_width=8)
    plain = zb.minimize(priced([1.0] * 100), zb.RandomSearch(), max_solves=64, round_width=8)
    assert [r.loss for r in result.history] == [r.loss for r in plain.history]
    assert result.rounds == plain.rounds


@pytest.mark.statistical
@pytest.mark.parametrize("deviation", [0.5, 1.0])
def test_prices_that_vary_overrun_by_a_round_at_most_and_leave_rounds_wide(deviation):
    limit, worst, rounds = 64 * np.exp(deviation**2 / 2), [], []
    for seed in range(20):
        prices = np.random.default_rng(seed).lognormal(0.0, deviation, 200)
        with Rounds() as dispatcher:
            found = zb.minimize(
                priced(prices),
                zb.RandomSearch(),
                max_cost=limit,
                round_width=32,
                dispatcher=dispatcher,
            )
        worst.append(found.cost / limit)
        rounds.append(len(dispatcher.sizes))
        assert (
            found.cost - prices[found.solves - dispatcher.sizes[-1] : found.solves].sum() <= limit
        )
    assert max(worst) < 1.1
    assert np.median(worst) > 0.9
    assert np.median(rounds) < 20  # of some 60 solves; one by one overran as much


def test_a_budget_in_money_without_prices_ends_with_its_reason():
    found = zb.minimize(priced([0.0] * 500), zb.RandomSearch(), max_cost=1.0)
    assert "max_cost=1 never ends this run: 100 solves had no price" in found.stop_reason


def test_a_share_of_failures_equal_to_the_limit_goes_on():
    calls = []

    def half(phi):
        calls.append(1)
        if len(calls) % 2 == 0:
            raise RuntimeError("every other one")
        return [phi["a"]]

    problem = zb.Problem(SPACE, half, zb.SquaredError([0.2]))
    found = zb.minimize(problem, zb.RandomSearch(), max_solves=60, max_failure_rate=0.5)
    assert found.solves == 60


def test_seconds_that_an_interrupted_run_spent_are_spent(tmp_path):
    def slow(phi):
        time.sleep(0.3)
        return np.array([phi["a"], phi["b"]])

    problem = zb.Problem(SPACE, slow, zb.SquaredError([0.1, 0.2]), name="slow")
    store, method = tmp_path / "runs.sqlite", zb.RandomSearch()
    first = zb.minimize(problem, method, max_solves=4, store=store)
    assert sum(record.status == "ok" for record in first.history) == 4
    again = zb.minimize(problem, method, max_seconds=1.0, store=store)
    assert again.stop_reason == "budget of 1 seconds spent"
    assert again.solves <= 4  # each took 0.3 s when it was made


class Slow:
    """Solves that take 0.03 s; counts them."""

    def __init__(self):
        self.calls = 0

    def __call__(self, phi):
        self.calls += 1
        time.sleep(0.03)
        return np.array([phi["a"], phi["b"]])


@pytest.mark.parametrize("backend", [None, "threading"])
@pytest.mark.parametrize("asynchronous", [False, True])
class TestRunsThatEndForTime:
    def go(self, folder, asynchronous, backend, max_seconds=0.25, **options):
        inner = Slow()
        problem = zb.Problem(SPACE, inner, zb.SquaredError([0.1, 0.2]), name="slow", version="1")
        with zb.Serial() if backend is None else zb.Joblib(3, backend) as dispatcher:
            found = zb.minimize(
                problem,
                zb.RandomSearch(),
                max_seconds=max_seconds,
                round_width=3,
                dispatcher=dispatcher,
                asynchronous=asynchronous,
                store=folder / "runs.sqlite",
                **options,
            )
        history = [(r.solve, r.round, r.loss, r.phi["a"]) for r in found.history]
        return (history, found.loss, found.rounds, found.stop_reason), inner.calls

    def test_they_are_replayed_without_a_solve(self, asynchronous, backend, tmp_path):
        first, calls = self.go(tmp_path, asynchronous, backend)
        assert calls > 0
        assert first[-1] == "budget of 0.25 seconds spent"
        for other in (backend, None, backend):
            assert self.go(tmp_path, asynchronous, other) == (first, 0)
        longer, calls = self.go(tmp_path, asynchronous, backend, max_seconds=0.4)
        assert 0 < calls <= 3 * 8
        assert longer[0][: len(first[0]) - 3] == first[0][:-3]
        assert self.go(tmp_path, asynchronous, backend, max_seconds=0.4) == (longer, 0)

    def test_so_are_interrupted_ones_once_they_have_spent_what_was_left(
        self, asynchronous, backend, tmp_path
    ):
        def stop(record):
            if record.solve == 5:
                raise KeyboardInterrupt

        self.go(tmp_path, asynchronous, backend, callback=stop)
        again, _ = self.go(tmp_path, asynchronous, backend)
        assert again[-1] == "budget of 0.25 seconds spent"
        assert self.go(tmp_path, asynchronous, backend) == (again, 0)
