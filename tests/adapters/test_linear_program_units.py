"""LinearProgram: the follower's and the leader's optimum in any units, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.optimize

from zo_bilevel.adapters import LinearProgram
from zo_bilevel.support.errors import SolveError

pytest.importorskip("highspy", reason="highspy is not installed")
BOTH = {"theta": ("solution", "objective")}


def with_ties(seed, columns=6, rows=4):
    """Small whole numbers: many answers are equally good."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-2, 4, (rows, columns)).astype(float)
    top = rng.integers(1, 8, rows).astype(float)
    cost = -matrix[0] if seed % 3 == 0 else rng.integers(-2, 2, columns).astype(float)
    return rng, matrix, top, cost


def best_for_the_leader(sign, leader, cost, matrix, top, optimum):
    """Of two linear programs in good units."""
    rows, limits = np.vstack([matrix, cost]), np.append(top, optimum + 1e-9)
    return sign * scipy.optimize.linprog(sign * leader, rows, limits, bounds=(0, 5)).fun


@pytest.mark.parametrize("seed", range(60))
def test_units_of_columns_rows_and_costs_do_not_change_the_answer(seed):
    rng, matrix, top, cost = with_ties(seed)
    leader = rng.normal(size=6)
    optimum = scipy.optimize.linprog(cost, matrix, top, bounds=(0, 5)).fun
    unit, weight = 10.0 ** rng.integers(-5, 6, 6), 10.0 ** rng.integers(-4, 5, 4)
    price, size = 10.0 ** rng.integers(-9, 10), 10.0 ** rng.integers(-9, 10)
    given = {"row_upper": size * top * weight, "upper": 5 * size / unit}
    follower = price * cost * unit, matrix * unit * weight[:, None]
    ends = []
    for ties, sign in (("optimistic", 1.0), ("pessimistic", -1.0)):
        theta = LinearProgram(*follower, **given, ties=ties, leader_cost=leader * unit, **BOTH)({})
        x = theta["solution"] * unit / size
        assert cost @ x == pytest.approx(optimum, abs=1e-6)
        assert theta["objective"] == pytest.approx(price * size * optimum, abs=1e-6 * price * size)
        assert (matrix @ x <= top + 1e-6).all()
        expected = best_for_the_leader(sign, leader, cost, matrix, top, optimum)
        assert leader @ x == pytest.approx(expected, abs=1e-5)
        ends.append(x)
    refusing = LinearProgram(*follower, **given, ties="refuse")
    if np.abs(ends[0] - ends[1]).max() > 1e-5:
        with pytest.raises(SolveError, match="several best answers"):
            refusing({})
    else:  # a random leader with one answer both ways: there is no other
        np.testing.assert_allclose(refusing({}) * unit / size, ends[0], atol=1e-6)


@pytest.mark.parametrize("seed", range(60))
def test_whole_numbers_are_those_of_an_enumeration_in_any_units(seed):
    rng, matrix, top, cost = with_ties(seed, 5, 3)
    leader = rng.integers(-5, 6, 5).astype(float)
    points = np.array(list(itertools.product(range(4), repeat=5)), dtype=float)
    feasible = points[(points @ matrix.T <= top).all(axis=1)]
    best = feasible[feasible @ cost == (feasible @ cost).min()]
    weight, price = 10.0 ** rng.integers(-5, 6, 3), 10.0 ** rng.integers(-9, 10)
    given = {"row_upper": top * weight, "upper": 3.0, "integer": range(5)}
    follower = price * cost, matrix * weight[:, None]
    for ties, end in (("optimistic", np.min), ("pessimistic", np.max)):
        theta = LinearProgram(*follower, **given, ties=ties, leader_cost=leader, **BOTH)({})
        assert theta["solution"] @ leader == end(best @ leader)
        assert theta["solution"].tolist() in best.tolist()
        assert theta["objective"] == pytest.approx(price * (best @ cost)[0])
    refusing = LinearProgram(*follower, **given, ties="refuse")
    if len(best) > 1:
        with pytest.raises(SolveError, match="several best answers"):
            refusing({})
    else:
        np.testing.assert_array_equal(refusing({}), best[0])


@pytest.mark.parametrize("seed", range(30))
def test_mixed_followers_have_continuous_columns_in_any_units(seed):
    rng, matrix, top, cost = with_ties(seed, 5, 3)
    leader = rng.normal(size=5)
    unit = np.where(np.arange(5) < 2, 1.0, 10.0 ** rng.integers(-5, 6, 5))
    expected = {1.0: [], -1.0: []}
    parts = []
    for whole in itertools.product(range(6), repeat=2):  # one linear program for each
        bounds = [(v, v) for v in whole] + [(0, 5)] * 3
        found = scipy.optimize.linprog(cost, matrix, top, bounds=bounds)
        parts += [(found.fun, bounds)] if found.success else []
    optimum = min(value for value, _ in parts)
    for value, bounds in parts:
        if value < optimum + 1e-7:
            rows, limits = np.vstack([matrix, cost]), np.append(top, optimum + 1e-9)
            for sign, found in expected.items():
                end = scipy.optimize.linprog(sign * leader, rows, limits, bounds=bounds)
                found += [end.fun] if end.success else []
    for ties, sign in (("optimistic", 1.0), ("pessimistic", -1.0)):
        solver = LinearProgram(
            cost * unit, matrix * unit, row_upper=top, upper=5 / unit, integer=[0, 1], ties=ties,
            leader_cost=leader * unit,
        )  # fmt: skip
        x = solver({}) * unit
        assert cost @ x == pytest.approx(optimum, abs=1e-6)
        assert sign * leader @ x == pytest.approx(min(expected[sign]), abs=1e-5)


def test_duals_are_in_the_users_units():
    price = LinearProgram(
        [3e-6, 2e6], [[1e-6, 1e6], [1e-3, 0.0]], row_upper=[4.0, 2e3], maximize=True,
        theta=("solution", "row_duals", "reduced_costs"),
    )({})  # fmt: skip
    np.testing.assert_allclose(price["solution"], [2e6, 2e-6])
    np.testing.assert_allclose(price["row_duals"], [2.0, 1e-3])
    np.testing.assert_allclose(price["reduced_costs"], [0.0, 0.0], atol=1e-12)
