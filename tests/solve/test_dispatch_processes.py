"""No process is left behind: after a time limit, Ctrl-C, `kill -9` of the parent, or the end."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid

import pytest
from processes import gone_within, marked

from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.dispatch.joblib import Joblib
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.testing.faults import Crashing, Hanging, Raising

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

HOW_TO_HANG = ["sleep", "locked", "children"]
PROGRAM = r"""
    import os, sys, time
    from zo_bilevel.solve.dispatch.base import Solve
    from zo_bilevel.solve.dispatch.joblib import Joblib
    from zo_bilevel.solve.evaluation import Job
    from zo_bilevel.testing.faults import Hanging

    def solver(phi):
        os.write(1, b"solving\n")  # one write: lines of two workers must not mix
        return Hanging(lambda phi: 1.0, 1.0, sys.argv[1], 300)(phi)

    solver.__module__ = "__main__"
    dispatcher = Joblib(n_jobs=2)
    jobs = [Job(k, {"a": float(k)}, 0) for k in range(4)]
    BODY
"""


@pytest.fixture
def mark(monkeypatch):
    """A word in the environment of everything that a test starts, grandchildren included."""
    word = f"ZO_BILEVEL_TEST_{uuid.uuid4().hex}"
    monkeypatch.setenv(word, "1")
    yield word.encode()
    for pid in marked(word.encode()):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def start_program(tmp_path, how, body="list(dispatcher.run(Solve(solver), jobs))"):
    """Start a script with two hanging solves in its own process group; wait until they hang."""
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM).replace("BODY", body))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    program = subprocess.Popen(
        [sys.executable, str(script), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        process_group=0,
        text=True,
    )
    with program:
        try:
            for _ in range(2):
                assert program.stdout.readline() == "solving\n"
            time.sleep(0.3)  # until the grandchildren are there
            yield program
        finally:
            program.kill()


@pytest.mark.parametrize("how", HOW_TO_HANG)
def test_a_time_limit_kills_grandchildren_in_other_sessions_too(mark, how):
    solver = Hanging(lambda phi: 1.0, 1.0, how, 300)
    with Joblib(n_jobs=1, timeout_s=1.0) as dispatcher:
        outcome = dict(dispatcher.run(Solve(solver), [Job(0, {"a": 1.0}, 0)]))[0]
        assert outcome.status == "timed_out"
        assert marked(mark) == []  # already when the outcome arrives


def test_a_crash_takes_its_grandchildren_along(mark):
    def solver(phi):
        command = [sys.executable, "-c", "import time; time.sleep(300)"]
        subprocess.Popen(command, start_new_session=True)
        os._exit(4)

    with Joblib(n_jobs=1) as dispatcher:
        outcome = dict(dispatcher.run(Solve(solver), [Job(0, {"a": 1.0}, 0)]))[0]
        assert outcome.status == "crashed"
        assert marked(mark) == []


def test_a_daemon_that_lost_its_parent_is_found(mark):
    def solver(phi):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.environ.clear()
                time.sleep(300)
            os._exit(0)
        time.sleep(300)

    with Joblib(n_jobs=1, timeout_s=1.0) as dispatcher:
        list(dispatcher.run(Solve(solver), [Job(0, {"a": 1.0}, 0)]))
        assert marked(mark) == []


@pytest.mark.parametrize("ending", ["close", "with", "garbage"])
def test_nothing_is_left_when_the_dispatcher_ends(mark, ending):
    dispatcher = Joblib(n_jobs=2)
    solver = Crashing(Raising(lambda phi: 1.0, 0.3), 0.3, "exit")
    list(dispatcher.run(Solve(solver), [Job(k, {"a": float(k)}, 0) for k in range(8)]))
    assert marked(mark)
    if ending == "close":
        dispatcher.close()
    elif ending == "with":
        with dispatcher:
            pass
    else:
        del dispatcher
        gc.collect()
    assert gone_within(mark, 20.0)


def test_nothing_is_left_when_the_program_ends(mark, tmp_path):
    body = "print([o.theta for _, o in dispatcher.run(Solve(lambda phi: 1.0), jobs)])"
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM).replace("BODY", body))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), "sleep"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert gone_within(mark, 20.0)


@pytest.mark.parametrize("how", HOW_TO_HANG)
def test_kill_minus_nine_of_the_parent_leaves_no_orphan(mark, tmp_path, how):
    with start_program(tmp_path, how) as program:
        assert len(marked(mark)) >= 5  # the program, two guards, two workers
        program.kill()
        program.wait()
        assert gone_within(mark, 20.0)


@pytest.mark.parametrize("how", HOW_TO_HANG)
def test_the_first_interrupt_ends_the_program_and_all_solves(mark, tmp_path, how):
    with start_program(tmp_path, how) as program:
        os.killpg(program.pid, signal.SIGINT)
        _, errors = program.communicate(timeout=40)
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert program.returncode == -signal.SIGINT
        assert gone_within(mark, 20.0)


def test_the_first_interrupt_leaves_a_dispatcher_that_works(mark, tmp_path):
    body = textwrap.dedent("""
        try:
            list(dispatcher.run(Solve(solver), jobs))
        except KeyboardInterrupt:
            outcomes = dict(dispatcher.run(Solve(lambda phi: phi["a"]), jobs))
            print(sorted(float(o.theta[0]) for o in outcomes.values()))
    """)
    with start_program(tmp_path, "sleep", body) as program:
        os.killpg(program.pid, signal.SIGINT)
        output, errors = program.communicate(timeout=40)
        assert output.splitlines()[-1] == "[0.0, 1.0, 2.0, 3.0]"
        assert errors == ""
        assert gone_within(mark, 20.0)


def test_a_second_interrupt_stops_at_once(mark, tmp_path):
    with start_program(tmp_path, "children") as program:
        os.killpg(program.pid, signal.SIGINT)
        time.sleep(0.01)
        os.killpg(program.pid, signal.SIGINT)
        program.communicate(timeout=40)
        assert gone_within(mark, 20.0)


def test_a_guard_that_is_killed_takes_its_worker_along(mark):
    def solver(phi):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(300)

    with Joblib(n_jobs=1) as dispatcher:
        outcome = dict(dispatcher.run(Solve(solver), [Job(0, {"a": 1.0}, 0)]))[0]
    assert outcome.status == "crashed"
    assert gone_within(mark, 20.0)


def test_an_interrupt_while_workers_start_leaves_nothing(mark, tmp_path):
    (tmp_path / "slow_module.py").write_text(
        "import os, time\nos.write(1, b'solving\\n')\ntime.sleep(60)\nsolver = float\n"
    )
    body = textwrap.dedent("""
        import types
        slow = types.ModuleType("slow_module")
        exec("def solver(phi): return 1.0", slow.__dict__)
        slow.solver.__module__ = "slow_module"
        sys.modules["slow_module"] = slow
        list(dispatcher.run(Solve(slow.solver), jobs))
    """)
    with start_program(tmp_path, "sleep", body) as program:
        os.killpg(program.pid, signal.SIGINT)
        program.communicate(timeout=40)
        assert program.returncode == -signal.SIGINT
        assert gone_within(mark, 20.0)
