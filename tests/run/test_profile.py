"""Where the ends of a profile are: against those of the exact profile, and what is said of them."""

import numpy as np
import pytest
from scipy import optimize, stats

import zo_bilevel as zb

TIMES = np.linspace(1.0, 6.0, 20)
NOISE = np.random.default_rng(0).normal(0, 0.05, 20)
SATURATED = 3 + NOISE  # no rise is seen: only slow ones are excluded
LINE = np.linspace(0, 1, 15)


def rise(phi):
    return phi["a"] * (1 - np.exp(-phi["k"] * TIMES))


def saturating():
    space = zb.Space(a=zb.Real(0.1, 10), k=zb.Log(0.001, 1000))
    return zb.Problem(space, rise, zb.SquaredError(SATURATED))


ANSWER = {"a": float(SATURATED.mean()), "k": 17.6}


def exact_end():
    """Of the rate: the level that fits best at each is a projection."""

    def squares(k):
        shape = 1 - np.exp(-k * TIMES)
        rest = SATURATED - shape * (shape @ SATURATED) / (shape @ shape)
        return float(rest @ rest)

    start = squares(17.6)
    limit = stats.t.ppf(0.975, 18) ** 2 * start / 18
    return optimize.brentq(lambda k: squares(k) - start - limit, 0.5, 17.0)


def test_an_end_far_from_an_answer_that_is_flat_there_is_that_of_the_exact_profile():
    found = zb.profile(saturating(), ANSWER, "k")
    assert found.interval[0] == pytest.approx(exact_end(), rel=0.02)
    assert found.interval[1] == np.inf
    assert found.solves <= 3 + 2 * 15
    assert np.all(np.diff(found.values) > 0)
    assert found.notes == ("no upper end: k met its bound",)


def test_an_end_that_the_solves_leave_open_is_said_to_be_and_lies_within_the_interval():
    found = zb.profile(saturating(), ANSWER, "k", max_solves=3)
    assert found.interval[0] < exact_end()
    assert "the lower end lies in 0.55" in found.notes[0]


def test_a_product_that_alone_is_determined_is_profiled_up_to_the_bound_of_its_other_factor():
    space = zb.Space(a=zb.Log(0.1, 10), b=zb.Log(0.1, 10))
    model = np.exp(-0.5 * TIMES)
    data = 3 * model + NOISE
    problem = zb.Problem(space, lambda p: p["a"] * p["b"] * model, zb.SquaredError(data))
    best = float(model @ data / (model @ model))
    found = zb.profile(problem, {"a": np.sqrt(best), "b": np.sqrt(best)}, "a", max_solves=30)
    rest = float(np.sum((data - best * model) ** 2))
    # at b = 10 the sum of squares is a parabola in a
    width = stats.t.ppf(0.975, 18) * np.sqrt(rest / 18 / (model @ model))
    assert found.interval == (pytest.approx((best - width) / 10, rel=0.01), np.inf)


def test_a_parameter_on_its_bound_has_a_one_sided_interval():
    space = zb.Space(a=zb.Real(0, 10), b=zb.Real(0, 10))
    data = 2 * LINE - 0.05 + 0.01 * np.sin(9 * LINE)
    problem = zb.Problem(space, lambda p: p["a"] * LINE + p["b"], zb.SquaredError(data))
    slope = float(LINE @ data / (LINE @ LINE))
    found = zb.profile(problem, {"a": slope, "b": 0.0}, "b")

    def squares(b):
        rest = data - b - LINE * (LINE @ (data - b)) / (LINE @ LINE)
        return float(rest @ rest)

    limit = stats.t.ppf(0.975, 13) ** 2 * squares(0) / 13
    end = optimize.brentq(lambda b: squares(b) - squares(0) - limit, 0, 1)
    assert found.interval == (-np.inf, pytest.approx(end, rel=0.02))
    assert "no lower end: b met its bound" in found.notes


def test_an_answer_without_a_parameter_is_refused_by_name():
    for asked in (zb.uncertainty, lambda *given: zb.profile(*given, "k")):
        with pytest.raises(zb.InputError, match="every parameter, got none for k"):
            asked(saturating(), {"a": 3.0})


def test_an_interval_of_a_parameter_on_its_bound_ends_there():
    space = zb.Space(a=zb.Real(0, 10), b=zb.Real(0, 10))
    data = zb.SquaredError(2 * LINE - 0.05, sigma=0.05)
    problem = zb.Problem(space, lambda p: p["a"] * LINE + p["b"], data)
    found = zb.uncertainty(problem, {"a": 1.93, "b": 0.0})
    low, high = found.intervals()["b"]
    assert (low, high) == (0.0, pytest.approx(1.95996 * found.standard_error["b"], 1e-5))
    assert "0..0.0" in str(found)


def test_a_lower_sum_of_squares_is_said_with_its_place_and_not_for_rounding():
    space = zb.Space(a=zb.Real(-9, 9))
    problem = zb.Problem(space, lambda p: p["a"] * TIMES, zb.SquaredError(2 * TIMES + NOISE))
    said = str(zb.profile(problem, {"a": 1.9}, "a"))
    assert "the answer is no minimum: at a=1.99" in said
    exact = zb.Problem(space, lambda p: p["a"] * TIMES, zb.SquaredError(2 * TIMES))
    found = zb.minimize(exact, max_solves=20)
    assert "no minimum" not in str(zb.profile(exact, found, "a"))
    assert "no minimum" not in str(zb.uncertainty(exact, found))
