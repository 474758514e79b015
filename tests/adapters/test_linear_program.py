"""LinearProgram: followers that are degenerate, infeasible or unbounded, each by name."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

import zo_bilevel as zb
from zo_bilevel.adapters import LinearProgram
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.support.errors import InputError, SolveError

pytest.importorskip("highspy", reason="highspy is not installed")
BUY_ONE = {"cost": [0.0, 1.0], "matrix": [[1.0, 1.0]], "row_lower": 1.0, "row_upper": 1.0}
PRICE = {"cost_parameters": {"price": [0]}}


def pricing(seed=0, num_goods=60, num_needs=25, **options):
    """A follower who covers needs from goods that the leader prices, or from others."""
    rng = np.random.default_rng(seed)
    matrix = np.hstack([rng.uniform(0, 1, (num_needs, num_goods)), np.eye(num_needs)])
    cost = np.concatenate([rng.uniform(0, 0.2, num_goods), np.full(num_needs, 3.0)])
    columns = np.arange(num_goods)
    return LinearProgram(
        cost, matrix, row_lower=1.0, cost_parameters={"price": columns}, upper=2.0, **options
    )


def test_the_answer_is_that_of_scipy_on_random_programs():
    rng = np.random.default_rng(1)
    for _ in range(20):
        cost, matrix = rng.normal(size=8), rng.normal(size=(5, 8))
        low = matrix @ rng.uniform(0, 1, 8) - rng.uniform(0, 1, 5)
        solver = LinearProgram(
            cost,
            scipy.sparse.csr_array(matrix),
            row_lower=low,
            upper=1.0,
            theta=("solution", "objective"),
            cost_parameters={"c": np.eye(8)},
            row_parameters={"r": np.arange(5)},
        )
        c, r = rng.normal(size=8), -rng.uniform(0, 1, 5)
        theta = solver({"c": c, "r": r})
        expected = scipy.optimize.linprog(
            cost + c, A_ub=-matrix, b_ub=-(low + r), bounds=(0, 1), method="highs"
        )
        assert theta["objective"] == pytest.approx(expected.fun, rel=1e-9)
        np.testing.assert_allclose(theta["solution"], expected.x, atol=1e-8)


def test_maximize_duals_and_a_scalar_parameter():
    solver = LinearProgram(
        [3.0, 2.0],
        [[1.0, 1.0], [1.0, 0.0]],
        row_upper=[4.0, 2.0],
        maximize=True,
        theta=("solution", "objective", "row_duals"),
        row_parameters={"extra": [0]},
    )
    theta = solver({"extra": 1.0})
    np.testing.assert_allclose(theta["solution"], [2, 3])
    assert theta["objective"] == pytest.approx(12)
    np.testing.assert_allclose(np.abs(theta["row_duals"]), [2, 1])
    step = solver({"extra": 1.5})["objective"] - theta["objective"]
    assert step == pytest.approx(0.5 * theta["row_duals"][0])


def test_a_mixed_integer_follower():
    knapsack = {"cost": [5.0, 4.0, 3.0], "matrix": [[2.0, 3.0, 1.0]], "row_upper": 4.0}
    options = {"upper": 1.0, "maximize": True, "row_parameters": {"room": [0]}}
    whole = LinearProgram(**knapsack, **options, integer=[0, 1, 2])
    np.testing.assert_allclose(whole({"room": 0.0}), [1, 0, 1])
    np.testing.assert_allclose(whole({"room": 2.0}), [1, 1, 1])
    np.testing.assert_allclose(LinearProgram(**knapsack, **options)({"room": 0.0}), [1, 1 / 3, 1])
    with pytest.raises(InputError, match="'row_duals' does not exist with integer"):
        LinearProgram(**knapsack, **options, integer=[0], theta="row_duals")


def test_ties_are_broken_for_or_against_the_leader_or_refused_by_name():
    leader = {"leader_cost": [-1.0, 0.0]}  # the leader wants column 0 sold
    tied = {"price": 1.0}
    for ties, expected in [("optimistic", [1, 0]), ("pessimistic", [0, 1])]:
        solver = LinearProgram(**BUY_ONE, **PRICE, **leader, ties=ties)
        np.testing.assert_allclose(solver(tied), expected, atol=1e-8)
        np.testing.assert_allclose(solver({"price": 1.001}), [0, 1], atol=1e-6)
        np.testing.assert_allclose(solver({"price": 0.999}), [1, 0], atol=1e-6)
    refusing = LinearProgram(**BUY_ONE, **PRICE, ties="refuse")
    np.testing.assert_allclose(refusing({"price": 0.5}), [1, 0])
    with pytest.raises(SolveError, match="several best answers: column 0 may be 0 or 1"):
        refusing(tied)
    whole = LinearProgram(**BUY_ONE, **PRICE, ties="refuse", integer=[True, True])
    with pytest.raises(SolveError, match="several best answers"):
        whole(tied)


def test_a_leader_whose_cost_depends_on_its_parameters():
    revenue = {"leader_cost_parameters": {"price": np.array([[-1.0], [0.0]])}}
    solver = LinearProgram(**BUY_ONE, **PRICE, **revenue, ties="optimistic")
    np.testing.assert_allclose(solver({"price": 1.0}), [1, 0], atol=1e-8)
    problem = zb.Problem(
        zb.Space(price=zb.Real(0, 2)), solver, lambda x, phi: -float(phi["price"] * x[0])
    )
    result = zb.minimize(problem, zb.RandomSearch(), max_solves=60, seed=0)
    assert 0.8 < result.phi["price"] <= 1.0 + 1e-9


@pytest.mark.parametrize(
    ("options", "phi", "message"),
    [
        ({"lower": 0.0, "upper": 0.2}, {"price": 1.0}, "is infeasible: no answer meets"),
        ({"upper": np.inf, "row_upper": np.inf}, {"price": -5.0}, "is unbounded: its cost"),
    ],
)
def test_followers_without_an_answer_are_failed_solves_by_name(options, phi, message):
    solver = LinearProgram(**{**BUY_ONE, **PRICE, **options})
    outcome = Solve(solver)(Job(0, phi, 0))
    assert outcome.status == "failed"
    assert message in outcome.error


@pytest.mark.parametrize("where", ["cost_parameters", "row_parameters", "leader_cost_parameters"])
@pytest.mark.parametrize("value", [np.nan, np.inf, [1.0, 2.0]])
def test_a_parameter_that_is_no_number_is_refused_by_name(where, value):
    solver = LinearProgram(**BUY_ONE, **{where: {"p": [0]}}, ties="optimistic", leader_cost=[1, 0])
    with pytest.raises(InputError, match=f"'p' of {where} must be 1 finite numbers, got"):
        solver({"p": value})
    with pytest.raises(InputError, match=f"'p' of {where} is missing"):
        solver({})


def test_rows_that_cross_are_infeasible_by_name():
    solver = LinearProgram(
        [1.0], [[1.0], [1.0]], row_lower=[0.0, 0.0], row_upper=[1.0, 1.0], lower=-5.0,
        row_parameters={"shift": np.array([[1.0], [-1.0]])},
    )  # fmt: skip
    np.testing.assert_allclose(solver({"shift": 0.5}), [0.5])
    with pytest.raises(SolveError, match="is infeasible"):
        solver({"shift": 2.0})


def test_the_answer_does_not_depend_on_what_was_solved_before_or_where():
    solver = pricing()
    rng = np.random.default_rng(0)
    prices = [{"price": rng.uniform(0, 3, 60)} for _ in range(12)]
    forward = [solver(phi) for phi in prices]
    backward = [pickle.loads(pickle.dumps(solver))(phi) for phi in reversed(prices)][::-1]
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_is_printed():
    code = (
        "from zo_bilevel.adapters import LinearProgram\n"
        "LinearProgram([0., 1.], [[1., 1.]], row_lower=1., cost_parameters={'p': [0]})({'p': .5})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == run.stderr == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matrix": [[1.0]]}, r"matrix must be finite, of shape \(rows, 2\)"),
        ({"matrix": [[1.0, np.nan]]}, "matrix must be finite"),
        ({"cost": [np.inf, 1.0]}, "cost must be finite"),
        ({"cost": "abc"}, "cost must be numbers"),
        ({"row_lower": [1.0, 2.0]}, r"row_lower must have shape \(1,\)"),
        ({"row_lower": 2.0}, "row 0: row_lower must be <= row_upper, got 2.0, 1.0"),
        ({"upper": -1.0}, "column 0: lower must be <= upper"),
        ({"upper": np.nan}, "upper must not hold NaN"),
        ({"integer": [2]}, "integer must hold columns from 0 to 1"),
        ({"theta": "solutions"}, "unknown part of theta 'solutions'; did you mean 'solution'"),
        ({"ties": "optimist"}, "unknown rule for ties 'optimist'; did you mean 'optimistic'"),
        ({"ties": "optimistic"}, "needs leader_cost"),
        ({"cost_parameters": {"price": [2]}}, "positions from 0 to 1"),
        ({"cost_parameters": {"price": np.eye(3)}}, "must be finite and have 2 rows"),
        ({"cost_parameters": {"price": "x"}}, "must be a matrix of shape"),
        ({"time_limit_s": 0}, "time_limit_s must be finite and > 0, got 0"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, message):
    with pytest.raises(InputError, match=message):
        LinearProgram(**{**BUY_ONE, **PRICE, **options})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (zb.Space(prize=zb.Real(0, 1)), "in cost_parameters: 'price'; did you mean 'prize'"),
        (zb.Space(price=zb.Real(0, 1, shape=(3,))), "'price' has 3 values, but its map .* takes 1"),
        (zb.Space(price=zb.Choice([0, 1])), "'price' is a Choice, not a number"),
        (zb.Space(price=zb.Real(0, 1), tax=zb.Real(0, 1)), "parameters without effect: tax"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_before_the_first_solve(space, message):
    with pytest.raises(InputError, match=message):
        zb.Problem(space, LinearProgram(**BUY_ONE, **PRICE))


def test_names_in_a_store_tell_programs_apart():
    names = [
        LinearProgram(**BUY_ONE, **PRICE).name,
        LinearProgram(**{**BUY_ONE, "cost": [0.0, 2.0]}, **PRICE).name,
        LinearProgram(**BUY_ONE, **PRICE, ties="refuse").name,
        LinearProgram(**BUY_ONE, cost_parameters={"price": [1]}).name,
    ]
    assert len(set(names)) == 4
    assert LinearProgram(**BUY_ONE, **PRICE).name == names[0]
