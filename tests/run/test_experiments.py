"""Experiments as separate solves: dispatched, kept and failing one by one."""

import os
import sqlite3
import time

import numpy as np
import pytest

import zo_bilevel as zb

TIMES = np.linspace(0, 3, 20)
SPACE = zb.Space(rate=zb.Real(0.1, 3), gain=zb.Real(0.1, 3))
CONDITIONS = {"cold": {"factor": 1.0}, "warm": {"factor": 2.0}}


def decay(phi, factor):
    return phi["gain"] * np.exp(-phi["rate"] * factor * TIMES)


TRUTH = {"rate": 0.7, "gain": 1.5}
DATA = {name: decay(TRUTH, **given) for name, given in {**CONDITIONS, "hot": {"factor": 3}}.items()}


def problem_of(conditions=CONDITIONS, simulate=decay, **more):
    target = {name: DATA[name] for name in conditions}
    return zb.Problem(SPACE, zb.Experiments(conditions, simulate), zb.SquaredError(target), **more)


def counting(calls):
    def simulate(phi, factor):
        calls.append(factor)
        return decay(phi, factor)

    return simulate


def test_both_experiments_are_fitted_and_a_solve_of_both_counts_once():
    calls = []
    found = zb.minimize(problem_of(simulate=counting(calls)), max_solves=15)
    assert found.phi == pytest.approx(TRUTH, abs=1e-5)
    assert len(calls) == 2 * found.solves
    assert set(found.theta) == {"cold", "warm"}
    assert found.theta["warm"] == pytest.approx(DATA["warm"], abs=1e-4)
    whole = zb.Problem(
        SPACE,
        lambda phi: {name: decay(phi, **given) for name, given in CONDITIONS.items()},
        zb.SquaredError({name: DATA[name] for name in CONDITIONS}),
    )
    at_once = zb.minimize(whole, max_solves=15)
    assert [r.loss for r in at_once.history] == [r.loss for r in found.history]


def processes(phi, factor):
    time.sleep(0.3)  # so that one worker cannot have both
    return {"curve": decay(phi, factor), "process": float(os.getpid())}


def test_experiments_run_side_by_side():
    both = zb.Experiments(CONDITIONS, processes)
    problem = zb.Problem(SPACE, both, lambda theta, phi: float(np.mean(theta["cold.curve"] ** 2)))
    with zb.Joblib(2) as dispatcher:
        found = zb.minimize(problem, max_solves=3, dispatcher=dispatcher)
    assert found.theta["cold.process"] != found.theta["warm.process"]


@pytest.mark.parametrize("dispatcher", [zb.Joblib(2), zb.Joblib(2, "threading")])
def test_numbers_do_not_depend_on_the_dispatcher(dispatcher):
    serial = zb.minimize(problem_of(), max_solves=8)
    with dispatcher:
        other = zb.minimize(problem_of(), max_solves=8, dispatcher=dispatcher)
    assert [r.loss for r in serial.history] == [r.loss for r in other.history]


def test_a_rerun_with_one_more_experiment_solves_that_one_only(tmp_path):
    store, calls = tmp_path / "runs.sqlite", []
    more = {"name": "decay", "version": "1"}
    zb.minimize(problem_of(simulate=counting(calls), **more), max_solves=1, store=store)
    assert sorted(calls) == [1.0, 2.0]
    calls.clear()
    three = {**CONDITIONS, "hot": {"factor": 3}}
    zb.minimize(problem_of(three, simulate=counting(calls), **more), max_solves=1, store=store)
    assert calls == [3]
    calls.clear()
    changed = {**CONDITIONS, "warm": {"factor": 3}}
    zb.minimize(problem_of(changed, simulate=counting(calls), **more), max_solves=1, store=store)
    assert calls == []  # under another name it was solved already
    newer = {"name": "decay", "version": "2"}
    zb.minimize(problem_of(simulate=counting(calls), **newer), max_solves=1, store=store)
    assert sorted(calls) == [1.0, 2.0]


def test_a_resumed_run_solves_nothing_again(tmp_path):
    store, calls = tmp_path / "runs.sqlite", []
    more = {"name": "decay"}
    zb.minimize(problem_of(simulate=counting(calls), **more), max_solves=4, store=store)
    calls.clear()
    longer = zb.minimize(problem_of(simulate=counting(calls), **more), max_solves=6, store=store)
    assert len(calls) == 4
    fresh = zb.minimize(problem_of(), max_solves=6)
    assert [r.loss for r in longer.history] == [r.loss for r in fresh.history]
    with sqlite3.connect(store) as database:
        (charged,) = database.execute("select sum(charge) from solves").fetchone()
    assert charged == 6


def failing(where):
    def simulate(phi, factor):
        if where(phi, factor):
            raise RuntimeError("no convergence")
        return decay(phi, factor)

    return simulate


def test_where_one_experiment_fails_the_solve_fails_and_says_which():
    # the warm one fails at some points, never at the start
    simulate = failing(lambda phi, factor: factor == 2.0 and phi["rate"] < 0.6)
    found = zb.minimize(problem_of(simulate=simulate), max_solves=30)
    assert found.phi == pytest.approx(TRUTH, abs=1e-4)
    failed = [record for record in found.history if record.status == "failed"]
    assert failed
    assert all(r.phi["rate"] < 0.6 and "experiment 'warm' failed" in r.error for r in failed)
    assert found.failures == {"failed": len(failed)}


ROOMS = {"kitchen": {"outside": 21.0}, "balcony": {"outside": 4.0}, "yard": {"outside": -40.0}}
OUTSIDE = {name: given["outside"] for name, given in ROOMS.items()}


