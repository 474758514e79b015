"""The standard error of a hypergradient holds the noise of the solver."""

import random

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import FunctionalSGD, FunctionalTraining, TorchUnroll

SIZE = 3
MATRIX, TARGET = np.random.default_rng(0).normal(size=(30, SIZE)), np.linspace(-1, 1, 30)
X = np.array([0.5, -1.0, 0.3])
NOISE, SEEDS = 0.3, 80
SPACE = zb.Space(a=zb.Real(-3, 3, shape=(SIZE,)))


def with_noise_of_its_own(seed):
    rng = np.random.default_rng(1000 + seed)
    return lambda phi: MATRIX @ phi["a"] + NOISE * rng.normal(size=30)


def with_noise_by_seed(_):
    def inner(phi, *, seed):
        rng = np.random.default_rng(seed)
        return (MATRIX + NOISE * rng.normal(size=MATRIX.shape)) @ phi["a"]

    return inner


OF_THE_MEAN = 2.0 * MATRIX.T @ (MATRIX @ X - TARGET) / 30
# E |(A + s E) x - y|^2 / m = |A x - y|^2 / m + s^2 |x|^2
OF_THE_EXPECTED_LOSS = OF_THE_MEAN + 2.0 * NOISE**2 * X


def estimates(make, estimator):
    for seed in range(SEEDS):
        problem = zb.Problem(SPACE, make(seed), zb.SquaredError(TARGET))
        yield zb.hypergradient(problem, {"a": X}, estimator=estimator, seed=seed)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("make", "exact", "estimator"),
    [
        (with_noise_of_its_own, OF_THE_MEAN, zb.FG2UZO(radius=0.4)),
        (with_noise_of_its_own, OF_THE_MEAN, zb.FG2UZO(difference="central", radius=0.4)),
        (with_noise_of_its_own, OF_THE_MEAN, zb.FG2UZO(2, "rademacher", radius=0.4)),
        (with_noise_by_seed, OF_THE_EXPECTED_LOSS, zb.FG2UZO()),
    ],
)
def test_intervals_cover_the_truth_under_noise(make, exact, estimator):
    found = list(estimates(make, estimator))
    gradients = np.array([one["a"] for one in found])
    error = gradients.std(axis=0, ddof=1) / np.sqrt(SEEDS)
    assert (np.abs(gradients.mean(axis=0) - exact) < 4 * error).all()
    ends = [one.interval()["a"] for one in found]
    inside = np.mean([(low <= exact) & (exact <= high) for low, high in ends])
    assert 0.90 < inside < 0.99
    reported = np.sqrt(np.mean([one.standard_error["a"] ** 2 for one in found], axis=0))
    np.testing.assert_allclose(reported, gradients.std(axis=0, ddof=1), rtol=0.3)


def test_noise_has_the_error_that_its_size_predicts():
    # one direction of one parameter: 2 / (m h) r . (e_1 - e_0), in the mean over five sketches
    space, solves = zb.Space(a=zb.Real(-3, 3)), np.linspace(1, 2, 30)

    def size(seed):
        rng = np.random.default_rng(seed)
        problem = zb.Problem(
            space,
            lambda phi: phi["a"] * solves + 1e-3 * rng.normal(size=30),
            zb.SquaredError(TARGET),
        )
        found = zb.hypergradient(problem, {"a": 0.5}, estimator=zb.FG2UZO(radius=0.1), seed=seed)
        return float(found.standard_error["a"])

    sizes = [size(seed) for seed in range(SEEDS)]
    residual = 0.5 * solves - TARGET
    predicted = 2 / (30 * 0.1) * np.linalg.norm(residual) * np.sqrt(2) * 1e-3 / np.sqrt(5)
    assert np.sqrt(np.mean(np.square(sizes))) == pytest.approx(predicted, rel=0.2)


def test_a_solver_without_noise_is_solved_once_more_and_no_further():
    found = zb.hypergradient(
        zb.Problem(SPACE, lambda phi: MATRIX @ phi["a"], zb.SquaredError(TARGET)), {"a": X}
    )
    assert (found.solves, found.num_repeats) == (SIZE + 2, 1)
    np.testing.assert_array_equal(found.standard_error["a"], 0.0)
    noisy = next(estimates(with_noise_of_its_own, zb.FG2UZO()))
    assert (noisy.solves, noisy.num_repeats, noisy.num_directions) == (25, 5, 15)
    assert noisy.standard_error["a"].min() > 100  # a radius of 1e-5 measures the noise


