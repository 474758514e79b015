"""The arena as a command: remembered runs, methods of one's own, tables."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from benchmarks.arena import __main__ as command
from benchmarks.arena.methods import fingerprint, make_method
from benchmarks.arena.racing import Job, solve, solve_all
from benchmarks.arena.scalar_main import SUITES


def gear_train():
    return next(case for case in SUITES["mixed"]() if case.name == "gear train")


def test_runs_are_remembered_until_the_method_or_the_suite_changes(tmp_path, monkeypatch):
    case = gear_train()
    job = Job(case, "random", 1)
    (first,) = solve_all([job], tmp_path, 1)
    assert (first.solves, first.status) == (case.max_solves, "finished")
    assert first.steps[-1][1] == first.loss
    monkeypatch.setattr("benchmarks.arena.racing.solve", lambda job: pytest.fail("run again"))
    assert list(solve_all([job], tmp_path, 1)) == [first]
    monkeypatch.setattr("benchmarks.arena.racing._sources", lambda module: b"edited")
    others = [
        job,
        Job(case, "default", 1),
        Job(case, "random", 2),
        Job(replace(case, max_solves=7), "random", 1),
    ]
    paths = {one.path(tmp_path) for one in others}
    assert len(paths) == 4
    assert not any(path.exists() for path in paths)


def test_peers_do_not_depend_on_our_sources_and_ours_do():
    pytest.importorskip("nevergrad")
    assert fingerprint("nevergrad:CMA") == fingerprint("nevergrad:OnePlusOne")
    assert fingerprint("default") == fingerprint("trust-region") != fingerprint("nevergrad:CMA")


def test_methods_of_ones_own_come_from_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import zo_bilevel as zb\ndef make():\n    return zb.RandomSearch()\n")
    assert make_method(f"{file}:make").name == "random"
    before = fingerprint(f"{file}:make")
    fingerprint.cache_clear()
    file.write_text(file.read_text() + "\n# edited\n")
    assert fingerprint(f"{file}:make") != before


def test_a_method_that_cannot_work_on_a_case_says_so():
    trace = solve(Job(gear_train(), "scipy:SLSQP", 0))
    assert (trace.status, trace.solves) == ("refused", 0)
    assert "needs derivatives" in trace.error


@pytest.mark.parametrize(
    ("suite", "words", "expected"),
    [
        ("mixed", ["--only", "gear", "--half", "all", "--budget", "60"], "mean rank"),
        ("slots", ["--only", "additive", "--budget", "10"], "share of the possible gain"),
        ("policy", ["--only", "lander", "--budget", "100"], "cases that random wins : loses"),
    ],
)
def test_the_command_prints_a_table(suite, words, expected, tmp_path, monkeypatch, capsys):
    words = [*words, "--methods", "random,zo-adam", "--seeds", "1", "--cache", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["arena", "--suite", suite, *words])
    command.main()
    printed = capsys.readouterr().out
    assert expected in printed
    assert "zo-adam" in printed


def test_the_command_prints_shares_of_bbob(monkeypatch, capsys):
    pytest.importorskip("cocoex")
    words = ["--only", "f5 ", "--size", "2", "--budget", "30", "--methods", "random", "--each"]
    monkeypatch.setattr(sys, "argv", ["arena", "--suite", "bbob", "--seeds", "1", *words])
    command.main()
    printed = capsys.readouterr().out
    assert "1 functions" in printed
    assert "f5 linear slope, N = 2 @30" in printed
    monkeypatch.setattr(sys, "argv", ["arena", "--suite", "bbob", "--only", "f99"])
    with pytest.raises(SystemExit, match="no case is left"):
        command.main()
