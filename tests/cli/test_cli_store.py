"""The command line on a store: list, show, export, resume; and `doctor`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from command_calls import NOISY, RUN, call, call_well, table

import zo_bilevel as zb
from zo_bilevel.cli.command_line_words import hide_secret
from zo_bilevel.store.sqlite import Store
from zo_bilevel.support.intervals import mean_in_words

WELL = """
import zo_bilevel as zb
from zo_bilevel.adapters import CommandLine

solve = CommandLine(["cat", "in.dat"], files={"in.dat": "{{ a }} {{ depth }}"})
space = zb.Space(a=zb.Real(-1, 1), depth=7.0)
problem = zb.Problem(space, solve, zb.SquaredError([0.5, 7.0]))
"""


class TestRead:
    def test_runs(self, stored):
        facts = json.loads(call("runs", "runs.sqlite", "--json").stdout)
        assert facts[0]["best_loss"] == stored["loss"]
        assert "1 run in runs.sqlite" in call_well("runs", "runs.sqlite")
        assert facts[0]["command"] == [*map(str, RUN[:-2]), "--json"]
        # one of the four is the run there was, with more solves
        call("compare", "mine.py:task", "--methods", "random,zo-adam", "--seeds", 2, *RUN[-2:])
        text = call_well("runs", "runs.sqlite")
        assert "4 runs in runs.sqlite" in text
        assert text.count("finished") == 4
        facts = json.loads(call("runs", "runs.sqlite", "--json").stdout)
        assert {fact["command"][0] for fact in facts} == {"compare"}
        assert {fact["method"] for fact in facts} == {"random", "zo-adam"}

    def test_show(self, stored):
        text = call_well("show", "runs.sqlite", 1)
        assert "zo-bilevel run mine.py:task --method random --max-solves 12" in text
        assert "best point of run 1" in text
        assert "budget of 12 solves spent" in text
        assert f"{stored['phi']['rate']:.6g}" in text
        facts = json.loads(call("show", "runs.sqlite", 1, "--json").stdout)
        assert facts["phi"] == stored["phi"]
        assert (facts["solves"], facts["status"], facts["failed"]) == (12, "finished", [])

    def test_a_noisy_run_shows_the_point_that_was_judged_afresh(self, program):
        Path("noisy.py").write_text(NOISY)
        words = ["run", "noisy.py:task", "--method", "random", "--max-solves", 40]
        known = json.loads(call(*words, "--store", "runs.sqlite", "--json").stdout)
        facts = json.loads(call("show", "runs.sqlite", 1, "--json").stdout)
        found = (facts["phi"], facts["loss"], facts["standard_error"])
        assert found == (known["phi"], known["loss"], known["standard_error"])
        assert facts["best_loss"] == known["improvements"][-1]["loss"] < known["loss"]
        text = call_well("show", "runs.sqlite", 1)
        loss = mean_in_words(known["loss"], known["interval"], known["draws"])
        assert f"{loss} on fresh seeds" in text
        assert known["draws"] > 1
        assert f"a          {known['phi']['a']:.6g}" in text
        listed = call_well("runs", "runs.sqlite")
        assert f"{known['loss']:.3g}" in listed

    def test_a_method_that_refuses_is_shown_with_its_reason(self, program):
        class Refusing(zb.Method):
            name = "refusing"

            def rounds(self, search):
                raise zb.UnsupportedProblemError("needs 2 numbers")

        subject = zb.Problem(zb.Space(a=zb.Real(0, 1)), lambda phi: phi["a"])
        with pytest.raises(zb.UnsupportedProblemError):
            zb.minimize(subject, Refusing(), max_solves=2, store="runs.sqlite")
        text = call_well("show", "runs.sqlite", 1)
        assert "refused" in text
        assert "needs 2 numbers" in text

    def test_a_run_that_was_killed_is_unfinished(self, stored):
        with Store("runs.sqlite") as store:
            run = store.find_run(1)
            store.save(dataclasses.replace(run, status="running", found="", point=b""))
        assert "zo-bilevel resume STORE RUN goes on" in call_well("runs", "runs.sqlite")
        assert "unfinished" in call_well("show", "runs.sqlite", 1)

    def test_a_run_prints_the_standard_errors_that_it_knows(self, program):
        text = call_well("run", "mine.py:task", "--max-solves", 40)
        assert "standard" in text
        facts = json.loads(call("run", "mine.py:task", "--max-solves", 40, "--json").stdout)
        assert set(facts["standard_errors"]) == set(facts["phi"])
        assert "standard" not in call_well("run", "mine.py:task", *RUN[2:4], "--max-solves", 4)

    def test_the_best_point_is_written_as_a_deck(self, program):
        Path("well.py").write_text(WELL)
        words = ["run", "well.py:problem", "--method", "random", "--max-solves", 4]
        assert call(*words, "--store", "runs.sqlite").exit_code == 0
        words = ["export", "runs.sqlite", 1, "well.py:problem", "--deck", "best"]
        assert call_well(*words) == "deck: best\n"
        found = json.loads(call("show", "runs.sqlite", 1, "--json").stdout)["phi"]
        assert Path("best/in.dat").read_text() == f"{found['a']!r} 7.0"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("mine.py:decay --deck best", "mine.py:decay is solved by"),
            ("mine.py:decay", "a deck needs both TASK"),
            ("--deck best", "a deck needs both TASK"),
        ],
    )
    def test_a_deck_needs_a_program(self, stored, words, message):
        answer = call("export", "runs.sqlite", 1, *words.split())
        assert answer.exit_code != 0
        assert message in answer.output
        assert not Path("best").exists()

    def test_failures_are_counted_and_one_is_quoted(self, program):
        words = ["run", "mine.py:failing", "--method", "random", "--max-solves", 4]
        assert call(*words, "--store", "runs.sqlite").exit_code == 1
        text = call_well("show", "runs.sqlite", 1)
        assert "4 failed" in text
        assert "no licence" in text
        rows = table(call("export", "runs.sqlite", 1).stdout)
        assert [row["status"] for row in rows] == ["failed"] * 4
        assert rows[0]["loss"] == ""

    def test_wide_names_and_long_errors_fit(self, program):
        space = zb.Space({"a parameter of a very long name " * 4: zb.Real(0, 1)})

        def broken(phi):
            raise RuntimeError("no convergence of the linear solver in the third step " * 20)

        subject = zb.Problem(space, broken, name="a.problem.of.a.very.long.name." * 6)
        with pytest.raises(zb.InnerSolverError):
            zb.minimize(subject, zb.RandomSearch(), max_solves=3, store="runs.sqlite")
        call_well("runs", "runs.sqlite")
        call_well("show", "runs.sqlite", 1)

    def test_an_empty_store(self, program):
        with Store("runs.sqlite"):
            pass
        assert "0 runs" in call_well("runs", "runs.sqlite")


class TestExport:
    def test_one_row_a_solve_with_named_columns(self, stored):
        rows = table(call("export", "runs.sqlite", 1, "--csv").stdout)
        assert len(rows) == 12
        best = min(rows, key=lambda row: float(row["loss"]))
        assert float(best["rate"]) == stored["phi"]["rate"]
        assert float(best["loss"]) == stored["loss"]
        assert {row["status"] for row in rows} == {"ok"}
        assert [int(row["step"]) for row in rows] == list(range(1, 13))
        assert set(rows[0]) >= {"place", "role", "seconds", "cost", "seed", "worker", "error"}

    def test_to_a_file(self, stored):
        assert call("export", "runs.sqlite", 1, "--csv", "found.csv").stdout == ""
        assert Path("found.csv").read_text() == call("export", "runs.sqlite", 1).stdout

    def test_arrays_have_a_column_a_number(self, program):
        words = ["run", "mine.py:field", "--method", "random", "--max-solves", 2, *RUN[-2:]]
        found = json.loads(call(*words, "--json", "--initial", "scheme=y").stdout)
        rows = table(call("export", "runs.sqlite", 1, "--csv").stdout)
        names = [f"field[{k}]" for k in range(4)]
        assert {(*map(float, map(row.get, names)), row["scheme"]) for row in rows} >= {
            (*found["phi"]["field"], found["phi"]["scheme"])
        }


class TestForeignTexts:
    """Control characters of a store never reach a terminal."""

    EVIL = "gone\x1b[2J\x9b\u202e"

    @pytest.fixture
    def evil(self, stored):
        with Store("runs.sqlite") as store:
            run = store.find_run(1)
            texts = {"problem": self.EVIL, "method": self.EVIL, "stop_reason": self.EVIL}
            store.save(dataclasses.replace(run, **texts))
            (solve, *_) = store.solves(run)
            new = dataclasses.replace(solve, error=self.EVIL, status="failed", judged="failed")
            store.write([new])
            store.save(dataclasses.replace(store.find_run(1), kept=run.kept + 1))

    @pytest.mark.parametrize(
        "words", ["runs runs.sqlite", "show runs.sqlite 1", "export runs.sqlite 1"]
    )
    def test_they_are_shown_as_escapes(self, evil, words):
        text = call(*words.split()).output
        assert not any(sign in text for sign in "\x1b\x9b\u202e")
        assert r"gone\x1b[2J\x9b\u202e" in "".join(text.split())

    def test_also_in_messages(self, evil):
        answer = call("report", "runs.sqlite", "a.html", "--problem", "other")
        assert "\x1b" not in answer.output
        assert r"gone\x1b[2J" in answer.output


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("size=64", "size=64"),
        ("api_key=abc", "api_key=<hidden>"),
        ("--set=OPENAI_TOKEN=a=b", "--set=OPENAI_TOKEN=<hidden>"),
        ("--initial=rate=3", "--initial=rate=3"),
        ("mine.py:monkey", "mine.py:monkey"),
    ],
)
def test_words_that_sound_like_secrets_are_hidden(word, kept):
    assert hide_secret(word) == kept


def damage(path):
    data = bytearray(Path(path).read_bytes())
    data[100:4096] = b"?" * 3996
    Path(path).write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("runs absent.sqlite", "store does not exist: absent.sqlite"),
        ("runs .", "store must be a file, got the directory ."),
        ("runs /dev/null", "store must be a file, got a pipe or device, /dev/null"),
        ("show . 1", "store must be a file, got the directory ."),
        ("show runs.sqlite 7", "has no run 7; the nearest: 1 (1 in all)"),
        ("export runs.sqlite 0", "has no run 0; the nearest: 1"),
        ("resume runs.sqlite 12", "has no run 12; the nearest: 1"),
        ("export runs.sqlite 1 --csv no/such.csv", "cannot write no/such.csv: No such file"),
        ("export runs.sqlite 1 --csv .", "cannot write .: Is a directory"),
        ("runs mine.py", "the file is damaged or no store"),
        ("runs broken.sqlite", "the file is damaged or no store"),
        ("show foreign.sqlite 1", "foreign.sqlite is an SQLite file but no store"),
        ("run mine.py:decay --store .", "store must be a file, got the directory ."),
        ("run mine.py:decay --store no/runs.sqlite", "store must lie in a directory that exists"),
        ("run mine.py:decay --store mine.py", "the file is damaged or no store"),
        ("compare mine.py:decay --methods random --store .", "store must be a file, got the dir"),
        ("doctor mine.py:decoy", "mine.py has no 'decoy'"),
        ("doctor mine.py:decay --initial rate=90", "rate must lie in [0.001, 10.0], got 90"),
        ("doctor burger", "unknown task 'burger'; did you mean 'burgers'"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_bad_input_is_one_line_and_exit_code_2(stored, words, message):
    shutil.copy("runs.sqlite", "broken.sqlite")
    damage("broken.sqlite")
    sqlite3.connect("foreign.sqlite").execute("CREATE TABLE t (x)").connection.commit()
    answer = call(*words.split())
    assert answer.exit_code == 2
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message in line


class TestDoctor:
    def test_words(self, program):
        text = call_well("doctor", "mine.py:decay", "--initial", "rate=0.5")
        assert "mine.py:decay: what 10 solves tell" in text
        assert "it is deterministic" in text
        assert "suggested: forward differences" in text

    def test_json_and_options(self, program):
        words = ["doctor", "mine.py:field", "--set", "size=9", "--json", "--timeout", 20]
        found = json.loads(call(*words).stdout)
        assert (found["solves"], found["theta"]) == (10, "shape (9,)")
        assert found["deterministic"]
        assert np.isfinite(found["radius"])

    def test_a_solver_that_never_works_is_one_line_and_exit_code_1(self, program):
        answer = call("doctor", "mine.py:failing")
        assert answer.exit_code == 1
        assert "no licence" in answer.stderr
        assert len(answer.stderr.splitlines()) == 1
