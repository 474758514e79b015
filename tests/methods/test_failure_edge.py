"""Edges of failures: the plane that is learnt from them, and searches that slide along."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.constrained.known_points import FailureEdge


def test_the_plane_is_the_farthest_that_has_all_failures_beyond():
    edge, center = FailureEdge(), np.array([1.0, 1.0])
    assert edge.plane(center, center[None], 1.0) is None
    edge.add(np.array([3.0, 1.0]))
    np.testing.assert_allclose(edge.plane(center, center[None], 1.0), [0.5, 0.0], atol=1e-12)
    edge.add(np.array([1.0, 3.0]))  # touched by x + y = 2
    np.testing.assert_allclose(edge.plane(center, center[None], 1.0), [0.5, 0.5], atol=1e-12)
    assert edge.plane(center, center[None], 0.1) is None  # too far away to matter


def test_failures_that_no_plane_parts_from_solves_give_none_or_a_closer_one():
    edge, center = FailureEdge(), np.zeros(2)
    edge.add(np.array([0.5, 0.0]))
    solved = np.array([[0.0, 0.0], [3.0, 0.0], [-3.0, 0.0]])
    np.testing.assert_allclose(edge.plane(center, solved, 1.0), [2.0, 0.0], atol=1e-12)
    edge.add(np.array([-0.5, 0.0]))
    assert edge.plane(center, solved, 1.0) is None


@pytest.mark.parametrize("is_scalar", [False, True])
def test_the_default_slides_along_an_edge_of_failures_to_the_least_loss(is_scalar):
    # least squares where solves fail beyond n . x = 1: the minimum lies on that plane
    normal, goal = np.array([1.0, 0.6, -0.4]), np.array([2.0, 1.0, 0.5])
    mixing = np.array([[1.0, 0.4, 0.0], [0.0, 1.0, 0.3], [0.2, 0.0, 1.0], [0.5, 0.5, 0.5]])

    def solve(phi):
        if normal @ phi["x"] > 1.0:
            raise ArithmeticError("the state is negative")
        return mixing @ phi["x"]

    target = mixing @ goal
    quadratic = 2.0 * mixing.T @ mixing
    system = np.block([[quadratic, normal[:, None]], [normal[None], np.zeros((1, 1))]])
    best = np.linalg.solve(system, np.append(2.0 * mixing.T @ target, 1.0))[:3]
    least = float(np.mean((mixing @ best - target) ** 2))
    problem = zb.Problem(zb.Space(x=zb.Real(-3, 3, shape=(3,))), solve, zb.SquaredError(target))
    problem = problem.scalar if is_scalar else problem
    excess = []
    for place in (-1.0, -0.999, -0.9):  # which failures are met hangs on the last digit
        result = zb.minimize(
            problem, initial={"x": [place, 0.0, 1.0]}, max_solves=150, max_failure_rate=1.0
        )
        excess.append((result.loss - least) / result.history[0].loss)
    assert np.median(excess) < 1e-4
    assert max(excess) < 2e-3


def test_a_search_that_slid_along_an_edge_and_ends_at_it_has_not_converged():
    """It said so at a loss 1.9 times the lowest on the edge: 4 of its last 10 solves failed."""
    times = np.linspace(0, 5, 25)
    rng = np.random.default_rng(0)
    normal, share = rng.normal(size=2), rng.uniform(0.1, 0.5)

    def cool(phi):
        return phi["s"] * (4.0 + 86.0 * np.exp(-phi["r"] * times))

    def failing(phi):
        away = np.array([np.log(phi["r"] / 0.3), phi["s"] - 1.1])
        if normal @ away + 0.5 * share * np.abs(normal).sum() > 0:
            raise RuntimeError("no convergence")
        return cool(phi)

    start = {"r": float(np.exp(rng.uniform(np.log(0.02), np.log(2)))), "s": rng.uniform(0.3, 2.9)}
    space = zb.Space(r=zb.Log(0.01, 3), s=zb.Real(0.2, 3))
    problem = zb.Problem(space, failing, zb.SquaredError(cool({"r": 0.3, "s": 1.1})))
    found = zb.minimize(problem, initial=start, max_solves=100)
    assert "the search ended where solves fail" in found.stop_reason


@pytest.mark.parametrize("size", [2, 3])
def test_first_differences_that_all_fail_are_not_taken_for_noise(size):
    """It said "1 +- 0" after 19 solves: the probe of the noise differed, and no slope was known."""

    def solve(phi):
        if np.any(phi["x"] > 0.9):
            raise ArithmeticError("the mesh is tangled")
        return np.mean((phi["x"] - 1.0) ** 2)

    problem = zb.Problem(zb.Space(x=zb.Real(-3, 3, shape=(size,))), solve)
    result = zb.minimize(problem, initial={"x": np.zeros(size)}, max_solves=100)
    assert result.standard_error is None
    assert result.loss < 0.02  # 0.01 on the edge; 0.22 and 0.40 were left


@pytest.mark.parametrize("seed", range(3))
def test_failures_by_chance_are_counted_and_called_no_edge(seed):
    """Of twelve such runs all ended "where solves fail", at the minimum."""

    def solve(phi):
        if hashlib.md5(phi["x"].tobytes() + bytes([seed])).digest()[0] < 77:
            raise RuntimeError("no licence")
        return np.append(phi["x"] - 1.0, 0.3 * np.sin(phi["x"]))

    space = zb.Space(x=zb.Real(-3, 3, shape=(3,)))
    problem = zb.Problem(space, solve, zb.SquaredError(np.zeros(6))).scalar
    found = zb.minimize(problem, initial={"x": np.full(3, -0.9)}, max_solves=200)
    assert re.search(r"\d of the last 10 solves failed, here and there", found.stop_reason)
    assert "edge" not in found.stop_reason
