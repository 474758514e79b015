"""The step of the Gauss-Newton search, against the conditions of a minimum in a ball and a box."""

import numpy as np
import pytest

from zo_bilevel.methods.gauss_newton.trust_step import TrialSteps, Trust

ROOT = np.random.default_rng(3).normal(size=(4, 4))
CONVEX = ROOT @ ROOT.T + 0.1 * np.eye(4)
SADDLE = np.diag([-2.0, -0.5, 0.3, 4.0])
GRADIENT = np.array([0.7, -1.3, 0.4, 2.0])
NEWTON = -np.linalg.solve(CONVEX, GRADIENT)
WIDE = np.full(4, -1e9), np.full(4, 1e9)


def ball_step(gradient, hessian, radius, quartic=0.0):
    return TrialSteps(gradient, hessian, np.eye(len(hessian)), WIDE, radius).in_ball(quartic)


def trial_step(gradient, hessian, basis, room, radius, quartic=0.0):
    return TrialSteps(gradient, hessian, basis, room, radius).step(quartic)


@pytest.mark.parametrize(
    ("agreement", "length", "accepted", "radius"),
    [
        (0.9, 1.5, True, 3.0),  # good: twice the step
        (0.9, 0.5, True, 2.0),  # but never less than before
        (0.71, 1.5, True, 3.0),
        (0.7, 1.5, True, 2.0),  # neither good nor poor
        (0.25, 1.0, True, 2.0),
        (0.24, 1.0, True, 0.7),  # poor
        (0.1, 9.0, True, 2.0),
        (0.9, 1.0, False, 0.25),
        (-3.0, 8.0, False, 2.0),
    ],
)
def test_trust_follows_the_agreement(agreement, length, accepted, radius):
    trust = Trust(2.0)
    trust.adapt(agreement, length, accepted=accepted)
    assert trust.radius == pytest.approx(radius, rel=1e-12)


class TestBall:
    @pytest.mark.parametrize("share", [1.001, 40.0])
    def test_a_minimum_inside_is_newtons_step(self, share):
        step, damping = ball_step(GRADIENT, CONVEX, share * np.linalg.norm(NEWTON))
        np.testing.assert_allclose(step, NEWTON, rtol=1e-9)
        assert damping == 0.0

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    @pytest.mark.parametrize("hessian", [CONVEX, SADDLE, -CONVEX, np.zeros((4, 4))])
    @pytest.mark.parametrize("radius", [1e-3, 0.3, 2.0])
    def test_on_the_sphere_it_keeps_the_conditions_of_a_minimum(self, hessian, radius, scale):
        hessian, gradient = scale * hessian, scale * GRADIENT
        step, damping = ball_step(gradient, hessian, radius)
        length = np.linalg.norm(step)
        np.testing.assert_allclose(
            hessian @ step + damping * step, -gradient, rtol=1e-6, atol=1e-9 * scale
        )
        assert damping >= max(0.0, -np.linalg.eigvalsh(hessian)[0])
        assert length <= radius * (1 + 1e-9)
        assert length >= radius / 1.03 or damping == 0.0

    @pytest.mark.parametrize("quartic", [0.5, 30.0])
    def test_a_quartic_term_holds_the_step_back(self, quartic):
        step, damping = ball_step(GRADIENT, CONVEX, 50.0, quartic)
        np.testing.assert_allclose(CONVEX @ step + damping * step, -GRADIENT, rtol=1e-8)
        assert damping == pytest.approx(quartic * (step @ step), rel=0.05)
        near, _ = ball_step(GRADIENT, CONVEX, 0.1, 1e-9)
        assert np.linalg.norm(near) == pytest.approx(0.1, rel=0.03)

    def test_no_slope_no_step_and_a_lonely_slope_goes_to_the_sphere(self):
        assert not ball_step(np.zeros(4), CONVEX, 1.0)[0].any()
        step, damping = ball_step(np.array([1e-3]), np.array([[0.0]]), 2.0)
        assert step[0] == pytest.approx(-2.0, rel=0.03)
        assert damping == pytest.approx(5e-4, rel=0.03)

    @pytest.mark.parametrize("size", [0.1, 10.0])
    def test_a_quartic_term_alone_bounds_the_step(self, size):
        quartic = 1e-3 / size**2
        step, damping = ball_step(np.array([size]), np.zeros((1, 1)), 1e9, quartic)
        assert damping == pytest.approx(0.1, rel=0.03)  # the cube root of quartic * size^2
        assert step[0] == pytest.approx(-size / damping, rel=1e-12)

    def test_a_radius_that_is_short_by_rounding_alone_costs_no_damping(self):
        step, damping = ball_step(np.array([1.0, 0.0]), np.diag([1.0, 100.0]), 1.0 - 1e-15)
        np.testing.assert_allclose(step, [-1.0, 0.0], rtol=1e-11)
        assert 1e-12 <= damping <= 1.02e-12  # the share of the largest curvature that is nothing

    def test_a_direction_without_curvature_does_not_hide_the_others(self):
        step, _ = ball_step(np.array([0.0, 1.0]), np.diag([0.0, 2.0]), 9.0)
        np.testing.assert_allclose(step, [0.0, -0.5], rtol=1e-6, atol=1e-9)


