"""NonlinearProgram: closed forms, several minima, and what it refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.adapters import NonlinearProgram
from zo_bilevel.support.errors import InputError, SolveError


def two_wells(y, phi):
    return 0.5 * phi["x"] * y[0] ** 2 + 0.25 * y[0] ** 4


def first(y, phi):
    return y[0]


def line(y, phi):
    return (y[0] + 2 * y[1] - phi["x"]) ** 2


def distance(y, phi):
    return (y[0] - 0.3) ** 2 + y[1] ** 2


def quadratic_follower(**options):
    """`min |y - a|^2` over the half space `sum(y) <= 1`: a projection."""
    return NonlinearProgram(
        lambda y, phi: np.sum((y - phi["a"]) ** 2),
        [-5.0] * 3,
        [5.0] * 3,
        constraints=lambda y, phi: np.sum(y) - 1.0,
        **options,
    )


def test_a_convex_quadratic_program_has_its_projection():
    follower = quadratic_follower()
    for a in np.random.default_rng(0).uniform(-3, 3, (5, 3)):
        expected = a - max(a.sum() - 1.0, 0.0) / 3
        np.testing.assert_allclose(follower({"a": a}), expected, atol=1e-7)


@pytest.mark.parametrize("unit", [1e-20, 1e-9, 1e-3, 1e6, 1e12])
def test_the_unit_of_the_objective_does_not_change_the_answer(unit):
    follower = NonlinearProgram(lambda y, phi: unit * (y[0] - 0.3) ** 2, [-2.0], [2.0])
    assert follower({"x": 0})[0] == pytest.approx(0.3, abs=1e-6)
    # of two wells the deeper one, not the nearer; least distance on the line a + 2 b = 1
    tilted = NonlinearProgram(
        lambda y, phi: unit * ((y[0] ** 2 - 1) ** 2 - 0.1 * y[0]), [-2.5], [2.0]
    )
    assert tilted({"x": 0})[0] == pytest.approx(1.0123, abs=1e-4)
    best = NonlinearProgram(
        lambda y, phi: unit * line(y, phi),
        [-1, -1],
        [1, 1],
        leader=lambda y, phi: unit * distance(y, phi),
        ties="optimistic",
    )
    np.testing.assert_allclose(best({"x": 1.0}), [0.44, 0.28], atol=1e-4)


@pytest.mark.parametrize("leader_unit", [1.0, 1e6, 1e9])
@pytest.mark.parametrize("unit", [1.0, 1e6, 1e9])
def test_units_of_leader_and_follower_may_be_far_apart(unit, leader_unit):
    for ties, expected in (("optimistic", [0.44, 0.28]), ("pessimistic", [-1.0, 1.0])):
        follower = NonlinearProgram(
            lambda y, phi: unit * line(y, phi),
            [-1, -1],
            [1, 1],
            leader=lambda y, phi: leader_unit * distance(y, phi),
            ties=ties,
        )
        np.testing.assert_allclose(follower({"x": 1.0}), expected, atol=1e-6)


@pytest.mark.parametrize("width", [1e-6, 1e3, 1e6])
def test_units_of_the_answers_do_not_change_them(width):
    # the projection of (0.3, -0.2) on a + b <= 0
    follower = NonlinearProgram(
        lambda y, phi: 1e6 * np.sum((y - width * np.array([0.3, -0.2])) ** 2),
        [-2 * width] * 2,
        [2 * width] * 2,
        constraints=lambda y, phi: np.sum(y) / width,
    )
    np.testing.assert_allclose(follower({}) / width, [0.25, -0.25], atol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_objective_that_is_not_finite_is_said_to_be(value):
    follower = NonlinearProgram(lambda y, phi: value, [0.0], [1.0])
    with pytest.raises(SolveError, match=f"objective is not finite .* got {value} at"):
        follower({"x": 0.0})


@pytest.mark.parametrize(("ties", "sign"), [("optimistic", -1), ("pessimistic", 1)])
def test_of_two_equal_minima_the_leader_gets_the_one_that_the_rule_says(ties, sign):
    follower = NonlinearProgram(two_wells, [-2.0], [2.0], leader=first, ties=ties)
    for x in (-0.25, -1.0):
        assert follower({"x": x})[0] == pytest.approx(sign * np.sqrt(-x), abs=1e-6)
    assert follower({"x": 1.0})[0] == pytest.approx(0.0, abs=1e-3)


def test_flat_minima_are_searched_for_what_the_leader_likes():
    # least distance on the line a + 2 b = 1, and the far corner that is still on it
    best = NonlinearProgram(line, [-1, -1], [1, 1], leader=distance, ties="optimistic")
    np.testing.assert_allclose(best({"x": 1.0}), [0.44, 0.28], atol=1e-4)
    worst = NonlinearProgram(line, [-1, -1], [1, 1], leader=distance, ties="pessimistic")
    np.testing.assert_allclose(worst({"x": 1.0}), [-1.0, 1.0], atol=1e-4)


def test_answers_that_are_not_determined_can_be_refused():
    follower = NonlinearProgram(two_wells, [-2.0], [2.0], ties="refuse")
    with pytest.raises(SolveError, match="several best answers"):
        follower({"x": -0.25})
    assert abs(follower({"x": 1.0})[0]) < 1e-2


def test_an_infeasible_follower_fails_by_name():
    follower = NonlinearProgram(
        first, [0.0], [1.0], constraints=lambda y, phi: [phi["x"] - y[0], y[0] - 0.5]
    )
    assert follower({"x": 0.2})[0] == pytest.approx(0.2)
    with pytest.raises(SolveError, match="infeasible from all 8 starts"):
        follower({"x": 0.7})


def test_the_global_minimum_is_found_from_the_starts():
    def waves(y, phi):
        return np.sin(5 * y[0]) + 0.1 * (y[0] - phi["x"]) ** 2

    grid = np.linspace(-4, 4, 80001)
    follower = NonlinearProgram(waves, [-4.0], [4.0], num_starts=16)
    for x in (-2.0, 0.3, 3.0):
        values = waves([grid], {"x": x})
        assert waves(follower({"x": x}), {"x": x}) <= values.min() + 1e-9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lower": [0.0, 0.0]}, "of one shape"),
        ({"upper": [np.inf]}, "finite"),
        ({"lower": [2.0]}, "lower must be <= upper"),
        ({"ties": "optimistic"}, "needs leader"),
        ({"ties": "best"}, "rule for ties"),
        ({"num_starts": 0}, "num_starts"),
        ({"objective": 3}, "objective must be callable"),
        ({"constraints": [1.0]}, "constraints must be callable"),
    ],
)
def test_bad_arguments_are_refused_by_name(changes, message):
    arguments = {"objective": first, "lower": [0.0], "upper": [1.0], **changes}
    with pytest.raises(InputError, match=message):
        NonlinearProgram(**arguments)


def test_it_is_told_apart_and_the_same_in_every_process():
    follower = NonlinearProgram(two_wells, [-2.0], [2.0])
    assert pickle.loads(pickle.dumps(follower)).name == follower.name
    others = [
        NonlinearProgram(first, [-2.0], [2.0]),
        NonlinearProgram(two_wells, [-2.0], [3.0]),
        NonlinearProgram(two_wells, [-2.0], [2.0], num_starts=9),
        NonlinearProgram(two_wells, [-2.0], [2.0], leader=first, ties="optimistic"),
    ]
    assert len({follower.name, *(other.name for other in others)}) == 5


def test_a_leader_meets_his_optimum():
    follower = NonlinearProgram(two_wells, [-1.0], [1.0])
    space = zb.Space(x=zb.Real(-1, 1))
    problem = zb.Problem(space, follower, lambda y, phi: (phi["x"] + 0.5) ** 2 + 0.5 * y[0] ** 2)
    result = zb.minimize(problem, max_solves=40)
    assert result.loss == pytest.approx(0.1875, abs=1e-6)  # Mitsos and Barton (2006), example 3.17
