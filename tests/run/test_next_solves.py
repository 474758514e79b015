"""The next most informative solves, against a linear model whose answer is known."""

import numpy as np
import pytest

import zo_bilevel as zb

RNG = np.random.default_rng(0)
DESIGN = RNG.normal(size=(20, 3))
TRUTH = np.array([1.0, 2.0, 3.0])
TARGET = DESIGN @ TRUTH + 0.1 * RNG.normal(size=20)
PROBLEM = zb.Problem(
    zb.Space(b=zb.Real(-5, 5, shape=(3,))), lambda p: DESIGN @ p["b"], zb.SquaredError(TARGET)
)


@pytest.fixture(scope="module")
def run():
    """Two solves, which tell of the first direction only."""
    result = zb.minimize(PROBLEM, max_solves=2, initial={"b": TRUTH})
    moved = result.history[1].phi["b"] - result.history[0].phi["b"]
    assert np.count_nonzero(moved) == 1
    assert moved[0] != 0.0
    return result, zb.uncertainty(PROBLEM, result.phi)


def along(result, *directions):
    return [{"b": result.phi["b"] + 0.1 * np.asarray(way)} for way in directions]


def test_shares_are_those_of_the_variances_left(run):
    result, found = run
    ranked = zb.next_solves(result, found, along(result, *np.eye(3)))
    variances = np.diag(found.covariance)[1:]
    expected = variances / variances.sum()
    shares = dict(ranked)
    assert shares[0] < 1e-3
    assert [shares[1], shares[2]] == pytest.approx(list(expected), abs=0.1)
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)


def test_a_direction_is_told_once(run):
    result, found = run
    ranked = zb.next_solves(result, found, along(result, [0, 0, 1], [0, 0, -2], [0, 1, 0]), 3)
    assert [share < 1e-3 for _, share in ranked] == [False, False, True]
    assert 2 in [place for place, _ in ranked[:2]]
    assert zb.next_solves(result, found, [dict(result.phi)]) == [(0, 0.0)]
    assert zb.next_solves(result, found, []) == []


def test_bad_input_is_named(run):
    result, found = run
    with pytest.raises(zb.InputError, match="candidate 1: b must lie in"):
        zb.next_solves(result, found, [{}, {"b": np.full(3, 9.0)}])
    with pytest.raises(zb.InputError, match="count must be a whole number >= 1, got 0"):
        zb.next_solves(result, found, [{}], 0)
    single = zb.minimize(PROBLEM, max_solves=1)
    with pytest.raises(zb.InputError, match="at least two solves"):
        zb.next_solves(single, found, [{}])
