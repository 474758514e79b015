"""What a run itself knows of its answer: errors at no solve, and what has to be said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import zo_bilevel as zb
from benchmarks.arena.nist import FOLDER, MODELS, read_certified
from zo_bilevel.methods.gauss_newton import probing
from zo_bilevel.methods.state import Slopes
from zo_bilevel.run.fit import linearised

TIMES = np.linspace(0.0, 3.0, 25)
FILES = sorted(FOLDER.glob("*.dat"))
HARD = {"Bennett5", "ENSO", "Eckerle4", "Lanczos1", "Lanczos2"}
"""A hundred solves do not end there, or leave the method in doubt about its slopes."""


def noisy(model, truth, deviation, seed=0):
    clean = model(truth)
    return clean + np.random.default_rng(seed).normal(0, deviation, clean.size)


def fitted(space, model, truth, deviation=0.05, seed=0, max_solves=60):
    problem = zb.Problem(space, model, zb.SquaredError(noisy(model, truth, deviation, seed)))
    return problem, zb.minimize(problem, max_solves=max_solves, seed=seed)


def nist(file):
    known, function = read_certified(file), MODELS[file.stem]
    certified = {f"b{k}": value for k, value in enumerate(known.values)}
    space = zb.Space(
        {n: zb.Real(min(3 * v, v / 3), max(3 * v, v / 3)) for n, v in certified.items()}
    )
    problem = zb.Problem(
        space,
        lambda phi: function(known.predictor, np.array(list(phi.values()))),
        zb.SquaredError(known.response),
    )
    return problem, certified, known.deviations


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_certified_deviations_to_three_digits(file):
    problem, certified, deviations = nist(file)
    at = certified
    if file.stem == "Lanczos1":  # residuals of 1e-13: its values have too few digits
        near = {name: 1.02 * value for name, value in certified.items()}
        at = zb.minimize(problem, initial=near, max_solves=100).phi
    found = zb.uncertainty(problem, at)
    assert found.solves == len(certified) + 1
    np.testing.assert_allclose(found.deviations, deviations, rtol=1e-3)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_run_knows_them_without_a_solve(file):
    if file.stem in HARD:
        pytest.skip("not converged")
    problem, certified, deviations = nist(file)
    near = {name: 1.02 * value for name, value in certified.items()}
    found = zb.minimize(problem, initial=near, max_solves=100).uncertainty(problem)
    assert found.solves == 0
    np.testing.assert_allclose(found.deviations, deviations, rtol=1e-3)


def test_slopes_in_doubt_are_differenced_instead():
    design = np.random.default_rng(0).normal(size=(60, 12))
    problem, result = fitted(
        zb.Space(f=zb.Real(-3, 3, shape=(12,))),
        lambda phi: design @ (phi["f"] + 0.1 * phi["f"] ** 2),
        {"f": np.linspace(-2, 2, 12)},
        max_solves=14,  # the step that the differences gave is the last
    )
    found = result.uncertainty(problem)
    assert found.solves == 13
    expected = zb.uncertainty(problem, result.phi).deviations
    np.testing.assert_allclose(found.deviations, expected, rtol=1e-6)


def test_weights_and_missing_data_are_known_to_the_run():
    target = noisy(lambda p: p["a"] * np.exp(-p["k"] * TIMES), {"a": 2.0, "k": 0.8}, 0.02)
    target[3:6] = np.nan
    problem = zb.Problem(
        zb.Space(a=zb.Real(0, 5), k=zb.Log(0.01, 10)),
        lambda p: p["a"] * np.exp(-p["k"] * TIMES),
        zb.SquaredError(target, sigma=np.linspace(0.01, 0.1, 25)),
    )
    result = zb.minimize(problem, max_solves=60)
    found = result.uncertainty(problem)
    expected = zb.uncertainty(problem, result.phi)
    assert (found.solves, expected.solves) == (0, 3)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-3)
    with pytest.raises(zb.InputError, match=r"zb\.uncertainty\(problem, result\.phi\)"):
        found.next_measurements()
    assert len(expected.next_measurements()) == 3


def test_a_run_whose_bounds_were_others_still_knows():
    model, truth = (lambda p: p["a"] * np.exp(-p["k"] * TIMES)), {"a": 2.0, "k": 0.8}
    problem, result = fitted(zb.Space(a=zb.Real(0, 5), k=zb.Real(0, 10)), model, truth)
    wider = zb.Problem(zb.Space(a=zb.Real(0, 6), k=zb.Real(0, 10)), model, problem.outer)
    assert result.uncertainty(problem).solves == 0
    assert result.uncertainty(wider).solves == 3  # scaled otherwise: not the same point


SUM = {"a": 2.0, "b": 3.0, "c": 0.2}


def test_what_the_data_leave_open_is_printed_with_the_result():
    words, said = "not determined by the data: a * b is determined, a and b are not", []
    for seed in range(8):
        _, result = fitted(
            zb.Space(a=zb.Log(0.1, 10), b=zb.Log(0.1, 10), c=zb.Real(-1, 1)),
            lambda p: p["a"] * p["b"] * TIMES + p["c"],
            SUM,
            seed=seed,
        )
        assert result.warnings in ((words,), ())  # some stop before they have looked along it
        assert str(result).endswith(f"\n{words}") == bool(result.warnings)
        said += result.warnings
    assert len(said) >= 6


@pytest.mark.parametrize("seed", range(5))
def test_a_sum_of_exponentials_names_the_combination(seed):
    """Two decays of nearly one rate: the data know their sum."""
    _, result = fitted(
        zb.Space(fast=zb.Real(0, 10), slow=zb.Real(0, 10), rate=zb.Log(0.1, 10)),
        lambda p: (
            p["fast"] * np.exp(-1.02 * p["rate"] * TIMES) + p["slow"] * np.exp(-p["rate"] * TIMES)
        ),
        {"fast": 3.0, "slow": 4.0, "rate": 1.0},
        seed=seed,
    )
    words = "fast + slow is determined, fast and slow are not"
    assert result.warnings[0] == f"not determined by the data: {words}"


def test_a_fit_that_determines_everything_says_nothing():
    _, result = fitted(
        zb.Space(a=zb.Real(0, 5), k=zb.Log(0.01, 10)),
        lambda p: p["a"] * np.exp(-p["k"] * TIMES),
        {"a": 2.0, "k": 0.8},
    )
    assert result.warnings == ()


def test_parameters_on_a_bound_are_named_whatever_the_method(tmp_path):
    space = zb.Space(
        n=zb.Integer(0, 3), f=zb.Real(0, 1, shape=(2,)), option=zb.Choice(["one", "two"])
    )
    problem = zb.Problem(space, lambda p: p["n"] + (p["f"][1] - 0.5) ** 2 - p["f"][0])
    result = zb.minimize(problem, max_solves=80)
    assert result.warnings == ("on a bound: f[0]",)
    assert zb.Result.load(result.save(tmp_path)).warnings == result.warnings


def test_slopes_that_would_cost_seconds_are_not_left_behind(monkeypatch):
    monkeypatch.setattr(probing, "MOST_SLOPES", 25 * 2**2 - 1)
    problem, result = fitted(
        zb.Space(a=zb.Real(0, 5), k=zb.Log(0.01, 10)),
        lambda p: p["a"] * np.exp(-p["k"] * TIMES),
        {"a": 2.0, "k": 0.8},
    )
    assert result.slopes is None
    assert result.uncertainty(problem).solves == 3


def test_other_sigma_are_counted_with_the_slopes_of_the_run():
    model = lambda p: p["a"] + p["b"] * TIMES  # noqa: E731
    problem, result = fitted(
        zb.Space(a=zb.Real(-9, 9), b=zb.Real(-9, 9)), model, {"a": 1.0, "b": 2.0}
    )
    sigma = np.linspace(0.1, 2.0, 25)
    other = zb.Problem(problem.space, model, zb.SquaredError(problem.outer.target, sigma=sigma))
    found, expected = (zb.uncertainty(other, at) for at in (result, result.phi))
    assert found.solves == 0
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-5)
    moved = dataclasses.replace(result, phi={"a": 0.0, "b": 0.0})
    assert zb.uncertainty(other, moved).solves == 3


@pytest.mark.parametrize("slope", [np.nan, np.inf])
def test_slopes_that_are_not_finite_say_nothing_of_the_fit(slope):
    space, x = zb.Space(a=zb.Real(0, 4)), np.zeros(1)
    slopes = Slopes(x, np.array([[1.0], [slope], [1.0]]), np.zeros((1, 1)))
    assert linearised(space, zb.SquaredError(np.zeros(3)), slopes, x, np.ones(3)) is None
