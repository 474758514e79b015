"""Outer objectives: values, gradients and Hessian products against autograd."""

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel.problem.objectives.functions import TorchObjective
from zo_bilevel.problem.theta import flatten_theta

SPACE = zb.Space(a=zb.Real(-1, 1, (2,)), b=zb.Log(0.1, 10))
RNG = np.random.default_rng(0)
LABELS = np.array([0, 2, 1, 2])
TARGET, WEIGHTS = RNG.normal(size=12), RNG.uniform(0, 2, 12)


def weighted(theta, phi):
    return (torch.tensor(WEIGHTS) * (theta.reshape(12) - torch.tensor(TARGET)) ** 2).mean()


def entropy(theta, phi):
    return torch.nn.functional.cross_entropy(theta.reshape(4, 3), torch.tensor(LABELS))


def coupled(theta, phi):
    return (theta.reshape(12).sin() * phi["b"]).sum() + (phi["a"] ** 3).sum() * theta[0, 0] ** 2


@pytest.mark.parametrize(
    ("objective", "function"),
    [
        (zb.SquaredError(TARGET.reshape(4, 3), WEIGHTS.reshape(4, 3)), weighted),
        (zb.CrossEntropy(LABELS), entropy),
        (TorchObjective(coupled), coupled),
    ],
)
def test_derivatives_agree_with_autograd(objective, function):
    theta, layout = flatten_theta(RNG.normal(size=(4, 3)))
    x = np.array([0.4, -1.2, 0.9])
    bound = zb.Problem(SPACE, lambda phi: None, objective).bind(theta, layout, x)

    def whole(both):
        phi = SPACE.decode_torch(both[12:], x)
        return function(both[:12].reshape(4, 3), phi)

    both = torch.tensor(np.concatenate([theta, x]))
    assert bound.value(theta, x) == pytest.approx(whole(both).item(), rel=1e-12)
    exact = torch.func.grad(whole)(both).numpy()
    assert np.allclose(np.concatenate(bound.gradient(theta, x)), exact, atol=1e-12)
    tangents = RNG.normal(size=(15, 5))
    hessian = torch.func.hessian(whole)(both).numpy()
    product = np.vstack(bound.hessian_product(theta, x, tangents[:12], tangents[12:]))
    assert np.allclose(product, hessian @ tangents, atol=1e-11)


def normalised(theta, phi):  # its second derivative knows no batches
    rows = torch.nn.functional.group_norm(theta.reshape(1, 4, 3), 2)
    return (rows * torch.arange(12.0, dtype=torch.float64).reshape(1, 4, 3)).sin().sum()


def attended(theta, phi):  # has no second derivative
    query = theta.reshape(1, 1, 4, 3)
    return torch.nn.functional.scaled_dot_product_attention(query, query, query).sin().sum()


