"""Standard errors, intervals, open combinations and profiles of least-squares fits."""

import dataclasses

import numpy as np
import pytest
from scipy import optimize, stats

import zo_bilevel as zb

TIMES = np.linspace(0.0, 3.0, 25)
DESIGN = np.stack([np.ones(25), TIMES, TIMES**2], axis=1)
TRUTH = np.array([1.0, -2.0, 0.5])


def polynomial(target, weights=None, calls=None):
    space = zb.Space(b=zb.Real(-50, 50, shape=(3,)))

    def simulate(phi):
        if calls is not None:
            calls.append(1)
        return DESIGN @ phi["b"]

    return zb.Problem(space, simulate, zb.SquaredError(target, weights))


def noisy(seed, deviation=0.1):
    return DESIGN @ TRUTH + np.random.default_rng(seed).normal(0, deviation, 25)


def fitted(target, weights=None):
    roots = np.sqrt(np.ones(25) if weights is None else weights)
    return np.linalg.lstsq(DESIGN * roots[:, None], target * roots, rcond=None)[0]


def test_a_linear_model_has_the_covariance_of_the_textbook():
    target, weights = noisy(0), np.linspace(0.5, 4.0, 25)
    best, calls = fitted(target, weights), []
    found = zb.uncertainty(polynomial(target, weights, calls), {"b": best})
    residuals = target - DESIGN @ best
    variance = (weights * residuals**2).sum() / 22
    expected = variance * np.linalg.inv(DESIGN.T @ (weights[:, None] * DESIGN))
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-6)
    np.testing.assert_allclose(found.standard_error["b"], np.sqrt(np.diag(expected)), rtol=1e-6)
    assert found.residual_deviation == pytest.approx(np.sqrt(variance))
    assert found.degrees_of_freedom == 22
    assert found.solves == len(calls) == 4
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(found.correlation, expected / np.outer(scale, scale), rtol=1e-6)
    low, high = found.intervals(0.9)["b"]
    np.testing.assert_allclose(high - low, 2 * stats.t.ppf(0.95, 22) * scale, rtol=1e-6)
    assert found.undetermined == found.on_bound == ()


def test_a_log_parameter_has_the_error_of_its_value_not_of_its_logarithm():
    def problem(kind):
        data = 2.5 * TIMES + np.cos(9 * TIMES)
        return zb.Problem(
            zb.Space(a=kind(0.1, 10)), lambda p: p["a"] * TIMES, zb.SquaredError(data)
        )

    at = {"a": float((TIMES @ (2.5 * TIMES + np.cos(9 * TIMES))) / (TIMES @ TIMES))}
    one, other = (zb.uncertainty(problem(kind), at) for kind in (zb.Real, zb.Log))
    assert one.standard_error["a"] == pytest.approx(other.standard_error["a"], rel=1e-6)


def test_intervals_of_95_per_cent_hold_the_truth_in_93_to_97_per_cent_of_repetitions():
    held = np.zeros(3)
    for seed in range(1000):
        target = noisy(seed)
        found = zb.uncertainty(polynomial(target), {"b": fitted(target)})
        low, high = found.intervals()["b"]
        held += (low <= TRUTH) & (high >= TRUTH)
    assert ((held > 930) & (held < 970)).all(), held


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda p: p["a"] * p["b"] * TIMES, "a * b is determined, a and b are not"),
        (lambda p: p["a"] / p["b"] * TIMES, "a / b is determined, a and b are not"),
        (lambda p: (p["a"] + p["b"]) * TIMES, "a + b is determined, a and b are not"),
        (lambda p: (p["a"] - p["b"]) * TIMES, "a - b is determined, a and b are not"),
        (lambda p: p["a"] * TIMES, "b"),
    ],
)
def test_what_the_data_leave_open_is_named(model, words):
    kind = zb.Log if "*" in words or "/" in words else zb.Real
    space = zb.Space(a=kind(0.1, 10), b=kind(0.1, 10), c=zb.Real(-1, 1))
    at = {"a": 2.0, "b": 3.0, "c": 0.2}
    data = model(at) + 0.2 + 0.01 * np.sin(40 * TIMES)
    problem = zb.Problem(space, lambda p: model(p) + p["c"], zb.SquaredError(data))
    found = zb.uncertainty(problem, at)
    assert found.undetermined == (words,)
    assert np.isinf(found.standard_error["b"])
    assert np.isfinite(found.standard_error["c"])
    assert f"not determined by the data: {words}" in str(found)


