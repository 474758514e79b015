"""Numbers with far bounds or none: exact, monotone, and searched around the start."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zo_bilevel as zb
from zo_bilevel.problem.far_bounds import (
    END_COORDINATE,
    REACH_SCALES,
    grown,
    growth_rate,
    placement_at,
    shrunk,
)
from zo_bilevel.problem.space_text import space_from_text, space_to_text

SIZES = st.floats(1e-8, 1e8)


@st.composite
def placed_spaces(draw):
    low, start, high = sorted(draw(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3)))
    kind = draw(st.sampled_from(["free", "lower", "upper", "scale"]))
    scale = draw(st.none() | SIZES)
    bounds = {
        "free": {},
        "lower": {"lower": low},
        "upper": {"upper": high},
        "scale": {"lower": low - 1.0, "upper": high + 1.0},
    }[kind]
    if kind == "scale":
        scale = draw(SIZES)
    return zb.Space(a=zb.Real(**bounds, scale=scale), n=zb.Integer(-3, 3)), {"a": start, "n": 2}


@settings(max_examples=200, deadline=None)
@given(placed_spaces(), st.lists(st.floats(-3, 3), min_size=2, max_size=9))
def test_decoding_is_monotone_within_bounds_and_survives_the_round_trip(case, steps):
    space, start = case
    placed = space.placed_at(start)
    parameter = space.parameters["a"]
    points = [np.array([x, 0.5]) for x in sorted(steps)]
    values = [placed.decode(x)["a"] for x in points]
    assert values == sorted(values)
    assert all(parameter.lower <= value <= parameter.upper for value in values)
    for x in points:
        phi = placed.decode(x)
        again = placed.decode(placed.encode(phi))
        assert again == phi
    begin = placed.decode(placed.encode(start))
    assert begin["n"] == 2
    width = placed.placements["a"].scale[0]
    assert begin["a"] == pytest.approx(start["a"], rel=1e-12, abs=1e-12 * width)
    middle = placed.decode(placed.encode({"n": 2}))["a"]
    assert middle == pytest.approx(start["a"], rel=1e-12, abs=1e-12 * width)


def test_the_shape_is_linear_in_the_core_and_twice_smooth_at_its_end():
    v = np.linspace(-END_COORDINATE, END_COORDINATE, 2001)
    g = grown(v)
    core = np.abs(v) <= 1
    np.testing.assert_array_equal(g[core], v[core])
    np.testing.assert_allclose(grown(np.array([END_COORDINATE])), REACH_SCALES, rtol=1e-4)
    np.testing.assert_allclose(shrunk(g), v, rtol=1e-12, atol=1e-15)
    middle, step = 0.5 * (v[1:] + v[:-1]), v[1] - v[0]
    np.testing.assert_allclose(np.diff(g) / step, growth_rate(middle), rtol=1e-4)


def test_rates_and_the_torch_map_are_the_derivatives():
    import torch

    space = zb.Space(
        a=zb.Real(), b=zb.Real(lower=0, shape=2), c=zb.Real(-1, 1, scale=1e-3), d=zb.Real(0, 1e9)
    )
    space = space.placed_at({"a": -4.0, "b": [2.0, 0.0]})
    x = np.array([1.3, -0.4, 2.0, -2.5, 0.5])
    step = 1e-6
    for k in range(4):
        move = step * np.eye(5)[k]
        slope = (space.values(x + move) - space.values(x - move))[k] / (2 * step)
        assert space.rates(x)[k] == pytest.approx(slope, rel=1e-7)
    tensor = torch.tensor(x, requires_grad=True)
    found = space.decode_torch(tensor, x)
    assert found["a"].item() == pytest.approx(space.decode(x)["a"], rel=1e-13)
    (slopes,) = torch.autograd.grad(found["b"].sum(), tensor)
    np.testing.assert_allclose(slopes[1:3], space.rates(x)[1:3], rtol=1e-12)


def test_the_scale_is_given_or_the_size_of_the_start():
    space = zb.Space(a=zb.Real(shape=3), b=zb.Real(scale=5), c=zb.Real(-1e6, 1e6), d=zb.Real(0, 9))
    placed = space.placed_at({"a": [-2.0, 0.0, 0.5], "b": 1.0, "c": 3.0, "d": 1.0})
    assert placed.placements["a"].scale.tolist() == [2.0, 2.0, 0.5]
    assert placed.placements["b"].scale.tolist() == [5.0]
    assert placed.placements["c"].scale.tolist() == [3.0]
    assert "d" not in placed.placements
    assert space.decode(space.encode()) == {"a": pytest.approx([0, 0, 0]), "b": 0, "c": 0, "d": 4.5}
    lower = zb.Space(a=zb.Real(lower=2, scale=0.5), b=zb.Real(upper=-1))
    assert lower.decode(lower.encode()) == pytest.approx({"a": 2.5, "b": -2.0})


def test_bounds_stay_within_reach_of_a_tiny_start():
    placed = zb.Space(a=zb.Real(-5, 10)).placed_at({"a": 1e-170})
    assert placed.decode(placed.lower) == {"a": -5.0}
    assert placed.decode(placed.upper) == {"a": 10.0}


def test_a_store_reads_a_placed_space_back():
    space = zb.Space(a=zb.Real(lower=0, shape=2), b=zb.Real(0, 1), c=zb.Log(1, 2))
    placed = space.placed_at({"a": [1.0, 4.0]})
    x = np.array([0.3, 2.0, 1.0, -2.0])
    again = space_from_text(space_to_text(placed)).decode(x)
    np.testing.assert_array_equal(again["a"], placed.decode(x)["a"])
    assert again["b"] == placed.decode(x)["b"]


def test_a_fit_without_bounds_finds_what_one_with_bounds_finds(tmp_path):
    t = np.linspace(0, 3, 12)
    target = zb.SquaredError(2.5 * np.exp(-40.0 * t))

    def simulate(phi):
        return phi["height"] * np.exp(-phi["rate"] * t)

    space = zb.Space(height=zb.Real(), rate=zb.Real(lower=0))
    problem = zb.Problem(space, simulate, target, name="decay")
    start = {"height": 1.0, "rate": 1.0}
    store = tmp_path / "runs.sqlite"
    found = zb.minimize(problem, initial=start, max_solves=80, store=store)
    assert found.phi == pytest.approx({"height": 2.5, "rate": 40.0}, rel=1e-5)
    again = zb.minimize(problem, initial=start, max_solves=80, store=store)
    assert (again.phi, again.loss) == (found.phi, found.loss)
    error = zb.uncertainty(problem, found).standard_error
    bounded = zb.Problem(
        zb.Space(height=zb.Real(0, 9), rate=zb.Real(0, 90)), simulate, target, name="decay"
    )
    same = zb.uncertainty(bounded, found.phi).standard_error
    assert error["rate"] == pytest.approx(same["rate"], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    "method", ["dfols", "bobyqa", "scipy:least_squares", "cma", "random", "zo-adam"]
)
def test_other_methods_search_them_too(method):
    from zo_bilevel.methods.names import method_from_name

    space = zb.Space(a=zb.Real(), b=zb.Real(lower=0))
    problem = zb.Problem(
        space, lambda phi: [phi["a"] - 3.0, phi["b"] - 2.0], zb.SquaredError([0.0, 0.0])
    )
    start = {"a": 1.0, "b": 1.0}
    found = zb.minimize(problem, method_from_name(method), initial=start, max_solves=60)
    assert found.loss < 2.5  # 2.5 at the start


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zb.Real(scale=0), r"Real scale must be finite and > 0, got 0"),
        (lambda: zb.Real(scale=math.inf), "Real scale must be finite and > 0, got inf"),
        (lambda: zb.Real(lower=math.inf), "Real lower must be finite, got inf"),
        (lambda: zb.Space(a=zb.Real()).encode({"a": math.inf}), "a must lie in"),
        (
            lambda: zb.Space(a=zb.Real()).encode({"a": 1e10}),
            r"a must lie in .*, which its scale 1 reaches, got 1e\+10",
        ),
        (
            lambda: zb.Space(a=zb.Real(lower=0)).placed_at({"a": -1.0}),
            r"a must lie in \[0, inf\], got -1",
        ),
    ],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(zb.InputError, match=message):
        make()


def test_a_comparison_from_starts_of_its_own_judges_the_points_it_found(tmp_path):
    space = zb.Space(a=zb.Real(), b=zb.Real(-1e9, 1e9))
    target = zb.SquaredError([3.0, 2.0])

    def task_of(noise):
        def simulate(phi):
            return [phi["a"] + noise, phi["b"]]

        return zb.Problem(space, simulate, target, name=f"off by {noise}")

    task = zb.Task(
        "free",
        "without bounds",
        task_of(0.0),
        start=lambda seed: {"a": 1.0 + seed, "b": 4.0 + seed},
        exact=task_of(0.5),
    )
    found = zb.compare(
        task,
        {"default": zb.DefaultMethod()},
        seeds=(0, 1),
        max_solves=30,
        store=tmp_path / "runs.sqlite",
    )
    for run in found.runs:
        assert run.phi == pytest.approx({"a": 3.0, "b": 2.0}, rel=1e-6)
        assert run.loss == pytest.approx(0.5**2 / 2, rel=1e-5)  # at phi, as the exact one sees it


@pytest.mark.parametrize("start", [0.0, 1e-12, -2e-7])
def test_a_start_that_is_next_to_nothing_says_nothing_of_a_size(start):
    assert placement_at(zb.Real(-3, 3), np.array([start])) is None
    far = placement_at(zb.Real(-1e7, 1e7), np.array([start]))
    assert (far.center[0], far.scale[0]) == (start, 1.0)


def test_a_small_start_tells_the_size_within_seven_decades_of_its_bounds():
    assert placement_at(zb.Real(-3, 3), np.array([1e-6])).scale[0] == 1e-6


def test_a_start_of_1_or_more_tells_the_size_however_far_its_bounds_are():
    far = placement_at(zb.Real(-1e9, 1e9, shape=(2,)), np.array([30.0, 1e-3]))
    assert far.scale.tolist() == [30.0, 30.0]


def test_bounds_of_a_smooth_field_are_its_scale_however_small_and_rough_its_start():
    start = 1e-3 * np.random.default_rng(0).standard_normal(16)
    field = zb.Real(-3, 3, shape=(16,), correlation_length=0.1)
    assert placement_at(field, start) is None
    assert placement_at(zb.Real(-3, 3, shape=(16,)), start) is not None


def test_a_step_is_straight_in_the_values():
    """Regression: a step of two coordinates was one of 1e10 in the values."""
    space = zb.Space(a=zb.Real(), b=zb.Real(-3, 3))
    for start in (0.0, 1.7, -2.3):
        x, way = np.array([start, 0.5]), np.array([0.6, 0.6])
        end = space.straight(x, way)
        slopes = (space.values(x + 1e-6) - space.values(x - 1e-6)) / 2e-6
        np.testing.assert_allclose(
            space.values(end) - space.values(x), slopes * way, rtol=1e-7, atol=1e-9
        )
        assert end[1] == x[1] + way[1]


def test_a_polynomial_with_large_coefficients_is_fitted_from_0():
    """Regression: of a linear problem a tenth of the loss was left after 80 solves."""
    times = np.linspace(0, 3, 25)
    target = 20.0 - 40.0 * times + 25.0 * times**2

    def inner(phi):
        return phi["a"] + phi["b"] * times + phi["c"] * times**2

    space = zb.Space(a=zb.Real(), b=zb.Real(), c=zb.Real())
    problem = zb.Problem(space, inner, zb.SquaredError(target))
    result = zb.minimize(problem, initial={"a": 0.0, "b": 0.0, "c": 0.0}, max_solves=60)
    assert result.loss < 1e-6 * result.history[0].loss


def _line(prior=(None, None)):
    t = np.linspace(0, 3, 40)
    rows = np.column_stack([np.ones(40), t])
    measured = rows @ [1.0, 2.0] + 0.1 * np.random.default_rng(0).normal(size=40)
    space = zb.Space(a=zb.Real(prior=prior[0]), b=zb.Real(prior=prior[1]))
    error = zb.SquaredError(measured, sigma=0.1)
    problem = zb.Problem(space, lambda phi: rows @ np.array([phi["a"], phi["b"]]), error)
    return problem, rows, measured


@pytest.mark.parametrize("start", [{"a": 1e-12, "b": 1.0}, {"a": 1e6, "b": 1e-6}])
def test_a_prior_is_the_scale_and_holds_what_it_knows(start):
    """Regression: `converged` 33 standard errors off, with infinite and with cut intervals."""
    problem, rows, measured = _line((zb.Normal(0, 0.05), zb.Normal(1, 0.05)))
    precision = rows.T @ rows / 0.1**2 + np.eye(2) / 0.05**2
    answer = np.linalg.solve(precision, rows.T @ measured / 0.1**2 + np.array([0, 1]) / 0.05**2)
    errors = np.sqrt(np.diag(np.linalg.inv(precision)))
    found = zb.minimize(problem, initial=start, max_solves=160)
    np.testing.assert_allclose(list(found.phi.values()), answer, rtol=1e-4)
    assert found.warnings == ()
    told = found.uncertainty(problem)
    np.testing.assert_allclose(told.deviations, errors, rtol=1e-4)
    assert told.undetermined == told.on_bound == ()


def test_a_tiny_start_meets_no_end_of_its_scale():
    """Regression: `converged` on a bound that nobody gave, at 3.3e9 times the start."""
    problem, rows, measured = _line()
    found = zb.minimize(problem, initial={"a": 1e-10, "b": 1.0}, max_solves=110)
    best = np.linalg.lstsq(rows, measured, rcond=None)[0]
    np.testing.assert_allclose(list(found.phi.values()), best, rtol=1e-5)


def test_a_search_that_arrives_where_its_scale_ends_has_not_converged():
    t = np.linspace(0, 1, 9)
    space = zb.Space(a=zb.Real(), b=zb.Real(lower=0))
    target = zb.SquaredError(1e11 - t + 0.1 * np.cos(40 * t), sigma=0.1)
    problem = zb.Problem(space, lambda phi: phi["a"] - phi["b"] * t, target)
    found = zb.minimize(problem, initial={"a": 1.0, "b": 1.0}, max_solves=200)
    assert found.phi["a"] == pytest.approx(1e10 / 3, rel=1e-3)
    assert found.stop_reason == "the search reached the end of the scale of a: give scale="
    assert "at the end of the scale, which is no bound (give scale=): a" in found.warnings
    low, high = found.uncertainty(problem).intervals()["a"]
    assert low < found.phi["a"] < high
