"""The command line: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from processes import start_process

import zo_bilevel as zb
from zo_bilevel.cli.demo import demo_grid, summary_sentence
from zo_bilevel.cli.loading import load_subject
from zo_bilevel.cli.main import main
from zo_bilevel.methods import names
from zo_bilevel.run.runs import Improvement, Run, Target
from zo_bilevel.support.errors import MissingPackageError


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


class TestHelp:
    def test_help_loads_nothing_heavy(self):
        code = (
            "import sys; from zo_bilevel.cli.main import main\n"
            "main(['--help'], standalone_mode=False)\n"
            "heavy = {'numpy', 'torch', 'rich', 'scipy', 'joblib', 'matplotlib'}\n"
            "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(zb.__file__).parents[1])}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    @pytest.mark.parametrize("command", ["", "run", "compare", "tasks", "methods", "demo"])
    def test_every_command_explains_itself(self, command):
        answer = call(*command.split(), "--help")
        assert answer.exit_code == 0
        assert "Usage:" in answer.output

    def test_version(self):
        assert call("--version").output.strip() == f"zo-bilevel, version {zb.__version__}"

    def test_it_is_also_a_module(self):
        with start_process("--version", stdout=subprocess.PIPE) as process:
            assert zb.__version__ in process.communicate()[0]


class TestLists:
    def test_tasks(self):
        lines = call("tasks").output.splitlines()
        assert max(map(len, lines)) <= 100
        facts = json.loads(call("tasks", "--json").stdout)
        assert {"burgers", "kdv", "heat-field"} <= {fact["name"] for fact in facts}

    def test_methods(self):
        answer = call("methods")
        assert max(map(len, answer.output.splitlines())) <= 100
        shown = {method["name"] for method in json.loads(call("methods", "--json").stdout)}
        assert set(names.METHOD_FACTORIES) <= shown
        assert all(name in answer.output for name in names.METHOD_FACTORIES)


class TestRun:
    def test_the_table_shows_truth_error_and_published_error(self, program):
        answer = call("run", f"{program}:task", "--method", "random", "--seed", 3)
        assert answer.exit_code == 0, answer.output
        assert max(map(len, answer.output.splitlines())) <= 100
        for words in ("rate", "truth", "0.3", "published: relative error", "4.00 %", "target: "):
            assert words in answer.stdout
        assert "budget of 30 solves spent" in answer.stdout

    def test_json_is_the_result_of_minimize_and_nothing_else_is_said(self, program):
        answer = call("run", f"{program}:task", "--method", "zo-adam", "--seed", 2, "--json")
        found = json.loads(answer.stdout, parse_constant=pytest.fail)
        task = load_subject(f"{program}:task")
        alone = zb.minimize(task.problem, zb.GradientMethod(), max_solves=30, seed=2)
        assert found["loss"] == alone.loss
        assert found["phi"] == alone.phi
        assert (found["task"], found["method"], found["seed"]) == ("decay-task", "zo-adam", 2)
        assert found["relative_error"] == pytest.approx(abs(alone.phi["rate"] - 0.3) / 0.3)
        assert answer.stderr == ""

    def test_the_only_problem_of_a_file_needs_no_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("one.py").write_text(
            "import zo_bilevel as zb\n"
            "p = zb.Problem(zb.Space(a=zb.Real(0, 1)), lambda phi: phi['a'])\n"
        )
        answer = call("run", "one.py", "--method", "random", "--max-solves", 3)
        assert answer.exit_code == 0, answer.output
        assert answer.stdout.startswith("one.py\n")

    def test_options_of_a_function_start_and_scalar(self, program):
        words = ["run", f"{program}:field", "--method", "random", "--json", "--scalar"]
        words += ["--set", "size=7", "--max-solves", 1, "--initial", "scheme=y"]
        words += ["--initial", "field=[0.5]*7"]
        assert call(*words).exit_code == 2  # an expression is no literal
        words[-1] = f"field={[0.5] * 7}"
        found = json.loads(call(*words).stdout)
        assert found["phi"] == {"field": [0.5] * 7, "scheme": "y"}
        assert found["loss"] == 0

    def test_budget_in_seconds_and_tolerance(self, program):
        words = ["run", f"{program}:slow", "--method", "random", "--json"]
        timed = json.loads(call(*words, "--max-seconds", 0.2).stdout)
        assert "seconds spent" in timed["stop_reason"]
        reached = json.loads(call(*words, "--tolerance", 100).stdout)
        assert reached["solves"] == 1

    def test_workers_change_nothing_but_the_time(self, program):
        words = ["run", f"{program}:decay", "--method", "random", "--json", "--max-solves", 8]
        one = json.loads(call(*words, "--round-width", 4).stdout)
        two = json.loads(call(*words, "--round-width", 4, "--workers", 2).stdout)
        assert (one["rounds"], one["phi"], one["loss"]) == (two["rounds"], two["phi"], two["loss"])
        assert json.loads(call(*words, "--workers", 2).stdout)["rounds"] == 5

    def test_a_hung_solve_is_ended_and_counted(self, program):
        answer = call(
            *("run", f"{program}:hanging", "--method", "random", "--json", "--timeout", 1),
            *("--max-solves", 4, "--workers", 2),
        )
        found = json.loads(answer.stdout)
        assert found["solves"] == 4
        assert found["failures"]["timed_out"] >= 1
        assert math.isfinite(found["loss"])

    def test_plot(self, program):
        answer = call("run", f"{program}:task", "--method", "random", "--plot", "found.png")
        assert answer.exit_code == 0, answer.output
        assert Path("found.png").read_bytes().startswith(b"\x89PNG")


class TestCompare:
    def test_table_and_plot(self, program):
        answer = call(
            *("compare", f"{program}:task", "--methods", "zo-adam,random", "--seeds", "3,7"),
            *("--max-solves", 12, "--plot", "found.png"),
        )
        assert answer.exit_code == 0, answer.output
        assert max(map(len, answer.output.splitlines())) <= 100
        assert "medians of 2 seeds, at most 12 solves each" in answer.stdout
        assert "best point: loss" in answer.stdout
        assert Path("found.png").read_bytes().startswith(b"\x89PNG")

    def test_json_and_markdown(self, program):
        words = ["compare", f"{program}:task", "--methods", "random", "--max-solves", 4]
        found = json.loads(call(*words, "--json", "--seeds", 2).stdout)
        assert [run["seed"] for run in found["runs"]] == [0, 1]
        told = json.loads(call(*words, "--json", "--target", 0.5).stdout)
        assert told["target"] == {"quantity": "loss", "level": 0.5}
        assert "| random |" in call(*words, "--markdown").stdout
        assert call(*words, "--markdown", "--json").exit_code == 2

    def test_a_method_that_is_not_installed_is_a_row(self, program, monkeypatch):
        def absent():
            raise MissingPackageError('absent needs that: pip install "zo-bilevel[baselines]"')

        monkeypatch.setitem(names.METHOD_FACTORIES, "absent", absent)
        answer = call("compare", f"{program}:task", "--methods", "absent,random", "--seeds", 1)
        assert answer.exit_code == 0, answer.output
        assert 'absent: absent needs that: pip install "zo-bilevel[baselines]"' in answer.stdout
        assert "zo-bilevel[baselines]" in call("methods").stdout


def demo_comparison(problem, solves):
    def run(method, seed, solve):
        steps = (Improvement(1, 1, 0.1, 1.0, 2.0), Improvement(solve, solve, 0.2, 0.1, 0.01))
        return Run(method, seed, loss=0.1, solves=80, relative_error=0.01, improvements=steps)

    runs = [run(m, k, solve) for m, found in solves.items() for k, solve in enumerate(found)]
    runs.append(Run("cma", 0, "refused", error="not installed"))
    target = Target("relative error", 0.02)
    return zb.Comparison(problem, (*solves, "cma"), (0, 1, 2), 80, tuple(runs), target)


class TestDemo:
    def test_the_sentence_is_computed_from_the_runs(self):
        found = [
            demo_comparison("one", {"default": (9, 10, 11), "cobyla": (30, 40, 50)}),
            demo_comparison("two", {"default": (12, 13, 14), "cobyla": (30, 40, 50)}),
        ]
        words = " ".join(summary_sentence(found).split())
        assert words == (
            "With at most 80 solves, default came within the paper's error of nu in 6 of 6 runs "
            "(median 11.5 solves); the best of the others, cobyla, in 6 of 6 runs (median 40 "
            "solves)."
        )

    def test_nothing_follows_from_an_interrupted_demo(self):
        found = demo_comparison("one", {"default": (9, 10, 11)})
        cut = dataclasses.replace(found, is_interrupted=True)
        assert summary_sentence([cut]) == "Interrupted: nothing follows from this."

    def test_the_table_has_every_method_and_the_paper(self):
        task = load_subject("kdv")
        text = demo_grid([task], [demo_comparison("kdv", {"default": (9, 10, 11)})]).text()
        assert max(map(len, text.splitlines())) <= 100
        assert "10 (3/3)" in text
        assert "cma: not installed" in text
        paper = next(line for line in text.splitlines() if "the paper " in line)
        assert "0.72 %" in paper
        assert "in 10,000" in paper

    def test_it_runs(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        answer = call("demo", "--seeds", 1, "--max-solves", 3, "--methods", "default,random")
        assert answer.exit_code == 0, answer.output
        assert max(map(len, answer.output.splitlines())) <= 100
        assert answer.stdout.count("the paper ") == 3
        assert Path("demo.png").read_bytes().startswith(b"\x89PNG")
