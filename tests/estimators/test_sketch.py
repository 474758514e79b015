"""What follows from a sketch, by hand."""

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.estimators.sketch import Hypergradient, Observed, Sketch
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.errors import InnerSolverError

MATRIX = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])
TARGET, WEIGHTS = np.array([1.0, -2.0, 0.5]), np.array([1.0, 0.5, 2.0])
X = np.array([0.4, -0.3])


def bound(outer=None, is_scalar=False):
    space = zb.Space(a=zb.Real(-3, 3), b=zb.Real(-3, 3))
    objective = zb.SquaredError(TARGET, WEIGHTS) if outer is None else outer
    problem = zb.Problem(space, lambda phi: MATRIX @ [phi["a"], phi["b"]], objective)
    theta, layout = flatten_theta(MATRIX @ X)
    return (problem.scalar if is_scalar else problem).bind(theta, layout, X)


def sketch(V, **options):
    V = np.asarray(V, dtype=float)
    return Sketch(X, MATRIX @ X, V, MATRIX @ V, V, **options)


def gradient():
    return MATRIX.T @ (2 * WEIGHTS * (MATRIX @ X - TARGET) / 3)


def test_slopes_are_the_gradient_along_each_direction():
    V = np.array([[1.0, 0.5, -2.0], [0.0, 1.0, 1.0]])
    np.testing.assert_allclose(sketch(V).slopes(bound()), gradient() @ V, rtol=1e-12)


def test_slopes_hold_what_depends_on_phi_directly():
    def outer(theta, phi):
        return (theta**2).sum() + 3.0 * phi["a"] - phi["b"] ** 2

    V = np.array([[1.0, 0.5], [0.0, 1.0]])
    expected = (MATRIX.T @ (2 * MATRIX @ X) + np.array([3.0, -2 * X[1]])) @ V
    np.testing.assert_allclose(sketch(V).slopes(bound(outer)), expected, rtol=1e-9)


def test_a_scalar_problem_has_the_derivatives_of_its_loss_as_slopes():
    V = np.eye(2)
    loss = Sketch(X, np.array([2.0]), V, np.array([[5.0, -7.0]]), V)
    np.testing.assert_array_equal(loss.slopes(bound(is_scalar=True)), [5.0, -7.0])