@pytest.mark.parametrize("estimator", [zb.ReverseUnroll(), zb.FG2U(2)])
def test_derivatives_that_vary_where_answers_do_not_have_an_error(estimator):
    # theta_1 = s * a, s normal: at a = 0 theta is always 0, its slope is a mean of five s
    loop = TorchUnroll(
        lambda phi: 0 * phi["a"],
        lambda theta, phi, t, size: size * phi["a"],
        1,
        batches=lambda t, generator: torch.randn(2, generator=generator, dtype=torch.float64),
        dtype=torch.float64,
    )
    space = zb.Space(a=zb.Real(-3, 3, shape=(2,)))
    problem = zb.Problem(space, loop, lambda theta, phi: theta.sum())
    runs = [
        zb.hypergradient(problem, {"a": np.zeros(2)}, estimator=estimator, seed=s)
        for s in range(40)
    ]
    slopes = np.array([run["a"] for run in runs])
    errors = np.array([run.standard_error["a"] for run in runs])
    assert {run.num_repeats for run in runs} == {5}
    assert np.mean(errors**2) == pytest.approx(1 / 5, rel=0.4)
    assert np.mean(slopes**2) == pytest.approx(1 / 5, rel=0.5)


@pytest.mark.parametrize("estimator", [zb.ReverseUnroll(), zb.FG2U(2), zb.FG2UZO(2)])
@pytest.mark.parametrize("drawn_by", [None, "torch", "numpy", "python"])
def test_a_loop_without_random_numbers_is_run_once_more_without_a_derivative(estimator, drawn_by):
    pushes = []

    def step(theta, phi, t, batch):
        pushes.append(torch.is_grad_enabled() or torch.autograd.forward_ad._current_level >= 0)
        noise = {
            None: lambda: 0.5,
            "torch": lambda: float(torch.rand(())),
            "numpy": np.random.rand,
            "python": random.random,
        }[drawn_by]()
        return theta + (1.0 + noise) * phi["a"]

    loop = TorchUnroll(lambda phi: 0 * phi["a"], step, 7, dtype=torch.float64)
    space = zb.Space(a=zb.Real(-3, 3, shape=(2,)))
    problem = zb.Problem(space, loop, lambda theta, phi: theta.sum())
    found = zb.hypergradient(problem, {"a": np.ones(2)}, estimator=estimator)
    assert found.num_repeats == (5 if drawn_by else 1)
    if drawn_by is None:
        assert found["a"] == pytest.approx(7 * 1.5, rel=1e-6)
        assert pushes[-7:] == [False] * 7
        assert found.solves == (3 if isinstance(estimator, zb.ReverseUnroll) else 4)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_network_that_keeps_its_first_weights_is_no_random_loop(fresh):
    """Its `init` takes the seed, and uses it for fresh weights alone."""
    torch.manual_seed(0)
    inputs = torch.randn(6, 2)

    def loss(model, batch, phi):
        return (phi["scale"] * (model(inputs) - 1.0) ** 2).mean()

    training = FunctionalTraining(torch.nn.Linear(2, 1), loss, FunctionalSGD(0.1), fresh=fresh)
    loop = training.unroll(3)
    outer = loop.outer(lambda w, phi: (w["weight"] ** 2).sum())
    problem = zb.Problem(zb.Space(scale=zb.Real(0, 2)), loop, outer)
    assert loop.draws({"scale": 1.0}) is fresh
    found = zb.hypergradient(problem, estimator=zb.ReverseUnroll())
    assert found.num_repeats == (5 if fresh else 1)


def test_noise_near_a_bound_keeps_the_units_of_the_point():
    rng = np.random.default_rng(0)
    space = zb.Space(a=zb.Log(1.0, 100.0))
    problem = zb.Problem(
        space,
        lambda phi: np.log(phi["a"]) + 1e-3 * rng.normal(size=200),
        zb.SquaredError(0.0 * np.ones(200)),
    )
    found = zb.hypergradient(problem, {"a": 100.0}, estimator=zb.FG2UZO(radius=0.2))
    low, high = found.interval()["a"]
    # 2 log(a) / a; the base point lies 0.2 units of log(100) / 6 inside the bound
    base = 100 ** (1 - 0.2 / 6)
    inside = 2 * np.log(base) / base
    assert low < inside < high
    assert high - low < 0.01 * inside


def product(x, phi):
    return float(np.sum(x))


