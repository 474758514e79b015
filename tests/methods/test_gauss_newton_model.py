"""The parts of Gauss-Newton: its model of the inner solution, steps, radius, directions."""

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.gauss_newton.answer_model import AnswerModel
from zo_bilevel.methods.gauss_newton.explorer import Explorer
from zo_bilevel.methods.gauss_newton.outer_model import OuterModel, nearest_convex
from zo_bilevel.methods.gauss_newton.output_rounding import OutputRounding
from zo_bilevel.methods.gauss_newton.trust_step import TrialSteps, Trust
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.solve.evaluation import Evaluation, Point

# ---- the parts -------------------------------------------------------------------------------


def model_of(inner, size, outputs):
    """The model of an inner solution around the origin, its target zero."""
    space = zb.Space(x=zb.Real(-3, 3, (size,)))
    problem = zb.Problem(space, lambda phi: inner(phi["x"]), zb.SquaredError(np.zeros(outputs)))
    theta, layout = flatten_theta(inner(np.zeros(size)))
    first = Evaluation(Point(np.zeros(size)), "ok", theta, 0.0, layout=layout)
    outer = OuterModel(problem.bind(theta, layout, first.point.x), first)
    return AnswerModel(outer, np.zeros(size), theta)


def test_derivatives_alone_give_gauss_newton():
    rng = np.random.default_rng(0)
    matrix, shift = rng.standard_normal((9, 5)), rng.standard_normal(9)
    model = model_of(lambda x: matrix @ x + shift, 5, 9)
    for unit in np.eye(5):
        model.add_derivative(np.zeros(5), 1e-5 * unit, matrix @ (1e-5 * unit), 0.0)
    quadratic = model.quadratic()
    turned = matrix @ model.basis
    np.testing.assert_allclose(quadratic.gradient, 2 / 9 * turned.T @ shift, rtol=1e-8)
    np.testing.assert_allclose(quadratic.hessian, 2 / 9 * turned.T @ turned, rtol=1e-7, atol=1e-7)
    assert np.abs(quadratic.doubt).max() < 1e-8 * np.abs(quadratic.hessian).max()
    step = rng.standard_normal(5)
    np.testing.assert_allclose(model.predict(step), turned @ step + shift, atol=1e-7)


def test_a_direction_not_explored_is_in_doubt_by_a_whole_slope():
    model = model_of(lambda x: x, 3, 3)
    model.add_derivative(np.zeros(3), np.array([1e-5, 0, 0]), np.array([1e-5, 0, 0]), 0.0)
    model.add_value(np.array([0.0, 1e-3, 0.0]), np.array([0.0, 1e-3, 0.0]))
    doubt = model.quadratic().doubt
    assert model.size == 2
    assert np.abs(doubt).max() < 1e-3
    assert model.scale == pytest.approx(1 / 3, rel=0.01)  # one of three components moves


def test_enough_points_give_the_second_derivatives_along_the_residuals():
    rng = np.random.default_rng(1)
    slopes, bends = rng.standard_normal((6, 3)), rng.standard_normal((6, 3, 3))
    bends, shift = bends + bends.transpose(0, 2, 1), 3.0 + rng.standard_normal(6)

    def inner(x):
        return shift + slopes @ x + 0.05 * np.einsum("kij,i,j->k", bends, x, x)

    model = model_of(inner, 3, 6)
    for point in rng.uniform(-0.3, 0.3, (12, 3)):
        model.add_value(point, inner(point))
    model.length = 1.0
    quadratic, basis = model.quadratic(), model.basis
    exact = slopes.T @ slopes + 0.1 * np.einsum("k,kij->ij", shift, bends)
    found = basis @ quadratic.hessian @ basis.T
    np.testing.assert_allclose(found, 2 / 6 * exact, rtol=0.02, atol=0.02)
    gauss = 2 / 6 * slopes.T @ slopes
    assert np.abs(found - 2 / 6 * exact).max() < 0.1 * np.abs(gauss - 2 / 6 * exact).max()


def test_the_length_follows_how_fast_the_solution_bends():
    lengths = {}
    for rate in (0.1, 3.0):
        model = model_of(lambda x, rate=rate: np.sin(rate * x[0] + np.arange(4.0)), 1, 4)
        for x in np.linspace(-0.6, 0.6, 9):
            if x != 0.0:
                model.add_value(np.array([x]), np.sin(rate * x + np.arange(4.0)))
                model.quadratic()
        lengths[rate] = model.length
    assert lengths[3.0] < 1.0 < 4.0 < lengths[0.1]


def test_neighbours_take_noise_from_the_center():
    rng = np.random.default_rng(0)
    errors = 0.1 * rng.standard_normal((41, 30))
    model = model_of(lambda x: np.zeros(30) + errors[0], 2, 30)
    model.noise, model.is_noisy = 0.01, True
    for point, error in zip(rng.uniform(-1, 1, (40, 2)), errors[1:], strict=True):
        model.add_value(point, point @ np.ones((2, 30)) + error)
    model.quadratic()
    measured, smooth = np.std(model.theta), np.std(model.smooth_theta)
    assert smooth < 0.4 * measured


