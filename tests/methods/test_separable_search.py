"""Losses that are sums of functions of one coordinate each, and losses that only look like it."""

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.trust_region.coordinate_line import CoordinateLine
from zo_bilevel.methods.trust_region.separable_search import SumTest

SIZE = 6
CENTRE = np.linspace(-3.3, 2.9, SIZE)


def reals(size=SIZE):
    return zb.Space(x=zb.Real(-5.0, 5.0, (size,)))


def rastrigin(phi):
    """One minimum in each unit interval: 10 for each coordinate."""
    x = phi["x"] - CENTRE
    return float(np.sum(x**2 + 10 - 10 * np.cos(2 * np.pi * x)))


def coupled(strength):
    """Rastrigin's function and one product of two coordinates."""

    def loss(phi):
        x = phi["x"] - CENTRE
        return rastrigin(phi) + strength * float(x[1] * x[4])

    return loss


def found(loss, **options):
    start = {"x": np.zeros(SIZE)}
    return zb.minimize(zb.Problem(reals(), loss), zb.TrustRegion(), initial=start, **options)


@pytest.fixture
def judged(monkeypatch):
    """What each test has found out, in order."""
    seen, rounds = [], SumTest.rounds

    def watched(self):
        seen.append(self)
        return rounds(self)

    monkeypatch.setattr(SumTest, "rounds", watched)
    return lambda: [test.is_sum for test in seen]


@pytest.mark.parametrize("round_width", [1, 4])
def test_a_sum_of_many_basins_is_solved_to_its_last_digits(judged, round_width):
    result = found(rastrigin, max_solves=500, round_width=round_width)
    assert judged() == [True]
    assert result.loss < 1e-8  # the next best of its minima is at 0.99


def test_an_ill_conditioned_sum_takes_a_few_solves_a_coordinate(judged):
    scales = np.logspace(0, 6, 10)
    problem = zb.Problem(reals(10), lambda phi: float(scales @ (phi["x"] - 1.3) ** 2))
    result = zb.minimize(problem, zb.TrustRegion(), initial={"x": np.full(10, 4.0)}, max_solves=90)
    assert judged() == [True]
    assert result.loss < 1e-6  # 3e3 without this search


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_one_product_of_two_coordinates_is_noticed(judged, strength):
    for seed in range(5):
        found(coupled(strength), max_solves=60, seed=seed)
    assert judged() == [False] * 5


def test_a_loss_that_is_no_sum_costs_two_solves(judged):
    def rotated(phi):
        return float(np.sum(phi["x"] - CENTRE) ** 2 + np.sum((phi["x"] - CENTRE) ** 2))

    result = found(rotated, max_solves=80)
    assert judged() == [False]
    assert result.loss < 1e-12


def test_noise_is_not_taken_for_a_sum(judged):
    rng = np.random.default_rng(0)
    found(lambda phi: rastrigin(phi) + 1e-3 * rng.standard_normal(), max_solves=60)
    assert judged() == [False]


def test_solves_that_fail_are_left_out(judged):
    def partly(phi):
        if phi["x"][0] > 4.0:
            raise ValueError("beyond the edge")
        return rastrigin(phi)

    result = found(partly, max_solves=500)
    assert judged() == [True]
    assert result.loss < 1e-8


def test_a_loss_that_hardly_changes_any_more_ends_the_run():
    problem = zb.Problem(reals(), lambda phi: 1 + rastrigin(phi))
    result = zb.minimize(problem, ftol=1e-3, max_solves=2000)
    assert result.stop_reason.startswith("ftol")


def test_a_cliff_hides_what_the_other_coordinates_do(judged):
    def cliff(phi):
        return 1e200 if phi["x"][0] > 1 else rastrigin(phi)

    found(cliff, max_solves=100)
    assert judged() == [False]


def test_a_line_finds_the_deepest_of_its_basins_and_then_promises_nothing():
    def loss(x):
        return (x - 1.7) ** 2 + 4 * np.sin(3 * x) ** 2

    line = CoordinateLine(-5.0, 5.0, -4.0, 1e6)
    level, solves = loss(-4.0), 0
    while line.promise.gain > 0.0 and solves < 200:
        value = loss(line.promise.value)
        line.tell(value - level, 1e-15)
        level, solves = min(level, value), solves + 1
    grid = np.linspace(-5, 5, 200_001)
    assert level <= loss(grid).min() + 1e-9
    assert abs(line.best - grid[loss(grid).argmin()]) < 1e-4
    assert solves < 60


def test_a_line_goes_down_a_slope_to_the_bound_at_once():
    line = CoordinateLine(0.0, 1.0, 0.5, 1e6)
    first = line.promise.value
    line.tell(-(first - 0.5) * np.sign(first - 0.5), 0.0)
    assert line.promise.value == (1.0 if first > 0.5 else 0.0)


def test_a_line_whose_sides_differ_much_is_found_to_its_last_digits():
    def loss(x):
        return 30 * (x - 0.4) ** 2 if x > 0.4 else 0.01 * (x - 0.4) ** 2

    line = CoordinateLine(-5.0, 5.0, 3.0, 1e6)
    level, solves = loss(3.0), 0
    while line.promise.gain > 1e-20 and solves < 120:
        value = loss(line.promise.value)
        line.tell(value - level, 1e-18)
        level, solves = min(level, value), solves + 1
    assert level < 1e-9
