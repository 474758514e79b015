"""Comparisons: the same conditions for every method, failures as rows, bad input."""

from __future__ import annotations

import math
import sys
from functools import partial

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.comparison.observed_method import ObservedMethod
from zo_bilevel.comparison.stored_comparison import stored_comparison
from zo_bilevel.methods.base import Method
from zo_bilevel.methods.baselines.threaded import Baseline
from zo_bilevel.report.sections import section_of
from zo_bilevel.run.result import Record
from zo_bilevel.run.runs import Target
from zo_bilevel.solve.evaluation import Point
from zo_bilevel.store.sqlite import SQLiteStore
from zo_bilevel.support.errors import InnerSolverError, InputError, MissingPackageError

TRUE_RATE = 0.3


class CountedDecay:
    """exp(-rate x) on 8 points; remembers what it was asked for."""

    def __init__(self):
        self.rates = []

    def __call__(self, phi):
        self.rates.append(phi["rate"])
        return np.exp(-phi["rate"] * np.linspace(0, 1, 8))


def decay_problem(solver=None):
    solver = solver or CountedDecay()
    target = CountedDecay()({"rate": TRUE_RATE})
    return zb.Problem(zb.Space(rate=zb.Log(1e-3, 10.0)), solver, zb.SquaredError(target), "decay")


def decay_task(solver=None, **facts):
    return zb.Task(
        "decay",
        "a rate from 8 values",
        decay_problem(solver),
        start=lambda seed: {"rate": float(np.random.default_rng(seed).uniform(0.1, 10))},
        truth={"rate": TRUE_RATE},
        error=lambda phi: abs(phi["rate"] - TRUE_RATE) / TRUE_RATE,
        **facts,
    )


class Refusing(Method):
    """Raises when it begins, or after its first solve."""

    name = "refusing"

    def __init__(self, error, after_solves=0):
        self.error, self.after_solves = error, after_solves

    def rounds(self, search):
        for _ in range(self.after_solves):
            yield [Point(search.start)]
        raise self.error


class Wandering(Method):
    """Asks for points that no other method asks for."""

    name = "wandering"

    def rounds(self, search):
        rng = search.rng(77)
        while True:
            yield [Point(rng.uniform(search.space.lower, search.space.upper))]


class Breaking(Baseline):
    """A library that raises after two solves, but with the first seed."""

    label = "breaking"

    def drive(self, solves):
        for _ in range(2 if solves.search.seed else 9):
            solves.loss(solves.coordinates.start)
        raise ValueError("no dimension")


