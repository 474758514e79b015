"""SIGTERM and SIGHUP, by which queues take a machine back, with real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from processes import gone_within

import zo_bilevel as zb
from zo_bilevel.store.sqlite import Store
from zo_bilevel.support import preemption

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

PROGRAM = """
import sys
import zo_bilevel as zb
from zo_bilevel.adapters import CommandLine

kind, limit = sys.argv[1], float(sys.argv[2])
space = zb.Space(a=zb.Real(0, 9), b=zb.Real(0, 9))
inner = CommandLine(["sh", "-c", "sleep ${{PACE:-0.1}}; echo $0 $1", "{a}", "{b}"])
problem = zb.Problem(space, inner, zb.SquaredError([1.0, 2.0]), name="p")
with zb.Joblib(2) if kind == "processes" else zb.Serial() as dispatcher:
    result = zb.minimize(
        problem, zb.RandomSearch(), max_solves=12, max_seconds=limit, dispatcher=dispatcher,
        round_width=2, store="runs.sqlite", callback=lambda record: print("solve", flush=True),
    )
print(result.stop_reason, result.solves, result.loss)
"""
SWALLOWING = """
import sys
import time
import zo_bilevel as zb
from zo_bilevel.support import preemption

def inner(phi):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            print("solve", flush=True)
            time.sleep(60)
        except BaseException:
            print("swallowed", flush=True)

preemption.GRACE_S = float(sys.argv[1])
zb.minimize(zb.Problem(zb.Space(a=zb.Real(0, 1)), inner), max_solves=3)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder, a temporary one of its own, and a word to know all that is started by."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("PYTHONPATH", str(Path(zb.__file__).parents[1]))
    word = f"ZO_BILEVEL_TEST_{uuid.uuid4().hex}"
    monkeypatch.setenv(word, "1")
    return word.encode()


def start(*words, **variables):
    environment = os.environ | variables
    program = [sys.executable, *words]
    return subprocess.Popen(
        program, text=True, stdout=subprocess.PIPE, env=environment, preexec_fn=_hear_hangups
    )


def _hear_hangups():  # tests that are run by `nohup` hand down that they are ignored
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def preempted(kind, number, limit=100.0, pace="0.6"):  # slow: it does not end before
    with start("-c", PROGRAM, kind, str(limit), PACE=pace) as process:
        for _ in range(3):
            assert process.stdout.readline() == "solve\n"
        time.sleep(0.05)  # the next solves run
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
    return process.returncode, out.splitlines()[-1].split()


@pytest.mark.parametrize(
    ("kind", "number"), [("here", signal.SIGTERM), ("processes", signal.SIGHUP)]
)
def test_a_preempted_run_ends_with_its_best_point_and_the_same_command_goes_on(kind, number, place):
    code, words = preempted(kind, number)
    assert (code, words[0]) == (0, "interrupted"), words
    solves = words[1]
    assert 3 <= int(solves) < 12
    assert gone_within(place, 1.0)
    assert list(Path("temporary").iterdir()) == []
    with Store("runs.sqlite", read_only=True) as store:
        (run,) = store.runs()
        assert (run["status"], run["solves"]) == ("interrupted", int(solves))
    with start("-c", PROGRAM, kind, "100") as process:
        again = process.communicate(timeout=30)[0].splitlines()[-1]
    Path("runs.sqlite").unlink()
    with start("-c", PROGRAM, kind, "100") as process:
        assert process.communicate(timeout=30)[0].splitlines()[-1] == again
    assert "budget of 12 solves spent 12" in again


def test_seconds_are_counted_over_all_lives(place):
    limit = 1.0
    preempted("here", signal.SIGTERM, limit, pace="0.1")
    with Store("runs.sqlite", read_only=True) as store:
        (run,) = store.records()
        before = sum(solve.seconds for solve in store.solves(run))
    with start("-c", PROGRAM, "here", str(limit)) as process:
        out = process.communicate(timeout=20)[0].splitlines()
    assert "budget of 1 seconds spent" in out[-1]
    with Store("runs.sqlite", read_only=True) as store:
        (run,) = store.records()
        seconds = [solve.seconds for solve in store.solves(run)]
    assert before > 0.2
    assert sum(seconds) < limit + max(seconds)


def test_the_command_line_prints_its_best_point(place):
    Path("mine.py").write_text(
        "import time\nimport zo_bilevel as zb\n"
        "def slow(phi):\n    time.sleep(0.05)\n    return phi['rate']\n"
        "slow = zb.Problem(zb.Space(rate=zb.Real(0, 1)), slow, name='slow')\n"
    )
    words = ["-m", "zo_bilevel", "run", "mine.py:slow", "--method", "random"]
    with subprocess.Popen(
        [sys.executable, *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert "solves" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "rate" in out
    assert "interrupted" in out
    assert "Traceback" not in errors


@pytest.mark.parametrize(("grace", "signals"), [(60, 2), (0.3, 1)])
def test_a_second_signal_kills_and_so_does_the_end_of_the_grace_time(grace, signals, place):
    with start("-c", SWALLOWING, str(grace)) as process:
        assert process.stdout.readline() == "solve\n"
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() in ("swallowed\n", "")
            assert process.stdout.readline() in ("solve\n", "")
        process.wait(timeout=10)
    assert process.returncode == -signal.SIGTERM


def problem_that_sees(seen):
    def inner(phi):
        seen.append([signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)])
        return phi["a"]

    return zb.Problem(zb.Space(a=zb.Real(0, 1)), inner)


def test_handlers_are_taken_for_the_run_alone_and_never_from_the_program():
    seen, default = [], [signal.SIG_DFL, signal.SIG_DFL]
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    try:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        zb.minimize(problem_that_sees(seen), zb.RandomSearch(), max_solves=1)
        assert all(callable(handler) for handler in seen.pop())
        assert [signal.getsignal(number) for number in numbers] == default

        with pytest.raises(KeyboardInterrupt), preemption.ends_when_preempted():
            signal.raise_signal(signal.SIGTERM)
        assert [signal.getsignal(number) for number in numbers] == default

        own = [lambda *_: None, signal.SIG_IGN]  # as under `nohup`
        for number, handler in zip(numbers, own, strict=True):
            signal.signal(number, handler)
        zb.minimize(problem_that_sees(seen), zb.RandomSearch(), max_solves=1)
        assert seen.pop() == own
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_a_run_in_a_thread_leaves_signals_alone():
    seen = []
    run = threading.Thread(
        target=zb.minimize,
        args=(problem_that_sees(seen), zb.RandomSearch()),
        kwargs={"max_solves": 1},
    )
    run.start()
    run.join()
    assert not any(callable(handler) for handler in seen[0])
