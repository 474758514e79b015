"""A thousand solves in real processes, a tenth of them faulty."""

import contextlib
import os
from collections import Counter

import numpy as np
import pytest

from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.dispatch.joblib import Joblib
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.support.process_tree import descendants
from zo_bilevel.testing.fault_points import chance
from zo_bilevel.testing.faults import Crashing, Hanging, NotANumber, Raising, Unpicklable

NUM_SOLVES = 1000


def make_solver(*, deadly: bool):
    def solver(phi, seed=None):
        return np.cos(phi["a"]) + np.random.default_rng(seed).normal(size=20)

    mild = Unpicklable(NotANumber(Raising(solver, 0.025), 0.025), 0.025)
    if not deadly:
        return mild
    hanging = Hanging(Hanging(mild, 0.003, "children"), 0.004, "locked")
    return Crashing(Crashing(Crashing(hanging, 0.006, "segfault"), 0.006, "kill"), 0.006, "exit")


def content(outcomes):
    return {
        index: (o.status, None if o.theta is None else o.theta.tobytes()) for index, o in outcomes
    }


@pytest.mark.slow  # test_faults.py does the same through `minimize`
def test_a_thousand_solves_a_tenth_of_them_faulty_end_the_same_at_1_and_4_workers():
    jobs = [Job(k, {"a": float(k)}, k // 10) for k in range(NUM_SOLVES)]
    solve = Solve(make_solver(deadly=True))
    found = {}
    before = set(descendants(os.getpid()))
    for n_jobs in (1, 4):
        with Joblib(n_jobs=n_jobs, timeout_s=1.0) as dispatcher:
            found[n_jobs] = content(dispatcher.run(solve, jobs))
        assert set(descendants(os.getpid())) == before  # no orphan, no zombie
    assert found[1] == found[4]
    assert sorted(found[1]) == list(range(NUM_SOLVES))  # no finished evaluation is lost
    counts = Counter(status for status, _ in found[1].values())
    assert set(counts) == {"ok", "failed", "invalid", "crashed", "timed_out"}
    assert 0.08 * NUM_SOLVES < NUM_SOLVES - counts["ok"] < 0.12 * NUM_SOLVES
    clean = content(Serial().run(Solve(make_solver(deadly=False)), jobs))
    for index, (status, theta) in found[1].items():
        if status not in ("crashed", "timed_out"):
            assert (status, theta) == clean[index]


@pytest.mark.parametrize("count", [4000])
def test_the_faults_hit_the_share_that_they_promise(count):
    values = [chance({"a": float(k)}, 0, "word") for k in range(count)]
    for share in (0.01, 0.1, 0.5):
        hit = np.mean([value < share for value in values])
        assert abs(hit - share) < 4 * np.sqrt(share * (1 - share) / count)
    with contextlib.suppress(StopIteration):
        assert next(value for value in values if not 0 <= value < 1) is None
