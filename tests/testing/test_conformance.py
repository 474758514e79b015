"""Every part passes the public check of its kind: dispatchers, estimators, methods, tasks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel import tasks
from zo_bilevel.methods import names
from zo_bilevel.store.memory import MemoryStore
from zo_bilevel.store.sqlite import SQLiteStore
from zo_bilevel.support.errors import MissingPackageError
from zo_bilevel.tasks.solvers import ArraySolver
from zo_bilevel.testing import (
    check_dispatcher,
    check_estimator,
    check_inner_solver,
    check_method,
    check_store,
    check_task,
    sample_problem,
)

SIZES = {"heat-field": {"size": 8}, "prompts": {"shots": 2}}
SLOW_TASKS = ("architecture", "condensation", "hyperparameters", "online-adaptation")
SLOW_METHODS = ("botorch", "turbo", "smac", "optuna:GP")
METHODS = (
    *(name for name in names.METHOD_FACTORIES if name not in SLOW_METHODS),
    *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_METHODS),
    *("optuna:TPE", "optuna:CMA", "scipy:SLSQP:restarts"),
    *("nevergrad:CMA", "nevergrad:OnePlusOne", "nevergrad:CMA:prior"),
    *("scipy:COBYQA", "scipy:COBYLA", "scipy:least_squares", "scipy:L-BFGS-B"),
)


def batched_solver():
    """`sample_problem`'s parameters, a whole round at once or one by one, to the same bits."""
    times = np.linspace(0.0, 3.0, 12)

    def simulate(phi):
        return np.exp(-phi[..., 1:] * times) * np.cos(phi[..., :1] * times)

    return ArraySolver("oscillator", ("stiffness", "damping"), simulate)


@pytest.mark.parametrize(
    ("dispatcher", "solver"),
    [
        (zb.Serial(), None),
        (zb.Joblib(n_jobs=2, timeout_s=60), None),
        (zb.Joblib(n_jobs=1, retries=1), None),
        (zb.Joblib(n_jobs=2, backend="threading"), None),
        (zb.Batched(), batched_solver()),
        (zb.Batched(max_batch=4), batched_solver()),
    ],
    ids=lambda value: repr(value).split(" object")[0],
)
def test_dispatchers(dispatcher, solver):
    check_dispatcher(dispatcher, solver)


@pytest.mark.parametrize("directions", ["orthogonal", "rademacher", "gaussian", "coordinate"])
@pytest.mark.parametrize("difference", ["forward", "central"])
def test_estimators(directions, difference):
    check_estimator(zb.FG2UZO(2, directions=directions, difference=difference))


@pytest.mark.parametrize("count", [1, 4, "auto"])
def test_estimators_at_other_numbers_of_directions(count):
    check_estimator(zb.FG2UZO(count))


def test_an_estimator_with_directions_of_the_prior():
    check_estimator(zb.FG2UZO(2, directions="prior"))


def make_method(name):
    try:
        return names.method_from_name(name)
    except MissingPackageError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    check_method(make_method(name))


@pytest.mark.parametrize(
    "method", [zb.GaussNewton(), zb.TwoPhase([(zb.RandomSearch(), 6), (zb.GaussNewton(), 18)])]
)
def test_methods_that_have_no_name_on_the_command_line(method):
    check_method(method)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW_TASKS else name
        for name in tasks.NAMES
    ],
)
def test_tasks(name):
    if name == "online-adaptation":
        pytest.importorskip("transformers")
    task = tasks.load(name, **SIZES.get(name, {}))
    check_task(task)
    check_inner_solver(task.problem.inner, task.problem.space)


def history(result):
    return [(r.solve, r.round, r.status, r.loss.hex()) for r in result.history]


def run(dispatcher=None, method=None):
    return zb.minimize(
        sample_problem(),
        method,
        max_solves=40,
        round_width=4,
        seed=7,
        dispatcher=dispatcher,
        initial={"stiffness": 0.6, "damping": 3.0},
    )


@pytest.mark.parametrize("n_jobs", [1, 2, 4])
def test_histories_are_the_same_to_the_last_bit_at_1_2_and_4_workers(n_jobs):
    with zb.Joblib(n_jobs=n_jobs) as dispatcher:
        for name in ("default", "random", "zo-adam"):
            expected = run(method=make_method(name))
            found = run(dispatcher, make_method(name))
            assert history(found) == history(expected)
            assert np.array_equal(found.x, expected.x)
            assert np.array_equal(found.theta, expected.theta)


def test_histories_are_the_same_to_the_last_bit_in_a_fresh_process():
    program = "import json, test_conformance as t; print(json.dumps(t.history(t.run())))"
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "11"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [tuple(row) for row in json.loads(done.stdout)] == history(run())


class TestStores:
    def test_a_file_keeps_the_promises_of_a_store(self, tmp_path):
        check_store(lambda: SQLiteStore(tmp_path / "runs.sqlite"))

    def test_so_does_memory(self):
        store = MemoryStore()
        check_store(lambda: store)
