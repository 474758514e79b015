"""Methods that cheat are found out, and those that do not are left alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.comparison.profiles import cases_of
from zo_bilevel.methods.base import Method
from zo_bilevel.run.runs import Target
from zo_bilevel.solve.evaluation import Point
from zo_bilevel.support.errors import InputError


def parabola(phi):
    return phi["a"] ** 2


class Peeking(Method):
    """Solves many points beside its budget and asks only for the best."""

    name = "peeking"

    def rounds(self, search):
        grid = np.linspace(-3, 3, 61)
        losses = []
        for value in grid:
            try:
                losses.append(search.problem.inner(search.space.decode(np.array([value]))))
            except RuntimeError:
                losses.append(math.inf)
        yield [Point(np.array([grid[int(np.argmin(losses))]]))]
        return "done"


class Insisting(Method):
    """Asks for one and the same point again and again, and so reports its luckiest draw."""

    name = "insisting"

    def rounds(self, search):
        while True:
            yield [Point(np.ones(search.space.size), (0,))]


class Falling(Method):
    """Repeats the start, keeps the luckiest draw and raises."""

    name = "falling"

    def rounds(self, search):
        for k in range(20):
            yield [Point(search.start, (k,))]
        raise RuntimeError("oops")


class Judging(Method):
    """Asks with the seeds that final points are judged by."""

    name = "judging"

    def __init__(self, stream):
        self.stream = stream

    def rounds(self, search):
        yield [Point(search.start, self.stream)]
        return "done"


class Misshapen(Method):
    """Asks for a point of another size."""

    name = "misshapen"

    def rounds(self, search):
        yield [Point(np.zeros(search.space.size + 1))]
        return "done"


class Careful(Method):
    """Asks for better and better points, each once."""

    name = "careful"

    def rounds(self, search):
        for k in itertools.count(1):
            yield [Point(np.full(search.space.size, 1.0 / k))]


class TestRigged:
    def test_a_method_that_peeks_is_disqualified_and_no_median_has_it(self):
        problem = zb.Problem(zb.Space(a=zb.Real(-1, 3)), parabola)
        methods = {"peeking": Peeking(), "random": zb.RandomSearch()}
        found = zb.compare(problem, methods, max_solves=5, seeds=range(2))
        row = found.runs_of("peeking")[0]
        assert row.status == "disqualified"
        assert row.error == "called the inner solver itself 61 times, beside its budget"
        assert found.summaries()[-1].method == "peeking"
        assert found.summaries()[-1].loss is None
        assert "peeking: called the inner solver itself" in found.table()

    def test_the_solver_in_a_comparison_still_answers_what_methods_may_ask(self):
        class Solver:
            name = "named"

            def __call__(self, phi):
                return phi["a"] ** 2

        problem = zb.Problem(zb.Space(a=zb.Real(-1, 3)), Solver())
        found = zb.compare(problem, {"default": zb.DefaultMethod()}, max_solves=9, seeds=[0])
        alone = zb.minimize(problem, max_solves=9)
        assert found.runs[0].loss == alone.loss

    def test_a_lucky_draw_of_a_solver_with_hidden_randomness_does_not_win(self):
        rng = np.random.default_rng(5)

        def solver(phi):
            return float(np.sum(phi["a"] ** 2) + rng.normal(0, 3.0))

        problem = zb.Problem(zb.Space(a=zb.Real(-3, 3, shape=(2,))), solver)
        methods = {"insisting": Insisting(), "careful": Careful()}
        found = zb.compare(problem, methods, max_solves=40, seeds=range(5))
        lucky = found.runs_of("insisting")
        assert all(run.judged_by == "fresh solves" for run in found.runs)
        assert all(run.reported_loss < 0 for run in lucky)  # twice 1 is the truth
        assert np.mean([run.loss for run in lucky]) == pytest.approx(2.0, abs=1.5)
        assert found.judge_solves == 8 * 10
        assert "judged by 80 solves beside the runs" in found.table()
        target = Target("loss", -1.0)
        assert all(run.first_at(target) is None for run in lucky)

    @pytest.mark.parametrize("max_solves", [8, 60])
    def test_neither_a_small_budget_nor_an_error_saves_a_lucky_draw(self, max_solves):
        def solver(phi, seed):
            return 1.0 + np.random.default_rng([seed, int(1e6 * abs(phi["a"]))]).normal()

        problem = zb.Problem(zb.Space(a=zb.Real(-3, 3)), solver)
        methods = {"falling": Falling(), "random": zb.RandomSearch()}
        found = zb.compare(
            problem, methods, max_solves=max_solves, seeds=range(5), target_loss=-0.5
        )
        lucky = found.runs_of("falling")
        assert all(run.judged_by == "fresh solves" for run in lucky)
        assert np.mean([run.loss for run in lucky]) == pytest.approx(1.0, abs=0.7)
        assert all(run.first_at(found.target) is None for run in found.runs)
        assert found.has_lucky_draws
        assert "they are optimistic" in found.table()
        assert cases_of([found]) == ()

    @pytest.mark.parametrize("method", [Judging((1 << 18, 0)), Judging((1 << 19, 3)), Misshapen()])
    def test_a_method_that_asks_for_what_it_must_not_is_a_failed_row(self, method):
        problem = zb.Problem(zb.Space(a=zb.Real(-1, 3)), parabola)
        methods = {"bad": method, "random": zb.RandomSearch()}
        found = zb.compare(problem, methods, max_solves=5, seeds=[0])
        assert [run.status for run in found.runs] == ["failed", "finished"]
        assert found.runs[0].error.startswith("a method must")

    def test_an_array_that_a_method_changes_later_is_not_the_point_that_was_solved(self):
        class Moving(Method):
            name = "moving"

            def rounds(self, search):
                x = search.start.copy()
                for _ in range(4):
                    yield [Point(x)]
                    x += 0.1
                return "done"

        problem = zb.Problem(zb.Space(a=zb.Real(-1, 3)), parabola)
        found = zb.compare(problem, {"moving": Moving()}, max_solves=9, seeds=[0]).runs[0]
        assert found.loss == found.phi["a"] ** 2

    def test_a_task_that_knows_the_truth_without_noise_judges_by_it(self):
        def noisy(phi, *, seed):
            noise = np.random.default_rng([seed, int(1e6 * abs(phi["a"][0]))]).normal(0, 3.0)
            return float(np.sum(phi["a"] ** 2) + noise)

        space = zb.Space(a=zb.Real(-3, 3, shape=(2,)))
        exact = zb.Problem(space, lambda phi: float(np.sum(phi["a"] ** 2)))
        task = zb.Task("t", "", zb.Problem(space, noisy), exact=exact, target_loss=0.5)
        methods = {"insisting": Insisting(), "careful": Careful()}
        found = zb.compare(task, methods, max_solves=30, seeds=range(5))
        insisting = found.runs_of("insisting")
        assert [run.loss for run in insisting] == [pytest.approx(2.0)] * 5
        assert all(run.judged_by == "exact" for run in found.runs)
        assert all(s.judged_loss == pytest.approx(2.0) for s in insisting[0].improvements)
        assert found.summaries()[0].method == "careful"
        assert found.summaries()[1].to_target.reached == 0

    def test_held_out_data_are_shown_beside_the_loss(self):
        space = zb.Space(a=zb.Real(-3, 3))
        held_out = zb.Problem(space, lambda phi: (phi["a"] - 1) ** 2)
        task = zb.Task("t", "", zb.Problem(space, parabola), held_out=held_out)
        found = zb.compare(task, {"r": zb.RandomSearch()}, max_solves=9, seeds=[0])
        run = found.runs[0]
        assert run.held_out_loss == pytest.approx((run.phi["a"] - 1) ** 2)
        assert found.summaries()[0].held_out == run.held_out_loss

    def test_a_deterministic_solver_is_judged_by_no_further_solve(self):
        calls = []

        def solver(phi):
            calls.append(phi)
            return phi["a"] ** 2

        problem = zb.Problem(zb.Space(a=zb.Real(-1, 3)), solver)
        methods = {"i": Insisting(), "r": zb.RandomSearch()}
        found = zb.compare(problem, methods, max_solves=6, seeds=range(2))
        assert len(calls) == 24
        assert found.judge_solves == 0
        judged = zb.compare(problem, methods, max_solves=6, seeds=[0], judge_solves=3)
        assert judged.judge_solves == 6

    @pytest.mark.parametrize("count", [-1, 2.5, True])
    def test_judge_solves_must_be_a_count(self, count):
        problem = zb.Problem(zb.Space(a=zb.Real(-1, 3)), parabola)
        with pytest.raises(InputError, match="judge_solves must be a whole number >= 0, got"):
            zb.compare(problem, {"r": zb.RandomSearch()}, max_solves=3, judge_solves=count)