def test_outputs_without_a_measurement_are_ranked_by_what_they_would_tell():
    weights = np.where(TIMES < 1.0, 1.0, 0.0)
    target = noisy(1)
    best = fitted(target, weights)
    found = zb.uncertainty(polynomial(target, weights), {"b": best})
    (place, gain), (_, second) = found.next_measurements(2)
    assert place == 24  # the far end of an extrapolated parabola
    added = weights.copy()
    added[24] = 1.0
    information = [DESIGN.T @ (w[:, None] * DESIGN) for w in (weights, added)]
    expected = np.diff([np.linalg.slogdet(matrix)[1] for matrix in information])[0]
    assert gain == pytest.approx(expected, rel=1e-5)
    assert second < gain


def test_parameters_on_a_bound_are_named_and_differenced_inwards():
    target = DESIGN @ np.array([0.0, 1.0, 1.0]) + 0.01 * np.sin(20 * TIMES)
    space = zb.Space(a=zb.Real(0.0, 3.0), b=zb.Real(0, 3), c=zb.Real(0, 1.0))
    seen = []

    def simulate(phi):
        seen.append(phi)
        return DESIGN @ np.array([phi["a"], phi["b"], phi["c"]])

    problem = zb.Problem(space, simulate, zb.SquaredError(target))
    found = zb.uncertainty(problem, {"a": 0.0, "b": 1.0, "c": 1.0})
    assert found.on_bound == ("a", "c")
    assert all(phi["a"] >= 0 and phi["c"] <= 1 for phi in seen)
    assert np.isfinite(found.deviations).all()


def decay(answer):
    def model(phi):
        return phi["a"] * np.exp(-phi["k"] * TIMES) + phi["c"]

    data = model({"a": 2.0, "k": 0.8, "c": 0.3}) + 0.02 * np.cos(9 * TIMES)
    space = zb.Space(a=zb.Real(0, 5), k=zb.Log(0.01, 10), c=zb.Real(-1, 1))
    return zb.Problem(space, lambda phi: answer(model(phi)), zb.SquaredError(data))


@pytest.mark.parametrize(
    ("answer", "within"),
    [
        (lambda theta: np.round(theta, 3), 0.25),
        (lambda theta: np.round(theta, 5), 0.05),
        (lambda theta: np.round(theta, 8), 0.01),
        (lambda theta: theta.astype(np.float32).astype(float), 0.01),
        (lambda theta: theta.astype(np.float32), 0.01),
    ],
)
def test_coarse_answers_are_differenced_over_longer_steps(answer, within):
    at = zb.minimize(decay(lambda theta: theta), max_solves=60).phi
    exact = zb.uncertainty(decay(lambda theta: theta), at)
    coarse = zb.uncertainty(decay(answer), at)
    np.testing.assert_allclose(coarse.deviations, exact.deviations, rtol=within)
    low, high = zb.profile(decay(answer), at, "k").interval
    np.testing.assert_allclose(
        (low, high), zb.profile(decay(lambda t: t), at, "k").interval, rtol=0.1 * within
    )


