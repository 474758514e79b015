"""Constraints: what their texts mean, what is refused, and where a forbidden start goes."""

import re

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.problem.constraints import FeasibleSet
from zo_bilevel.problem.expression import Inequality
from zo_bilevel.problem.theta import flatten_theta

SPACE = zb.Space(
    a=zb.Real(0, 1),
    b=zb.Log(0.01, 10),
    k=zb.Real(-1, 1, shape=(3,)),
    n=zb.Integer(0, 9),
    mode=zb.Choice(["x", "y"]),
    twice=zb.Tied("2 * a"),
)


def nothing(phi):
    return 0.0


def problem(*constraints, space=SPACE):
    return zb.Problem(space, nothing, constraints=list(constraints))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a + 2 * b <= 4", [1.0]),
        ("a + 2*b < 4", [1.0]),
        ("4 > a + 2 * b", [1.0]),
        ("a >= 2", [1.0]),
        ("-a / 4 <= k[1] - 5", [-0.25 + 3.0]),
        ("sum(k) <= 5", [1.0]),
        ("k <= 1.5", [-0.5, 0.5, 1.5]),
        ("0 <= b - a <= 0.5", [-1.0, 0.5]),
    ],
)
def test_a_text_is_at_most_zero_where_it_holds(text, values):
    named = {"a": 1.0, "b": 2.0, "k": np.array([1.0, 2.0, 3.0])}
    assert Inequality(text).values(named) == pytest.approx(values)


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ("a + z <= 1", "unknown name 'z'"),
        ("stress <= 200", "constrained by zb.Output"),
        ("a * b <= 1", "not linear in 'a * b'"),
        ("1 / a <= 2", "not linear in '1 / a'"),
        ("a ** 2 <= 1", "not linear"),
        ("exp(a) <= 1", "not linear"),
        ("a / 0 <= 1", "not finite"),
        ("mode <= 1", "the choice 'mode'"),
        ("a + b", "must hold <="),
        ("a == b", "is an equation"),
        ("a != b", "must hold"),
        ("1 <= 2", "compares numbers only"),
        ("a + <= 1", "cannot be read"),
        ("k[3] <= 1", "out of bounds"),
        ("__import__('os').getcwd() <= 1", "must be a formula"),
        ("a.real <= 1", "must be a formula"),
        ("a <= -1", "contradict"),
        (3, "must be a text"),
        (lambda phi: phi["a"] < 1, "must return numbers"),
        (lambda phi: phi["z"], "KeyError"),
    ],
)
def test_what_no_solve_can_follow_is_refused_by_name(constraint, said):
    with pytest.raises(zb.InputError, match=re.escape(said)):
        problem(constraint)


def test_contradictory_constraints_are_refused_before_any_solve():
    with pytest.raises(zb.InputError, match=r"contradict each other.*'a \+ b <= 1', 'a \+ b >= 2'"):
        problem("a + b <= 1", "a + b >= 2")
    with pytest.raises(zb.InputError, match="contradict"):
        problem("twice + k[0] >= 3.5")  # a tied value is at most 2, an element at most 1
    problem("twice + k[0] >= 2.5")


def test_functions_that_nothing_satisfies_are_refused_at_the_start():
    impossible = problem(lambda phi: phi["a"] ** 2 + 1.0)
    with pytest.raises(zb.InputError, match="allow no start"):
        zb.minimize(impossible, max_solves=5)


def test_a_list_is_wanted_and_numbers_are_checked():
    with pytest.raises(zb.InputError, match="must be a list"):
        zb.Problem(SPACE, nothing, constraints="a <= b")
    with pytest.raises(zb.InputError, match="Output scale"):
        zb.Output("u <= 1", scale=0.0)
    with pytest.raises(zb.InputError, match="must be a text or a function"):
        zb.Output(3)
    with pytest.raises(zb.InputError, match="must be a text"):
        zb.Linear(3)


def test_a_start_outside_goes_to_the_nearest_point_inside():
    space = zb.Space(a=zb.Real(0, 1), b=zb.Real(0, 1))
    moved = problem("a + b <= 1", space=space).start_at({"a": 1.0, "b": 0.6})
    assert space.values(moved) == pytest.approx([0.7, 0.3], abs=1e-6)
    kept = problem("a + b <= 1", space=space).start_at({"a": 0.4, "b": 0.6})
    assert np.array_equal(kept, space.encode({"a": 0.4, "b": 0.6}))
    disc = problem(lambda phi: phi["a"] ** 2 + phi["b"] ** 2 - 0.25, space=space)
    circle = space.values(disc.start_at({"a": 0.6, "b": 0.8}))
    assert circle == pytest.approx([0.3, 0.4], abs=1e-6)


def test_a_start_is_found_with_integers_logarithms_and_arrays():
    told = problem("a < b", "sum(k) <= -1", "n <= 3", lambda phi: phi["a"] ** 2 - phi["b"])
    phi = SPACE.decode(told.start_at({"a": 0.9, "n": 8}))
    assert phi["a"] <= phi["b"]
    assert phi["n"] <= 3
    assert phi["k"].sum() <= -1 + 1e-6


def test_outputs_are_measured_in_the_number_that_they_are_compared_with():
    space = zb.Space(limit=zb.Real(100, 300))
    x = space.encode({"limit": 200.0})
    theta, layout = flatten_theta({"u": [1.0, 250.0], "limits": 3.0})

    def after(rule, **more):
        return FeasibleSet(space, [zb.Output(rule, **more)]).after(theta, layout, x)

    assert after("u[1] <= 200") == pytest.approx([0.25])
    assert after("u <= 200") == pytest.approx([-0.995, 0.25])
    assert after("u[1] <= limit") == pytest.approx([50.0])
    assert after("u[1] <= limit", scale=100) == pytest.approx([0.5])
    assert after(lambda theta, phi: theta["u"] - phi["limit"], scale=10.0) == pytest.approx(
        [-19.9, 5.0]
    )
    with pytest.raises(zb.InputError, match="unknown name 'v'"):
        after("v <= 1")


def test_a_name_of_both_a_parameter_and_an_output_is_refused():
    space = zb.Space(u=zb.Real(0, 1))
    theta, layout = flatten_theta({"u": 3.0})
    with pytest.raises(zb.InputError, match="is a parameter and a part of theta"):
        FeasibleSet(space, [zb.Output("u <= 1")]).after(theta, layout, space.lower)


def test_a_bare_inner_solution_is_called_theta():
    space = zb.Space(a=zb.Real(0, 1))
    theta, layout = flatten_theta(np.array([1.0, 4.0]))
    found = FeasibleSet(space, [zb.Output("theta[1] <= 2")])
    assert found.violation(theta, layout, space.lower) == pytest.approx(1.0)
