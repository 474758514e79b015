"""A comparison read back from a store: the one that filled it, with its conditions and noise."""

from __future__ import annotations

import dataclasses
import html
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from stored_decay import METHODS, decay, filled_store, found_in, problem_of

import zo_bilevel as zb
from zo_bilevel.cli.main import main
from zo_bilevel.comparison.stored_comparison import stored_comparison, stored_comparisons
from zo_bilevel.report.watch import live_page
from zo_bilevel.run.runs import Target
from zo_bilevel.support.errors import InputError

pytest.importorskip("starlette", reason="needs the extra report")
pytest.importorskip("uvicorn", reason="needs the extra report")

filled = pytest.fixture(filled_store)


class TestStoredComparison:
    def test_it_is_the_comparison_that_filled_the_store(self, filled):
        path, known = filled
        with zb.Store(path, read_only=True) as store:
            found = stored_comparison(store)
        assert (found.problem, found.seeds, found.max_solves) == ("decay", (0, 1), 9)
        assert set(found.methods) == {"adam", "random"}
        assert found.log_parameters == ("rate",)
        for method in METHODS:
            for one, other in zip(found.runs_of(method), known.runs_of(method), strict=True):
                assert (one.loss, one.solves, one.phi) == (other.loss, other.solves, other.phi)
                assert one.stop_reason == other.stop_reason
                steps = [[(s.solve, s.round, s.loss) for s in r.improvements] for r in (one, other)]
                assert steps[0] == steps[1]

    def test_failures_are_kept(self, tmp_path):
        calls = []

        def solver(phi):
            calls.append(phi)
            return decay(phi) * (np.nan if len(calls) % 3 == 0 else 1.0)

        path = tmp_path / "runs.sqlite"
        known = zb.compare(problem_of(solver=solver), METHODS, max_solves=9, seeds=[0], store=path)
        with zb.Store(path, read_only=True) as store:
            found = stored_comparison(store)
        assert [r.failures for r in found.runs_of("random")] == [
            r.failures for r in known.runs_of("random")
        ]

    def test_an_empty_store_is_no_report(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        zb.Store(path).close()
        with (
            zb.Store(path, read_only=True) as store,
            pytest.raises(InputError, match=r"store .*runs\.sqlite holds no runs, so there is not"),
        ):
            stored_comparisons(store)

    def test_a_store_from_another_task_is_named_with_what_it_holds(self, filled):
        with (
            zb.Store(filled[0], read_only=True) as store,
            pytest.raises(
                InputError, match=r"is from another task: unknown problem 'decoy'.*decay"
            ),
        ):
            stored_comparison(store, "decoy")

    def test_runs_that_have_not_ended_are_named_unless_asked_for(self, filled):
        path, _ = filled
        with zb.Store(path) as store:
            run = store.find_run(2)
            store.save(dataclasses.replace(run, status="running", found="", point=b""))
            with pytest.raises(InputError, match=r"have not ended: \S+ seed 0 \(run 2\); wait"):
                stored_comparison(store)
            assert len(stored_comparison(store, is_live=True).runs) == 4

    def test_runs_with_different_spaces_are_named(self, filled):
        path, _ = filled
        zb.compare(problem_of(upper=5.0), METHODS, max_solves=9, seeds=[0], store=path)
        with (
            zb.Store(path, read_only=True) as store,
            pytest.raises(
                InputError,
                match=r"holds 2 comparisons: .* runs of decay .* differ in space \(1; 2\)",
            ),
        ):
            stored_comparison(store)

    def test_several_problems_need_a_name(self, filled):
        path, _ = filled
        zb.compare(problem_of(name="other"), METHODS, max_solves=3, seeds=[0], store=path)
        with zb.Store(path, read_only=True) as store:
            with pytest.raises(InputError, match="several problems, name one: decay, other"):
                stored_comparison(store)
            assert [found.problem for found in stored_comparisons(store)] == ["decay", "other"]
            assert stored_comparison(store, "decay", target=Target("loss", 1.0)).target is not None


def with_target(target):
    return zb.Problem(zb.Space(rate=zb.Log(1e-3, 10.0)), decay, zb.SquaredError(target), "decay")


class TestConditions:
    """Runs are only compared with runs that were made under the same conditions."""

    def fill(self, path, label, method, problem=None, seeds=range(5), **options):
        return zb.compare(
            problem or problem_of(), {label: method}, seeds=seeds, store=path, **options
        )

    def test_other_starts_and_budgets_are_not_compared(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        far, near = {"rate": 10.0}, {"rate": 0.31}
        self.fill(path, "adam", zb.GradientMethod(), max_solves=5, initial=far)
        self.fill(path, "random", zb.RandomSearch(), max_solves=9, initial=near)
        one, other = found_in(path)
        assert (one.methods, one.max_solves) == (("adam",), 5)
        assert (other.methods, other.max_solves) == (("random",), 9)
        assert one.problem == "decay (solves a run 5; start rate=10)"
        assert other.problem == "decay (solves a run 9; start rate=0.31)"
        (note,) = one.notes
        assert other.notes == one.notes
        assert note == (
            "The store holds runs of decay that differ in solves a run (5; 9), start (rate=10; "
            "rate=0.31). They are compared only where these are the same: no ranking follows "
            "between them."
        )
        page = html.unescape(live_page(path))
        assert page.index("no ranking follows") < page.index("found the lowest loss")
        assert "ahead of" not in page

    @pytest.mark.parametrize(
        ("options", "difference"),
        [
            ({"round_width": 4}, "round width (1; 4)"),
            ({"tolerance": 0.5}, "runs stop at loss (none; 0.5)"),
            ({"max_solves": 6}, "solves a run (9; 6)"),
            ({"initial": {"rate": 7.0}}, "start (rate=0.1; rate=7)"),
            ({"problem": problem_of().scalar}, "outer objective (SquaredError #"),
            ({"problem": with_target(decay({"rate": 2.0}))}, "outer objective (SquaredError #"),
        ],
    )
    def test_each_condition_counts(self, tmp_path, options, difference):
        path = tmp_path / "runs.sqlite"
        known = {"max_solves": 9, **options}
        self.fill(path, "adam", zb.GradientMethod(), max_solves=9)
        self.fill(path, "random", zb.RandomSearch(), **known)
        found = found_in(path)
        assert [comparison.methods for comparison in found] == [("adam",), ("random",)]
        assert f"differ in {difference}" in found[0].notes[0]

    def test_one_problem_with_many_budgets_is_no_evidence_of_many_problems(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        for budget in range(5, 11):
            # another start each, or the shorter run would become the longer one
            start = {"rate": 0.1 * budget}
            options = {"max_solves": budget, "seeds": range(5), "initial": start, "store": path}
            zb.compare(problem_of(), METHODS, **options)
        assert len(found_in(path)) == 6
        assert "solves the largest share of the runs" not in live_page(path)

    def test_starts_that_differ_by_seed_are_those_of_one_comparison(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        starts = {"initial": lambda seed: {"rate": 0.1 + seed}, "max_solves": 5}
        zb.compare(problem_of(), METHODS, seeds=range(4), store=path, **starts)
        (found,) = found_in(path)
        assert (found.problem, found.notes) == ("decay", ())
        # more seeds and one more method, later
        self.fill(path, "more", zb.RandomSearch(), seeds=range(6), **starts)
        (found,) = found_in(path)
        assert (set(found.methods), found.seeds) == ({*METHODS, "more"}, tuple(range(6)))

    def test_starts_that_differ_by_seed_and_method_are_no_comparison(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        fixed = {"initial": {"rate": 7.0}, "max_solves": 5}
        self.fill(path, "adam", zb.GradientMethod(), seeds=range(3), max_solves=5)
        self.fill(path, "random", zb.RandomSearch(), seeds=range(2, 6), **fixed)
        self.fill(path, "apart", zb.RandomSearch(), seeds=range(6, 8), **fixed)
        one, other = found_in(path)
        assert (one.methods, one.seeds) == (("adam",), (0, 1, 2))
        assert (other.methods, other.seeds) == (("random", "apart"), tuple(range(2, 8)))

    def test_a_run_of_another_objective_is_another_run(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        first = self.fill(path, "random", zb.RandomSearch(), max_solves=9)
        other = with_target(decay({"rate": 2.0}))
        second = self.fill(path, "random", zb.RandomSearch(), other, max_solves=9)
        again = found_in(path)
        assert [[run.loss for run in found.runs] for found in again] == [
            [run.loss for run in known.runs] for known in (first, second)
        ]

    def test_a_run_that_was_repeated_with_less_is_what_it_was_the_last_time(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        more = self.fill(path, "random", zb.RandomSearch(), max_solves=30)
        less = self.fill(path, "random", zb.RandomSearch(), max_solves=8)
        for known in (less, more):
            if known is more:
                self.fill(path, "random", zb.RandomSearch(), max_solves=30)
            (found,) = found_in(path)
            for one, two in zip(found.runs, known.runs, strict=True):
                assert (one.solves, one.loss, one.phi) == (two.solves, two.loss, two.phi)
                assert len(one.improvements) == len(two.improvements)

    def test_all_commands_are_named(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        shutil.copy(Path(__file__).parents[1] / "programs" / "decay_file.py", "mine.py")
        words = "mine.py:decay --max-solves 5 --store runs.sqlite"
        for command in ("run --method random", "run --method zo-adam"):
            given = [*command.split(), *words.split()]
            assert CliRunner().invoke(main, given).exit_code == 0
        (found,) = found_in("runs.sqlite")
        assert found.facts.command == (
            "zo-bilevel run --method random mine.py:decay --max-solves 5; "
            "zo-bilevel run --method zo-adam mine.py:decay --max-solves 5"
        )

    def test_the_command_says_it_too(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        self.fill(path, "adam", zb.GradientMethod(), max_solves=5, seeds=[0])
        self.fill(path, "random", zb.RandomSearch(), max_solves=9, seeds=[0])
        answer = CliRunner().invoke(main, ["report", str(path), str(tmp_path / "found.html")])
        assert answer.exit_code == 0, answer.output
        assert "differ in solves a run (5; 9)" in answer.stderr
        text = html.unescape((tmp_path / "found.html").read_text())
        assert "<h1>runs.sqlite</h1>" in text
        assert text.count('<details class="part"') == 2
