"""Objectives with kinks: the model of theta inside them, their steps, and the search."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import zo_bilevel as zb
from zo_bilevel.methods.gauss_newton.answer_model import AnswerModel
from zo_bilevel.methods.gauss_newton.kinked_step import ModelledLoss
from zo_bilevel.methods.gauss_newton.outer_model import OuterModel
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.tasks import load

RNG = np.random.default_rng(5)
MATRIX, TARGET = RNG.normal(size=(20, 4)), 3 * RNG.normal(size=20)


def largest(theta, phi):
    return (theta - torch.from_numpy(TARGET)).abs().max()


def mean_absolute(theta, phi):
    return (theta - torch.from_numpy(TARGET)).abs().mean()


def least_largest(bound):
    """Of |MATRIX x - TARGET| for |x| <= bound, by a linear program."""
    ones = np.ones((20, 1))
    rows = np.block([[MATRIX, -ones], [-MATRIX, -ones]])
    sides = np.concatenate([TARGET, -TARGET])
    limits = [(-bound, bound)] * 4 + [(0, None)]
    return linprog([0, 0, 0, 0, 1], rows, sides, bounds=limits).fun


def least_mean(bound):
    """Of the mean of |MATRIX x - TARGET|, by a linear program."""
    rows = np.block([[MATRIX, -np.eye(20)], [-MATRIX, -np.eye(20)]])
    sides = np.concatenate([TARGET, -TARGET])
    costs = np.append(np.zeros(4), np.full(20, 1 / 20))
    return linprog(costs, rows, sides, bounds=[(-bound, bound)] * 4 + [(0, None)] * 20).fun


def outer_model(function, theta):
    problem = zb.Problem(zb.Space(x=zb.Real(-3, 3, (4,))), lambda phi: phi["x"], function)
    flat, layout = flatten_theta(theta)
    first = Evaluation(Point(np.zeros(4)), "ok", flat, 0.0, layout=layout)
    return OuterModel(problem.bind(flat, layout, first.point.x), first)


@pytest.mark.parametrize("bound", [0.3, 100.0])
def test_a_step_across_kinks_is_that_of_a_linear_program(bound):
    def change(step):
        residuals = MATRIX @ step - TARGET
        place = int(np.argmax(np.abs(residuals)))
        gained = abs(residuals[place]) - np.abs(TARGET).max()
        return float(gained), np.sign(residuals[place]) * MATRIX[place]

    room = np.full(4, -bound), np.full(4, bound)
    loss = ModelledLoss(change, np.zeros((4, 4)), 0.0, np.eye(4), room, 200.0, 3.0)
    step = loss.least([np.zeros(4)], np.linalg.inv(MATRIX.T @ MATRIX))
    assert np.abs(step).max() <= bound
    assert -change(step)[0] >= 0.999 * (np.abs(TARGET).max() - least_largest(bound))


def test_a_step_stays_in_the_ball_and_pays_for_doubt():
    free, none = (np.full(4, -np.inf), np.full(4, np.inf)), np.zeros((4, 4))
    slope = np.array([3.0, -4.0, 0.0, 0.0])

    def change(step):
        return float(slope @ step), slope

    ball = ModelledLoss(change, none, 0.0, np.eye(4), free, 2.0, 5.0)
    np.testing.assert_allclose(
        ball.least([np.zeros(4)], np.eye(4)), -2.0 * slope / 5.0, rtol=1e-6, atol=1e-6
    )
    doubtful = ModelledLoss(change, np.eye(4), 1.0, np.eye(4), free, 99.0, 5.0)
    length = np.roots([1.0, 0.0, 1.0, -5.0]).real.max()  # quartic |s|^3 + doubt |s| = slope
    np.testing.assert_allclose(
        doubtful.least([np.zeros(4)], np.eye(4)), -length * slope / 5.0, rtol=0.02, atol=0.02
    )


def test_the_objective_of_the_model_has_the_slopes_of_differences():
    def inner(x):
        return np.sin(MATRIX @ x / 3)

    center = np.array([0.1, -0.4, 0.3, 0.2])
    model = AnswerModel(outer_model(mean_absolute, inner(center)), center, inner(center))
    for unit in np.eye(4):
        change = (inner(center + 1e-5 * unit) - inner(center - 1e-5 * unit)) / 2
        model.add_derivative(center, 1e-5 * unit, change, 0.0)
    for place in RNG.normal(size=(6, 4)):
        model.add_value(center + 0.3 * place, inner(center + 0.3 * place))
    objective = model.quadratic().objective
    step = np.array([0.2, 0.1, -0.3, 0.15])
    slopes = [
        (objective.change(step + shift)[0] - objective.change(step - shift)[0]) / 2e-6
        for shift in 1e-6 * np.eye(4)
    ]
    np.testing.assert_allclose(objective.change(step)[1], slopes, rtol=1e-6, atol=1e-9)
    assert objective.change(np.zeros(4))[0] == pytest.approx(0.0, abs=1e-12)


def test_kinks_count_as_curvature_over_the_change_that_is_expected():
    """Regression: without a second derivative, directions not explored were never in doubt."""
    model = outer_model(mean_absolute, TARGET)
    assert model.bend(TARGET, np.zeros(4), 0.5) == pytest.approx(2 * 0.5 / 0.5**2)  # 2 |r| / r^2
    square = outer_model(lambda theta, phi: (theta**2).sum(), TARGET)
    assert square.bend(TARGET, np.zeros(4), 0.5) == pytest.approx(40.0)
    assert square.bend(TARGET, np.zeros(4), 1e-9) == pytest.approx(40.0)  # rounding drowns it


@pytest.mark.parametrize(
    ("outer", "least"), [(largest, least_largest), (mean_absolute, least_mean)]
)
def test_few_active_residuals_do_not_stop_the_search(outer, least):
    """Regression: 0.4 of the loss was left where a search that sees only the loss had 0.1."""
    space = zb.Space(x=zb.Real(-3, 3, (4,)))
    problem = zb.Problem(space, lambda phi: MATRIX @ phi["x"], outer)
    start = {"x": [2.0, -1.0, 1.0, 2.5]}
    result = zb.minimize(problem, initial=start, max_solves=12, restarts=False)
    assert result.loss == pytest.approx(least(3.0), rel=1e-8)


def test_a_field_is_explored_for_absolute_errors():
    """Regression: no direction but the first was differenced, and the search ended at its start."""
    problem = load("heat-field", size=16).problem
    target = torch.tensor(problem.outer.target)
    absolute = dataclasses.replace(problem, outer=lambda theta, phi: (theta - target).abs().mean())
    result = zb.minimize(absolute, max_solves=16)
    assert result.loss < 0.1 * result.history[0].loss
