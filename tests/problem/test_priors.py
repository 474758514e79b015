"""Priors: the posterior of linear models has a closed form."""

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.names import method_from_name
from zo_bilevel.problem.prior import Prior
from zo_bilevel.problem.prior_term import PriorTerm

RNG = np.random.default_rng(3)
DESIGN = RNG.standard_normal((9, 3))
SIGMA = 0.5 + RNG.random(9)
DATA = RNG.standard_normal(9)
MEAN, STD = np.array([1.0, -2.0, 0.5]), np.array([0.3, 2.0, 0.1])


def ridge_space():
    return zb.Space({f"x{k}": zb.Real(-20, 20, prior=zb.Normal(MEAN[k], STD[k])) for k in range(3)})


def ridge_problem(**options):
    def simulate(phi):
        return DESIGN @ [phi[f"x{k}"] for k in range(3)]

    return zb.Problem(ridge_space(), simulate, zb.SquaredError(DATA, sigma=SIGMA), **options)


def posterior():
    """Mean and covariance of a linear model with independent normal data and prior."""
    precision = (DESIGN.T / SIGMA**2) @ DESIGN + np.diag(STD**-2)
    covariance = np.linalg.inv(precision)
    return covariance @ ((DESIGN.T / SIGMA**2) @ DATA + MEAN / STD**2), covariance


@pytest.mark.parametrize("method", ["default", "dfols", "scipy:least_squares", "fg2u-zo"])
def test_the_posterior_mean_is_that_of_ridge_regression(method):
    mean, _ = posterior()
    if method == "fg2u-zo":
        gradient = zb.hypergradient(
            ridge_problem(), dict(zip(("x0", "x1", "x2"), mean, strict=True))
        )
        np.testing.assert_allclose([gradient[f"x{k}"] for k in range(3)], 0.0, atol=1e-5)
        return
    found = zb.minimize(ridge_problem(), method_from_name(method), max_solves=40)
    np.testing.assert_allclose([found.phi[f"x{k}"] for k in range(3)], mean, atol=2e-6)


def test_the_default_needs_no_more_solves_than_without_a_prior():
    found = zb.minimize(ridge_problem(), max_solves=6)
    np.testing.assert_allclose([found.phi[f"x{k}"] for k in range(3)], posterior()[0], atol=1e-5)


def test_scalar_methods_see_the_loss_with_the_prior():
    found = zb.minimize(ridge_problem().scalar, max_solves=120)
    np.testing.assert_allclose([found.phi[f"x{k}"] for k in range(3)], posterior()[0], atol=1e-3)


def test_the_loss_has_its_parts():
    found = zb.minimize(ridge_problem(), max_solves=20)
    x = np.array([found.phi[f"x{k}"] for k in range(3)])
    data = np.sum(((DESIGN @ x - DATA) / SIGMA) ** 2) / 9
    prior = np.sum(((x - MEAN) / STD) ** 2) / 9
    assert found.parts == pytest.approx({"data": data, "prior": prior})
    assert found.loss == pytest.approx(data + prior)
    assert f"(data {data:.4g}, prior {prior:.4g})" in str(found)


def test_uncertainty_and_profile_are_those_of_the_posterior():
    mean, covariance = posterior()
    problem = ridge_problem()
    result = zb.minimize(problem, max_solves=20)
    for known in (zb.uncertainty(problem, result), zb.uncertainty(problem, result.phi)):
        np.testing.assert_allclose(known.covariance, covariance, rtol=1e-4, atol=1e-6)
        low, high = known.intervals()["x1"]
        assert (high - low) / 2 == pytest.approx(1.959964 * np.sqrt(covariance[1, 1]), rel=1e-4)
    ends = zb.profile(problem, result, "x1").interval
    assert ends[1] - mean[1] == pytest.approx(1.959964 * np.sqrt(covariance[1, 1]), rel=1e-3)


def test_fewer_data_than_parameters_are_enough_with_priors():
    problem = zb.Problem(
        ridge_space(), lambda phi: [phi["x0"] + phi["x1"]], zb.SquaredError([0.0], sigma=0.1)
    )
    found = zb.minimize(problem, max_solves=30)
    assert found.phi["x2"] == pytest.approx(0.5, abs=1e-6)  # known by its prior only
    assert zb.uncertainty(problem, found).standard_error["x2"] == pytest.approx(0.1, rel=1e-4)


def test_a_log_has_its_prior_on_the_logarithm():
    space = zb.Space(a=zb.Log(1e-3, 1e3, prior=zb.LogNormal(2.0, 0.5)))
    problem = zb.Problem(space, lambda phi: np.log(phi["a"]), zb.SquaredError(1.0, sigma=0.25))
    found = zb.minimize(problem, max_solves=20)
    precision = 1 / 0.25**2 + 1 / 0.5**2
    mean = (1.0 / 0.25**2 + np.log(2.0) / 0.5**2) / precision
    assert np.log(found.phi["a"]) == pytest.approx(mean, abs=1e-6)


