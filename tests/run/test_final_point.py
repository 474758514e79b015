"""The loss that a noisy run reports, and its interval, are those of its final point."""

import itertools
import math

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.base import Method
from zo_bilevel.run.final_point import solves_kept_back

SPACE = zb.Space(a=zb.Integer(0, 9), b=zb.Integer(0, 9))


def mean_of(phi):
    return 1.0 + (phi["a"] - 3) ** 2 / 9 + (phi["b"] - 6) ** 2 / 9


def problem(noise, scale=1.0):
    def solve(phi, *, seed):
        return float(noise(np.random.default_rng(seed), scale * mean_of(phi)))

    return zb.Problem(SPACE, solve)


def right_or_wrong(rng, mean):
    return float(rng.random() < mean)


class Recommending(Method):
    """Recommends a good point; the lowest loss is another's."""

    name = "recommending"

    def rounds(self, search):
        good = search.space.encode({"a": 3, "b": 6})
        search.notes.recommended = good
        places = search.rng(1)
        for k in range(10**6):
            x = good if k % 2 else places.uniform(search.space.lower, search.space.upper)
            yield [zb.Point(np.asarray(x), (k,))]


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("noise", "scale"),
    [
        (lambda rng, mean: rng.normal(mean), 1.0),
        (lambda rng, mean: mean * rng.exponential(), 1.0),
        (right_or_wrong, 0.05),
        (right_or_wrong, 0.3),
        (lambda rng, mean: rng.binomial(8, mean) / 8, 0.05),
    ],
)
def test_the_interval_holds_the_true_loss_of_the_point_reported(noise, scale):
    """It was two to eight draws and 1.96 standard errors, 0 where draws of 0 and 1 agreed."""
    held, misses = [], []
    cases = itertools.product((zb.RandomSearch(), Recommending()), (20, 60))
    for case, (method, max_solves) in enumerate(cases):
        for seed in range(25 * case, 25 * case + 25):  # of one seed the draws would be the same
            result = zb.minimize(problem(noise, scale), method, max_solves=max_solves, seed=seed)
            truth = scale * mean_of(result.phi)
            lower, upper = result.interval
            held.append(lower - 1e-12 <= truth <= upper + 1e-12)
            misses.append(result.loss - truth)
            assert lower < upper
            assert result.standard_error > 0.0
            assert result.solves == max_solves
    assert np.mean(held) >= 0.9
    assert abs(np.mean(misses)) < 3.5 * np.std(misses) / math.sqrt(len(misses))


def test_the_reported_point_gets_most_of_a_tenth_of_the_budget():
    for method, draws in ((zb.RandomSearch(), 20), (Recommending(), 15)):
        result = zb.minimize(problem(right_or_wrong, 0.05), method, max_solves=200)
        assert [record.role for record in result.history].count("confirm") == 20
        assert result.draws == draws
        assert f", {draws} draws) at" in str(result)
        assert result.loss == pytest.approx(
            np.mean([r.loss for r in result.history if r.role == "confirm" and r.phi == result.phi])
        )
    assert [solves_kept_back(budget) for budget in (3, 4, 20, 1000)] == [0, 1, 5, 100]


def test_a_rival_that_proves_worse_gets_no_more_draws():
    def solve(phi, *, seed):
        rng = np.random.default_rng([seed, 9])
        return mean_of(phi) + 1e-3 * rng.normal() + 5.0 * (seed % 97 == 0)

    class Lucky(Method):
        name = "lucky"

        def rounds(self, search):
            search.notes.recommended = search.space.encode({"a": 3, "b": 6})
            for k in range(10**6):
                yield [zb.Point(search.space.encode({"a": 5, "b": 6}), (k,))]

    result = zb.minimize(zb.Problem(SPACE, solve), Lucky(), max_solves=400)
    drawn = [r.phi["a"] for r in result.history if r.role == "confirm"]
    assert result.phi["a"] == 3
    assert drawn.count(5) <= 5
    assert result.draws == len(drawn) - drawn.count(5)