def test_forgetting_derivatives_forgets_their_directions():
    """Regression: under noise the first direction was never differenced again."""
    model = model_of(lambda x: x, 2, 2)
    model.add_derivative(np.zeros(2), np.array([1e-5, 0]), np.array([1e-5, 0]), 0.0)
    model.forget()
    assert model.size == 0
    explorer = Explorer(np.full(2, -3.0), np.full(2, 3.0), lambda: iter(np.eye(2)))
    assert len(explorer.fresh(2, model.basis, np.zeros(2), 0.1)) == 2


@pytest.mark.parametrize("radius", [1e-3, 0.5, 10.0])
@pytest.mark.parametrize("kind", ["convex", "saddle", "singular"])
def test_the_step_is_the_least_in_the_ball(kind, radius):
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    values = {"convex": [4, 3, 2, 1], "saddle": [3, 1, -1, -2], "singular": [3, 1, 0, 0]}[kind]
    hessian, gradient = (turn * np.array(values, dtype=float)) @ turn.T, rng.standard_normal(4)
    everywhere = np.full(len(gradient), -np.inf), np.full(len(gradient), np.inf)
    basis = np.eye(len(gradient))
    step, damping = TrialSteps(gradient, hessian, basis, everywhere, radius).in_ball(0.0)
    length = np.linalg.norm(step)
    assert length <= radius * (1 + 1e-9)
    np.testing.assert_allclose((hessian + damping * np.eye(4)) @ step, -gradient, rtol=1e-6)
    assert damping >= max(0.0, -min(values))
    assert damping < 1e-9 or length > 0.95 * radius


def test_steps_keep_to_bounds():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((6, 4)))[0]
    root = rng.standard_normal((4, 4))
    room = (np.full(6, -0.2), np.full(6, 0.2))
    gradient = 10 * rng.standard_normal(4)
    step = TrialSteps(gradient, root @ root.T, basis, room, 3.0).step()
    assert np.abs(basis @ step).max() <= 0.2 + 1e-3


def test_the_radius_follows_the_agreement():
    trust = Trust(1.0)
    trust.adapt(0.9, 0.5, accepted=True)
    assert trust.radius == 1.0
    trust.adapt(0.1, 1.0, accepted=True)
    assert trust.radius == 0.7
    trust.adapt(-1.0, 0.4, accepted=False)
    assert trust.radius == 0.1


def test_negative_curvature_is_cut_off_and_positive_kept():
    clipped = nearest_convex(np.diag([2.0, -1.0]))
    np.testing.assert_allclose(clipped, np.diag([2.0, 0.0]), atol=1e-12)
    convex = np.diag([2.0, 1.0])
    assert nearest_convex(convex) is convex


def test_the_explorer_stays_inside_and_stops_when_all_is_known():
    explorer = Explorer(np.full(3, -1.0), np.full(3, 1.0), lambda: iter(np.eye(3)))
    origin = np.array([1.0, 0.0, -1.0])
    found = explorer.fresh(5, np.empty((3, 0)), origin, 0.1)
    assert len(found) == 3
    for _, displacement in found:
        assert np.abs(origin + displacement).max() <= 1.0
        assert np.linalg.norm(displacement) == pytest.approx(0.1)
    assert explorer.fresh(5, np.eye(3), origin, 0.1) == []
    assert not explorer.left


def to_digits(values, digits):
    return np.array([float(f"{value:.{digits}g}") for value in values])


def test_the_grain_is_read_from_the_answers():
    values = np.sin(np.arange(1.0, 20.0)) * 40.0
    for rounded, noise in (
        (np.round(values, 3), 1e-3 / 12**0.5),
        (np.round(values, -1), 10.0 / 12**0.5),
        (values, 0.0),
        (np.zeros(20), 0.0),
    ):
        grain = OutputRounding()
        grain.see(rounded)
        assert grain.noise == pytest.approx(noise), noise
    grain = OutputRounding()
    grain.see(to_digits(values, 4))  # the largest, 40, have two digits after the point
    assert 1e-3 < grain.noise < 1e-2
    grain = OutputRounding()
    grain.see(np.array([0.5, 0.25]))
    assert grain.noise == 0.0  # too few to tell
    grain.see(np.array([0.75, 0.25]))
    assert grain.noise > 0.0
    grain.see(np.array([1 / np.pi, 0.25]))
    assert grain.noise == 0.0


def test_the_grain_may_be_any_unit():
    values = np.sin(np.arange(1.0, 20.0)) * 40.0
    for unit in (0.37, 0.0123, 2e-5):
        grain = OutputRounding()
        grain.see(np.round(values / unit) * unit)
        assert grain.noise == pytest.approx(unit / 12**0.5), unit
