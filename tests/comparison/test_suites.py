"""Suites, their problems and the command that runs them."""

from __future__ import annotations

import json
import pickle
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.optimize import least_squares

import zo_bilevel as zb
from zo_bilevel.cli import suites
from zo_bilevel.cli.main import main
from zo_bilevel.report.suite import group_tests, group_words
from zo_bilevel.run.runs import Improvement, Run
from zo_bilevel.support.errors import InputError, MissingPackageError
from zo_bilevel.tasks.bbob import BbobSolver, bbob_task
from zo_bilevel.tasks.more_garbow_hillstrom import PROBLEMS, least_squares_task

HAS_COCO = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("cocoex") is None, reason="needs coco-experiment"
)
START_VALUES = {
    # sums of squares at the standard start, computed by hand or published with the collection
    "rosenbrock": 24.2,
    "freudenstein-roth": 400.5,
    "helical-valley": 2500.0,
    "powell-singular": 215.0,
    "wood": 19192.0,
    "bard": 41.6817,
    "kowalik-osborne": 5.31317e-3,
    "osborne-1": 0.879026,
    "watson": 30.0,
    "variably-dimensioned": 2198551.1625,
}


class TestMoreGarbowHillstrom:
    @pytest.mark.parametrize("name", START_VALUES)
    def test_the_sum_of_squares_at_the_standard_start(self, name):
        known = PROBLEMS[name]
        found = known.residuals(np.array(known.start, dtype=float))
        assert found @ found == pytest.approx(START_VALUES[name], rel=1e-5)

    @pytest.mark.parametrize("name", sorted({*PROBLEMS} - {"freudenstein-roth"}))
    def test_a_peer_finds_the_published_minimum_within_the_box(self, name):
        known = PROBLEMS[name]
        start = np.array(known.start, dtype=float)
        reach = np.broadcast_to(known.reach, start.shape)
        tight = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 3000}
        found = least_squares(
            known.residuals, start, bounds=(start - reach, start + reach), **tight
        )
        assert 2 * found.cost == pytest.approx(known.smallest, rel=1e-4, abs=1e-10)

    def test_the_task_is_solved_where_the_residuals_are_smallest(self):
        task = least_squares_task("box")
        found = zb.minimize(task.problem, initial=task.start(0), max_solves=60)
        assert found.loss < task.target_loss

    def test_starts_differ_by_seed_and_lie_in_the_box(self):
        task = least_squares_task("osborne-1")
        starts = [task.problem.space.encode(task.start(seed)) for seed in range(5)]
        assert len({start.tobytes() for start in starts}) == 5

    def test_unknown_names(self):
        with pytest.raises(InputError, match="unknown least-squares problem 'brad'; did you mean"):
            least_squares_task("brad")


@HAS_COCO
class TestBbob:
    @pytest.mark.parametrize("function", range(1, 25))
    def test_the_loss_is_positive_everywhere_but_at_the_optimum(self, function):
        solver = BbobSolver(function, 2, 1)
        rng = np.random.default_rng(function)
        losses = [solver({"x": rng.uniform(-5, 5, 2)}) for _ in range(50)]
        assert min(losses) >= 0
        assert max(losses) > 0

    def test_the_sphere_by_hand(self):
        # f1 is |x - x_opt|^2: three points tell x_opt, where the loss is 0
        solver = BbobSolver(1, 2, 1)
        zero, one, two = (solver({"x": np.array(x)}) for x in ([0.0, 0], [1.0, 0], [0.0, 1]))
        optimum = np.array([(zero - one + 1) / 2, (zero - two + 1) / 2])
        assert solver({"x": optimum}) == pytest.approx(0.0, abs=1e-8)
        assert np.abs(optimum).max() <= 4

    def test_noise_is_that_of_the_model_and_the_same_for_the_same_seed(self):
        task = bbob_task(1, 5, noise=0.1)
        phi = task.start(3)
        exact = task.exact.inner(phi)
        draws = np.array([task.problem.inner(phi, seed=seed) for seed in range(400)])
        assert task.problem.inner(phi, seed=7) == draws[7]
        logs = np.log(draws / exact)
        assert abs(logs.mean()) < 4 * 0.1 / 20
        assert logs.std() == pytest.approx(0.1, rel=0.15)

    def test_a_solver_goes_to_other_processes(self):
        solver = BbobSolver(8, 3, 2)
        phi = {"x": np.ones(3)}
        before = solver(phi)
        assert pickle.loads(pickle.dumps(solver))(phi) == before

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0, 2), "function must be 1 to 24, got 0"),
            ((1, 7), "size must be one of 2, 3, 5, 10, 20, 40, got 7"),
        ],
    )
    def test_bad_input(self, arguments, message):
        with pytest.raises(InputError, match=message):
            bbob_task(*arguments)


