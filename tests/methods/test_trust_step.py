"""The minimum of a quadratic in a ball, and in a ball and a box, against what must hold of it."""

import numpy as np
import pytest

from zo_bilevel.methods.trust_region.trust_step import ball_step, box_step

RNG = np.random.default_rng(3)
ROOT = RNG.normal(size=(5, 5))
CONVEX = ROOT @ ROOT.T + 0.1 * np.eye(5)
SADDLE = np.diag([-2.0, -0.5, 0.3, 1.0, 4.0])
GRADIENT = RNG.normal(size=5)


def value(gradient, hessian, step):
    return gradient @ step + 0.5 * step @ hessian @ step


def exact(gradient, hessian, radius):
    return ball_step(gradient, lambda v: hessian @ v, radius, hessian)


def conjugate(gradient, hessian, radius):
    return ball_step(gradient, lambda v: hessian @ v, radius)


class TestExact:
    def test_a_minimum_inside_is_newtons_step(self):
        newton = -np.linalg.solve(CONVEX, GRADIENT)
        length = float(np.linalg.norm(newton))
        for radius in (1.0001 * length, 50 * length):
            np.testing.assert_allclose(exact(GRADIENT, CONVEX, radius), newton, rtol=1e-9)

    @pytest.mark.parametrize("hessian", [CONVEX, SADDLE, -CONVEX, np.zeros((5, 5))])
    @pytest.mark.parametrize("radius", [1e-3, 0.3, 2.0, 40.0])
    def test_on_the_sphere_it_keeps_the_conditions_of_more_and_sorensen(self, hessian, radius):
        step = exact(GRADIENT, hessian, radius)
        length = float(np.linalg.norm(step))
        assert length <= radius * (1 + 1e-12)
        if length < 0.98 * radius:  # inside: Newton's step on a convex function
            assert np.linalg.eigvalsh(hessian)[0] > 0
            np.testing.assert_allclose(hessian @ step, -GRADIENT, rtol=1e-6, atol=1e-9)
            return
        assert length >= 0.98 * radius
        pull = -(GRADIENT + hessian @ step)  # = shift * step
        shift = float(pull @ step) / length**2
        assert shift >= max(0.0, -np.linalg.eigvalsh(hessian)[0]) - 0.05 * max(shift, 1.0)
        across = np.linalg.norm(pull - shift * step)
        assert across <= 0.05 * np.linalg.norm(GRADIENT)

    @pytest.mark.parametrize("radius", [0.5, 3.0])
    def test_it_is_as_low_as_any_point_of_the_ball(self, radius):
        directions = RNG.normal(size=(4000, 5))
        directions /= np.linalg.norm(directions, axis=1)[:, None]
        for hessian in (CONVEX, SADDLE):
            found = value(GRADIENT, hessian, exact(GRADIENT, hessian, radius))
            for share in (0.25, 0.5, 0.75, 1.0):
                tried = [value(GRADIENT, hessian, share * radius * d) for d in directions]
                assert found <= min(tried) + 0.02 * abs(found)

    def test_the_hard_case_goes_along_the_lowest_curvature_to_the_sphere(self):
        gradient = np.array([0.0, 0.0, 0.3, 1.0, 4.0])  # nothing along the lowest curvature
        step = exact(gradient, SADDLE, 2.0)
        assert np.linalg.norm(step) == pytest.approx(2.0, rel=1e-9)
        rest = -gradient[2:] / (np.diag(SADDLE)[2:] + 2.0)
        np.testing.assert_allclose(step[2:], rest, rtol=0.03)
        assert abs(step[0]) == pytest.approx(np.sqrt(4.0 - rest @ rest), rel=0.02)
        for sign in (1.0, -1.0):  # a little slope there decides the side
            slope = np.array([sign * 1e-9, 0.0, 0.3, 1.0, 4.0])
            assert np.sign(exact(slope, SADDLE, 2.0)[0]) == -sign

    @pytest.mark.parametrize("radius", [0.9, 3.0])
    def test_the_hard_case_with_one_negative_curvature(self, radius):
        hessian, gradient = np.diag([-2.0, 0.5, 0.3, 1.0, 4.0]), np.array([0, 0, 0.3, 1.0, 4.0])
        step = exact(gradient, hessian, radius)
        rest = -gradient[1:] / (np.diag(hessian)[1:] + 2.0)
        np.testing.assert_allclose(step[1:], rest, rtol=0.03, atol=1e-9)
        assert np.linalg.norm(step) == pytest.approx(radius, rel=1e-9)

    @pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
    def test_the_unit_of_the_loss_does_not_matter(self, scale):
        newton = -np.linalg.solve(CONVEX, GRADIENT)
        found = exact(scale * GRADIENT, scale * CONVEX, 2 * np.linalg.norm(newton))
        np.testing.assert_allclose(found, newton, rtol=1e-9)
        short = exact(scale * GRADIENT, scale * CONVEX, 0.3)
        assert np.linalg.norm(short) == pytest.approx(0.3, rel=0.0101)
        np.testing.assert_allclose(short, exact(GRADIENT, CONVEX, 0.3), rtol=1e-6)

    def test_newtons_method_is_exact_where_all_curvatures_are_one(self):
        for size in (1, 3):
            gradient = np.full(size, 4.0 / np.sqrt(size))
            step = exact(gradient, np.eye(size), 0.5)
            np.testing.assert_allclose(step, -0.5 / np.sqrt(size), rtol=1e-12)

    def test_newtons_method_comes_much_nearer_than_it_has_to(self):
        step = exact(np.array([-0.01, -0.04]), np.diag([-0.79, -0.35]), 0.46)
        shift = 0.8121345001502253  # where |s| = 0.46, by bisection
        np.testing.assert_allclose(step, [0.01 / (shift - 0.79), 0.04 / (shift - 0.35)], rtol=3e-5)

    def test_a_curvature_that_is_nothing_beside_the_largest_counts_as_none(self):
        step = exact(np.array([1e-21, 0.5]), np.diag([1e-20, 1.0]), 1.0)
        np.testing.assert_allclose(step, [0.0, -0.5], atol=1e-3)

    def test_without_a_slope_only_negative_curvature_moves(self):
        assert not exact(np.zeros(5), CONVEX, 1.0).any()
        step = exact(np.zeros(5), SADDLE, 1.5)
        np.testing.assert_allclose(np.abs(step), [1.5, 0, 0, 0, 0], atol=1e-9)


