"""Runs whose inner solver crashes, hangs, raises, or answers nonsense: nothing else is lost."""

import os
import sys
import threading
from collections import Counter

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.support.process_tree import descendants
from zo_bilevel.tasks import load
from zo_bilevel.testing.faults import Crashing, Hanging, NotANumber, Raising, Unpicklable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

NUM_SOLVES = 200  # twice, at 1 and 4 workers
SPACE = zb.Space(a=zb.Real(-3, 3, (3,)))


def quiet(phi, seed=None):
    return np.sin(phi["a"])


def all_faults(inner):
    """A tenth of the points is bad, in eight ways."""
    mild = Unpicklable(NotANumber(Raising(inner, 0.035), 0.025), 0.015)
    hanging = Hanging(Hanging(mild, 0.003), 0.003, "locked")
    crashing = Crashing(Crashing(hanging, 0.008, "segfault"), 0.005, "exit")
    return Crashing(crashing, 0.005, "kill")


class Refusing:
    """A dispatcher for runs that are on record already."""

    def run(self, solve, jobs):
        raise AssertionError("solved again")

    def close(self):
        pass


def run(store, n_jobs, dispatcher=None):
    problem = zb.Problem(
        SPACE, all_faults(quiet), zb.SquaredError(np.zeros(3)), name="faulty", version=str(n_jobs)
    )
    with zb.Joblib(n_jobs=n_jobs, timeout_s=0.75) as workers:
        return zb.minimize(
            problem,
            zb.RandomSearch(),
            max_solves=NUM_SOLVES,
            round_width=25,
            dispatcher=dispatcher or workers,
            store=store,
            seed=4,
        )


def history(result):
    return [(r.solve, r.round, r.status, r.loss) for r in result.history]


def test_solves_a_tenth_of_them_faulty_lose_nothing_else(tmp_path):
    store, before = tmp_path / "runs.sqlite", set(descendants(os.getpid()))
    one, four = run(store, 1), run(store, 4)
    assert set(descendants(os.getpid())) == before  # no orphan, no zombie
    assert history(one) == history(four)
    assert np.array_equal(one.phi["a"], four.phi["a"])
    failed = sum(one.failures.values())
    assert one.failures == four.failures
    assert set(one.failures) == {"crashed", "timed_out", "invalid", "failed"}
    assert 0.07 * NUM_SOLVES < failed < 0.13 * NUM_SOLVES
    with zb.Store(store) as opened:
        kept = Counter(
            (run.number, solve.judged, solve.loss is None)
            for run in opened.records()
            for solve in opened.solves(run)
        )
    assert NUM_SOLVES - 2 <= one.solves <= NUM_SOLVES  # judging ends early where draws agree
    for number in (1, 2):
        assert sum(c for (r, *_), c in kept.items() if r == number) == one.solves
        assert kept[number, "ok", False] == one.solves - failed
        for status, count in one.failures.items():
            assert kept[number, status, True] == count
    again = run(store, 4, Refusing())  # all of it replayed, failures too
    assert history(again) == history(four)


class EveryNow:
    """Segfaults on 5 %, hangs on 2 % and returns NaN on 5 % of calls, wherever the search goes.

    Calls are counted in a file: a process that dies takes its own count along.
    """

    def __init__(self, inner, log):
        self.inner, self.log = inner, log

    def __call__(self, phi):
        with open(self.log, "ab") as file:
            file.write(b"x")
        call = os.path.getsize(self.log)
        if call % 20 == 7:
            return Crashing(self.inner, 1.0, "segfault")(phi)
        if call % 50 == 12:
            return Hanging(self.inner, 1.0)(phi)
        return NotANumber(self.inner, float(call % 20 == 17))(phi)


def test_a_faulty_solver_reaches_the_optimum_of_the_clean_one(tmp_path):
    task = load("heat-field", size=16)
    faulty = EveryNow(task.problem.inner, tmp_path / "log")
    problem = zb.Problem(task.problem.space, faulty, task.problem.outer)
    clean = zb.minimize(task.problem, max_solves=60)
    with zb.Joblib(n_jobs=1, timeout_s=1.0) as dispatcher:
        survived = zb.minimize(problem, max_solves=80, dispatcher=dispatcher)
    assert set(survived.failures) == {"crashed", "timed_out", "invalid"}
    assert clean.loss < task.target_loss
    assert survived.loss < task.target_loss
    distance = np.abs(survived.phi["log_conductivity"] - clean.phi["log_conductivity"]).max()
    assert distance < 1e-2


class Simulator:
    name = "simulator"

    def __init__(self):
        self.calls, self.handle = 0, threading.Lock()

    def __call__(self, phi):
        self.calls += 1
        return phi["a"]


@pytest.mark.parametrize(
    ("dispatcher", "folder", "message"),
    [
        (lambda: zb.Joblib(n_jobs=0), "", "n_jobs must be a whole number > 0, .* got 0"),
        (lambda: zb.Joblib(timeout_s=-1), "", "timeout_s must be finite and > 0, got -1"),
        (lambda: zb.Joblib(quorum=0), "", r"quorum must be in \(0, 1\], got 0"),
        (lambda: zb.Joblib(quorum=1.2), "", r"quorum must be in \(0, 1\], got 1.2"),
        (lambda: zb.Joblib(backend="lokky"), "", "unknown backend 'lokky'; did you mean 'loky'"),
        (zb.Joblib, "", r"inner.handle is of type lock; use backend='threading'.*module-level"),
        (zb.Serial, ".", "store must be a file, got the directory"),
    ],
)
def test_bad_input_is_refused_by_name_before_the_first_solve(tmp_path, dispatcher, folder, message):
    inner, store = Simulator(), tmp_path / (folder or "runs.sqlite")
    problem = zb.Problem(SPACE, inner, zb.SquaredError(np.zeros(3)))
    with pytest.raises(zb.InputError, match=message):
        zb.minimize(problem, zb.RandomSearch(), dispatcher=dispatcher(), store=store)
    assert inner.calls == 0