def test_without_coco_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cocoex", None)
    with pytest.raises(MissingPackageError, match=r'pip install "zo-bilevel\[bench\]"'):
        bbob_task(1, 2)


class TestGroups:
    def test_problems_are_the_pairs_and_seeds_are_not(self):
        members = []
        for problem in range(7):
            runs = [
                Run(m, s, loss=loss, solves=9, improvements=(Improvement(1, 1, 0.1, loss),))
                for s in range(5)
                for m, loss in (("a", 1.0 + s), ("b", 2.0 + s if problem else 0.5))
            ]
            members.append(
                zb.Comparison(f"p{problem}", ("a", "b"), tuple(range(5)), 9, tuple(runs), group="g")
            )
        (found,) = group_tests("a", members)
        assert (found.num_seeds, found.probability) == (7, pytest.approx(6 / 7))
        words = group_words("g", "a", members)
        assert "It is ahead of b on 6 of 7 (p = " in words

    def test_what_is_bad_about_us_is_said(self):
        runs = tuple(
            Run(m, s, loss=loss, solves=9, improvements=(Improvement(1, 1, 0.1, loss),))
            for s in range(5)
            for m, loss in (("default", 2.0 + s), ("other", 1.0 + s))
        )
        member = zb.Comparison("p", ("default", "other"), tuple(range(5)), 9, runs, group="g")
        words = group_words("g", "other", [member, member])
        assert "These are too few problems to draw a conclusion." in words
        assert "default is first on 0 of 2, not on p (other), p (other)." in words
        assert group_words("g", "other", [member]).startswith("g (1 problem): On p, other found")


TINY = (
    suites.Entry(suites.partial(least_squares_task, "box"), ("default", "random"), 12),
    suites.Entry(
        suites.partial(least_squares_task, "bard"), ("default", "random"), 12, is_scalar=True
    ),
)


@HAS_COCO
class TestBench:
    @pytest.fixture(autouse=True)
    def tiny(self, monkeypatch):
        monkeypatch.setitem(suites.SUITES, "small", lambda: TINY)
        monkeypatch.setitem(suites.GROUPS, ("default", "random"), "tiny")

    def test_tables_words_and_report(self, tmp_path):
        pytest.importorskip("plotly")
        path = tmp_path / "bench.html"
        answer = CliRunner().invoke(
            main, ["bench", "small", "--workers", "1", "--report", str(path)]
        )
        assert answer.exit_code == 0, answer.output
        assert "tiny (2 problems): default solves the largest share" in " ".join(
            answer.stdout.split()
        )
        assert max(map(len, answer.stdout.splitlines())) <= 100
        assert "bard, N = 3, loss only" in path.read_text()
        assert "zo-bilevel bench small" in path.read_text()

    def test_json_holds_every_comparison(self):
        answer = CliRunner().invoke(main, ["bench", "small", "--workers", "1", "--json"])
        found = json.loads(answer.stdout, parse_constant=pytest.fail)
        assert [one["problem"] for one in found] == ["box, N = 3", "bard, N = 3, loss only"]
        assert len(found[0]["runs"]) == 10

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["smal"], "unknown suite 'smal'; did you mean 'small'?"),
            (["small", "--seeds", "0"], "--seeds must be a count >= 1 or a list, got '0'"),
            (["small", "--report", "a.png"], "report must end in .html"),
            (["small", "--json", "--markdown"], "exclude each other"),
        ],
    )
    def test_bad_input(self, words, message):
        answer = CliRunner().invoke(main, ["bench", *words])
        assert answer.exit_code == 2
        assert message in answer.output

    def test_no_seed_and_no_worker(self):
        with pytest.raises(InputError, match="seeds must hold at least one seed, got none"):
            next(suites.run_suite("small", seeds=()))
        with pytest.raises(InputError, match="workers must be a whole number >= 1, got 0"):
            next(suites.run_suite("small", workers=0))


@pytest.mark.parametrize("name", ["small", "large", "full"])
def test_every_problem_of_a_suite_has_a_group_and_known_methods(name):
    from zo_bilevel.methods.names import method_from_name

    entries = suites.entries_of(name)
    for entry in entries:
        assert entry.group
    for method in {method for entry in entries for method in entry.methods}:
        try:
            method_from_name(method)
        except MissingPackageError:
            continue


@HAS_COCO
@pytest.mark.slow
def test_the_small_suite_takes_less_than_three_minutes_on_two_cores():
    import time

    begun = time.process_time()
    found = list(suites.run_suite("small", workers=1))
    assert len(found) == len(suites.entries_of("small"))
    # processor time of one process, so that what else runs on the machine does not count
    assert time.process_time() - begun < 2 * 180