def test_a_field_has_its_smooth_prior():
    size = 12
    space = zb.Space(
        f=zb.Real(-9, 9, shape=(size,), correlation_length=0.3, prior=zb.Normal(0.5, 0.7))
    )
    seen = np.arange(0, size, 3)
    problem = zb.Problem(space, lambda phi: phi["f"][seen], zb.SquaredError(DATA[:4], sigma=0.2))
    found = zb.minimize(problem, max_solves=60)
    root = Prior(size, [(slice(0, size), (size,), 0.3)]).apply_sqrt(np.eye(size))
    prior = 0.7**2 * root @ root.T
    gain = prior[:, seen] @ np.linalg.inv(prior[np.ix_(seen, seen)] + 0.2**2 * np.eye(4))
    np.testing.assert_allclose(found.phi["f"], 0.5 + gain @ (DATA[:4] - 0.5), atol=1e-4)


def test_the_term_agrees_with_differences():
    space = zb.Space(
        a=zb.Real(prior=zb.Normal(2.0, 3.0)),
        b=zb.Log(0.1, 10, shape=2, prior=zb.LogNormal(1.0, 0.5)),
        c=zb.Real(0, 1),
        f=zb.Real(-1, 1, shape=(3,), correlation_length=0.2, prior=zb.Normal(0.0, 0.3)),
    )
    term = PriorTerm(space)
    x = np.array([1.7, 0.3, -1.0, 2.0, 0.4, 0.1, -0.5])
    step = 1e-6
    jacobian = np.stack(
        [
            (term.residuals(x + step * e) - term.residuals(x - step * e)) / (2 * step)
            for e in np.eye(7)
        ],
        axis=1,
    )
    np.testing.assert_allclose(term.tangents(x, np.eye(7)), jacobian, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(term.pulled(x, np.eye(6)), jacobian.T, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("outer", ["torch", "robust", "cross-entropy"])
def test_other_objectives_get_half_the_squares_of_the_prior_as_a_likelihood_has(outer):
    space = zb.Space(a=zb.Real(-9, 9, prior=zb.Normal(1.0, 0.5)))
    objective, inner = {
        "torch": (lambda theta, phi: 0.5 * ((theta - 3.0) / 0.25) ** 2, lambda phi: phi["a"]),
        "robust": (zb.RobustError(3.0, "squared", sigma=0.25), lambda phi: phi["a"]),
        "cross-entropy": (
            zb.CrossEntropy([1, 1]),
            lambda phi: np.array([[0.0, phi["a"]], [0.0, phi["a"]]]),
        ),
    }[outer]
    found = zb.minimize(zb.Problem(space, inner, objective), max_solves=60)
    if outer == "cross-entropy":
        a = found.phi["a"]
        assert 2 / (1 + np.exp(a)) == pytest.approx((a - 1.0) / 0.5**2, abs=1e-4)
        return
    wanted = (3.0 / 0.25**2 + 1.0 / 0.5**2) / (1 / 0.25**2 + 1 / 0.5**2)
    assert found.phi["a"] == pytest.approx(wanted, abs=1e-5)


def test_another_prior_takes_stored_solves_and_is_another_run(tmp_path):
    calls = []

    def simulate(phi):
        calls.append(1)
        return [phi["a"], phi["a"] ** 2]

    def problem(prior):
        space = zb.Space(a=zb.Real(-4, 4, prior=prior))
        return zb.Problem(space, simulate, zb.SquaredError([1.0, 1.0], sigma=1.0), name="square")

    first = zb.minimize(problem(zb.Normal(0, 1)), max_solves=8, store=tmp_path / "s")
    solved = len(calls)
    again = zb.minimize(problem(zb.Normal(0, 1)), max_solves=8, store=tmp_path / "s")
    assert len(calls) == solved
    assert again.loss == first.loss
    other = zb.minimize(problem(zb.Normal(0, 9)), max_solves=8, store=tmp_path / "s")
    assert other.phi != first.phi
    assert solved < len(calls) < solved + other.solves  # the start at least was known
    with zb.SQLiteStore(tmp_path / "s") as store:
        assert len(store.records()) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zb.Normal(0, 0), "Normal std must be finite and > 0, got 0"),
        (lambda: zb.Normal(np.nan, 1), "Normal mean must be finite, got nan"),
        (lambda: zb.LogNormal(-1, 1), "LogNormal median must be finite and > 0, got -1"),
        (lambda: zb.Real(0, 1, prior=zb.Normal(2, 1)), r"mean must lie in \[0, 1\], got 2"),
        (lambda: zb.Log(1, 2, prior=zb.LogNormal(3, 1)), r"median must lie in \[1, 2\], got 3"),
        (lambda: zb.Log(1, 2, prior=zb.Normal(1, 1)), "prior of Log must be zb.LogNormal"),
        (lambda: zb.Real(0, 1, prior=0.5), "prior of Real must be zb.Normal, got 0.5"),
        (
            lambda: zb.Problem(ridge_space(), lambda phi: 0.0, zb.SquaredError([1.0])),
            "a prior needs sigma= or covariance= of the data",
        ),
    ],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(zb.InputError, match=message):
        make()