def test_the_hypergradient_is_the_mean_and_its_error_that_of_the_mean():
    V = np.sqrt(2) * np.array([[1.0, 0.6, -0.8], [0.0, 0.8, 0.6]])
    found, error = sketch(V).hypergradient(bound())
    terms = V * (gradient() @ V)
    np.testing.assert_allclose(found, terms.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(error, terms.std(axis=1, ddof=1) / np.sqrt(3), rtol=1e-12)
    _, smaller = sketch(V, correction=0.25).hypergradient(bound())
    np.testing.assert_allclose(smaller, error / 2, rtol=1e-12)


def test_a_whole_frame_is_exact_and_one_direction_alone_has_no_error_to_give():
    whole = np.sqrt(2) * np.eye(2)
    found, error = sketch(whole, correction=0.0).hypergradient(bound())
    np.testing.assert_allclose(found, gradient(), rtol=1e-12)
    np.testing.assert_array_equal(error, 0.0)
    one = sketch(np.array([[1.0], [1.0]]))
    assert one.num_directions == 1
    found, error = one.hypergradient(bound())
    np.testing.assert_allclose(found, gradient().sum() * np.ones(2), rtol=1e-12)
    assert np.isnan(error).all()


def test_two_directions_are_enough_for_an_error():
    V = np.sqrt(2) * np.array([[1.0, 0.6], [0.0, 0.8]])
    _, error = sketch(V).hypergradient(bound())
    terms = V * (gradient() @ V)
    np.testing.assert_allclose(error, np.abs(terms[:, 0] - terms[:, 1]) / 2, rtol=1e-12)


def test_what_was_not_drawn_or_changed_nothing_has_no_error():
    axes = np.sqrt(2) * np.eye(2)
    _, error = sketch(axes[:, [0, 0]]).hypergradient(bound())
    assert np.isnan(error).tolist() == [False, True]  # the other coordinate was never drawn
    JV = MATRIX @ axes
    JV[:, 0] = 0.0
    blind = Sketch(X, MATRIX @ X, axes, JV, axes, correction=0.0)
    assert blind.is_unseen.tolist() == [True, False]
    _, error = blind.hypergradient(bound())
    assert np.isnan(error).tolist() == [True, False]
    exact = Sketch(X, MATRIX @ X, axes, JV, axes, correction=0.0, is_exact=True)
    assert not exact.is_unseen.any()
    np.testing.assert_array_equal(exact.hypergradient(bound())[1], 0.0)


def test_no_direction_no_gradient():
    with pytest.raises(InnerSolverError, match=r"^no direction of the sketch came back"):
        sketch(np.empty((2, 0))).hypergradient(bound())


def test_the_model_is_the_quadratic_itself_for_a_linear_solver():
    V = np.array([[1.0, 0.5], [0.0, 1.0]])
    slopes, hessian = sketch(V).model(bound())
    np.testing.assert_allclose(slopes, gradient() @ V, rtol=1e-12)
    full = MATRIX.T @ np.diag(2 * WEIGHTS / 3) @ MATRIX
    np.testing.assert_allclose(hessian, V.T @ full @ V, rtol=1e-12)


def test_the_model_bends_as_the_outer_objective_does_in_theta_and_in_phi():
    def outer(theta, phi):
        return (theta**3).sum() + 2.0 * phi["a"] ** 3 + phi["a"] * phi["b"]

    V = np.array([[1.0, 0.5], [0.0, 1.0]])
    _, hessian = sketch(V).model(bound(outer))
    in_phi = np.array([[12.0 * X[0], 1.0], [1.0, 0.0]])
    full = MATRIX.T @ np.diag(6 * MATRIX @ X) @ MATRIX + in_phi
    np.testing.assert_allclose(hessian, V.T @ full @ V, rtol=1e-9)
    np.testing.assert_array_equal(hessian, hessian.T)


def test_an_interval_is_students():
    values, errors = {"a": np.array([3.0, -1.0])}, {"a": np.array([0.5, 0.0])}
    found = Hypergradient(values, errors, 1.5, 6, 2, num_directions=5)
    assert (found.loss, found.solves, found.dropped) == (1.5, 6, 2)
    assert (found.num_directions, found.num_repeats) == (5, 1)
    assert found.standard_error is errors
    for level, t in ((0.95, 2.776445), (0.5, 0.740697)):  # of 4 degrees of freedom
        low, high = found.interval(level)["a"]
        np.testing.assert_allclose(low, [3.0 - 0.5 * t, -1.0], rtol=1e-6)
        np.testing.assert_allclose(high, [3.0 + 0.5 * t, -1.0], rtol=1e-6)
    np.testing.assert_array_equal(found.interval()["a"], found.interval(0.95)["a"])
    for counts, t in (((2, 1), 12.706205), ((1, 1), 12.706205), ((9, 3), 4.302653)):
        few = Hypergradient(values, errors, 1.5, 6, 2, *counts)
        np.testing.assert_allclose(few.interval()["a"][1][0], 3.0 + 0.5 * t, rtol=1e-6)
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(zb.InputError, match=f"^level must lie between 0 and 1, got {level}"):
            found.interval(level)


def test_methods_see_theta_or_the_loss():
    evaluation = Evaluation(Point(X), "ok", MATRIX @ X, 4.5)
    np.testing.assert_array_equal(Observed(bound()).observe(evaluation), MATRIX @ X)
    np.testing.assert_array_equal(Observed(bound(is_scalar=True)).observe(evaluation), [4.5])


def test_a_regression_is_each_coordinate_alone_and_only_where_the_mean_does_not_serve():
    V = np.array([[1.0, 2.0, -0.5], [0.5, -1.0, 0.0]])
    slopes = gradient() @ V
    centre, error = sketch(V).regression(bound())
    squares = (V**2).sum(axis=1)
    expected = V @ slopes / squares
    left = [((slopes - g * v) ** 2).sum() for g, v in zip(expected, V, strict=True)]
    np.testing.assert_allclose(centre, expected, rtol=1e-12)
    np.testing.assert_allclose(error, np.sqrt(np.array(left) / 2 / squares), rtol=1e-10)
    assert len(sketch(V[:, :2]).regression(bound())) == 2
    # in frames of 2, the third direction is what its share of the diagonal leaves open
    share = np.clip(squares / 2 - 1, 0, 1)
    _, smaller = sketch(V, correction=0.5).regression(bound())
    factor = np.sqrt(share * (1 - share) / (1 + share))
    np.testing.assert_allclose(smaller, error * factor, rtol=1e-10)
    assert sketch(V[:, :1]).regression(bound()) == ()
    assert sketch(V, correction=0.0).regression(bound()) == ()
    others = Sketch(X, MATRIX @ X, V, MATRIX @ V, 2 * V)
    assert others.regression(bound()) == ()


def test_a_direction_along_which_nothing_changed_tells_no_error_of_what_it_moved():
    V = np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    JV = MATRIX @ V
    JV[:, 2] = 0.0
    unseen = Sketch(X, MATRIX @ X, V, JV, V)
    for _, error in (unseen.hypergradient(bound()), unseen.regression(bound())):
        assert np.isfinite(error[0])
        assert np.isnan(error[1])


def test_rounding_of_theta_is_in_the_error():
    V = np.sqrt(2) * np.eye(2)
    _, error = sketch(V, correction=0.0, rounding=1e-3).hypergradient(bound())
    theta = MATRIX @ X
    slope = 1e-3 * np.linalg.norm(2 * WEIGHTS * (theta - TARGET) / 3 * theta)
    np.testing.assert_allclose(error, slope * np.sqrt(2) / 2, rtol=1e-10)
    V = np.sqrt(2) * np.array([[1.0, 0.6], [0.0, 0.8]])
    _, spread = sketch(V).hypergradient(bound())
    _, both = sketch(V, rounding=1e-3).hypergradient(bound())
    rounded = slope * np.linalg.norm(V, axis=1) / 2
    np.testing.assert_allclose(both, np.hypot(spread, rounded), rtol=1e-10)
    loss = Sketch(X, np.array([2.0]), V, np.array([[5.0, -7.0]]), V, rounding=1e-3)
    assert np.isnan(loss.hypergradient(bound(is_scalar=True))[1]).all()
