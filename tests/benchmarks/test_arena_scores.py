"""What the arena counts: noiseless losses, groups of N + 1 solves, areas, remembered runs."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest

from benchmarks.arena import __main__ as command
from benchmarks.arena.catalogue import problem_named
from benchmarks.arena.page import write_page
from benchmarks.arena.peers import PEERS, peers_of
from benchmarks.arena.problem import Noise
from benchmarks.arena.running import ArenaRun, Cache, run_all, run_once, version_of
from benchmarks.arena.scores import TAUS, area, groups_to_solve, share_table, shares
from benchmarks.arena.variants import with_noise

ROSENBROCK = problem_named("more-wild/04-rosenbrock-n2")


def a_run(best, incumbent=None):
    incumbent = best if incumbent is None else incumbent
    return ArenaRun(ROSENBROCK.name, "made-up", 0, 99, best, incumbent, 0.0, 0.0, "")


def test_a_problem_is_solved_when_tau_of_the_gain_is_left():
    first = ROSENBROCK.true_loss(ROSENBROCK.start)  # the least is 0
    run = a_run(((1, first), (3, first * 0.1), (6, first * 1.001e-3), (9, first * 1e-7)))
    found = [groups_to_solve(ROSENBROCK, run, tau) for tau in TAUS]
    assert found == [1.0, 3.0, 3.0, 3.0]
    assert groups_to_solve(ROSENBROCK, run, 1e-9) == np.inf


def test_an_incumbent_that_leaves_again_has_not_arrived():
    first = ROSENBROCK.true_loss(ROSENBROCK.start)
    walk = ((1, first), (3, first * 1e-4), (12, first * 0.5), (30, first * 1e-2))
    run = a_run(((1, first), (3, first * 1e-4)), walk)
    assert groups_to_solve(ROSENBROCK, run, 0.1) == 1.0
    assert groups_to_solve(ROSENBROCK, run, 0.1, "incumbent") == 10.0
    assert groups_to_solve(ROSENBROCK, run, 1e-3, "incumbent") == np.inf


def test_shares_and_areas_of_a_table():
    table = np.array([[1.0, 10, 200, np.inf], [5.0, 11, np.inf, np.inf]])
    found = shares(table)  # columns 5, 10, 25, 50, 100, 200
    np.testing.assert_array_equal(found[0], 1.0)
    np.testing.assert_array_equal(found[1], [0, 0.5, 1, 1, 1, 1])
    np.testing.assert_array_equal(found[2], [0, 0, 0, 0, 0, 0.5])
    assert found[3].sum() == 0
    decades = np.log10(200) + 1  # from a tenth of a group to 200
    expected = (np.log10(200) + np.log10(200 / 5)) / 2 / decades
    assert area(table[:, [0]]) == pytest.approx(expected, abs=2e-3)


def test_a_missing_run_is_not_counted_as_solved():
    assert share_table([ROSENBROCK], {}).shape == (0, len(TAUS))


@pytest.mark.parametrize("method", [name for name in PEERS if name not in ("pounders", "bobyqa")])
def test_peers_solve_a_small_problem_and_end_there(method):
    pytest.importorskip("dfols")
    run = run_once(ROSENBROCK, method)
    assert np.isfinite(groups_to_solve(ROSENBROCK, run, 1e-7)), run.reason
    assert run.best[0] == pytest.approx((1, ROSENBROCK.true_loss(ROSENBROCK.start)))
    assert run.solves == run.best[-1][0]  # ended at the first point that was low enough


@pytest.mark.parametrize(("method", "package"), [("pounders", "ibcdfo"), ("bobyqa", "pybobyqa")])
def test_slower_peers_solve_a_small_problem(method, package):
    pytest.importorskip(package)
    run = run_once(ROSENBROCK, method)
    assert np.isfinite(groups_to_solve(ROSENBROCK, run, 1e-3)), run.reason


def test_our_method_is_judged_by_the_same_rules():
    run = run_once(ROSENBROCK, "default")
    assert run.best[0] == pytest.approx((1, ROSENBROCK.true_loss(ROSENBROCK.start)))
    assert np.isfinite(groups_to_solve(ROSENBROCK, run, 1e-7)), run.reason
    assert run.returned == run.best[-1][1]
    assert run.solves < ROSENBROCK.max_solves


def test_noise_is_seen_by_the_method_and_not_by_the_judge():
    noisy = with_noise(problem_named("more-wild/04-rosenbrock-n2"), Noise("additive", 1e-2))
    first, again = run_once(noisy, "lm", seed=1), run_once(noisy, "lm", seed=2)
    assert first.best[0] == again.best[0] == (1, noisy.true_loss(noisy.start))
    assert first.incumbent != again.incumbent


def test_a_peer_that_breaks_keeps_what_it_found(monkeypatch):
    def broken(problem, watched):
        watched.residuals(problem.start)
        raise FloatingPointError("lost")

    monkeypatch.setitem(PEERS, "broken", (broken, "numpy"))
    run = run_once(ROSENBROCK, "broken")
    assert (run.solves, run.reason) == (1, "broke off with FloatingPointError: lost")


def test_runs_are_remembered_by_problem_method_and_version(tmp_path, monkeypatch):
    cache = Cache(tmp_path, {"lm": "1"})
    (first,) = run_all([ROSENBROCK], ["lm"], cache)
    monkeypatch.setitem(PEERS, "lm", (lambda problem, watched: "never called", "numpy"))
    (again,) = run_all([ROSENBROCK], ["lm"], cache)
    assert again == first
    (other,) = run_all([ROSENBROCK], ["lm"], Cache(tmp_path, {"lm": "2"}))
    assert other.reason == "never called"
    file = next((tmp_path / "lm@1").iterdir())
    assert json.loads(file.read_text())["problem"] == ROSENBROCK.name
    assert ROSENBROCK.key in file.name


def test_versions_are_the_packages_for_peers_and_the_sources_for_ours():
    import scipy

    assert version_of("lm") == scipy.__version__
    assert version_of("default") == version_of("default/scalar") != version_of("dfols:prior")
    assert len(version_of("dfols:prior")) == 12
    assert "default/scalar" in peers_of("outer")


def test_the_command_prints_a_table_and_writes_a_page(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.html"
    words = ["--groups", "more-wild", "--only", "rosenbrock-n2", "--peers", "lm", "--problems"]
    words += ["--cache", str(tmp_path / "cache"), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", ["arena", *words])
    command.main()
    printed = capsys.readouterr().out
    assert "more-wild, tune: 2 problems" in printed
    assert "default against the best peer" in printed
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 1
    assert "held" not in text  # the other half is asked for, never shown by itself


def test_a_page_shows_both_halves_side_by_side(tmp_path):
    table = np.array([[1.0, 10, 200, np.inf]])
    tables = {"more-wild": {"default": table, "lm": table + 1}}
    write_page(tmp_path / "both.html", {"tune": tables, "held": tables})
    text = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert text.count("<svg") == text.count("</svg>") == 2
    assert text.index("Half: tune") < text.index("Half: held")


def test_the_lines_of_a_page_differ_where_curves_coincide_and_have_names(tmp_path):
    table = np.array([[1.0, 10, 200, np.inf]])
    names = [f"method-{index}" for index in range(12)]
    write_page(tmp_path / "many.html", {"tune": {"more-wild": dict.fromkeys(names, table)}})
    text = (tmp_path / "many.html").read_text(encoding="utf-8")
    legend = text[text.index('id="legend_1"') : text.index("</svg>")]
    styles = re.findall(
        r'style="(fill: none;[^"]*stroke-width[^"]*|fill: none; stroke-das[^"]*)"', legend
    )
    assert len(styles) == len(set(styles)) == 12
    assert text.count("<!-- groups of N + 1 solves -->") == 4
    assert all(f"<!-- {name} -->" in legend for name in names)
