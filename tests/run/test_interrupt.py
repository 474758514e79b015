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
from processes import gone_within, marked

import zo_bilevel as zb
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
        deadline = time.monotonic() + 20
        while len(marked(mark)) < 5:  # the program, two guards, two workers
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # to the whole group, as a terminal does
        out, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "rate" in out
    assert "interrupted" in out
    assert "Traceback" not in errors
    assert gone_within(mark, 1.0)
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
        sent = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert time.monotonic() - sent < 3.0
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in errors
    assert gone_within(mark, 2.0)