def test_noise_that_a_result_shows_is_differenced_over_longer_steps():
    draws = np.random.default_rng(0)
    noisy_problem = decay(lambda theta: theta + draws.normal(0, 1e-4, theta.size))
    exact = zb.minimize(decay(lambda theta: theta), max_solves=60)
    expected = zb.uncertainty(decay(lambda theta: theta), exact).deviations
    other = dataclasses.replace(exact, theta=noisy_problem.inner(exact.phi), slopes=None)
    np.testing.assert_allclose(zb.uncertainty(noisy_problem, other).deviations, expected, rtol=0.25)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: zb.Problem(zb.Space(a=zb.Real(0, 1)), lambda p: p["a"]), {}, "SquaredError"),
        (
            lambda: zb.Problem(
                zb.Space(a=zb.Integer(0, 4)), lambda p: p["a"] * TIMES, zb.SquaredError(TIMES)
            ),
            {},
            "vary continuously, got a=",
        ),
        (
            lambda: zb.Problem(zb.Space(a=zb.Real(0, 4)), lambda p: p["a"], zb.SquaredError([1.0])),
            {},
            "more data than parameters, got 1 data of weight > 0 and 1 parameters",
        ),
        (lambda: polynomial(noisy(0)), {"relative_step": 0.0}, r"relative_step must lie in \(0, 1"),
    ],
)
def test_bad_input_is_refused_by_name_before_a_solve(make, options, message):
    with pytest.raises(zb.ZoBilevelError, match=message):
        zb.uncertainty(make(), {}, **options)


class TestProfile:
    def test_that_of_a_linear_model_is_a_line_and_its_interval_that_of_student(self):
        target = noisy(3)
        at, problem = {"b": fitted(target)}, polynomial(target)
        found = zb.profile(problem, at, "b[1]")
        low, high = (end[1] for end in zb.uncertainty(problem, at).intervals()["b"])
        np.testing.assert_allclose(found.interval, (low, high), rtol=1e-4)
        error = zb.uncertainty(problem, at).standard_error["b"][1]
        np.testing.assert_allclose(found.tau, (found.values - at["b"][1]) / error, atol=2e-3)
        assert found.solves <= 4 + 2 * 15

    def test_that_of_a_curved_model_is_what_fitting_again_at_every_value_gives(self):
        def model(a, b):
            return a * (1 - np.exp(-b * TIMES))

        target = model(3.0, 0.4) + np.random.default_rng(0).normal(0, 0.05, 25)
        space = zb.Space(a=zb.Real(0.1, 50), b=zb.Log(1e-3, 10))
        problem = zb.Problem(space, lambda p: model(p["a"], p["b"]), zb.SquaredError(target))
        (a, b), _ = optimize.curve_fit(lambda _, a, b: model(a, b), TIMES, target, p0=(3, 0.4))
        found = zb.profile(problem, {"a": a, "b": b}, "a")
        start = ((target - model(a, b)) ** 2).sum()
        limit = stats.t.ppf(0.975, 23) ** 2 * start / 23

        def excess(value):
            def sum_of_squares(b):
                return ((target - model(value, b)) ** 2).sum()

            fit = optimize.minimize_scalar(sum_of_squares, (0.2, 0.6), options={"xtol": 1e-10})
            return fit.fun - start - limit

        expected = optimize.brentq(excess, 1.0, a), optimize.brentq(excess, a, 20.0)
        np.testing.assert_allclose(found.interval, expected, rtol=0.01)
        assert found.interval[1] - a > 1.3 * (a - found.interval[0])  # no symmetric interval fits
        assert found.solves <= 3 + 2 * 15

    def test_a_side_without_an_end_says_so(self):
        data = 2.0 * TIMES + 0.3 * np.cos(17 * TIMES)
        best = float(TIMES @ data / (TIMES @ TIMES))
        space = zb.Space(a=zb.Real(best - 0.01, best + 0.01))
        problem = zb.Problem(space, lambda p: p["a"] * TIMES, zb.SquaredError(data))
        assert zb.profile(problem, {"a": best}, "a").interval == (-np.inf, np.inf)

    def test_an_unknown_parameter_is_refused(self):
        with pytest.raises(zb.InputError, match=r"b\[3\]"):
            zb.profile(polynomial(noisy(0)), {}, "b[3]")


