"""Measurements whose errors depend on each other: generalised least squares in closed form."""

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.names import method_from_name

RNG = np.random.default_rng(5)
ROOT = np.tril(RNG.standard_normal((7, 7))) + 2 * np.eye(7)
COVARIANCE = ROOT @ ROOT.T
DESIGN = RNG.standard_normal((7, 2))
DATA = RNG.standard_normal(7)
SPACE = zb.Space(a=zb.Real(-90, 90), b=zb.Real(-90, 90))


def simulate(phi):
    return DESIGN @ [phi["a"], phi["b"]]


def generalised(rows):
    """Estimate, covariance for known errors, and the smallest loss."""
    inverse = np.linalg.inv(COVARIANCE[np.ix_(rows, rows)])
    covariance = np.linalg.inv(DESIGN[rows].T @ inverse @ DESIGN[rows])
    best = covariance @ DESIGN[rows].T @ inverse @ DATA[rows]
    difference = DESIGN[rows] @ best - DATA[rows]
    return best, covariance, difference @ inverse @ difference / len(rows)


@pytest.mark.parametrize("missing", [[], [1, 4]])
@pytest.mark.parametrize("method", ["default", "dfols"])
def test_the_estimate_is_that_of_generalised_least_squares(method, missing):
    target = DATA.copy()
    target[missing] = np.nan
    rows = np.setdiff1d(np.arange(7), missing)
    best, covariance, loss = generalised(rows)
    problem = zb.Problem(SPACE, simulate, zb.SquaredError(target, covariance=COVARIANCE))
    found = zb.minimize(problem, method_from_name(method), max_solves=40)
    np.testing.assert_allclose([found.phi["a"], found.phi["b"]], best, atol=1e-6)
    assert found.loss == pytest.approx(loss, rel=1e-9)
    for at in (found, found.phi):
        known = zb.uncertainty(problem, at)
        np.testing.assert_allclose(known.covariance, covariance, rtol=1e-5)
    low, high = zb.profile(problem, found, "a").interval
    exact = zb.uncertainty(problem, found).intervals()["a"]
    assert (low, high) == pytest.approx(exact, rel=1e-3)


def test_gradient_and_hessian_agree_with_differences_of_the_loss():
    target = np.where(np.arange(7) == 2, np.nan, DATA)
    objective = zb.SquaredError(target, covariance=COVARIANCE)
    theta, step = RNG.standard_normal(7), 1e-5
    x = np.zeros(1)
    slope, in_x = objective.gradient(theta, x, None)
    differences = [
        (objective.loss(theta + step * e) - objective.loss(theta - step * e)) / (2 * step)
        for e in np.eye(7)
    ]
    np.testing.assert_allclose(slope, differences, rtol=1e-6, atol=1e-9)
    assert in_x.tolist() == [0.0]
    hessian, _ = objective.hessian_product((theta, x), (np.eye(7), np.zeros((1, 7))), None)
    ahead = [objective.gradient(theta + e, x, None)[0] - slope for e in np.eye(7)]
    np.testing.assert_allclose(hessian, np.stack(ahead, axis=1), atol=1e-10)


def test_a_diagonal_covariance_is_sigma():
    sigma = 0.5 + RNG.random(7)
    theta = RNG.standard_normal(7)
    target = np.where(np.arange(7) == 3, np.nan, DATA)
    one = zb.SquaredError(target, sigma=sigma)
    other = zb.SquaredError(target, covariance=np.diag(sigma**2))
    assert other.loss(theta) == pytest.approx(one.loss(theta), rel=1e-12)
    np.testing.assert_allclose(other.whiten(theta), one.whiten(theta), rtol=1e-12)
    assert np.mean(one.whiten(theta - one.target) ** 2) == pytest.approx(one.loss(theta))


def test_parts_have_covariances_of_their_own_and_shares_of_the_loss():
    target = {"u": DATA[:3], "flux": 2.0}
    parts = {"u": COVARIANCE[:3, :3], "flux": 4.0}
    objective = zb.SquaredError(target, covariance=parts)
    theta = {"u": np.zeros(3), "flux": 6.0}
    first = DATA[:3] @ np.linalg.inv(COVARIANCE[:3, :3]) @ DATA[:3]
    assert objective.loss(np.append(np.zeros(3), 6.0)) == pytest.approx((first + 4.0) / 4)
    assert objective.shares(theta)["flux"] == pytest.approx(4.0 / (first + 4.0))


def test_a_result_tells_the_parts_of_its_loss():
    target = {"u": [1.0, 2.0], "flux": [9.0]}
    problem = zb.Problem(
        zb.Space(a=zb.Real(0, 5)),
        lambda phi: {"u": np.full(2, phi["a"]), "flux": np.array([2 * phi["a"]])},
        zb.SquaredError(target, sigma={"u": 0.1, "flux": 1.0}),
    )
    found = zb.minimize(problem, max_solves=20)
    a = found.phi["a"]
    wanted = {"u": ((a - 1) ** 2 + (a - 2) ** 2) / 0.01 / 3, "flux": (2 * a - 9) ** 2 / 3}
    assert found.parts == pytest.approx(wanted)
    assert sum(found.parts.values()) == pytest.approx(found.loss)
    assert "(u " in str(found)


def test_missing_values_do_not_move_the_threshold_of_a_robust_loss():
    whole = zb.RobustError([0.0, 0.0], "huber", scale=1.0)
    half = zb.RobustError([0.0, 0.0, np.nan, np.nan], "huber", scale=1.0)
    for residual in (0.5, 3.0):
        theta = np.full(4, residual)
        assert half.value(theta, np.zeros(1), None) == whole.value(theta[:2], np.zeros(1), None)
        slope = half.gradient(theta, np.zeros(1), None)[0]
        np.testing.assert_allclose(slope[:2], whole.gradient(theta[:2], np.zeros(1), None)[0])


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.eye(2), r"covariance must have shape \(3, 3\), got \(2, 2\)"),
        (np.diag([1.0, -2.0, 1.0]), "positive definite, its smallest eigenvalue is -2"),
        (np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]), "covariance must be symmetric"),
        (np.diag([1.0, np.nan, 1.0]), "covariance must be finite wherever target is given"),
        ({"u": np.eye(3)}, "must be a matrix or have the names of target, none, got u"),
        ("x", "covariance must be numbers, got 'x'"),
    ],
)
def test_bad_covariances_are_refused_by_name(covariance, message):
    with pytest.raises(zb.InputError, match=message):
        zb.SquaredError([1.0, 2.0, 3.0], covariance=covariance)


def test_covariance_takes_the_place_of_sigma():
    with pytest.raises(zb.InputError, match="takes the place of weights and sigma, got both"):
        zb.SquaredError([1.0], sigma=1.0, covariance=[[1.0]])