@pytest.mark.parametrize("family", ["coordinate", "orthogonal"])
def test_a_difference_that_fails_is_solved_the_other_way(family):
    def fragile(phi):
        if phi["a"][0] > 1:
            raise ValueError("out of range")
        return phi["a"] * [1.0, 2.0, 3.0]

    problem = zb.Problem(zb.Space(a=zb.Real(-3, 3, shape=(3,))), fragile, product)
    found = zb.hypergradient(
        problem, {"a": [1.0, 0, 0]}, estimator=zb.FG2UZO(3, directions=family), seed=0
    )
    np.testing.assert_allclose(found["a"], [1, 2, 3], rtol=1e-6)
    assert found.dropped == 0
    assert found.solves > 5


def failing_beyond_one(size):
    def fragile(phi):
        if phi["a"][0] > 1:
            raise ValueError("out of range")
        return phi["a"] ** 2

    space = zb.Space(a=zb.Real(0, 4, shape=(size,)))
    return zb.Problem(space, fragile, lambda theta, phi: (theta**2).sum())


@pytest.mark.parametrize("family", ["coordinate", "orthogonal"])
def test_a_central_difference_has_the_right_sign_where_its_far_side_fails(family):
    problem = failing_beyond_one(2)
    estimator = zb.FG2UZO(2, family, "central")
    found = zb.hypergradient(problem, {"a": [1.0, 2.0]}, estimator=estimator)
    np.testing.assert_allclose(found["a"], [4.0, 32.0], rtol=1e-3)  # 4 a^3
    assert found.dropped == 0


def in_single_precision(offset, outer=lambda theta, phi: (theta**2).sum()):
    space = zb.Space(a=zb.Real(0, 4, shape=(3,)))
    return zb.Problem(space, lambda phi: np.float32(phi["a"] ** 2 + offset), outer)


ROOTS = np.array([1.234, 2.345, 1.1])


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize("directions", ["orthogonal", "coordinate"])
def test_the_radius_suits_single_precision_and_the_error_holds_its_rounding(difference, directions):
    estimator = zb.FG2UZO(3, directions, difference)
    found = zb.hypergradient(in_single_precision(10.0), {"a": ROOTS}, estimator=estimator)
    exact, error = 4 * ROOTS * (ROOTS**2 + 10), found.standard_error["a"]
    np.testing.assert_allclose(found["a"], exact, rtol=5e-3)
    bias = 1e-3 * exact if difference == "forward" else 1e-6 * exact  # of the radius
    assert (np.abs(found["a"] - exact) < 3 * error + bias).all()
    assert (error < 0.02 * exact).all()


@pytest.mark.parametrize("pattern", [None, np.eye(3)])
def test_differences_that_are_much_rounding_say_so_and_how_much(pattern):
    for estimator in (zb.FG2UZO(3, radius=1e-5), zb.SparseZO(pattern)):
        with pytest.warns(RuntimeWarning, match=r"directional derivatives are off by \d+% or more"):
            found = zb.hypergradient(in_single_precision(10.0), {"a": ROOTS}, estimator=estimator)
        error = np.abs(found["a"] - 4 * ROOTS * (ROOTS**2 + 10))
        assert (error < 3 * found.standard_error["a"]).all()
        assert error.max() > 1.0


def test_of_losses_the_rounding_of_theta_is_not_known():
    problem = in_single_precision(10.0, lambda theta, phi: float((theta**2).sum()))
    found = zb.hypergradient(problem, {"a": ROOTS}, estimator=zb.FG2UZO(3))
    assert np.isnan(found.standard_error["a"]).all()


def test_a_sparse_difference_that_fails_is_solved_the_other_way():
    problem = failing_beyond_one(3)
    for pattern in (None, np.eye(3)):
        found = zb.hypergradient(problem, {"a": [1, 2, 3]}, estimator=zb.SparseZO(pattern))
        np.testing.assert_allclose(found["a"], [4.0, 32.0, 108.0], rtol=1e-3)


def test_an_axis_that_fails_both_ways_leaves_the_others_as_they_are():
    def fragile(phi):
        if phi["a"][0] != 1:
            raise ValueError("out of range")
        return phi["a"] * [1.0, 2.0, 3.0]

    problem = zb.Problem(zb.Space(a=zb.Real(-3, 3, shape=(3,))), fragile, product)
    estimator = zb.FG2UZO(3, directions="coordinate")
    found = zb.hypergradient(problem, {"a": [1.0, 0, 0]}, estimator=estimator)
    np.testing.assert_allclose(found["a"], [0, 2, 3], rtol=1e-6)
    assert found.dropped == 1
    np.testing.assert_array_equal(found.standard_error["a"], [np.nan, 0, 0])