class TestConjugate:
    def test_a_minimum_inside_is_found_to_a_thousandth_of_the_slope(self):
        step = conjugate(GRADIENT, CONVEX, 1e6)
        assert np.linalg.norm(GRADIENT + CONVEX @ step) <= 1e-3 * np.linalg.norm(GRADIENT)
        np.testing.assert_allclose(
            conjugate(GRADIENT, 2 * np.eye(5), 9.0), -GRADIENT / 2, rtol=1e-12
        )

    def test_it_ends_on_the_sphere_and_as_low_as_the_steepest_descent(self):
        for hessian in (CONVEX, SADDLE):
            for radius in (0.01, 0.2, 1.0):
                step = conjugate(GRADIENT, hessian, radius)
                length = float(np.linalg.norm(step))
                assert length <= radius * (1 + 1e-12)
                bend = GRADIENT @ hessian @ GRADIENT
                reach = radius / np.linalg.norm(GRADIENT)
                descent = reach if bend <= 0 else min(GRADIENT @ GRADIENT / bend, reach)
                cauchy = value(GRADIENT, hessian, -descent * GRADIENT)
                assert value(GRADIENT, hessian, step) <= cauchy + 1e-12

    def test_negative_curvature_is_followed_to_the_sphere(self):
        step = conjugate(GRADIENT, -np.eye(5), 2.0)
        np.testing.assert_allclose(step, -2.0 * GRADIENT / np.linalg.norm(GRADIENT), rtol=1e-12)

    def test_the_edge_is_met_exactly_on_a_later_iteration(self):
        hessian = np.diag([1.0, 10.0])
        gradient = np.array([-4.0, -3.0])
        newton = np.array([4.0, 0.3])
        inside = conjugate(gradient, hessian, 4.1)
        np.testing.assert_allclose(inside, newton, rtol=1e-9)
        step = conjugate(gradient, hessian, 3.0)
        assert np.linalg.norm(step) == pytest.approx(3.0, rel=1e-12)
        first = -gradient * (gradient @ gradient) / (gradient @ hessian @ gradient)
        assert np.linalg.norm(first) < 3.0
        towards = (newton - first) / np.linalg.norm(newton - first)
        beyond = step - first
        np.testing.assert_allclose(beyond / np.linalg.norm(beyond), towards, atol=1e-9)

    def test_it_ends_when_the_slope_is_small(self):
        calls = []

        def product(vector):
            calls.append(1)
            return CONVEX @ vector

        ball_step(GRADIENT, product, 1e6)
        assert len(calls) <= 6

    def test_a_slope_of_one_and_no_curvature_at_all(self):
        slope = np.array([0.6, 0.8])
        np.testing.assert_allclose(conjugate(slope, np.eye(2), 9.0), -slope, rtol=1e-12)
        np.testing.assert_allclose(conjugate(slope, np.zeros((2, 2)), 9.0), -9 * slope, rtol=1e-12)

    def test_no_slope_no_step(self):
        assert not conjugate(np.zeros(3), np.eye(3), 1.0).any()

    def test_it_gives_up_after_forty_products(self):
        calls = []
        diagonal = np.logspace(0, 12, 200)

        def product(vector):
            calls.append(1)
            return diagonal * vector

        ball_step(np.ones(200), product, 1e9)
        assert len(calls) == 40


