"""`GradientMethod` where the inner solver fails, and which point it recommends under noise."""

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.solve.evaluation import Evaluation


def log_problem():
    """theta = log(a): not a number left of zero, where a large step goes; best at a = 0.2."""

    def solve(phi):
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(phi["a"])

    space = zb.Space(a=zb.Real(-3, 3))
    return zb.Problem(space, solve, zb.SquaredError(np.log(0.2)))


def test_it_steps_back_from_nan_and_arrives():
    method = zb.GradientMethod(
        zb.FG2UZO(1),
        optimizer=torch.optim.SGD,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97),
        lr=0.15,
    )
    result = zb.minimize(log_problem(), method, initial={"a": 0.5}, max_solves=300)
    assert result.failures["invalid"] > 0
    assert abs(result.phi["a"] - 0.2) < 1e-3


def points_of(method, problem, start, num_rounds, fails):
    """The base points a method asks for when solves fail at some of them."""
    asked = []
    state = method.start(problem, 0, initial=start)
    for _ in range(num_rounds):
        points = method.ask(state)
        if not points:
            break
        asked.append(float(problem.space.decode(points[0].x)["a"]))
        theta = None if fails(asked) else np.array([asked[-1]])
        state = method.tell(state, [evaluation_of(point, theta) for point in points])
    return asked, state


def evaluation_of(point, theta):
    if theta is None:
        return Evaluation(point, "failed", None, np.inf, error="no")
    flat, layout = flatten_theta(theta + point.x)
    return Evaluation(point, "ok", flat, float(flat[0]), layout=layout)


def test_each_failure_halves_the_way_back_to_the_last_good_point():
    problem = zb.Problem(zb.Space(a=zb.Real(-3, 3)), lambda phi: phi["a"], zb.SquaredError(-3.0))
    method = zb.GradientMethod(zb.FG2UZO(1), optimizer=torch.optim.SGD, lr=1.0)
    asked, state = points_of(method, problem, {"a": 2.0}, 30, lambda asked: len(asked) > 1)
    good = asked[0]
    ways = np.array(asked[1:]) - good
    assert good == pytest.approx(2.0, abs=1e-4)
    assert abs(ways[0]) > 0
    np.testing.assert_allclose(ways[1:] / ways[:-1], 0.5, rtol=1e-3)
    assert "10 sketches in a row failed" in state.stop_reason


def test_a_failure_by_chance_at_a_good_point_is_tried_again_there():
    problem = zb.Problem(zb.Space(a=zb.Real(-3, 3)), lambda phi: phi["a"], zb.SquaredError(-3.0))
    method = zb.GradientMethod(zb.FG2UZO(1), accumulate=3, lr=0.1)
    asked, _ = points_of(method, problem, {"a": 2.0}, 4, lambda asked: len(asked) == 2)
    assert len(set(asked)) == 1  # three good sketches make a step: not yet


def test_a_gradient_that_is_not_finite_does_not_poison_the_optimizer():
    def outer(theta, phi):
        # the value is fine at zero, its slope is not
        return torch.sqrt(theta.sum()) if float(theta.sum()) >= 0 else theta.sum() * torch.nan

    problem = zb.Problem(zb.Space(a=zb.Real(0, 3)), lambda phi: [max(phi["a"] - 1.0, 0.0)], outer)
    method = zb.GradientMethod(zb.FG2UZO(1), lr=0.4)
    result = zb.minimize(problem, method, initial={"a": 1.3}, max_solves=60)
    assert all(np.isfinite(record.loss) for record in result.history if record.status == "ok")
    assert result.loss < 0.4


def test_under_noise_the_last_point_competes_with_the_luckiest():
    def solve(phi, seed):
        noise = np.random.default_rng(seed).normal()
        return phi["a"] + 3.0 * noise * (1.0 if phi["a"] > 1.0 else 0.01)

    problem = zb.Problem(zb.Space(a=zb.Real(-3, 3)), solve, lambda theta, phi: theta.sum())
    method = zb.GradientMethod(zb.FG2UZO(1), optimizer=torch.optim.SGD, lr=0.1)
    result = zb.minimize(problem, method, initial={"a": 2.5}, max_solves=110)
    assert result.phi["a"] < -2.0  # the luckiest draw was near the noisy start


def test_a_start_that_does_not_solve_is_left():
    def solve(phi):
        if phi["a"] > 2.0:
            raise ArithmeticError("unstable")
        return [phi["a"] - 1.0]

    problem = zb.Problem(zb.Space(a=zb.Real(0, 5)), solve, zb.SquaredError([0.0]))
    result = zb.minimize(problem, zb.GradientMethod(), initial={"a": 4.5}, max_solves=80)
    assert result.loss < 1e-3


def test_an_optimizer_that_asks_for_losses_of_its_own_is_refused_at_once():
    with pytest.raises(zb.InputError, match="optimizer must step by a gradient alone, LBFGS asks"):
        zb.GradientMethod(optimizer=torch.optim.LBFGS)