def cup(phi, outside):
    """A cup cools; in the yard it cannot be solved beyond a rate that the data want."""
    if outside < 0 and phi["rate"] > 0.28:
        raise RuntimeError("cannot solve")
    return phi["gain"] * (outside + (90 - outside) * np.exp(-phi["rate"] * TIMES))


@pytest.mark.parametrize("method", [zb.DefaultMethod(), zb.TrustRegion(), zb.CMA()])
def test_a_point_that_lacks_an_experiment_is_never_the_result(method):
    """It was confirmed as if solves were noisy, and reported with a loss never computed."""
    data = {name: 1.1 * (a + (90 - a) * np.exp(-0.3 * TIMES)) for name, a in OUTSIDE.items()}
    space = zb.Space(rate=zb.Log(0.01, 3), gain=zb.Real(0.2, 3))
    problem = zb.Problem(space, zb.Experiments(ROOMS, cup), zb.SquaredError(data))
    found = zb.minimize(problem, method, initial={"rate": 0.1, "gain": 1.0}, max_solves=60)
    assert found.phi["rate"] <= 0.28
    solved = np.concatenate([cup(found.phi, a) for a in OUTSIDE.values()])
    assert found.loss == pytest.approx(problem.outer.loss(solved))
    assert found.loss == min(record.loss for record in found.history)
    assert found.standard_error is None
    assert all((r.status == "ok") == (r.phi["rate"] <= 0.28) for r in found.history)


def test_a_solve_fails_where_all_experiments_do_and_a_run_where_one_always_does():
    simulate = failing(lambda phi, factor: phi["rate"] < 1.0)
    found = zb.minimize(problem_of(simulate=simulate), max_solves=12)
    assert found.failures["failed"] >= 1
    with pytest.raises(zb.InnerSolverError, match="experiment 'warm' failed: RuntimeError"):
        zb.minimize(problem_of(simulate=failing(lambda _, factor: factor == 2.0)), max_solves=4)


def test_seeds_reach_simulators_that_name_one():
    def noisy(phi, factor, seed):
        return decay(phi, factor) + 1e-3 * np.random.default_rng(seed).standard_normal(TIMES.size)

    def greedy(phi, **conditions):
        assert set(conditions) == {"factor"}
        return decay(phi, **conditions)

    assert zb.minimize(problem_of(simulate=noisy), max_solves=12).standard_error is not None
    assert zb.minimize(problem_of(simulate=greedy), max_solves=3).standard_error is None


@pytest.mark.parametrize(
    ("conditions", "simulate", "said"),
    [
        ({}, decay, "must be a dict of experiments"),
        ([1], decay, "must be a dict of experiments"),
        ({"cold": 3}, decay, "must be a dict of keyword arguments"),
        ({1: {}}, decay, "must be a text"),
        (CONDITIONS, 3, "simulate must be callable"),
    ],
)
def test_what_is_no_experiment_is_refused(conditions, simulate, said):
    with pytest.raises(zb.InputError, match=said):
        zb.Experiments(conditions, simulate)


def test_a_parameter_of_the_name_that_is_taken_is_refused():
    with pytest.raises(zb.InputError, match="must not be called 'experiment'"):
        zb.Problem(zb.Space(experiment=zb.Real(0, 1)), zb.Experiments(CONDITIONS, decay))


def test_a_comparison_counts_solves_of_all_experiments():
    found = zb.compare(
        problem_of(),
        {"ours": zb.DefaultMethod(), "random": zb.RandomSearch()},
        seeds=range(2),
        max_solves=6,
    )
    assert all(run.solves <= 6 for run in found.runs)


def test_starts_of_numbers_without_bounds_are_not_mistaken_for_each_other(tmp_path):
    """In the store: each start is the middle of its own coordinates."""
    space = zb.Space(rate=zb.Real(lower=0), gain=zb.Real())
    inner = zb.Experiments(CONDITIONS, decay)
    target = {name: DATA[name] for name in CONDITIONS}
    problem = zb.Problem(space, inner, zb.SquaredError(target), name="open")
    for gain in (1.0, 10.0, 300.0):
        start = {"rate": 0.5, "gain": gain}
        options = {"initial": start, "max_solves": 1, "store": tmp_path / "runs.sqlite"}
        found = zb.minimize(problem, **options)
        np.testing.assert_allclose(found.theta["cold"], decay(found.phi, 1.0))


@pytest.mark.parametrize("bounds", [(0, 3), (0.0, 3.5)])
def test_a_store_of_experiments_is_known_whole(bounds, tmp_path):
    calls = []
    given = {"conditions": CONDITIONS, "simulate": counting(calls), "name": "e"}
    first = zb.minimize(problem_of(**given), max_solves=15, store=tmp_path / "runs.sqlite")
    calls.clear()
    space = zb.Space(rate=zb.Real(*bounds), gain=zb.Real(0.1, 3, prior=zb.Normal(1.5, 1)))
    outer = zb.SquaredError({n: DATA[n] for n in CONDITIONS}, sigma={"cold": 0.1, "warm": 0.2})
    inner = zb.Experiments(CONDITIONS, given["simulate"])
    other = zb.Problem(space, inner, outer, name="e")
    found = zb.minimize(other, known=tmp_path / "runs.sqlite", max_solves=0)
    assert (found.phi, calls) == (first.phi, [])
    changed = {**CONDITIONS, "warm": {"factor": 5.0}}
    problem = zb.Problem(space, zb.Experiments(changed, given["simulate"]), outer, name="e")
    with pytest.raises(zb.InputError, match="known holds no solve"):
        zb.minimize(problem, known=tmp_path / "runs.sqlite", max_solves=0)
