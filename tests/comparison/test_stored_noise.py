"""Runs of a store that do not count, and noise that a comparison read back must see."""

from __future__ import annotations

import html
import itertools
import math

import numpy as np
import pytest
from stored_decay import found_in, problem_of

import zo_bilevel as zb
from zo_bilevel.report.watch import live_page
from zo_bilevel.report.words import conclusion
from zo_bilevel.support.errors import InputError, MissingPackageError

pytest.importorskip("starlette", reason="needs the extra report")


pytest.importorskip("uvicorn", reason="needs the extra report")


class Peeking(zb.Method):
    """Solves beside its budget, and asks for one point."""

    name = "peeking"

    def __init__(self, catches=True):
        self.catches = catches

    def rounds(self, search):
        yield [zb.Point(search.start)]
        try:
            search.problem.inner(search.space.decode(search.start))
        except RuntimeError:
            if not self.catches:
                raise
        yield [zb.Point(0.5 * search.start)]
        return "done"


class Refusing(zb.Method):
    name = "refusing"

    def __init__(self, error=None):
        self.error = error or zb.UnsupportedProblemError("needs 2 numbers, this problem has 1")

    def rounds(self, search):
        raise self.error
        yield


class Breaking(zb.Method):
    name = "breaking"

    def rounds(self, search):
        yield [zb.Point(search.start)]
        raise ZeroDivisionError("oh")


class TestRunsThatDoNotCount:
    def test_they_come_back_as_they_were(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        methods = {
            "random": zb.RandomSearch(),
            "peeking": Peeking(),
            "caught": Peeking(catches=False),
            "refusing": Refusing(),
            "missing": Refusing(MissingPackageError("needs such: pip install such")),
            "stumbling": Refusing(ZeroDivisionError("at once")),
            "breaking": Breaking(),
        }
        known = zb.compare(problem_of(), methods, max_solves=9, seeds=range(5), store=path)
        (found,) = found_in(path)
        assert {run.status for run in known.runs} == {
            "finished", "disqualified", "refused", "failed"
        }  # fmt: skip
        assert found.methods == known.methods
        for one, two in zip(found.runs, known.runs, strict=True):
            assert (one.method, one.seed, one.status) == (two.method, two.seed, two.status)
            assert (one.error, one.stop_reason) == (two.error, two.stop_reason)
            assert (one.loss, one.solves, one.phi) == (two.loss, two.solves, two.phi)
        ranked = [
            [(s.method, s.num_runs, s.loss, s.errors) for s in comparison.summaries()]
            for comparison in (found, known)
        ]
        assert ranked[0] == ranked[1]
        page = html.unescape(live_page(path))
        assert "peeking, seed 0: called the inner solver itself 1 times" in page
        assert "needs 2 numbers, this problem has 1" in page
        again = zb.compare(problem_of(), methods, max_solves=9, seeds=range(5), store=path)
        assert [run.loss for run in again.runs] == [run.loss for run in known.runs]

    def test_arguments_that_break_a_rule_leave_nothing(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        with pytest.raises(InputError, match="rate must lie in"):
            zb.minimize(problem_of(), initial={"rate": 90.0}, store=path)
        assert not path.exists()


NOISY_SPACE = zb.Space(v=zb.Real(-3, 3, shape=(4,)), k=zb.Log(0.01, 10))


def quiet(phi):
    return float(np.sum((phi["v"] - 0.5) ** 2) + np.log(phi["k"] / 0.3) ** 2)


def seeded(phi, seed=None):
    return quiet(phi) + np.random.default_rng(seed).normal(0, 0.7)


def hidden():
    rng = np.random.default_rng(11)
    return lambda phi: quiet(phi) + rng.normal(0, 0.7)


class Lucky(zb.Method):
    """The lowest draw is far from what it recommends."""

    name = "lucky"

    def rounds(self, search):
        good = search.space.encode({"v": np.full(4, 0.5), "k": 0.4})
        search.notes.noisy, search.notes.recommended = True, good
        for k in itertools.count():
            yield [zb.Point(good if k % 4 == 0 else 1.3 * good, (k,))]


class TestNoise:
    @pytest.mark.parametrize("solver", [seeded, hidden()])
    def test_the_point_and_its_loss_are_those_of_the_comparison(self, tmp_path, solver):
        path = tmp_path / "runs.sqlite"
        methods = {"default": zb.DefaultMethod(), "lucky": Lucky(), "random": zb.RandomSearch()}
        problem = zb.Problem(NOISY_SPACE, solver, name="noisy")
        known = zb.compare(
            problem, methods, max_solves=60, seeds=range(3), store=path, judge_solves=0
        )
        (found,) = found_in(path)
        assert conclusion(found) == conclusion(known)
        for one, two in zip(found.runs, known.runs, strict=True):
            assert (one.method, one.seed, one.solves) == (two.method, two.seed, two.solves)
            assert (one.loss, one.standard_error) == (two.loss, two.standard_error)
            assert (one.interval, one.draws) == (two.interval, two.draws)
            assert quiet(one.phi) == quiet(two.phi)

    def test_a_mean_of_one_solve_is_known_as_such(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        problem = zb.Problem(NOISY_SPACE, seeded, name="noisy")
        methods = {"random": zb.RandomSearch()}
        known = zb.compare(problem, methods, max_solves=5, seeds=[0], store=path, judge_solves=0)
        (found,) = found_in(path)
        assert math.isnan(known.runs[0].standard_error)
        assert math.isnan(found.runs[0].standard_error)
        assert found.runs[0].draws == 1

    def test_losses_that_nobody_judged_afresh_are_said_to_be_too_low(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        problem = zb.Problem(NOISY_SPACE, hidden(), name="noisy")
        methods = {"lucky": Lucky(), "still": Still()}
        options = {"max_solves": 30, "seeds": range(2), "store": path}
        zb.compare(problem, methods, **options, judge_solves=0)
        (found,) = found_in(path)
        (note,) = found.notes
        assert note.startswith("Solves are noisy, and the store holds no fresh solves of the final")
        assert "points of still" in note
        known = zb.compare(problem, methods, **options)
        (found,) = found_in(path)
        assert found.notes == ()
        assert {run.judged_by for run in found.runs} == {"fresh solves"}
        assert [(r.loss, r.reported_loss) for r in found.runs] == [
            (r.loss, r.reported_loss) for r in known.runs
        ]


class Still(zb.Method):
    name = "still"

    def rounds(self, search):
        while True:
            yield [zb.Point(search.start)]