class TestFairness:
    def test_every_method_gets_the_same_start_and_budget_for_each_seed(self):
        solver = CountedDecay()
        methods = {"adam": zb.GradientMethod(), "random": zb.RandomSearch()}
        found = zb.compare(decay_task(solver), methods, max_solves=6, seeds=[3, 8])
        assert [(r.seed, r.method) for r in found.runs] == [
            (3, "adam"),
            (3, "random"),
            (8, "adam"),
            (8, "random"),
        ]
        assert [run.solves for run in found.runs] == [6, 6, 6, 6]
        assert len(solver.rates) == 24
        starts = [solver.rates[k] for k in (0, 6, 12, 18)]
        assert starts[0] == starts[1]
        assert starts[2] == starts[3]
        assert starts[0] != starts[2]

    def test_a_method_under_observation_gives_the_same_numbers_as_alone(self):
        task = decay_task()
        alone = zb.minimize(
            task.problem, zb.GradientMethod(), initial=task.start(1), max_solves=21, seed=1
        )
        found = zb.compare(task, {"x": zb.GradientMethod()}, max_solves=21, seeds=[1])
        assert found.runs[0].loss == alone.loss
        assert found.runs[0].phi == alone.phi
        best = [record.best_loss for record in alone.history]
        assert [step.loss for step in found.runs[0].improvements] == sorted(set(best), reverse=True)
        assert found.runs[0].improvements[-1].values == alone.phi

    def test_a_solve_that_the_method_did_not_ask_for_is_no_improvement(self):
        traced = ObservedMethod(zb.RandomSearch(), "r")
        state = traced.start(decay_problem(), 0)
        (asked,) = state.points
        phi = decay_problem().space.decode(asked.x)
        traced.observe(Record(1, 1, 0.1, asked.role, "ok", 2.0, 2.0, 0.0, phi))
        traced.observe(Record(2, 2, 0.2, "confirm", "ok", 1.0, 2.0, 0.0, phi))
        assert [step.loss for step in traced.improvements] == [2.0]
        assert traced.ended(0, "failed", "").solves == 2

    def test_the_round_width_reaches_every_method(self):
        found = zb.compare(
            decay_problem(), {"r": zb.RandomSearch()}, max_solves=9, seeds=[0], round_width=4
        )
        assert found.runs[0].rounds == 3
        assert "rounds" in found.table()
        assert str(found) == found.table()

    def test_initial_is_a_mapping_or_a_function_of_the_seed(self):
        solver = CountedDecay()
        for initial in ({"rate": 2.0}, lambda seed: {"rate": 2.0 + seed}):
            zb.compare(
                decay_problem(solver),
                {"r": zb.RandomSearch()},
                max_solves=1,
                seeds=[0, 1],
                initial=initial,
            )
        assert solver.rates == pytest.approx([2.0, 2.0, 2.0, 3.0])

    def test_tolerance_stops_runs_and_a_target_does_not(self):
        arguments = {"max_solves": 40, "seeds": [0]}
        methods = {"r": zb.RandomSearch()}
        stopped = zb.compare(decay_problem(), methods, tolerance=0.01, **arguments).runs[0]
        marked = zb.compare(decay_problem(), methods, target_loss=0.01, **arguments).runs[0]
        assert stopped.solves < 40
        assert marked.solves == 40
        assert marked.solves_to(Target("loss", 0.01)) == stopped.solves

    def test_a_store_answers_the_second_time(self, tmp_path):
        solver = CountedDecay()
        runs = [
            zb.compare(
                decay_problem(solver),
                {"r": zb.RandomSearch()},
                max_solves=7,
                seeds=[0, 1],
                store=tmp_path / "runs.sqlite",
            ).runs
            for _ in range(2)
        ]
        assert len(solver.rates) == 14 - 1  # the start is the same for both seeds
        assert [r.loss for r in runs[0]] == [r.loss for r in runs[1]]

    def test_seconds_of_solves_that_the_store_knew_are_told_apart(self, tmp_path):
        methods, path = {"first": zb.RandomSearch()}, tmp_path / "runs.sqlite"
        arguments = {"max_solves": 25, "seeds": range(5), "store": path}
        alone = zb.compare(decay_problem(), methods, **arguments)
        assert "cannot be" not in alone.table()
        both = methods | {"again": zb.RandomSearch(), "other": Wandering()}
        found = zb.compare(decay_problem(), both, **arguments)
        assert [run.reused for run in found.runs_of("again")] == [25] * 5
        assert all(run.reused <= 1 for run in found.runs_of("other"))  # the start
        rows = {row[0]: row[-1] for row in found.grid().rows}
        assert {method: cell.startswith("(") for method, cell in rows.items()} == {
            "first": True,
            "again": True,
            "other": False,
        }
        note = "that the store already knew, and cannot be compared: 125 of first, 125 of again"
        assert note in " ".join(found.table().split())
        with SQLiteStore(path) as store:
            stored = stored_comparison(store)
        assert {run.reused for run in stored.runs_of("again")} == {25}
        assert any("125 of first" in warning for warning in section_of(found, "part").warnings)

    def test_the_task_says_what_counts_as_solved_its_error_first(self):
        arguments = {"methods": {"r": zb.RandomSearch()}, "max_solves": 2, "seeds": [0]}
        both = zb.compare(decay_task(target_loss=1e-3, target_error=0.05), **arguments)
        assert both.target == Target("relative error", 0.05)
        assert zb.compare(decay_task(target_loss=1e-3), **arguments).target.quantity == "loss"
        told = zb.compare(decay_task(target_error=0.05), **arguments, target_loss=0.2)
        assert told.target == Target("loss", 0.2)


