"""Ctrl-C at the command line with worker processes: the best point, and nothing left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner
from processes import gone_within, marked

import zo_bilevel as zb
from zo_bilevel.cli.main import main
from zo_bilevel.store.sqlite import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

DECAY_FILE = Path(__file__).parents[1] / "programs" / "decay_file.py"


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """A person's own file in the working folder; a word to know all that is started by."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(DECAY_FILE, tmp_path / "mine.py")
    word = f"ZO_BILEVEL_TEST_{uuid.uuid4().hex}"
    monkeypatch.setenv(word, "1")
    return word.encode()


def start(*words):
    environment = {**os.environ, "PYTHONPATH": str(Path(zb.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "zo_bilevel", *words],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )


def test_the_first_interrupt_prints_the_best_point_and_leaves_no_process(mark):
    words = ["run", "mine.py:slow", "--method", "random", "--workers", "2"]
    with start(*words, "--store", "runs.sqlite") as process:
        assert "of 200 solves" in process.stderr.readline()
        deadline = time.monotonic() + 40
        while len(marked(mark)) < 5:  # the program, two guards, two workers
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # to the whole group, as a terminal does
        out, errors = process.communicate(timeout=40)
    assert process.returncode == 130
    assert "rate" in out
    assert "interrupted" in out
    assert "Traceback" not in errors
    assert gone_within(mark, 20.0)
    with Store("runs.sqlite", read_only=True) as store:
        (run,) = store.runs()
    assert (run["status"], run["stop_reason"]) == ("interrupted", "interrupted")
    assert 1 <= run["solves"] < 200


def test_a_second_interrupt_stops_at_once(mark):
    # the start is solved at once, the next round hangs in at least one worker
    words = ["run", "mine.py:hanging", "--method", "random", "--workers", "4"]
    with start(*words) as process:
        assert "of 200 solves" in process.stderr.readline()
        time.sleep(1.0)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=40)
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in errors
    assert gone_within(mark, 20.0)


def test_a_run_can_be_asked_to_stop_from_elsewhere_and_goes_on_later(tmp_path, monkeypatch):
    monkeypatch.setattr("zo_bilevel.store.recorder.LOOK_S", 0.0)
    path, calls = tmp_path / "runs.sqlite", []

    def inner(phi):
        calls.append(phi["a"])
        if len(calls) == 5:
            answer = CliRunner().invoke(main, ["stop", str(path), "1"])
            assert answer.exit_code == 0, answer.output
        return phi["a"]

    problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), inner, name="p")
    result = zb.minimize(problem, zb.RandomSearch(), max_solves=12, store=path)
    assert (result.stop_reason, result.solves, len(calls)) == ("interrupted", 4, 5)
    with Store(path, read_only=True) as store:
        assert store.find_run(1).status == "interrupted"
    answer = CliRunner().invoke(main, ["stop", str(path), "1"])
    assert answer.exit_code == 2
    assert "run 1 of store" in answer.stderr
    assert "is not running: it is interrupted" in answer.stderr
    assert zb.minimize(problem, zb.RandomSearch(), max_solves=12, store=path).solves == 12
    assert len(calls) == 12
    answer = CliRunner().invoke(main, ["stop", str(tmp_path / "none.sqlite"), "1"])
    assert (answer.exit_code, "does not exist" in answer.stderr) == (2, True)