@pytest.mark.parametrize(("function", "accuracy"), [(normalised, 1e-9), (attended, 1e-6)])
def test_hessian_products_where_autograd_alone_cannot(function, accuracy):
    theta, layout = flatten_theta(RNG.normal(size=(4, 3)))
    x = np.zeros(3)
    objective = TorchObjective(function)
    bound = zb.Problem(SPACE, lambda phi: None, objective).bind(theta, layout, x)
    tangents = RNG.normal(size=(15, 4))
    product = np.vstack(bound.hessian_product(theta, x, tangents[:12], tangents[12:]))
    step = 1e-4
    for column, along in enumerate(tangents.T):
        ends = [
            np.concatenate(bound.gradient(theta + sign * step * along[:12], x)) for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert np.allclose(product[:, column], slope, atol=1e-5 + accuracy)


def test_an_outer_objective_that_draws_its_own_numbers_is_refused():
    def dropped(theta, phi):
        return torch.nn.functional.dropout(theta, 0.5).sum()

    problem = zb.Problem(SPACE, lambda phi: np.ones(50), dropped)
    with pytest.raises(zb.InputError, match=r"one value for one inner solution.*eval mode"):
        zb.minimize(problem, max_solves=9)


def test_a_mistake_in_the_outer_objective_is_shown_with_its_line():
    def outer(theta, phi):
        return theta["wieghts"].sum()

    problem = zb.Problem(SPACE, lambda phi: {"weights": np.ones(3)}, outer)
    with pytest.raises(zb.InputError, match=r"KeyError: 'wieghts' \(test_objectives.py, line \d+"):
        zb.minimize(problem, max_solves=9)


@pytest.mark.parametrize(
    ("outer", "message"),
    [
        (lambda theta, phi: theta, r"must return one number, got a \w+ of shape \(2,\)"),
        (lambda theta, phi: None, "must return one number, got a NoneType None"),
        (lambda theta, phi: "0.5", "must return one number, got a str '0.5'"),  # reads like one
        (lambda theta, phi: 1j, "raised TypeError"),
    ],
)
def test_an_outer_objective_gives_one_number_or_is_refused_by_name(outer, message):
    problem = zb.Problem(zb.Space(a=zb.Real(0, 1)), lambda phi: [phi["a"], 1.0], outer)
    with pytest.raises(zb.InputError, match=f"the outer objective .*{message}"):
        zb.minimize(problem, max_solves=3)


def test_an_outer_objective_that_fails_later_costs_that_solve():
    def outer(theta, phi):
        if phi["b"] > 5:
            raise ValueError("too much")
        return float(np.sum(theta**2) + phi["b"])

    problem = zb.Problem(SPACE, lambda phi: phi["a"], outer)
    result = zb.minimize(problem, max_solves=60)
    assert result.solves == 60
    assert result.loss < 0.2


DECAY = 2.0 * np.exp(-0.5 * np.linspace(0, 3, 20))


def miss(theta):
    return (theta - torch.tensor(DECAY)).abs()


def minimized_decay(outer, **rules):
    space = zb.Space(h=zb.Real(0, 10), d=zb.Real(0.05, 1.1))
    problem = zb.Problem(space, lambda v: v["h"] * np.exp(-v["d"] * np.linspace(0, 3, 20)), outer)
    return zb.minimize(problem, initial={"h": 2.2, "d": 0.6}, **rules)


@pytest.mark.parametrize(
    ("outer", "least"),
    [
        (lambda theta, phi: torch.round(10 * miss(theta)).sum(), 0.0),
        (lambda theta, phi: torch.floor(10 * miss(theta)).sum() + 0.01 * phi["h"] ** 2, 0.06),
        (lambda theta, phi: torch.sign(miss(theta) - 0.03).sum(), -8.0),
    ],
)
def test_a_torch_objective_in_steps_is_searched_by_its_loss(outer, least):
    """Autograd gives 0 everywhere, which was taken for a minimum: 1 solve, "converged"."""
    found = minimized_decay(outer, max_solves=90, restarts=False)
    assert found.loss <= least
    assert "converged" not in found.stop_reason


@pytest.mark.parametrize(("lowest", "is_flat"), [(0.0, False), (1.0, True)])
def test_a_flat_start_with_loss_left_is_not_called_converged(lowest, is_flat):
    problem = zb.Problem(
        zb.Space(a=zb.Real(0, 10)),
        lambda phi: np.array(phi["a"]),
        lambda theta, phi: torch.relu(theta - 100.0) + lowest,
    )
    found = zb.minimize(problem, initial={"a": 1.0}, max_solves=30)
    assert ("gradient is 0 at the start" in found.stop_reason) is is_flat
    assert ("converged" in found.stop_reason) is not is_flat


@pytest.mark.parametrize(
    "outer",
    [
        lambda theta, phi: torch.relu(miss(theta) - 5.0).sum(),  # flat, at its minimum
        lambda theta, phi: torch.clamp(miss(theta), max=1e-3).sum(),  # flat at the start
        lambda theta, phi: (theta - theta.detach()).square().sum() + phi["h"],
    ],
)
def test_a_torch_objective_that_is_flat_at_the_start_keeps_its_derivatives(outer):
    theta, layout = flatten_theta(DECAY + 0.1)
    space = zb.Space(h=zb.Real(0, 10))
    problem = zb.Problem(space, lambda phi: None, outer)
    assert problem.bind(theta, layout, np.zeros(1)).is_vector


@pytest.mark.parametrize(
    "outer",
    [
        lambda theta, phi: miss(theta).max().item(),
        lambda theta, phi: miss(theta.detach()).max(),
        lambda theta, phi: (miss(theta) > 0.03).double().sum(),
    ],
)
def test_a_function_of_tensors_without_a_gradient_is_a_black_box(outer):
    """It was called with arrays: "unsupported operand types, numpy.ndarray and Tensor"."""
    found = minimized_decay(outer, max_solves=60)
    assert found.loss < 0.6 * found.history[0].loss


def test_the_target_is_the_objectives_own():
    target = np.ones(3)
    objective = zb.SquaredError(target)
    target[:] = 0.0
    assert objective.loss(np.ones(3)) == 0.0
    with pytest.raises(ValueError, match="read-only"):
        objective.target[:] = 0.0


def test_dict_solutions_reach_torch_functions_in_their_structure():
    theta, layout = flatten_theta({"u": np.ones((2, 2)), "flux": 3.0})
    seen = {}

    def outer(theta, phi):
        seen.update(theta)
        return theta["u"].sum() * theta["flux"] + phi["b"]

    x = np.zeros(3)
    bound = zb.Problem(SPACE, lambda phi: None, outer).bind(theta, layout, x)
    assert bound.value(theta, x) == pytest.approx(12.0 + 1.0)
    assert seen["u"].shape == (2, 2)
    assert seen["flux"].shape == ()
    theta_part, x_part = bound.gradient(theta, x)
    assert theta_part.tolist() == [3.0, 3.0, 3.0, 3.0, 4.0]
    assert x_part[2] == pytest.approx(np.log(100) / 6)


class TestRobustError:
    TARGET = np.array([0.0, 1.0, np.nan, -2.0, 4.0])

    def solver(self, phi):
        return np.array([phi["a"], phi["b"], 9.0, phi["a"] * phi["b"], phi["a"] - phi["b"]])

    @pytest.mark.parametrize("loss", ["huber", "soft_l1", "student_t", "squared"])
    @pytest.mark.parametrize("censored", [None, [1, -1, 0, 1, 0]])
    def test_its_gradient_is_that_of_its_value(self, loss, censored):
        objective = zb.RobustError(self.TARGET, loss, sigma=0.7, scale=1.2, censored=censored)
        theta = np.array([0.4, -3.0, 5.0, 2.0, 1.0])
        gradient, explicit = objective.gradient(theta, np.zeros(2), None)
        step = 1e-6
        for place, move in enumerate(step * np.eye(5)):
            ends = [objective.value(theta + sign * move, np.zeros(2), None) for sign in (1, -1)]
            assert gradient[place] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)
        assert gradient[2] == 0.0  # missing
        assert not explicit.any()
        product, _ = objective.hessian_product(
            (theta, np.zeros(2)), (np.eye(5), np.zeros((2, 5))), None
        )
        assert (np.diag(product) >= 0).all()
        np.testing.assert_array_equal(product, np.diag(np.diag(product)))

    def test_squares_are_those_of_squared_error(self):
        theta = np.array([0.4, -3.0, 5.0, 2.0, 1.0])
        plain = zb.SquaredError(self.TARGET, sigma=0.7)
        robust = zb.RobustError(self.TARGET, "squared", sigma=0.7)
        assert robust.value(theta, np.zeros(2), None) == pytest.approx(plain.loss(theta))
        for one, other in zip(
            robust.hessian_product((theta, np.zeros(2)), (np.eye(5), np.zeros((2, 5))), None),
            plain.hessian_product((theta, np.zeros(2)), (np.eye(5), np.zeros((2, 5))), None),
            strict=True,
        ):
            np.testing.assert_allclose(one, other)

    def test_an_outlier_does_not_decide_the_fit(self):
        times = np.linspace(0, 2, 21)
        data = 3.0 * times + 0.01 * np.cos(30 * times)
        data[10] += 50.0
        space = zb.Space(slope=zb.Real(0, 10))
        fits = {
            loss: zb.minimize(
                zb.Problem(
                    space, lambda p: p["slope"] * times, zb.RobustError(data, loss, sigma=0.01)
                ),
                max_solves=60,
            ).phi["slope"]
            for loss in ("squared", "huber", "student_t")
        }
        assert abs(fits["squared"] - 3.0) > 0.5
        assert abs(fits["huber"] - 3.0) < 0.01
        assert abs(fits["student_t"] - 3.0) < 0.005

    def test_a_limit_only_counts_on_its_side(self):
        objective = zb.RobustError([2.0, 2.0], "squared", censored=[1, -1])
        theta = np.array([5.0, -5.0])  # above a lower limit, below an upper one
        assert objective.value(theta, np.zeros(1), None) == 0.0
        assert objective.value(-theta, np.zeros(1), None) == pytest.approx((49 + 9) / 2)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loss": "hubber"}, "huber"),
            ({"scale": 0.0}, "scale must be finite and > 0, got 0.0"),
            ({"sigma": -1.0}, "sigma must be finite and > 0"),
            ({"censored": [2, 0, 0, 0, 0]}, "censored must be -1, 0 or 1"),
            ({"censored": [1, 0]}, "censored must be one number or have the shape of target"),
        ],
    )
    def test_bad_arguments_are_refused(self, options, message):
        with pytest.raises(zb.InputError, match=message):
            zb.RobustError(self.TARGET, **options)


