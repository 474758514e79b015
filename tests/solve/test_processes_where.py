"""Worker processes of a parent in an unusual state: rounds end, with the numbers of `Serial`."""

import subprocess
import sys
import time

import numpy as np
import pytest

import zo_bilevel as zb

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")

PROGRAM = """
import multiprocessing, os, sys
import numpy as np
import zo_bilevel as zb

def solve(phi):
    return np.array([phi["a"], 1.0])

def found(dispatcher):
    problem = zb.Problem(zb.Space(a=zb.Real(0, 1)), solve, zb.SquaredError([0.3, 1.0]))
    result = zb.minimize(
        problem, zb.RandomSearch(), max_solves=5, round_width=2, dispatcher=dispatcher
    )
    return [record.loss for record in result.history]

def child(dispatcher):
    os._exit(0 if found(dispatcher or zb.Joblib(2)) == found(zb.Serial()) else 1)

if __name__ == "__main__":
    how = sys.argv[1]
    kept = zb.Joblib(2)
    if how == "here":
        assert found(kept) == found(zb.Serial())
    elif how == "fork":
        assert found(kept) == found(zb.Serial())
    if how in ("fork", "spawn"):
        kept_there = kept if how == "fork" else None
        process = multiprocessing.get_context(how).Process(target=child, args=(kept_there,))
        process.start()
        process.join(100)
        assert process.exitcode == 0
    kept.close()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(script, closed):
    command = f"exec {sys.executable} {script} here {closed}"
    assert subprocess.run(["sh", "-c", command], timeout=120, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_round_may_start_in_a_child_process(script, how):
    subprocess.run([sys.executable, script, how], timeout=120, check=True)


def test_a_solver_that_writes_to_foreign_descriptors_ends_its_solves_only():
    def vandal(phi):
        import os

        if phi["a"] > 0.6:
            for fd in range(3, 64):
                try:
                    os.write(fd, b"hello")
                except OSError:
                    continue
        return np.array([phi["a"]])

    problem = zb.Problem(zb.Space(a=zb.Real(0, 1)), vandal, zb.SquaredError([0.3]))
    with zb.Joblib(2) as dispatcher:
        found = zb.minimize(problem, zb.RandomSearch(), max_solves=9, dispatcher=dispatcher)
    assert found.solves == 9
    assert found.failures.get("crashed", 0) == sum(r.status == "crashed" for r in found.history) > 0


def test_a_solve_that_runs_when_time_is_up_is_killed():
    def slow(phi):
        time.sleep(0 if phi["a"] == 0.5 else 600)
        return np.array([phi["a"]])

    problem = zb.Problem(zb.Space(a=zb.Real(0, 1)), slow, zb.SquaredError([0.3]))
    method = zb.RandomSearch()
    with zb.Joblib(2) as dispatcher:
        zb.minimize(problem, method, max_solves=1, dispatcher=dispatcher)  # starts a worker
        found = zb.minimize(problem, method, max_seconds=3, round_width=2, dispatcher=dispatcher)
    assert (found.solves, found.stop_reason) == (1, "budget of 3 seconds spent")