def test_sigma_is_taken_as_given_and_weights_are_relative():
    """With sigma the covariance is (J'J / sigma^2)^-1 whatever the residuals; z is normal."""
    target, space = noisy(0), zb.Space(b=zb.Real(-50, 50, shape=(3,)))
    best, inverse = fitted(target), np.linalg.inv(DESIGN.T @ DESIGN)
    scatter = np.sqrt(np.sum((target - DESIGN @ best) ** 2) / 22)
    for options in ({"sigma": 0.5}, {"covariance": 0.25 * np.eye(25)}):
        problem = zb.Problem(space, lambda p: DESIGN @ p["b"], zb.SquaredError(target, **options))
        found = zb.uncertainty(problem, {"b": best})
        np.testing.assert_allclose(found.covariance, 0.25 * inverse, rtol=1e-6)
        high = found.intervals()["b"][1] - best
        np.testing.assert_allclose(high, 1.95996 * found.deviations, rtol=1e-5)
        assert found.residual_deviation == pytest.approx(scatter / 0.5)
        assert f"sigma as given; the data scatter {scatter / 0.5:.3g} of it" in str(found)
    found = zb.uncertainty(polynomial(target, 4.0), {"b": best})
    np.testing.assert_allclose(found.covariance, scatter**2 * inverse, rtol=1e-6)


def test_fewer_data_than_parameters_have_errors_where_sigma_is_given():
    space = zb.Space(a=zb.Real(-9, 9), b=zb.Real(-9, 9))
    problem = zb.Problem(space, lambda p: [p["a"] + p["b"]], zb.SquaredError([1.0], sigma=0.1))
    found = zb.uncertainty(problem, {"a": 0.3, "b": 0.7})
    assert found.undetermined == ("a + b is determined, a and b are not",)
    assert str(found).startswith("sigma as given\n")


def test_a_direction_that_the_data_do_not_tell_is_no_parameter_of_the_fit():
    rng = np.random.default_rng(0)
    design = rng.normal(size=(8, 3))
    design[:, 2] = design[:, 1]
    target = design @ [1.0, 2.0, 3.0] + 0.3 * rng.normal(size=8)
    space = zb.Space(k=zb.Real(-9, 9, shape=(3,)))
    problem = zb.Problem(space, lambda phi: design @ phi["k"], zb.SquaredError(target))
    found = zb.uncertainty(problem, zb.minimize(problem, max_solves=60))
    answer, *_ = np.linalg.lstsq(design, target, rcond=None)
    deviation = np.sqrt(np.sum((design @ answer - target) ** 2) / (8 - 2))
    assert found.degrees_of_freedom == 6
    assert found.residual_deviation == pytest.approx(deviation, rel=1e-6)
    inverse = np.linalg.inv(design[:, :2].T @ design[:, :2])
    assert found.covariance[0, 0] == pytest.approx(deviation**2 * inverse[0, 0], rel=1e-5)


def test_tied_parameters_have_errors_of_their_own():
    """Of a mean m and a slope b: of 2 m + b**2 the delta method says what is expected."""
    space = zb.Space(m=zb.Real(-9, 9), b=zb.Real(-9, 9), both=zb.Tied("2 * m + b ** 2"))
    target = 1.0 + 0.5 * TIMES + 0.1 * np.cos(7 * TIMES)
    problem = zb.Problem(space, lambda p: p["m"] + p["b"] * TIMES, zb.SquaredError(target))
    found = zb.uncertainty(problem, zb.minimize(problem, max_solves=20))
    slopes = np.array([2.0, 2.0 * found.values[1]])
    expected = np.sqrt(slopes @ found.covariance @ slopes)
    assert found.standard_error["both"] == pytest.approx(expected, rel=1e-6)
    low, high = found.intervals()["both"]
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 23) * expected, rel=1e-6)
    assert "both" in str(found)


def test_a_product_is_determined_where_its_factors_are_not():
    space = zb.Space(
        product=zb.Log(0.1, 10), ratio=zb.Log(0.1, 10), a=zb.Tied("sqrt(product * ratio)")
    )
    data = 2.0 * TIMES + np.cos(9 * TIMES)
    problem = zb.Problem(space, lambda p: p["product"] * TIMES, zb.SquaredError(data))
    found = zb.uncertainty(problem, {"product": 2.0, "ratio": 1.0})
    assert found.undetermined == ("ratio",)
    assert found.standard_error["product"] < 1.0
    assert found.standard_error["a"] == np.inf