@pytest.mark.parametrize("objective", [zb.SquaredError, zb.RobustError])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_numbers_whose_squares_are_lost_are_no_perfect_fit(objective, offset):
    def run(unit, start=2.5):
        outer = objective(unit * np.array([offset, offset + 1.0]) * offset)
        space = zb.Space(a=zb.Real(0, 5))
        inner = zb.Problem(space, lambda phi: unit * np.array([phi["a"], 2 * phi["a"]]), outer)
        return zb.minimize(inner, max_solves=30, initial={"a": start})

    with pytest.raises(zb.InputError, match=r"target by at most .*e-170, .* in other units"):
        run(1e-170)
    assert run(1e-140).phi["a"] == pytest.approx(offset, abs=1e-6)
    assert run(1.0, start=offset + 1e-170).loss < 1e-20


def test_sigma_weighs_by_its_inverse_square_and_parts_have_their_share():
    target = {"u": np.array([1.0, 2.0]), "flux": 3.0}
    objective = zb.SquaredError(target, sigma={"flux": 2.0, "u": [1.0, 0.5]})
    theta = {"u": np.array([2.0, 3.0]), "flux": 5.0}
    assert objective.loss(flatten_theta(theta)[0]) == pytest.approx((1 + 4 + 1) / 3)
    assert objective.shares(theta) == pytest.approx({"u": 5 / 6, "flux": 1 / 6})
    with pytest.raises(zb.InputError, match="sigma must be finite and > 0"):
        zb.SquaredError([1.0, 2.0], sigma=[0.0, 1.0])
    with pytest.raises(zb.InputError, match="named parts"):
        zb.SquaredError([1.0]).shares(1.0)
