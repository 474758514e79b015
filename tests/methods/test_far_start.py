"""Answers many powers of ten away from the start of a number without bounds."""

import numpy as np
import pytest

import zo_bilevel as zb

TIMES = np.linspace(0, 3, 40)


def _decay(phi):
    return phi["h"] * np.exp(-phi["d"] * TIMES)


def _fitted(start, height, **options):
    space = zb.Space(h=zb.Real(), d=zb.Real(lower=0))
    problem = zb.Problem(space, _decay, zb.SquaredError(_decay({"h": height, "d": 0.3})))
    return zb.minimize(problem, initial={"h": start, "d": 1.0}, max_solves=100, **options)


@pytest.mark.parametrize(("start", "height"), [(1e-6, 3e8), (1e-12, 3e6), (1e-3, 3e8)])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_amplitude_many_powers_of_ten_away_is_found(start, height, asynchronous):
    """Regression: `converged` at the start, as no step gained what rounding shows of the loss."""
    found = _fitted(start, height, asynchronous=asynchronous)
    assert found.phi == pytest.approx({"h": height, "d": 0.3}, rel=1e-6)
    assert not found.warnings


@pytest.mark.parametrize("start", [1e6, 1e3])
def test_an_answer_without_digits_beside_its_start_has_not_converged(start):
    """Regression: `converged`, with a tenth of the data unexplained."""
    found = _fitted(start, 3e-6)
    assert found.loss > 0.01 * np.var(_decay({"h": 3e-6, "d": 0.3}))  # else it may well say so
    assert not found.stop_reason.startswith("converged")


@pytest.mark.parametrize("start", [1e-12, -1e-15])
def test_a_start_whose_change_rounding_drowns_is_left(start):
    """Regression: `converged` at a line through 0."""
    rows = np.column_stack([np.ones(40), TIMES])
    measured = rows @ [1.0, 2.0] + 0.1 * np.random.default_rng(0).normal(size=40)
    space = zb.Space(a=zb.Real(), b=zb.Real())
    problem = zb.Problem(
        space, lambda phi: rows @ np.array([phi["a"], phi["b"]]), zb.SquaredError(measured)
    )
    found = zb.minimize(problem, initial={"a": start, "b": 1.0}, max_solves=60)
    best = np.linalg.lstsq(rows, measured, rcond=None)[0]
    np.testing.assert_allclose(list(found.phi.values()), best, rtol=1e-6)
    assert found.stop_reason.startswith("converged")


def test_an_answer_that_no_step_of_one_number_reaches_is_said_to_be_far():
    space = zb.Space(a=zb.Real(), b=zb.Real(lower=0))

    def saturated(phi):
        return 1e-16 * np.tanh(phi["a"]) * np.exp(-phi["b"] * TIMES)

    problem = zb.Problem(space, saturated, zb.SquaredError(1.0 + TIMES))
    found = zb.minimize(problem, initial={"a": 1.0, "b": 1.0}, max_solves=60)
    assert "slopes say that the answer lies far from here along a, b" in found.stop_reason


def test_a_rate_next_to_its_bound_and_a_value_that_noise_hides_have_converged():
    rng = np.random.default_rng(1)
    space = zb.Space(h=zb.Real(), d=zb.Real(lower=0))
    target = zb.SquaredError(1.0 + 0.1 * TIMES + rng.normal(size=40))  # rises: d is 0
    found = zb.minimize(
        zb.Problem(space, _decay, target), initial={"h": 1.0, "d": 1.0}, max_solves=200
    )
    assert found.stop_reason.startswith("converged")
    assert found.phi["d"] == pytest.approx(0.0, abs=1e-6)
