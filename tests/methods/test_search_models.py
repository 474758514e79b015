"""The small models of the search, against the closed forms that they stand for."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import kendalltau

from zo_bilevel.methods.trust_region.coordinate_line import _Process
from zo_bilevel.methods.trust_region.population_model import NOISE, PopulationModel
from zo_bilevel.methods.trust_region.ripples import Ripples


def test_a_process_around_a_parabola_is_one_of_a_very_wide_prior_of_parabolas():
    """Mean and deviation of Rasmussen, Williams, eq. 2.42, as the limit of eq. 2.40."""
    x, length = np.array([0.05, 0.2, 0.45, 0.6, 0.95]), 0.3
    f = np.sin(7 * x)
    process = _Process(x, f, length)
    at = np.linspace(0, 1, 7)

    def covariance(one, other):
        root = np.sqrt(5) / length * np.abs(one[:, None] - other)
        parabolas = sum((one[:, None] - 0.5) ** k * (other - 0.5) ** k for k in range(3))
        return (1 + root + root**2 / 3) * np.exp(-root) + 1e6 * parabolas

    gram, cross = covariance(x, x), covariance(at, x)
    mean, deviation = process.predict(at)
    np.testing.assert_allclose(mean, cross @ np.linalg.solve(gram, f), atol=1e-5)
    left = np.diag(covariance(at, at) - cross @ np.linalg.solve(gram, cross.T))
    amplitude = (deviation[3] ** 2) / left[3]
    np.testing.assert_allclose(deviation**2, amplitude * left, rtol=1e-4, atol=1e-7)
    # the likeliest amplitude of the residuals from the parabola (generalised least squares)
    alone = gram - 1e6 * sum(np.outer((x - 0.5) ** k, (x - 0.5) ** k) for k in range(3))
    powers = (x[:, None] - 0.5) ** np.arange(3)
    weight = np.linalg.inv(alone)
    trend = np.linalg.solve(powers.T @ weight @ powers, powers.T @ weight @ f)
    misfit = f - powers @ trend
    assert amplitude == pytest.approx((misfit @ weight @ misfit + 1e-4) / 3, rel=1e-4)


def test_expected_improvement_is_the_mean_of_what_draws_gain():
    x = np.array([0.1, 0.3, 0.5, 0.8])
    process = _Process(x, np.array([0.4, -0.2, 0.1, 0.5]), 0.2)
    at = np.array([0.2, 0.35, 0.65, 0.9])
    mean, deviation = process.predict(at)
    draws = mean + deviation * np.random.default_rng(0).standard_normal((400_000, 4))
    gained = np.maximum(-0.2 - draws, 0.0)
    error = gained.std(axis=0) / np.sqrt(len(draws))
    assert np.all(abs(process.expected_improvement(at) - gained.mean(axis=0)) < 5 * error)


def test_a_populations_model_is_the_ridge_regression_of_a_quadratic():
    """By the features of a quadratic, in place of the kernel."""
    rng, size = np.random.default_rng(1), 3
    points = rng.standard_normal((30, size))
    losses = points @ [1.0, -2.0, 0.5] + np.sum(points**2, axis=1) + rng.standard_normal(30)
    model = PopulationModel(size)
    model.add(points, losses)
    model.fit(np.zeros(size), np.eye(size))
    pairs = [(i, j) for i in range(size) for j in range(size)]
    squares = np.stack([points[:, i] * points[:, j] for i, j in pairs], axis=1) / size
    features = np.column_stack([np.ones(30), np.sqrt(2 / size) * points, squares])
    errors = NOISE * (1 + np.sum(points**2, axis=1) / size)
    targets = (losses - losses.mean()) / losses.std()
    weighted = features.T / errors
    found = np.linalg.solve(weighted @ features + np.eye(features.shape[1]), weighted @ targets)
    np.testing.assert_allclose(model._slope, np.sqrt(2 / size) * found[1:4], rtol=1e-8)
    hessian = 2 / size * found[4:].reshape(size, size)
    np.testing.assert_allclose(model._hessian, hessian, rtol=1e-8)


def test_the_order_of_a_generation_is_judged_by_kendalls_tau():
    rng, size = np.random.default_rng(2), 4
    points = rng.standard_normal((40, size))
    losses = np.sum((points - 0.3) ** 2, axis=1) + rng.standard_normal(40)
    model = PopulationModel(size)
    model.add(points, losses)
    model.fit(np.zeros(size), np.eye(size))
    fresh, told = rng.standard_normal((9, size)), rng.standard_normal(9)
    told[4] = np.inf  # a failed solve tells nothing
    kept = np.isfinite(told)
    foreseen = fresh @ model._slope + 0.5 * np.einsum("ij,jk,ik->i", fresh, model._hessian, fresh)
    assert model.agreement(fresh, told) == pytest.approx(kendalltau(foreseen[kept], told[kept])[0])


@pytest.mark.parametrize("height", [0.0, 5e-324, np.inf])
def test_a_model_that_foresees_no_rise_tells_nothing_of_ripples(height):
    """Regression: a division by the smallest number there is overflowed, with a warning."""
    plain = SimpleNamespace(
        centre=lambda: (np.zeros(2), 0.0),
        back=np.eye(2),
        base=np.zeros(2),
        chosen=SimpleNamespace(value_at=lambda _: height),
    )
    known = [(np.full(2, k + 1.0), 1.0) for k in range(6)]
    ripples = Ripples()
    ripples.look(plain, known, 0.01, 0.01)
    assert ripples.overrating is None


def test_overrating_is_what_the_model_says_over_what_was_solved():
    steep = SimpleNamespace(
        centre=lambda: (np.zeros(2), 1.0),
        back=np.eye(2),
        base=np.zeros(2),
        chosen=SimpleNamespace(value_at=lambda row: 1.0 + 12.0 * float(row @ row)),
    )
    known = [(np.full(2, k + 1.0), 1.0 + 2.0 * (k + 1.0) ** 2 * 2) for k in range(6)]
    ripples = Ripples()
    ripples.look(steep, known, 0.01, 0.01)
    assert ripples.overrating == pytest.approx(6.0)
