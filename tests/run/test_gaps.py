"""Gaps in what solvers return, where nothing is measured."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.support.errors import InnerSolverError


def gappy_problem():
    """A decay whose solver gives NaN where two of the measurements are missing too."""
    times = np.linspace(0.0, 4.0, 30)
    gap = slice(3, 5)

    def decay(phi):
        values = np.exp(-phi["rate"] * times)
        values[gap] = np.nan
        return values

    target = np.exp(-0.7 * times)
    target[gap] = np.nan
    target[20] = np.nan  # missing, but solved
    space = zb.Space(rate=zb.Real(0.1, 3.0))
    return zb.Problem(space, decay, zb.SquaredError(target), name="gappy"), target


@pytest.mark.parametrize("is_scalar", [False, True])
def test_a_solver_may_give_nan_where_the_target_is_missing(is_scalar):
    problem, _ = gappy_problem()
    problem = problem.scalar if is_scalar else problem
    result = zb.minimize(problem, max_solves=30)
    assert result.phi["rate"] == pytest.approx(0.7, abs=1e-5)
    assert not result.failures
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.theta)), [3, 4])
    assert np.isnan(result.history[0].theta[3])


def test_the_same_answers_are_refused_where_the_target_has_values(tmp_path):
    problem, _ = gappy_problem()
    zb.minimize(problem, max_solves=5, store=tmp_path / "runs.sqlite")
    whole = np.exp(-0.7 * np.linspace(0.0, 4.0, 30))
    other = dataclasses.replace(problem, outer=zb.SquaredError(whole))
    with pytest.raises(InnerSolverError, match="NaN where the target has a value"):
        zb.minimize(other, max_solves=5, store=tmp_path / "runs.sqlite")
    nowhere = dataclasses.replace(problem, outer=zb.SquaredError(whole), name="fresh")
    with pytest.raises(InnerSolverError, match="not finite"):
        zb.minimize(nowhere, max_solves=5)


def test_what_belongs_to_missing_values_may_be_missing_too():
    target = np.array([1.0, np.nan, 3.0])
    whole = zb.SquaredError(target, sigma=[1.0, 2.0, 4.0], weights=[1.0, 5.0, 2.0])
    gaps = zb.SquaredError(target, sigma=[1.0, np.nan, 4.0], weights=[1.0, np.nan, 2.0])
    theta = np.array([2.0, 7.0, 7.0])
    assert gaps.loss(theta) == whole.loss(theta) == pytest.approx((1.0 + 2.0) / 2)
    with pytest.raises(zb.InputError, match="sigma"):
        zb.SquaredError(target, sigma=[np.nan, 1.0, 1.0])


def test_parts_in_another_order_and_batches_keep_their_gaps():
    problem, target = gappy_problem()

    def parts(phi):
        return {"extra": 1.0, "u": problem.inner(phi)}

    both = zb.Problem(problem.space, parts, zb.SquaredError({"u": target, "extra": 1.0}))
    result = zb.minimize(both, max_solves=30, dispatcher=zb.Joblib(2))
    assert result.phi["rate"] == pytest.approx(0.7, abs=1e-5)

    class Stacked:
        def __call__(self, phi):
            return problem.inner(phi)

        def solve_batch(self, phis):
            return np.stack([problem.inner({"rate": rate}) for rate in phis["rate"]])

    stacked = zb.Problem(problem.space, Stacked(), problem.outer, name="stacked")
    assert zb.minimize(stacked, max_solves=30, dispatcher=zb.Batched()).loss < 1e-9


def test_an_answer_that_underflows_to_the_smallest_number_is_there():
    """It was taken for NaN, so that every solve near a sharp peak was invalid."""
    places = np.linspace(0.0, 100.0, 200)

    def peak(phi):
        values = np.exp(-(((places - phi["middle"]) / phi["width"]) ** 2))
        values[0], values[1] = 5e-324, 1e-310  # as from some widths
        return values

    space = zb.Space(middle=zb.Real(0, 100), width=zb.Log(0.01, 10))
    problem = zb.Problem(space, peak, zb.SquaredError(peak({"middle": 80.0, "width": 2.0})))
    found = zb.minimize(problem, initial={"middle": 78.0, "width": 3.0}, max_solves=25)
    assert not found.failures
    assert found.phi["middle"] == pytest.approx(80.0, abs=1e-3)