class TestBox:
    BOX = np.full(3, -1.0), np.full(3, 1.0)

    def step(self, hessian, gradient, basis=None, room=BOX, radius=50.0, quartic=0.0):
        basis = np.eye(3) if basis is None else basis
        return trial_step(np.array(gradient), hessian, basis, room, radius, quartic)

    def test_inside_the_room_it_is_the_step_in_the_ball(self):
        for radius, quartic in ((9.0, 0.0), (0.3, 0.0), (9.0, 2.0)):
            found = trial_step(GRADIENT, CONVEX, np.eye(4), WIDE, radius, quartic)
            ball = ball_step(GRADIENT, CONVEX, radius, quartic)[0]
            np.testing.assert_array_equal(found, ball)

    @pytest.mark.parametrize("size", [1e-200, 1e100, 1e200, 1e307])
    def test_the_step_is_the_same_in_any_units_of_the_loss(self, size):
        for room in (WIDE, (np.full(4, -0.1), np.full(4, 0.2))):
            for radius, quartic in ((9.0, 0.0), (0.3, 0.0), (0.3, 0.7)):
                known = trial_step(GRADIENT, CONVEX, np.eye(4), room, radius, quartic)
                problem = size * GRADIENT, size * CONVEX, np.eye(4), room, radius, size * quartic
                np.testing.assert_allclose(trial_step(*problem), known, rtol=1e-2, atol=1e-3)

    def test_without_a_word_there_is_no_quartic_term(self):
        steps = TrialSteps(GRADIENT, CONVEX, np.eye(4), WIDE, 9.0)
        np.testing.assert_array_equal(steps.step(), steps.step(0.0))

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_what_leaves_by_rounding_alone_is_not_held(self, sign):
        room = np.array([-2.0 + 5e-10]), np.array([2.0 - 5e-10])
        step = self.step(np.eye(1), [-2.0 * sign], np.eye(1), room)
        assert step.tolist() == [2.0 * sign]
        held = self.step(np.eye(1), [-2.0 * sign], np.eye(1), (room[0] + 1e-8, room[1] - 1e-8))
        assert abs(held[0]) < 2.0

    def test_what_leaves_is_held_and_the_rest_solved_again(self):
        hessian = np.array([[2.0, 0.2, 0.0], [0.2, 2.0, 0.5], [0.0, 0.5, 3.0]])
        for sign in (1.0, -1.0):
            gradient = -sign * np.array([10.0, 1.5, 0.3])
            free = -np.linalg.solve(hessian[1:, 1:], gradient[1:] + sign * hessian[1:, 0])
            np.testing.assert_allclose(
                self.step(hessian, gradient), [sign, *free], rtol=1e-4, atol=1e-5
            )

    def test_both_sides_hold_at_bounds_of_their_own(self):
        room = np.array([-0.3, -1.0, -1.0]), np.array([1.0, 0.6, 1.0])
        step = self.step(np.eye(3), [10.0, -10.0, 0.5], room=room)
        np.testing.assert_allclose(step, [-0.3, 0.6, -0.5], atol=1e-4)

    def test_one_that_leaves_later_is_held_too_and_one_held_for_nothing_is_let_go(self):
        hessian = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])
        step = self.step(hessian, [-4.0, -2.0, -0.1])  # (4, 0, 0.1) without bounds
        np.testing.assert_allclose(step, [1.0, 1.0, 0.1], atol=1e-4)
        hessian = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
        gradient = -hessian @ np.array([6.0, -2.0, 0.0])  # beyond both; then only the first
        expected = [1.0, float(-(gradient[1] + hessian[1, 0])), 0.0]
        if not -1.0 <= expected[1] <= 1.0:
            expected[1] = float(np.clip(expected[1], -1.0, 1.0))
        np.testing.assert_allclose(self.step(hessian, gradient), expected, atol=1e-4)

    def test_what_was_held_at_first_is_let_go_on_its_own_side(self):
        hessian = np.array([[2.5, 0.7, 0.8], [0.7, 2.7, 0.6], [0.8, 0.6, 1.0]])
        room = np.array([-1.7, -0.4, -1.1]), np.array([1.9, 0.3, 0.8])
        gradient = np.array([-0.1, 0.1, 1.7])
        for sign in (1.0, -1.0):  # without bounds the second and third leave; then not the second
            bounds = (sign * np.stack(room))[:: int(sign)]
            step = trial_step(sign * gradient, hessian, np.eye(3), tuple(bounds), 1e4)
            free = -np.linalg.solve(hessian[:2, :2], gradient[:2] - 1.1 * hessian[:2, 2])
            np.testing.assert_allclose(sign * step, [*free, -1.1], atol=2e-5)

    def test_what_a_bound_makes_longer_is_cut_to_the_ball(self):
        hessian, room = np.array([[9.1, 0.6], [0.6, 0.1]]), (np.full(2, -1.0), np.array([0.3, 1.0]))
        step = trial_step(np.array([-3.9, -0.3]), hessian, np.eye(2), room, 0.9)
        assert np.linalg.norm(step) == pytest.approx(0.9, rel=1e-9)  # held, it were 1.04
        assert step[1] / step[0] == pytest.approx(1.0 / 0.3, rel=1e-5)

    def test_bounds_are_springs_in_units_of_the_mean_curvature(self):
        for curvatures in ([2.0], [2.0, 4.0]):
            spring, size = 1e6 * np.mean(curvatures), len(curvatures)
            gradient, room = np.eye(size)[0] * -10.0, (np.full(size, -1.0), np.full(size, 1.0))
            step = trial_step(gradient, np.diag(curvatures), np.eye(size), room, 1e4)
            assert step[0] == pytest.approx((10.0 + spring) / (2.0 + spring), rel=1e-12)

    def test_a_rotated_basis_is_held_in_its_coordinates(self):
        turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
        hessian = turn.T @ np.diag([1.0, 2.0, 3.0]) @ turn
        step = self.step(hessian, turn.T @ -np.array([10.0, 1.0, 0.6]), basis=turn)
        np.testing.assert_allclose(turn @ step, [1.0, 0.5, 0.2], atol=1e-4)

    def test_damping_and_the_ball_still_hold(self):
        room = np.full(3, -0.2), np.full(3, 0.2)
        gradient, hessian = [-10.0, -1.0, -0.4], np.eye(3)
        _, damping = ball_step(np.array(gradient), hessian, 0.5)
        step = self.step(hessian, gradient, room=room, radius=0.5)
        assert step[0] == pytest.approx(0.2, abs=1e-4)
        np.testing.assert_allclose(step[1:], np.array([1.0, 0.4]) / (1 + damping), rtol=1e-3)
        tight = self.step(hessian, [-10.0, -10.0, -10.0], room=room, radius=0.3)
        np.testing.assert_allclose(tight, 0.3 / np.sqrt(3), rtol=0.03)
        assert np.linalg.norm(tight) <= 0.3 * (1 + 1e-9)
