"""How programs and simulators fail: each failure costs one solve and says where to look."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_programs import PROGRAMS
from processes import running, until

from zo_bilevel.adapters import CommandLine
from zo_bilevel.adapters.command_line import process, workspace
from zo_bilevel.support import solve_folders
from zo_bilevel.support.errors import (
    InputError,
    SolveCrashError,
    SolveError,
    SolveTimeoutError,
)

pytestmark = pytest.mark.usefixtures("own_temporary_folder")
HANG = str(PROGRAMS / "hang_with_children.sh")
needs_ngspice = pytest.mark.skipif(
    shutil.which("ngspice") is None, reason="ngspice is not installed"
)


# -- hangs ---------------------------------------------------------------------------------------


def test_a_hang_is_killed_with_its_grandchildren_in_other_sessions_too():
    marker = "86411.25"
    solver = CommandLine([HANG, "{seconds}"], timeout_s=0.4, keep_failures=0)
    with pytest.raises(SolveTimeoutError, match=r"was killed after timeout_s=0\.4"):
        solver({"seconds": float(marker)})  # the program itself would run for a day
    assert until(lambda: not running(marker))


def test_children_of_a_program_that_ended_do_not_stay():
    marker = "86412.25"
    solver = CommandLine(["sh", "-c", 'sleep "$1" > /dev/null & echo 1', "sh", marker])
    np.testing.assert_array_equal(solver({}), [1.0])
    assert until(lambda: not running(marker))


SOLVE_IN_A_PROCESS = """
import sys
from zo_bilevel.adapters import CommandLine
CommandLine([sys.argv[1], "{s}"], timeout_s=60, folder=sys.argv[3])({"s": float(sys.argv[2])})
"""


def test_programs_die_with_a_process_that_is_killed_from_outside(tmp_path):
    marker = "86413.25"
    arguments = [sys.executable, "-c", SOLVE_IN_A_PROCESS, HANG, marker, str(tmp_path)]
    owner = subprocess.Popen(arguments)
    try:
        # the owner itself, the script, three sleeps
        assert until(lambda: len(running(marker)) >= 5, 20)
    finally:
        owner.kill()
        owner.wait()
    in_sessions_of_their_own = until(lambda: not running(marker))
    assert in_sessions_of_their_own, running(marker)


def test_directories_of_killed_processes_are_swept_later(tmp_path):
    abandoned, recent = (tmp_path / f"{solve_folders.PREFIX}{name}" for name in ("old", "new"))
    for path in (abandoned, recent):
        (path / "work").mkdir(parents=True)
    os.utime(abandoned, (0, 0))
    with workspace.Workspace(tmp_path, 0).folder() as in_use:
        assert not abandoned.exists()
        assert recent.exists()
        os.utime(in_use.path, (0, 0))
        solve_folders.sweep(tmp_path)
        assert in_use.work.is_dir()


def test_the_helper_is_replaced_when_somebody_kills_it():
    solver = CommandLine(["echo", "{a}"])
    solver({"a": 1.0})
    helper = process.LIFELINE._helper
    helper.kill()
    helper.wait()
    np.testing.assert_array_equal(solver({"a": 2.0}), [2.0])
    np.testing.assert_array_equal(solver({"a": 3.0}), [3.0])
    assert process.LIFELINE._helper.pid != helper.pid


# -- crashes and refusals ------------------------------------------------------------------------


def test_sigabrt_of_a_program_is_a_crash_by_name():
    solver = CommandLine([sys.executable, str(PROGRAMS / "abort.py")], keep_failures=0)
    with pytest.raises(SolveCrashError, match="was killed by SIGABRT after"):
        solver({})


def test_a_program_that_cannot_be_started_is_one_failed_solve(tmp_path):
    script = tmp_path / "solve.sh"
    script.write_text("#!/bin/sh\necho $1\n")
    script.chmod(0o755)
    solver = CommandLine([script, "{a}"], keep_failures=0)
    solver({"a": 1.0})
    with pytest.raises(SolveError, match=r"could not be started: .*Argument list too long"):
        solver({"a": np.zeros(200_000)})
    script.unlink()
    with pytest.raises(SolveError, match=r"solve\.sh is not on the PATH"):
        solver({"a": 1.0})


def test_success_can_depend_on_what_is_printed():
    options = {"required_output": "CONVERGED", "forbidden_output": "(?i)warning"}
    solver = CommandLine(["sh", "-c", "echo 1; echo {text} >&2"], keep_failures=0, **options)
    with pytest.raises(SolveError, match=r"exited with status 0 .* did not print 'CONVERGED'"):
        solver({"text": "x"})
    with pytest.raises(SolveError, match=r"exited with status 0 .* but printed '.*warning'"):
        solver({"text": "CONVERGED Warning"})
    np.testing.assert_array_equal(solver({"text": "CONVERGED"}), [1.0])
    odd = CommandLine(["sh", "-c", "echo 5; exit 7"], success_statuses=[7])
    np.testing.assert_array_equal(odd({}), [5.0])


# -- what is kept --------------------------------------------------------------------------------


def test_failures_are_kept_up_to_a_limit_and_can_be_repeated_by_hand(tmp_path):
    command = ["sh", "-c", 'cat in.txt; cat; echo "$1|$OMP_NUM_THREADS"; exit 3', "sh", "{a}"]
    solver = CommandLine(
        command,
        files={"in.txt": "a={{ a }} "},
        standard_input="from stdin ",
        folder=tmp_path,
        keep_failures=2,
    )
    messages = []
    for _ in range(4):
        with pytest.raises(SolveError, match="exited with status 3") as caught:
            solver({"a": "it's $HOME; `x`"})
        messages.append(str(caught.value))
    kept = [re.search(r"sh (\S+repeat\.sh)$", message) for message in messages]
    assert [match is not None for match in kept] == [True, True, False, False]
    assert len(list(tmp_path.glob("zo-bilevel-failed-*/*"))) == 2
    assert all(not list(path.iterdir()) for path in tmp_path.glob("zo-bilevel-solve-*/work"))
    script = Path(kept[0].group(1))
    again = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
    assert again.returncode == 3
    assert again.stdout == (script.parent / "stdout.txt").read_text()
    assert again.stdout == "a=it's $HOME; `x` from stdin it's $HOME; `x`|1\n"


def test_values_of_the_environment_appear_in_no_message_and_no_kept_log(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "inherited-k3y")
    code = 'echo "$MINE"; echo "$SOME_API_KEY" >&2; printf "%0100000d" 0; echo "$MINE"; exit 1'
    solver = CommandLine(["sh", "-c", code], environment={"MINE": "given-s3cret"}, folder=tmp_path)
    with pytest.raises(SolveError, match=r"it said: \*\*\*") as caught:
        solver({})
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) == 4
    for text in [str(caught.value), repr(solver), *texts]:
        assert "s3cret" not in text
        assert "k3y" not in text
    script = next(tmp_path.rglob("repeat.sh"))
    unset = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
    assert "MINE: set it" in unset.stderr
    with pytest.raises(InputError, match="MINE must be text") as caught:
        CommandLine(["x"], environment={"MINE": "given-s3cret\0"})
    assert "s3cret" not in str(caught.value)


# -- the three kinds of invalid, and names in messages -------------------------------------------


# -- real simulators -----------------------------------------------------------------------------


def test_ctrl_c_ends_the_program():
    marker = "86414.25"
    code = SOLVE_IN_A_PROCESS + "\n"
    arguments = [sys.executable, "-c", code, HANG, marker, "/tmp"]
    owner = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    try:
        assert until(lambda: len(running(marker)) >= 5, 20)
        owner.send_signal(signal.SIGINT)
        assert owner.wait(5) != 0
    finally:
        owner.kill()
        owner.wait()
    assert until(lambda: not running(marker))
