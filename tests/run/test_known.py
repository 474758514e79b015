"""Solves made before are not made again, and a search begins with them."""

import numpy as np
import pandas as pd
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.names import method_from_name

TIMES = np.linspace(0, 3, 15)
TRUTH = {"height": 2.0, "rate": 1.3, "offset": 0.4}
DATA = 2.0 * np.exp(-1.3 * TIMES) + 0.4 + 0.05 * np.cos(7 * TIMES)
SPACE = zb.Space(height=zb.Real(0, 10), rate=zb.Log(0.05, 20), offset=zb.Real(-5, 5))
calls = []


def simulate(phi):
    calls.append(dict(phi))
    return phi["height"] * np.exp(-phi["rate"] * TIMES) + phi["offset"]


def problem(weights=None, space=SPACE, **options):
    return zb.Problem(space, simulate, zb.SquaredError(DATA, weights), name="decay", **options)


OTHER = 1.0 + TIMES  # weights


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A run, its store, and the answer that other weights have."""
    path = tmp_path_factory.mktemp("store") / "runs.sqlite"
    first = zb.minimize(problem(), max_solves=40, store=path)
    return first, path, zb.minimize(problem(OTHER), max_solves=60)


def kinds(first, path):
    pairs = [(record.phi, record.theta) for record in first.history]
    return {"result": first, "store": path, "pairs": pairs, "table": first.to_pandas()}


@pytest.mark.parametrize("kind", ["result", "store", "pairs", "table"])
def test_no_solve_at_all_gives_the_best_of_what_is_known(before, kind):
    first, path, _ = before
    calls.clear()
    found = zb.minimize(problem(), known=kinds(first, path)[kind], max_solves=0)
    assert calls == []
    assert (found.phi, found.loss, found.solves) == (first.phi, first.loss, 0)
    np.testing.assert_array_equal(found.theta, first.theta)


def test_another_objective_judges_them_anew_at_no_solve(before):
    first, path, _ = before
    calls.clear()
    found = zb.minimize(problem(OTHER), known=path, max_solves=0)
    objective = zb.SquaredError(DATA, OTHER)
    assert calls == []
    assert found.loss == min(objective.loss(record.theta) for record in first.history)


def test_the_same_run_again_makes_no_solve(before):
    method = method_from_name("dfols")
    first = zb.minimize(problem(), method, initial={"height": 1.0}, max_solves=25)
    calls.clear()
    again = zb.minimize(problem(), method, initial={"height": 1.0}, known=first, max_solves=1)
    steps = [record.phi for record in first.history]
    assert [record.phi for record in again.history[: len(steps)]] == steps
    assert len(calls) == again.solves <= 1  # those of the first run cost nothing
    assert all(call not in steps for call in calls)


def test_gauss_newton_goes_on_from_what_is_known_with_few_solves(before):
    first, _, wanted = before
    calls.clear()
    found = zb.minimize(problem(OTHER), known=first, tolerance=wanted.loss * (1 + 1e-6))
    assert found.loss <= wanted.loss * (1 + 1e-6)
    warm = len(calls)
    calls.clear()
    zb.minimize(problem(OTHER), initial=first, tolerance=wanted.loss * (1 + 1e-6))
    assert warm < len(calls)
    assert warm <= 3  # 2, and 10 from the middle of the space


def test_other_bounds_and_fixed_parameters_use_what_fits(before):
    first, path, _ = before
    narrow = zb.Space(height=zb.Real(1.5, 3), rate=zb.Real(0, 4), offset=zb.Real())
    found = zb.minimize(problem(space=narrow), known=path, max_solves=0)
    assert found.phi == pytest.approx(first.phi, rel=1e-9)
    held = SPACE.fixed({"offset": first.phi["offset"]})
    assert zb.minimize(problem(space=held), known=first, max_solves=0).loss == first.loss


def test_known_solves_are_part_of_the_run_and_it_resumes_to_the_last_bit(before, tmp_path):
    first, _, _ = before
    store = tmp_path / "runs.sqlite"
    options = {"known": first, "store": store}
    one = zb.minimize(problem(OTHER), max_solves=3, **options)
    more = zb.minimize(problem(OTHER), max_solves=6, **options)
    whole = zb.minimize(problem(OTHER), max_solves=6, known=first)
    assert more.loss == whole.loss
    assert more.phi == whole.phi
    assert [r.loss for r in more.history] == [r.loss for r in whole.history]
    zb.minimize(problem(OTHER), max_solves=3, store=store)
    with zb.SQLiteStore(store) as opened:
        assert len(opened.records()) == 2
    assert one.solves <= 3


def test_a_solver_that_takes_a_seed_only_starts_there():
    def noisy(phi, seed=None):
        calls.append(phi)
        return [phi["a"] + 1e-3 * np.random.default_rng(seed).standard_normal()]

    space = zb.Space(a=zb.Real(0, 4))
    target = zb.SquaredError([3.0])
    calls.clear()
    pairs = [({"a": 1.0}, [1.0]), ({"a": 2.5}, [2.5])]
    found = zb.minimize(zb.Problem(space, noisy, target), known=pairs, max_solves=20)
    assert calls[0]["a"] == pytest.approx(2.5)
    assert found.solves == len(calls)


def test_initial_may_be_a_result(before):
    first, _, _ = before
    calls.clear()
    zb.minimize(problem(OTHER), initial=first, max_solves=1)
    assert calls == [first.phi]


def two(**phi):
    return [({"height": 1.0, "rate": 1.0, "offset": 0.0, **phi}, DATA)]


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (two(height=11.0), r"known row 0: height must lie in \[0, 10\], got 11"),
        (two(heigth=1.0), "known row 0: initial: unknown parameter 'heigth'"),
        ([({"height": 1.0, "rate": 1.0}, DATA)], "known row 0: it has no value of offset"),
        ([(1.0, DATA)], "known row 0 must be a pair of phi, a dict, and theta"),
        ([(TRUTH, np.full(15, np.nan))], "known row 0: theta must be finite"),
        ([(TRUTH, DATA[:4])], r"no solve that fits the outer objective: the inner solver returned"),
        ([], "known holds no solve that fits the parameters: it is empty"),
        (3, "known must be a result, a store, a DataFrame or pairs of phi and theta, got int"),
        (pd.DataFrame({"height": [1.0]}), "known must have a column 'theta'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_before_the_first_solve(known, message):
    calls.clear()
    with pytest.raises(zb.InputError, match=message):
        zb.minimize(problem(), known=known, max_solves=5)
    assert calls == []


def test_a_store_of_another_solver_and_nothing_known_are_refused(before):
    _, path, _ = before
    other = zb.Problem(SPACE, simulate, zb.SquaredError(DATA), name="growth")
    with pytest.raises(zb.InputError, match="no solve of growth, version 1, but of decay"):
        zb.minimize(other, known=path, max_solves=5)
    with pytest.raises(zb.InputError, match="max_solves must be a whole number >= 1, got 0"):
        zb.minimize(problem(), max_solves=0)


def test_of_several_fidelities_the_full_level_is_known():
    def levels(phi):
        calls.append(phi["cells"])
        coarse = 1.0 / phi["cells"]
        theta = phi["a"] * np.exp(-phi["k"] * TIMES) * (1 + coarse)
        return zb.WithCost(theta, phi["cells"] / 64)

    space = zb.Space(a=zb.Real(0, 5), k=zb.Real(0, 3))
    target = levels({"a": 2, "k": 0.7, "cells": 64}).theta + 0.01 * np.cos(9 * TIMES)
    fine = zb.Problem(space, levels, zb.SquaredError(target), fidelity=zb.Fidelity("cells", 4, 64))
    first = zb.minimize(fine, max_cost=9)
    assert {r.role for r in first.history} >= {"cheap", "start"}
    for known in (first, first.to_pandas()):
        calls.clear()
        found = zb.minimize(fine, known=known, max_solves=0)
        assert (found.phi, found.loss, calls) == (first.phi, first.loss, [])
    full = {(*r.phi.values(),) for r in first.history if r.role != "cheap"}
    again = zb.minimize(fine, known=first, max_cost=3, initial={"a": 2.5, "k": 1.5})
    paid = {(*r.phi.values(),) for r in again.history if r.role != "cheap" and r.cost > 0}
    assert not paid & full
    with pytest.raises(zb.InputError, match="known row 0: cells must be 64, the full level, got 8"):
        zb.minimize(fine, known=[({"a": 1.0, "k": 1.0, "cells": 8}, target)])
