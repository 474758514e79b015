"""Statistics against values computed by hand and against scipy; rigged comparisons are caught."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

import zo_bilevel as zb
from zo_bilevel.comparison.bands import band
from zo_bilevel.comparison.pairwise import paired_tests, scores
from zo_bilevel.comparison.profiles import Case, cases_of, data_profiles, performance_profiles
from zo_bilevel.comparison.statistics import (
    corrected,
    expected_running_time,
    interval_of_share,
    paired_p_value,
    paired_test,
)
from zo_bilevel.comparison.summaries import Reached
from zo_bilevel.report.sections import ranking
from zo_bilevel.report.words import conclusion, seeds_needed
from zo_bilevel.run.runs import Improvement, Run, Target
from zo_bilevel.support.errors import InputError

GOAL = Target("loss", 0.1)


def made_run(method, steps, seed=0, solves=100, **facts):
    """A run whose round is twice its solve."""
    improvements = tuple(Improvement(at, 2 * at, 0.1 * at, loss) for at, loss in steps)
    loss = steps[-1][1]
    return Run(
        method, seed, "finished", loss, solves, 2 * solves, improvements=improvements, **facts
    )


class TestExpectedRunningTime:
    def test_by_hand_as_in_coco(self):
        # 10 and 30 solves to the target, one run that spent 50 in vain: (10 + 50 + 30) / 2
        assert expected_running_time([10, math.inf, 30], [60, 50, 60]) == 45.0
        assert expected_running_time([7, 9], [20, 20]) == 8.0

    def test_never_reached_is_infinite(self):
        assert expected_running_time([math.inf] * 3, [10, 10, 10]) == math.inf

    def test_a_noisy_run_is_judged_by_its_final_point(self):
        target = Target("loss", 0.2)
        unlucky = made_run("a", [(1, 9.0), (7, 0.5)], standard_error=0.1)
        assert unlucky.solves_to(target) == math.inf
        sound = dataclasses.replace(unlucky, loss=0.1)
        assert (sound.solves_to(target), sound.rounds_to(target)) == (100, 200)
        lucky = made_run("a", [(1, 9.0), (7, 0.1)], standard_error=0.1)
        assert lucky.solves_to(target) == 7
        assert dataclasses.replace(lucky, loss=0.3).solves_to(target) == math.inf

    def test_the_summary_uses_what_each_run_spent(self):
        assert Reached((14.0, math.inf), 80, (80, 33)).expected == 47.0
        assert Reached((14.0, math.inf), 80).expected == 94.0

    def test_lengths_must_agree(self):
        with pytest.raises(InputError, match="must be as many, got 1 and 2"):
            expected_running_time([1.0], [1.0, 2.0])


class TestPairedTest:
    def test_without_ties_it_is_scipys_exact_wilcoxon_test_of_the_ranks(self):
        rng = np.random.default_rng(3)
        for _ in range(20):
            one, other = rng.normal(size=8), rng.normal(0.7, 1, size=8)
            ranks = scipy.stats.rankdata(np.concatenate([one, other]))
            difference = ranks[:8] - ranks[8:]
            if len(set(np.abs(difference))) < 8:
                continue
            wanted = scipy.stats.wilcoxon(difference, method="exact").pvalue
            assert paired_p_value(one, other) == pytest.approx(wanted)

    def test_all_signs_by_hand(self):
        # three seeds, all better, differences of ranks 3, 3, 3: 2 of 8 sign patterns
        assert paired_p_value(np.array([1.0, 2, 3]), np.array([4.0, 5, 6])) == pytest.approx(0.25)

    def test_five_seeds_all_better_are_not_yet_significant(self):
        found = paired_test([1, 2, 3, 4, 5], [11, 12, 13, 14, math.inf])
        assert found.probability == 1.0
        assert found.p_value == pytest.approx(2 / 2**5)
        assert not found.is_decided
        assert paired_test(range(6), range(10, 16)).is_decided

    def test_ties_count_half_and_equal_methods_do_not_differ(self):
        assert paired_test([1, 2, 3, 9], [1, 3, 2, 10]).probability == pytest.approx(2.5 / 4)
        same = paired_test([1, 2, math.inf], [1, 2, math.inf])
        assert (same.probability, same.p_value) == (0.5, 1.0)

    def test_the_interval_is_that_of_scipys_bootstrap_and_never_of_no_width(self):
        points = np.array([1.0, 1, 1, 0, 1, 0, 1, 1, 1, 0.5])
        lower, upper = interval_of_share(points)
        peer = scipy.stats.bootstrap(
            (points,), np.mean, method="percentile", random_state=np.random.default_rng(0)
        ).confidence_interval
        assert lower == pytest.approx(peer.low, abs=0.051)
        assert upper == pytest.approx(peer.high, abs=0.051)
        # all of five: Clopper and Pearson, (0.05 / 2) ** (1 / 5)
        assert interval_of_share(np.ones(5)) == pytest.approx((0.025 ** (1 / 5), 1.0))

    def test_a_random_sign_test_is_reproducible_beyond_thirteen_seeds(self):
        rng = np.random.default_rng(0)
        one, other = rng.normal(size=20), rng.normal(0.5, 1, 20)
        assert paired_p_value(one, other) == paired_p_value(one, other)

    @pytest.mark.statistical
    def test_equal_methods_are_called_different_at_most_as_often_as_the_level_says(self):
        rng = np.random.default_rng(1)
        found = [paired_p_value(*rng.normal(size=(2, 7))) < 0.05 for _ in range(200)]
        # exact level with 7 seeds: at most 0.05; three standard errors of 200 draws above it
        assert np.mean(found) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)

    def test_holm_by_hand(self):
        assert corrected([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
        assert corrected([0.6, 0.7]) == (1.0, 1.0)

    @pytest.mark.parametrize(
        ("one", "other", "message"),
        [
            ([1.0], [1.0, 2.0], "as many of one as of the other, got 1, 2"),
            ([], [], "got 0, 0"),
            ([math.nan], [1.0], "numbers or infinity, got NaN"),
        ],
    )
    def test_bad_input(self, one, other, message):
        with pytest.raises(InputError, match=message):
            paired_test(one, other)


class TestBand:
    def test_quartiles_by_hand_where_a_run_without_a_value_counts_as_infinite(self):
        runs = [made_run("a", [(k, 10.0), (10, float(k))], k, 20) for k in (1, 2, 3)]
        found = band(runs, "solves", lambda step: step.loss)
        assert found.positions.tolist() == [1, 2, 3, 10, 20]
        assert np.isnan(found.median[0])  # one of three has a value
        assert found.median[1:].tolist() == [10, 10, 2, 2]
        assert found.lower[3] == 1.5
        assert found.upper[3] == 2.5
        assert band(runs, "rounds", lambda step: step.loss).positions[-1] == 40

    def test_many_corners_are_thinned_and_the_ends_kept(self):
        run = made_run("a", [(k, 1.0 / k) for k in range(1, 2001)], solves=2000)
        found = band([run], "solves", lambda step: step.loss)
        assert len(found.positions) <= 160
        assert (found.positions[0], found.positions[-1]) == (1, 2000)
        assert found.median[-1] == 1 / 2000

    def test_nothing_found_is_no_band(self):
        assert band([Run("a", 0, "failed")], "solves", lambda step: step.loss) is None


class TestProfiles:
    @pytest.fixture
    def cases(self):
        """Two problems of 4 and 9 unknowns, starts at 100, best losses 0."""
        first = (
            made_run("a", [(1, 100.0), (10, 5.0), (20, 0.0)]),
            made_run("b", [(1, 100.0), (40, 0.0)]),
        )
        second = (
            made_run("a", [(1, 100.0), (80, 50.0)]),
            made_run("b", [(1, 100.0), (20, 0.0)]),
        )
        return [Case("p", 0, 4, first), Case("q", 0, 9, second)]

    def test_the_convergence_test_of_more_and_wild(self, cases):
        assert cases[0].counts(0.1) == {"a": 10, "b": 40}  # loss 10 or below
        assert cases[0].counts(0.01) == {"a": 20, "b": 40}
        assert cases[0].counts(0.1, "rounds") == {"a": 20, "b": 80}
        assert cases[1].counts(0.1) == {"a": math.inf, "b": 20}

    def test_data_profiles_by_hand(self, cases):
        a, b = data_profiles(cases, ["a", "b"], 0.1)
        assert (a.positions, a.shares) == ((2.0,), (0.5,))  # 10 / (4 + 1)
        assert (b.positions, b.shares) == ((2.0, 8.0), (0.5, 1.0))  # 20 / 10 and 40 / 5
        assert [b.at(x) for x in (1.9, 2.0, 7.9, 8.0)] == [0.0, 0.5, 0.5, 1.0]

    def test_performance_profiles_by_hand(self, cases):
        a, b = performance_profiles(cases, ["a", "b"], 0.1)
        assert (a.positions, a.shares) == ((1.0,), (0.5,))
        assert (b.positions, b.shares) == ((1.0, 4.0), (0.5, 1.0))

    def test_a_refused_problem_counts_as_not_solved(self, cases):
        (c,) = data_profiles(cases, ["c"], 0.1)
        assert (c.positions, c.at(1e9)) == ((), 0.0)

    def test_cases_leave_out_runs_that_do_not_count(self):
        runs = (made_run("a", [(1, 1.0)]), Run("b", 0, "refused"), Run("c", 0, "disqualified"))
        (case,) = cases_of([zb.Comparison("p", ("a", "b", "c"), (0,), 9, runs, size=3)])
        assert [run.method for run in case.runs] == ["a"]
        assert case.size == 3

    def test_tau_is_a_share(self, cases):
        with pytest.raises(InputError, match=r"tau must lie in \(0, 1\), got 1"):
            data_profiles(cases, ["a"], 1)


def comparison_of(times, target=True, seeds=6):
    """Methods that reach the target after so many solves, seed by seed; `None` for never."""
    runs = []
    for seed in range(seeds):
        for method, made in times.items():
            at = made[seed % len(made)]
            steps = [(1, 10.0 + seed)] + ([(at, 0.01)] if at else [])
            runs.append(made_run(method, steps, seed))
    goal = Target("loss", 0.1) if target else None
    return zb.Comparison("p", tuple(times), tuple(range(seeds)), 100, tuple(runs), goal, size=2)


class TestConclusions:
    def test_soon_is_better_and_among_those_that_never_arrive_the_loss(self):
        found = scores(comparison_of({"a": [10, None], "b": [20, None]}))
        assert found["a"][0] < found["b"][0]
        assert found["a"][1] == found["b"][1] > found["b"][0]
        assert found["a"][1] < found["a"][3]

    def test_reaching_it_seldom_is_better_than_never(self):
        found = comparison_of({"never": [None], "seldom": [10, None, None]})
        assert found.summaries()[0].method == "seldom"
        assert "seldom was first to reach loss 0.1: 2 of 6 runs" in conclusion(found)

    def test_solves_are_those_that_were_made_not_the_budget(self):
        found = comparison_of({"a": [7], "b": [9]}, target=False)
        early = tuple(dataclasses.replace(run, solves=12 - run.seed) for run in found.runs)
        assert "in the median after at most 12 solves" in conclusion(
            dataclasses.replace(found, runs=early)
        )

    def test_a_start_that_satisfies_the_target_makes_no_method_first(self):
        runs = [
            made_run(m, [(1, 0.05), (9, low)], s)
            for s in range(6)
            for m, low in (("a", 0.02), ("b", 0.01))
        ]
        found = zb.Comparison("p", ("a", "b"), tuple(range(6)), 100, tuple(runs), GOAL)
        assert conclusion(found) == (
            "On p, the start satisfies loss 0.1 already, so that no method is first to reach it: a "
            "lower target tells methods apart. b found the lowest loss: 0.01 in the median."
        )
        later = [made_run(m, [(1, 9.0), (k, 0.05)], 6) for m, k in (("a", 5), ("b", 9))]
        more = dataclasses.replace(found, seeds=tuple(range(7)), runs=(*found.runs, *later))
        words = conclusion(more)
        assert "With 6 of 7 seeds the start is there already" in words

    def test_methods_that_are_as_soon_are_named_together(self):
        words = conclusion(comparison_of({"a": [10], "b": [10], "c": [10], "late": [30]}))
        assert "no method reached loss 0.1 sooner than a: 6 of 6 runs, after 10 solves" in words
        assert (
            "As soon: b, c. Next: late, 6 of 6 runs, after 30 solves in the median, ERT 30."
            in words
        )

    def test_rivals_are_named_in_the_order_of_their_ranks(self):
        words = conclusion(comparison_of({"late": [60, 20], "a": [10, 30], "b": [20, 20]}))
        assert words.index("b (better with") < words.index("late (better with")

    def test_a_refused_method_has_no_failed_solves(self):
        runs = (made_run("a", [(1, 0.5)]), Run("gp", 0, "refused", error="needs numbers"))
        found = zb.Comparison("p", ("a", "gp"), (0,), 9, runs)
        assert [row[-1] for row in ranking(found).rows] == ["0", "-"]

    def test_a_clear_win_is_called_one(self):
        found = comparison_of({"fast": [10, 11, 12], "slow": [30, 31, 32, 33]})
        words = conclusion(found)
        assert words.startswith("On p, fast was first to reach loss 0.1: 6 of 6 runs, after 11 ")
        assert "ERT 11 solves" in words
        assert "better than every other method by more than chance" in words

    def test_fewer_than_five_seeds_say_nothing(self):
        found = comparison_of({"fast": [10, 11], "slow": [30, 31]}, seeds=4)
        assert "With 4 seeds nothing follows" in conclusion(found)
        assert "better than" not in conclusion(found)

    def test_too_few_seeds_for_many_methods_are_called_that(self):
        times = {f"m{k}": [k * 10 + 10, k * 10 + 11] for k in range(5)}
        words = conclusion(comparison_of(times))
        assert "6 seeds cannot rule out chance among 5 methods; 8 can" in words
        assert [seeds_needed(k) for k in (1, 4, 5)] == [6, 8, 8]

    def test_a_difference_within_chance_is_called_that(self):
        found = comparison_of({"a": [10, 30], "b": [20, 20]})
        assert "No difference is beyond chance: " in conclusion(found)

    def test_the_same_run_with_every_seed_is_evidence_once(self):
        runs = [
            made_run(m, [(1, 9.0), (k, 0.0)], s) for s in range(8) for m, k in (("a", 5), ("b", 9))
        ]
        found = zb.Comparison("p", ("a", "b"), tuple(range(8)), 100, tuple(runs))
        assert [d.num_seeds for d in paired_tests(found, "a")] == [1]
        assert "the same two runs with every seed" in conclusion(found)

    def test_rounds_can_turn_the_order(self):
        runs = [
            Run(m, s, "finished", 0.0, 50, 9, improvements=(Improvement(at, turn, 1.0, 0.0),))
            for s in range(6)
            for m, at, turn in (("serial", 10 + s, 10 + s), ("wide", 40 + s, 3))
        ]
        found = zb.Comparison(
            "p", ("serial", "wide"), tuple(range(6)), 50, tuple(runs), Target("loss", 0.1)
        )
        assert paired_tests(found, "wide", "solves")[0].probability == 0.0
        assert paired_tests(found, "wide", "rounds")[0].probability == 1.0

    def test_nothing_found(self):
        runs = (Run("a", 0, "refused", error="needs 2 numbers"),)
        assert conclusion(zb.Comparison("p", ("a",), (0,), 9, runs)) == (
            "No method found anything on p."
        )
