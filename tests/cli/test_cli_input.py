"""The command line: what it refuses, what it says while it runs, how it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from processes import start_process

from zo_bilevel.cli.loading import parse_seeds, parse_settings
from zo_bilevel.cli.main import main
from zo_bilevel.run.progress import MOST_LINES, LineProgress
from zo_bilevel.support.errors import InputError


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run burger", "unknown task 'burger'; did you mean 'burgers'"),
        ("run absent.py:decay", "there is no file 'absent.py'"),
        ("run mine.py", "name the problem: mine.py:NAME (problems in mine.py: decay, "),
        ("run mine.py:decoy", "mine.py has no 'decoy' (problems in mine.py: decay, "),
        ("run mine.py:NUMBER", "mine.py:NUMBER must be a zb.Problem or zb.Task, or a function"),
        ("run mine.py:wrong", "mine.py:wrong must give a zb.Problem or zb.Task, its function"),
        ("run mine.py:needy", "mine.py:needy needs size: give them by --set size=VALUE"),
        ("run mine.py:simulate --set phi=3", "mine.py:simulate failed with {'phi': 3}: TypeError"),
        ("run mine.py:field --set sise=3", "has no option 'sise' (options: size, kind)"),
        ("run mine.py:decay --set size=3", "mine.py:decay takes no options, got size"),
        ("run mine.py:decay --set size", "--set must be NAME=VALUE, got 'size'"),
        ("run mine.py:decay --initial rte=1", "unknown parameter 'rte'; did you mean 'rate'?"),
        ("run mine.py:decay --initial rate=90", "rate must lie in [0.001, 10.0], got 90"),
        ("run mine.py:decay --method rondom", "unknown method 'rondom'; did you mean 'random'?"),
        ("run mine.py:decay --report found.pdf", "report must end in .html"),
        ("run mine.py:decay --plot found.gif", "plot must end in .pdf, .png, .svg"),
        ("run mine.py:decay --plot no/found.png", "plot must lie in a folder that exists"),
        ("run burgers --set size=3", "task burgers has no option 'size' (options: noise)"),
        ("compare mine.py:decay --methods ,", "--methods must name at least one method, got ','"),
        ("compare mine.py:decay --methods random,random", "--methods names 'random' twice"),
        ("compare mine.py:decay --methods x", "unknown method 'x'"),
        ("compare mine.py:decay --methods random --seeds 0", "--seeds must be a count >= 1"),
        ("compare mine.py:decay --methods random --seeds a", "--seeds must be a count such as 5"),
        ("compare mine.py:decay --methods random --seeds 1,1", "seeds must differ, got 1 twice"),
        ("compare mine.py:decay --methods random --seeds ,", "at least one seed, got none"),
        ("demo --plot found.gif", "plot must end in .pdf, .png, .svg"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(program, words, message):
    answer = call(*words.split())
    assert answer.exit_code == 2
    assert answer.stdout == ""
    lines = answer.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert message in lines[0]


def test_a_file_that_fails_says_in_which_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("typo.py").write_text("x = 1\n\ny = z\n")
    answer = call("run", "typo.py:x")
    assert answer.exit_code == 2
    assert "typo.py failed in line 3: NameError: name 'z' is not defined" in answer.stderr


def test_a_solver_that_never_works_is_one_line_and_exit_code_1(program):
    answer = call("run", f"{program}:failing", "--method", "random", "--max-solves", 3)
    assert answer.exit_code == 1
    assert answer.stderr.splitlines()[-1].startswith("Error: none of 3 solves succeeded")
    assert "no licence" in answer.stderr


class TestInterrupt:
    def test_ctrl_c_prints_the_best_point_so_far(self, program):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with start_process("run", f"{program}:slow", "--method", "random", **pipes) as process:
            assert "1 of 200 solves" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            out, error = process.communicate()
        assert process.returncode == 130
        assert "rate" in out
        assert "interrupted" in out
        assert "Traceback" not in error

    def test_ctrl_c_in_a_comparison(self, program):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        words = ["compare", f"{program}:slow", "--methods", "random,zo-adam"]
        with start_process(*words, **pipes) as process:
            assert "run 1 of 10" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            out, error = process.communicate()
        assert process.returncode == 130
        assert "interrupted: 1 of 10 runs" in out
        assert "best point: loss" in out
        assert "Traceback" not in error

    def test_ctrl_c_before_the_first_solve(self, program, monkeypatch):
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("zo_bilevel.run.loop.minimize", interrupted)
        answer = call("run", f"{program}:decay")
        assert answer.exit_code == 130
        assert "interrupted before there was any result" in answer.stderr


class TestProgress:
    def test_lines_are_bounded_whatever_the_budget(self, monkeypatch):
        clock = iter(range(10**9))
        monkeypatch.setattr("zo_bilevel.run.progress.time.perf_counter", lambda: next(clock))
        lines: list[str] = []
        progress = LineProgress(lines.append)
        for solve in range(1, 5001):
            progress.update(solve / 5000, f"{solve} solves", 0.5)
        assert 10 <= len(lines) <= MOST_LINES + 1
        assert lines[0] == "1 solves, loss 0.5"
        assert "s left" in lines[1]

    def test_a_terminal_gets_a_bar(self, program):
        ours, theirs = pty.openpty()
        with start_process(
            *("run", f"{program}:slow", "--method", "random", "--max-solves", 30),
            stdout=subprocess.PIPE,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            shown = b""
            try:
                while part := os.read(ours, 4096):
                    shown += part
            except OSError:  # the other end is closed
                pass
            out, _ = process.communicate()
        os.close(ours)
        assert process.returncode == 0
        assert b"of 30 solves" in shown
        assert b"\x1b[" in shown
        assert "\x1b" not in out


class TestWords:
    def test_settings_are_literals_or_text(self):
        words = ["a=3", "b=1e-3", "c=[1, 2]", "d=central", "e=true", "f=", "g=x=y"]
        assert parse_settings("--set", words) == {
            **{"a": 3, "b": 1e-3, "c": [1, 2], "d": "central"},
            **{"e": True, "f": "", "g": "x=y"},
        }
        with pytest.raises(InputError, match="--set a is given twice"):
            parse_settings("--set", ["a=1", "a=2"])

    def test_seeds_are_a_count_or_a_list(self):
        assert parse_seeds("4") == (0, 1, 2, 3)
        assert parse_seeds("3,7,9") == (3, 7, 9)
        assert parse_seeds("3,") == (3,)


def test_what_has_to_be_said_of_an_answer_stands_below_it(tmp_path):
    file = tmp_path / "open.py"
    file.write_text(
        "import numpy as np, zo_bilevel as zb\n"
        "t = np.linspace(0, 3, 25)\n"
        "space = zb.Space(a=zb.Log(0.1, 10), b=zb.Log(0.1, 10), c=zb.Real(-1, 0.1))\n"
        "data = zb.SquaredError(6 * t + 0.2 + 0.05 * np.cos(9 * t))\n"
        "problem = zb.Problem(space, lambda p: p['a'] * p['b'] * t + p['c'], data)\n"
    )
    words = ("run", f"{file}:problem", "--max-solves", 60)
    expected = [
        "not determined by the data: a * b is determined, a and b are not",
        "on a bound: c",
    ]
    assert call(*words).stdout.splitlines()[-2:] == expected
    assert json.loads(call(*words, "--json").stdout)["warnings"] == expected
    page = tmp_path / "found.html"
    assert f"report: {page}" in call(*words, "--report", page).stderr
    assert expected[0] in page.read_text()