def test_where_fresh_seeds_change_nothing_the_lower_loss_is_reported():
    """Four draws that agree were too few for the rival, though one pair tells."""

    class Missing(Method):
        name = "missing"

        def rounds(self, search):
            search.notes.recommended = search.space.encode({"a": 4, "b": 6})
            for k in itertools.count():
                places = search.rng(1, k).uniform(search.space.lower, search.space.upper)
                yield [zb.Point(places, (k,))]

    exact = zb.Problem(SPACE, lambda phi, *, seed: mean_of(phi) + 0.01 * phi["a"])
    result = zb.minimize(exact, Missing(), max_solves=400)
    assert (result.phi, result.solves) == ({"a": 3, "b": 6}, 400)
    assert result.loss == mean_of(result.phi) + 0.03


def test_one_draw_is_called_one_and_none_is_warned_of(tmp_path):
    noisy = problem(lambda rng, mean: rng.normal(mean))
    result = zb.minimize(noisy, zb.RandomSearch(), max_solves=6)
    assert "(one draw) at" in str(result)
    assert (result.draws, result.interval) == (1, None)
    assert math.isnan(result.standard_error)
    assert math.isnan(zb.Result.load(result.save(tmp_path)).standard_error)
    lowest = zb.minimize(noisy, zb.RandomSearch(), max_solves=3)
    assert lowest.standard_error is None
    assert "its loss is the lowest of 3, too low where solves are noisy" in str(lowest)


def test_what_judged_a_loss_is_kept_in_files(tmp_path):
    noisy = problem(lambda rng, mean: rng.normal(mean))
    result = zb.minimize(noisy, zb.RandomSearch(), max_solves=60)
    known = zb.Result.load(result.save(tmp_path))
    assert (known.interval, known.draws) == (result.interval, result.draws)
    assert known.draws == 6


def test_money_kept_back_is_spent_on_the_final_point():
    """One full solve judged it, and the reason spoke of less money than was spent."""

    def ask(phi, *, seed):
        wrong = {"plain": 0.5, "steps": 0.1}[phi["w"]]
        draws = np.random.default_rng(seed).random(phi["examples"])
        return zb.WithCost(float(np.mean(draws < wrong)), phi["examples"])

    space = zb.Space(w=zb.Choice(["plain", "steps"]))
    asked = zb.Problem(space, ask, fidelity=zb.Fidelity("examples", 16, 64))
    result = zb.minimize(asked, max_cost=2500)
    assert 2500 - 16 < result.cost <= 2500
    assert result.draws >= 3
    assert result.interval[0] <= 0.1 <= result.interval[1]
    assert "spent, the next" not in result.stop_reason
    assert "the rest was kept back to judge the final point" in result.stop_reason


def test_a_comparison_judges_all_methods_by_the_same_draws():
    """Those without a recommendation had twice the draws of the others."""
    methods = {"recommending": Recommending(), "random": zb.RandomSearch()}
    found = zb.compare(
        problem(right_or_wrong, 0.05), methods, max_solves=100, seeds=range(3), target_loss=0.05
    )
    assert {run.draws for run in found.runs} == {10}
    assert all(run.interval[0] < run.interval[1] for run in found.runs)
    assert found.judge_solves == 60
    own = zb.compare(
        problem(right_or_wrong, 0.05), methods, max_solves=100, seeds=[0], judge_solves=0
    )
    assert {run.draws for run in own.runs} == {7, 10}


def test_a_comparison_pays_for_no_fresh_solves_where_the_seed_does_not_matter():
    exact = zb.Problem(SPACE, lambda phi, *, seed: mean_of(phi) + 0.01 * phi["a"])
    found = zb.compare(exact, {"random": zb.RandomSearch()}, max_solves=60, seeds=range(2))
    assert found.judge_solves == 0
    assert all(run.standard_error == 0.0 for run in found.runs)