def test_an_interval_of_a_log_holds_no_negative_values():
    data = 0.02 * TIMES + np.cos(9 * TIMES)
    spaces = [zb.Space(a=kind(1e-3, 10)) for kind in (zb.Log, zb.Real)]
    problems = [zb.Problem(s, lambda p: p["a"] * TIMES, zb.SquaredError(data)) for s in spaces]
    log, real = (zb.uncertainty(problem, {"a": 0.02}) for problem in problems)
    share = (real.intervals()["a"][1] - 0.02) / 0.02
    assert share > 1.0
    assert log.intervals()["a"] == pytest.approx((0.02 / np.exp(share), 0.02 * np.exp(share)), 1e-5)


@pytest.mark.parametrize("kind", ["plain", "missing", "covariance", "prior"])
def test_a_place_that_is_no_minimum_says_how_far_it_is(kind):
    """Two standard errors off the minimum of a straight line, along its slope."""
    target = 1.0 + 0.5 * TIMES + 0.1 * np.cos(7 * TIMES)
    prior = zb.Normal(0.4, 0.3) if kind == "prior" else None
    options = {"covariance": 0.01 * np.eye(25)} if kind == "covariance" else {"sigma": 0.1}
    if kind == "missing":
        target[3:6] = np.nan
    space = zb.Space(m=zb.Real(-9, 9), b=zb.Real(-9, 9, prior=prior))
    problem = zb.Problem(
        space, lambda p: p["m"] + p["b"] * TIMES, zb.SquaredError(target, **options)
    )
    result = zb.minimize(problem, max_solves=30)
    found = zb.uncertainty(problem, result.phi)
    assert np.abs(found.steps).max() < 1e-3
    assert "no minimum" not in str(found)
    off = {**result.phi, "b": result.phi["b"] + 2 * found.standard_error["b"]}
    there = zb.uncertainty(problem, off)
    expected = [0.0, -2 * found.standard_error["b"] / there.standard_error["b"]]
    np.testing.assert_allclose(there.steps, expected, atol=1e-4)
    assert "no minimum of the data: a step from here would move b by" in str(there)


def test_what_the_data_know_no_better_than_the_bounds_is_said():
    space = zb.Space(fast=zb.Real(0, 5), slow=zb.Real(0, 5))
    both = np.stack([np.exp(-1.22 * TIMES), np.exp(-1.2 * TIMES)], axis=1)
    data = both @ [2.0, 3.0] + 0.04 * np.cos(40 * TIMES)
    problem = zb.Problem(
        space, lambda p: both @ [p["fast"], p["slow"]], zb.SquaredError(data, weights=100.0)
    )
    result = zb.minimize(problem, max_solves=30)
    words = "hardly determined by the data: fast + slow is determined, fast and slow are not"
    assert words in result.warnings
    found = result.uncertainty(problem)
    assert found.undetermined == ()
    low, high = found.intervals()["fast"]
    assert high - low > 5 / np.sqrt(2)


def test_missing_data_leave_the_residual_deviation_alone_and_are_ranked_by_their_sigma():
    """The deviation is in units of sigma; of two gaps the one measured better tells more."""
    times = np.linspace(0, 3, 400)
    target = 1 + 2 * times + 0.1 * np.random.default_rng(0).normal(size=400)
    target[::2] = np.nan
    sigma = np.full(400, 0.1)
    sigma[:4] = 0.01
    sigma[1:4:2] = 0.1
    space = zb.Space(m=zb.Real(-9, 9), b=zb.Real(-9, 9))
    problem = zb.Problem(
        space, lambda p: p["m"] + p["b"] * times, zb.SquaredError(target, sigma=sigma)
    )
    found = zb.uncertainty(problem, zb.minimize(problem, max_solves=20).phi)
    assert found.residual_deviation == pytest.approx(1.0, abs=0.1)
    ranked = found.next_measurements(3)
    assert {place for place, _ in ranked[:2]} == {0, 2}
    jacobian = np.array([1.0, times[0]])
    spread = jacobian @ found.covariance @ jacobian
    expected = np.log1p(spread / 0.01**2)
    assert dict(ranked)[0] == pytest.approx(expected, rel=1e-5)