class TestFailures:
    @pytest.mark.parametrize("after_solves", [0, 1])
    @pytest.mark.parametrize(
        "error",
        [zb.UnsupportedProblemError("needs 2 numbers"), MissingPackageError("pip install that")],
    )
    def test_a_method_that_refuses_is_a_row_with_the_reason(self, error, after_solves):
        methods = {"no": Refusing(error, after_solves), "random": zb.RandomSearch()}
        found = zb.compare(decay_problem(), methods, max_solves=5, seeds=range(2))
        refused = found.runs_of("no")
        assert [run.status for run in refused] == ["refused", "refused"]
        assert [run.error for run in refused] == [str(error)] * 2
        assert f"no: {error}" in found.table()
        assert found.summaries()[-1].method == "no"
        assert [run.status for run in found.runs_of("random")] == ["finished", "finished"]

    def test_names_are_methods_and_a_package_that_is_missing_is_a_row(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "nevergrad", None)
        names = ["random", "nevergrad:CMA"]
        for methods in (names, dict(zip(names, names, strict=True))):
            found = zb.compare(decay_problem(), methods, max_solves=5, seeds=range(2))
            assert found.methods == ("random", "nevergrad:CMA")
            assert [run.status for run in found.runs_of("random")] == ["finished"] * 2
            assert [run.status for run in found.runs_of("nevergrad:CMA")] == ["refused"] * 2
            assert "nevergrad:CMA: Nevergrad needs the package nevergrad" in found.table()

    def test_a_method_that_crashes_keeps_what_it_had_found(self):
        methods = {"bad": Refusing(ZeroDivisionError("oh"), 1), "random": zb.RandomSearch()}
        found = zb.compare(decay_problem(), methods, max_solves=5, seeds=[0])
        crashed = found.runs_of("bad")[0]
        assert (crashed.status, crashed.error) == ("failed", "ZeroDivisionError: oh")
        assert crashed.solves == 1
        assert math.isfinite(crashed.loss)

    def test_a_library_that_breaks_off_says_so_in_its_row_and_keeps_what_it_found(self, tmp_path):
        methods, path = {"b": Breaking(), "random": zb.RandomSearch()}, tmp_path / "runs.sqlite"
        found = zb.compare(decay_problem(), methods, max_solves=5, seeds=range(3), store=path)
        with SQLiteStore(path) as store:
            stored = stored_comparison(store)
        reason = "broke off in 2 of 3 runs: ValueError: no dimension"
        for read in (found, stored):
            runs = read.runs_of("b")
            assert [run.status for run in runs] == ["finished", "broke off", "broke off"]
            assert [run.solves for run in runs] == [5, 2, 2]
            assert all(math.isfinite(run.loss) and run.is_counted for run in runs)
            assert f"b: {reason}" in read.table()
            header, *rows = read.to_markdown().splitlines()[2:6]
            cells = {row.split(" | ")[0].strip("| "): row.split(" | ")[3] for row in rows}
            assert (header.split(" | ")[3], cells["b"]) == ("broke off", "2 of 3")
            plain = {summary["method"]: summary for summary in read.to_dict()["summaries"]}
            assert (plain["b"]["cut_short"], plain["b"]["errors"]) == (2, [reason])
            page = section_of(read, "part")
            assert f"b: {reason}" in page.ranking.notes
            assert "broke\noff" in page.ranking.header
            assert "2x breaking broke off with ValueError: no dimension" in page.stops.rows[0][1]

    def test_a_solver_that_never_works_ends_the_comparison_after_the_first_seed(self):
        calls = []

        def broken(phi):
            calls.append(phi)
            raise RuntimeError("no licence")

        methods = {"r": zb.RandomSearch(), "q": zb.RandomSearch()}
        with pytest.raises(InnerSolverError, match="no licence"):
            zb.compare(decay_problem(broken), methods, max_solves=5, seeds=range(9))
        assert len(calls) == 10

    def test_an_error_of_the_callback_is_not_put_down_to_the_method(self):
        def callback(label, seed, record):
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            zb.compare(decay_problem(), {"r": zb.RandomSearch()}, max_solves=5, callback=callback)

    def test_ctrl_c_gives_the_runs_until_then_and_leaves_the_cut_one_out_of_the_medians(self):
        decay, calls = CountedDecay(), []

        def solver(phi):
            calls.append(phi)
            if len(calls) == 8:
                raise KeyboardInterrupt
            return decay(phi)

        found = zb.compare(
            decay_problem(solver), {"r": zb.RandomSearch()}, max_solves=5, seeds=range(4)
        )
        assert found.is_interrupted
        assert [run.status for run in found.runs] == ["finished", "interrupted"]
        assert found.summaries()[0].num_runs == 1
        assert "interrupted: 2 of 4 runs" in found.table()

    def test_an_interrupted_comparison_counts_the_seeds_that_were_made(self):
        decay, calls = CountedDecay(), []

        def solver(phi):
            calls.append(phi)
            if len(calls) == (2 * seeds - 1) * 3 + 2:
                raise KeyboardInterrupt
            return decay(phi)

        methods = {"a": zb.RandomSearch(), "b": zb.RandomSearch()}
        for seeds, title in ((2, "medians of 1 to 2 seeds"), (5, "medians of 4 to 5 seeds")):
            calls.clear()
            found = zb.compare(decay_problem(solver), methods, max_solves=3, seeds=range(7))
            assert [len(found.runs_of(name)) for name in methods] == [seeds, seeds]
            assert found.seeds_made == (seeds - 1, seeds)
            assert title in found.table()
            assert ("no conclusion follows" in found.table()) == (seeds < 5)

    def test_failed_solves_are_counted_and_shown(self):
        decay = CountedDecay()

        def solver(phi):
            answer = decay(phi)
            return answer * np.nan if len(decay.rates) % 3 == 0 else answer

        found = zb.compare(decay_problem(solver), {"r": zb.RandomSearch()}, max_solves=9, seeds=[0])
        assert found.runs[0].failures == {"invalid": 3}
        assert "failed solves: 3 of r" in found.table()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": []}, "seeds must hold at least one seed, got none"),
        ({"seeds": [1, 2, 1]}, "seeds must differ, got 1 twice"),
        ({"seeds": [-1]}, "each of seeds must be a whole number >= 0, got -1"),
        ({"seeds": [0.5]}, "each of seeds must be a whole number >= 0, got 0.5"),
        ({"seeds": 5}, r"seeds must be whole numbers such as range\(5\), got 5"),
        ({"methods": {}}, "methods must hold at least one method, got none"),
        ({"methods": "random"}, "methods must be a dict of methods or a list of names, got str"),
        ({"methods": [zb.RandomSearch()]}, "must hold names, got RandomSearch"),
        ({"methods": ["random", "random"]}, "methods must differ, got 'random' twice"),
        ({"methods": {"r": "randon"}}, "unknown method 'randon'; did you mean 'random'"),
        ({"methods": {"r": 3}}, r"methods\['r'\] must be a Method or a name, got int"),
        ({"max_solves": 0}, "max_solves must be a whole number >= 1, got 0"),
        ({"max_solves": 2.5}, "max_solves must be a whole number >= 1, got 2.5"),
        ({"initial": {"ratio": 1.0}}, "unknown parameter 'ratio'"),
        ({"initial": lambda seed: {"rate": 9.0 + seed}}, "rate must lie in"),
        ({"initial": 3.0}, "initial must be a mapping or a function of the seed, got float"),
        ({"round_width": 0}, "round_width must be a whole number >= 1, got 0"),
        ({"dispatcher": "loky"}, "dispatcher must run rounds, got str"),
        ({"target_loss": math.nan}, "target_loss must be finite, got nan"),
        ({"tolerance": "no"}, "tolerance must be finite, got 'no'"),
        ({"target_error": 0.1}, "target_error=0.1 needs a task that knows the truth"),
        ({"target_error": 0.1, "target_loss": 1.0}, "exclude each other"),
        ({"problem": "decay"}, "problem must be a zb.Problem or zb.Task, got str"),
    ],
)
def test_bad_input_is_refused_before_the_first_solve(change, message):
    solver = CountedDecay()
    arguments = {
        "problem": decay_problem(solver),
        "methods": {"r": zb.RandomSearch()},
        "max_solves": 5,
        "seeds": range(3),
        **change,
    }
    with pytest.raises(InputError, match=message):
        zb.compare(**arguments)
    assert solver.rates == []


@pytest.mark.parametrize("size", [2, 12])
@pytest.mark.parametrize("discrete", [False, True])
def test_a_method_asks_in_a_comparison_for_what_it_asks_by_itself(size, discrete):
    more = {"n": zb.Integer(0, 9)} if discrete else {}
    space = zb.Space(x=zb.Real(-3, 3, (size,)), **more)

    def loss(scale, phi):
        return float(np.sum(scale * (phi["x"] - 1) ** 2)) + phi.get("n", 0)

    problem = zb.Problem(space, partial(loss, np.arange(1.0, size + 1)))
    options = {"max_solves": 40, "initial": {"x": np.full(size, -1.0)}}
    (run,) = zb.compare(problem, {"default": zb.DefaultMethod()}, seeds=[0], **options).runs
    assert run.loss == zb.minimize(problem, seed=0, **options).loss
