"""`resume`: the command that began a run, once more."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from command_calls import NOISY, RUN, call

import zo_bilevel as zb
from zo_bilevel.store.sqlite import Store


class TestResume:
    def test_it_prints_the_same_and_solves_nothing(self, stored):
        answer = call("resume", "runs.sqlite", 1, "mine.py:task")
        assert answer.exit_code == 0, answer.output
        again = json.loads(answer.stdout)
        assert again["phi"] == stored["phi"]
        assert [s["loss"] for s in again["improvements"]] == [
            s["loss"] for s in stored["improvements"]
        ]
        assert answer.stderr.startswith("resuming: zo-bilevel run mine.py:task --max-solves 12")
        with Store("runs.sqlite", read_only=True) as store:
            assert [run["solves"] for run in store.runs()] == [12]

    def test_it_goes_on_where_the_run_was_cut_also_after_the_file_was_moved(self, stored):
        with Store("runs.sqlite") as store:
            late = [number for number, step, *_ in store.index(1) if step > 5]
            store.write(dropped=late)
        Path("runs.sqlite").rename("moved.sqlite")
        again = json.loads(call("resume", "moved.sqlite", 1, "mine.py:task").stdout)
        assert again["phi"] == stored["phi"]
        with Store("moved.sqlite", read_only=True) as store:
            assert [run["solves"] for run in store.runs()] == [12]

    def test_a_comparison(self, program):
        words = ["compare", "mine.py:task", "--methods", "random", "--seeds", 2, "--max-solves", 5]
        first = json.loads(call(*words, "--json", "--store=runs.sqlite").stdout)
        again = json.loads(call("resume", "runs.sqlite", 2, "mine.py:task").stdout)
        assert [r["phi"] for r in again["runs"]] == [r["phi"] for r in first["runs"]]

    @pytest.mark.parametrize(
        "words", [RUN, ("compare", *RUN[1:2], "--methods", "random", *RUN[4:])]
    )
    def test_another_problem_is_refused(self, program, words):
        assert call(*words).exit_code == 0
        Path("other.py").write_text(NOISY)
        with Store("runs.sqlite", read_only=True) as store:
            before = len(store.runs())
        answer = call("resume", "runs.sqlite", 1, "other.py:task")
        assert answer.exit_code == 2
        assert "noisy does not match run 1 of " in answer.stderr
        assert "another inner solver, another space" in answer.stderr
        with Store("runs.sqlite", read_only=True) as store:
            assert len(store.runs()) == before

    def test_python_runs_are_to_be_run_again(self, program):
        subject = zb.Problem(zb.Space(a=zb.Real(0, 1)), lambda phi: phi["a"])
        zb.minimize(subject, zb.RandomSearch(), max_solves=2, store="runs.sqlite")
        answer = call("resume", "runs.sqlite", 1)
        assert answer.exit_code == 2
        assert "run 1 was started from Python: run that script again" in answer.stderr

    def test_secrets_are_not_kept(self, program):
        words = ["run", "mine.py:field", "--set", "kind=a", "--set", "api_key=12345"]
        assert call(*words, *RUN[-2:]).exit_code == 2  # no such option; nothing is stored
        Path("secret.py").write_text(
            "import zo_bilevel as zb\n"
            "def task(api_key):\n"
            "    return zb.Problem(zb.Space(a=zb.Real(0, 1)), lambda phi: phi['a'])\n"
        )
        words = ["run", "secret.py:task", "--set", "api_key=hunter2", "--max-solves", 2]
        assert call(*words, "--method", "random", *RUN[-2:]).exit_code == 0
        assert b"hunter2" not in Path("runs.sqlite").read_bytes()
        answer = call("resume", "runs.sqlite", 1, "secret.py:task")
        assert answer.exit_code == 2
        assert "held a secret, which no store keeps" in answer.stderr
        again = ("secret.py:task", "--set", "api_key=hunter2", "--max-solves", 3)
        answer = call("resume", "runs.sqlite", 1, *again)
        assert answer.exit_code == 0, answer.output
        with Store("runs.sqlite", read_only=True) as store:
            assert [run["solves"] for run in store.runs()] == [3]

    def test_only_runs_and_comparisons_are_run(self, stored):
        with Store("runs.sqlite") as store:
            words = '["resume", "x", "1"]'
            store.save(dataclasses.replace(store.find_run(1), command=words))
        answer = call("resume", "runs.sqlite", 1)
        assert answer.exit_code == 2
        assert "the command of run 1 is damaged: resume x 1" in answer.stderr

    def test_a_named_task_needs_no_file(self, program):
        words = ["run", "burgers", "--method", "random", "--max-solves", 4, "--set", "noise=0.1"]
        first = json.loads(call(*words, "--workers", 1, *RUN[-2:], "--json").stdout)
        answer = call("resume", "runs.sqlite", 1)
        assert answer.exit_code == 0, answer.output
        assert json.loads(answer.stdout)["phi"] == first["phi"]
        with Store("runs.sqlite", read_only=True) as store:
            assert [run["solves"] for run in store.runs()] == [4]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["run", "mine.py:task"], "no store is believed what to run: give the file again"),
            (["run", "/tmp/evil.py"], "no store is believed what to run: give the file again"),
            (["run", "burgers", "--set", "path=/etc/x"], "with --set path=/etc/x, which no store"),
            (["run", "burgers", "--set", "model=a.b/c"], "which no store is believed"),
            (["run", "burgers", "--plot", "x.png", "--evil"], "cannot be resumed: No such option"),
            (["init"], "the command of run 1 is damaged"),
            (["run"], "cannot be resumed: Missing argument"),
        ],
    )
    def test_what_a_store_says_is_not_run(self, stored, words, message):
        with Store("runs.sqlite") as store:
            command = json.dumps(words)
            store.save(dataclasses.replace(store.find_run(1), command=command))
        answer = call("resume", "runs.sqlite", 1)
        assert answer.exit_code == 2
        assert message in answer.stderr

    def test_files_that_a_store_names_are_not_written(self, program):
        words = ["run", "burgers", "--method", "random", "--max-solves", 3, "--plot", "a.png"]
        call(*words, *RUN[-2:])
        Path("a.png").unlink()
        assert call("resume", "runs.sqlite", 1).exit_code == 0
        assert not Path("a.png").exists()