class TestBox:
    BOX = np.full(3, -1.0), np.full(3, 1.0)

    def test_what_leaves_the_box_is_held_and_the_rest_solved_again(self):
        hessian = np.array([[2.0, 0.2, 0.0], [0.2, 2.0, 0.5], [0.0, 0.5, 3.0]])
        gradient = -np.array([10.0, 1.5, 0.3])
        for dense in (hessian, None):
            step = box_step(gradient, lambda v: hessian @ v, 5.0, np.eye(3), self.BOX, dense)
            free = -np.linalg.solve(hessian[1:, 1:], gradient[1:] + hessian[1:, 0])
            np.testing.assert_allclose(step, [1.0, *free], rtol=2e-3)

    def test_both_sides_hold(self):
        gradient = np.array([10.0, -10.0, 0.5])
        step = box_step(gradient, lambda v: v, 9.0, np.eye(3), self.BOX, np.eye(3))
        np.testing.assert_allclose(step, [-1.0, 1.0, -0.5], atol=1e-9)

    def test_one_that_leaves_only_after_the_first_was_held_is_held_too(self):
        hessian = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])
        gradient = -np.array([4.0, 2.0, 0.1])
        free = -np.linalg.solve(hessian, gradient)
        np.testing.assert_allclose(free, [4.0, 0.0, 0.1], atol=1e-12)
        step = box_step(gradient, lambda v: hessian @ v, 50.0, np.eye(3), self.BOX, hessian)
        np.testing.assert_allclose(step, [1.0, 1.0, 0.1], atol=1e-9)

    def test_a_small_matrix_is_used_as_it_is(self):
        calls = []

        def product(vector):
            calls.append(1)
            return vector

        box_step(np.array([0.5, -0.2, 0.1]), product, 9.0, np.eye(3), self.BOX, np.eye(3))
        assert not calls
        box_step(np.array([10.0, -0.2, 0.1]), product, 9.0, np.eye(3), self.BOX, np.eye(3))
        assert len(calls) == 1  # what is held bends the slope of the rest

    def test_one_that_leaves_by_little_is_held_on_either_side(self):
        for sign in (1.0, -1.0):
            gradient = sign * np.array([1.5, 0.5, 0.25])
            step = box_step(gradient, lambda v: v, 9.0, np.eye(3), self.BOX, np.eye(3))
            np.testing.assert_allclose(step, sign * np.array([-1.0, -0.5, -0.25]), atol=1e-9)

    def test_rows_that_say_the_same_end_with_the_last_step(self):
        frame = np.vstack([np.eye(3), np.eye(3)[:1]])
        box, gradient = (np.full(4, -1.0), np.full(4, 1.0)), -np.array([10.0, 0.5, 0.2])
        step = box_step(gradient, lambda v: v, 90.0, frame, box, np.eye(3))
        np.testing.assert_allclose(step, [10.0, 0.5, 0.2])

    def test_nothing_is_held_when_nothing_leaves(self):
        gradient = np.array([0.5, -0.2, 0.1])
        step = box_step(gradient, lambda v: v, 9.0, np.eye(3), self.BOX, np.eye(3))
        np.testing.assert_allclose(step, -gradient, rtol=1e-12)

    def test_a_rotated_frame_is_held_in_its_coordinates(self):
        turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
        hessian = turn.T @ np.diag([1.0, 2.0, 3.0]) @ turn
        gradient = turn.T @ -np.array([10.0, 1.0, 0.6])
        step = box_step(gradient, lambda v: hessian @ v, 9.0, turn, self.BOX, hessian)
        np.testing.assert_allclose(turn @ step, [1.0, 0.5, 0.2], atol=1e-8)

    def test_what_is_held_beyond_the_ball_is_cut_to_it(self):
        near = np.array([np.cos(0.3), np.sin(0.3), 0.0])
        frame = np.vstack([np.eye(3)[0], near, np.eye(3)[2]])
        box = np.full(3, -9.0), np.array([1.0, 0.5, 9.0])  # both held: 1.8 from the centre
        step = box_step(np.array([-10.0, 0.0, 0.0]), lambda v: v, 1.4, frame, box, np.eye(3))
        assert np.linalg.norm(step) == pytest.approx(1.4, rel=1e-3)

    def test_the_ball_still_holds(self):
        gradient = -np.array([10.0, 10.0, 0.0])
        box = np.full(3, -0.5), np.array([0.3, 9.0, 9.0])
        step = box_step(gradient, lambda v: v, 0.5, np.eye(3), box, np.eye(3))
        assert step[0] == pytest.approx(0.3, abs=1e-9)
        assert np.linalg.norm(step) == pytest.approx(0.5, rel=0.01)
        assert step[1] > 0

    def test_where_a_bound_takes_the_whole_radius_a_hundredth_of_it_is_left(self):
        gradient, hessian = -np.array([10.0, 0.02, 0.0]), 1e-9 * np.eye(3)
        box = np.full(3, -9.0), np.array([0.499998, 9.0, 9.0])
        step = box_step(gradient, lambda v: 1e-9 * v, 0.5, np.eye(3), box, hessian)
        np.testing.assert_allclose(step, [0.499998, 0.005, 0.0], rtol=1e-2, atol=1e-9)

    def test_a_box_that_leaves_nothing_free_ends_with_the_last_step(self):
        gradient = -np.array([10.0, 10.0, 10.0])
        step = box_step(gradient, lambda v: v, 90.0, np.eye(3), self.BOX, np.eye(3))
        np.testing.assert_allclose(step, [10.0, 10.0, 10.0])
