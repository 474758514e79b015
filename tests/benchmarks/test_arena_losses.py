"""The arenas of losses: published minima, what is counted, halves, remembered runs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import optimize

from benchmarks.arena import mixed_engineering as engineering
from benchmarks.arena import mixed_problems, policy_problems, slots_problems
from benchmarks.arena.case import half_of
from benchmarks.arena.policy_environments import ENVIRONMENTS, cart_pole
from benchmarks.arena.racing import Trace
from benchmarks.arena.scalar_main import SUITES
from benchmarks.arena.shares import median_loss, pairs_and_targets, ranks, wins
from benchmarks.arena.slots_references import REFERENCES, share_gained
from benchmarks.arena.slots_worlds import EXAMPLES, OPTIONS, SLOTS, make_world

CASES = {(case.suite, case.name): case for cases in SUITES.values() for case in cases()}
NEEDED = {"bbob": "cocoex", "real-world": "nevergrad"}


def task_of(case, seed=0):
    if case.suite in NEEDED or "mixint" in case.name:
        pytest.importorskip(NEEDED.get(case.suite, "cocoex"))
    return case.make(seed)


def a_trace(*steps, loss=math.inf, solves=100):
    return Trace("a case", "a method", 0, "finished", "", loss, solves, 0.0, steps)


PUBLISHED = {
    "pressure vessel": (
        6059.714,
        {"shell": 13, "head": 7, "radius": 42.09845, "length": 176.63660},
    ),
    "coil spring": (2.65856, {"coils": 9, "coil": 1.2230410, "wire": 35}),
    "gear train": (2.70086e-12, {"a": 16, "b": 19, "c": 43, "d": 49}),
    "concrete beam": (359.208, {"steel": 2, "width": 34, "depth": 8.5}),
    "clutch brake": (0.313657, {"inner": 70, "outer": 90, "thick": 0, "force": 21, "discs": 3}),
    "speed reducer": (
        2994.471,
        {"face": 3.5, "module": 0.7, "teeth": 17, "span1": 7.3, "span2": 7.7153199}
        | {"shaft1": 3.3502147, "shaft2": 5.2866545},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_designs_have_their_published_costs(name):
    loss, space = engineering.PROBLEMS[name]
    cost, design = PUBLISHED[name]
    assert loss(space.decode(space.encode(design))) == pytest.approx(cost, rel=2e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_design_nearby_is_cheaper_than_the_published_one(name):
    loss, space = engineering.PROBLEMS[name]
    cost, design = PUBLISHED[name]
    x, rng = space.encode(design), np.random.default_rng(0)
    steps = 10.0 ** rng.uniform(-4, 0, (2000, 1)) * rng.standard_normal((2000, space.size))
    near = min(loss(space.decode(x + step)) for step in steps)
    assert near >= cost * (1 - 2e-5)


def test_no_clutch_brake_at_all_is_lighter_than_the_published_one():
    names = ("inner", "outer", "force", "discs")
    ranges = (range(60, 81), range(90, 111), range(0, 41, 3), range(2, 10))
    found = min(
        engineering.clutch_brake(dict(zip(names, values, strict=True), thick=0))
        for values in itertools.product(*ranges)
    )
    assert found == pytest.approx(0.3136566, abs=1e-6)


def test_the_welded_beam_is_stressed_as_in_the_literature():
    weld, length, depth = 0.20572964, 3.47048867, 9.03662391
    area, arm, polar = engineering._weld_section(2, weld, length, depth)
    first, second = 6000 / area, 6000 * (14 + length / 2) * arm / polar
    stress = math.sqrt(first**2 + second**2 + first * second * length / arm)
    assert stress == pytest.approx(13600, rel=1e-6)


@pytest.mark.parametrize("key", CASES, ids=lambda key: f"{key[0]}, {key[1]}")
def test_a_seed_fixes_instance_start_and_answers(key):
    case = CASES[key]
    task, again, other = task_of(case), task_of(case), task_of(case, 1)
    start = task.start(0)
    exact = task.exact or task.problem
    loss = exact.inner(start)
    assert np.all(np.isfinite(loss))
    assert np.array_equal(loss, (again.exact or again.problem).inner(again.start(0)))
    theirs = (other.exact or other.problem).inner(other.start(0))
    assert not np.array_equal(loss, theirs)


def test_halves_are_the_hash_of_what_is_behind_a_case_and_of_like_size():
    cases = [case for suite in SUITES.values() for case in suite()]
    assert all(case.half == half_of(case.base) for case in cases)
    assert (half_of("bbob-f1"), half_of("bbob-f2")) == ("held", "tune")  # never to be moved
    for name, suite in SUITES.items():
        bases = {case.base for case in suite()}
        held = sum(half_of(base) == "held" for base in bases)
        assert 0.35 <= held / len(bases) <= 0.65, name
    by_base = {}
    for case in cases:
        assert by_base.setdefault(case.base, case.half) == case.half


def test_pairs_are_those_of_60_budgets_and_21_targets():
    at_once = a_trace((1, 0.0))
    assert pairs_and_targets([at_once], 600) == (1.0, 1.0)
    # half of all budgets lie above sqrt(900) in their logarithm, 10 of 21 targets above 10**-2.5
    late = a_trace((1, 1e3), (30, 10**-2.5))
    area, end = pairs_and_targets([late], 900)
    assert area == pytest.approx(0.5 * 10 / 21)
    assert end == pytest.approx(10 / 21)
    assert pairs_and_targets([at_once, late], 900)[1] == pytest.approx(31 / 42)


def test_medians_ranks_and_wins():
    assert median_loss([a_trace(loss=loss) for loss in (3.0, 1.0, math.inf)]) == 3.0
    assert ranks({"a": 2.0, "b": 1.0, "c": 2.0 * (1 + 1e-12)}) == {"a": 2.5, "b": 1.0, "c": 2.5}
    medians = [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 2.0}, {"a": 1.0, "b": 4.0}, {"a": 1, "b": 1}]
    assert wins(medians, "a", "b") == (2, 1)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_choices_of_functions_have_their_minimum_at_zero(seed):
    loss = mixed_problems.mixed_task("two choices of functions", seed).problem.inner

    def lowest(c0, c1):
        return min(
            optimize.minimize(
                lambda z: loss({"x": z[0], "y": z[1], "c0": c0, "c1": c1}),
                start,
                method="Nelder-Mead",
                bounds=[(-1, 1), (-1, 1)],
                options={"xatol": 1e-9, "fatol": 1e-12},
            ).fun
            for start in ((0.3, 0.3), (-0.3, 0.5))
        )

    minima = sorted(lowest(c0, c1) for c0 in range(3) for c1 in range(5))
    assert minima[0] == pytest.approx(0, abs=1e-6)
    assert minima[1] > 0.1


def test_wide_integers_are_solved_to_rounding_by_their_nearest_values():
    task = mixed_problems.mixed_task("wide integers", 4)
    target = -task.problem.inner({"a": 0, "b": 0})
    nearest = {"a": round(1000 * target[0]), "b": round(1000 * target[1])}
    misfit = task.problem.inner(nearest)
    assert np.abs(misfit[:2]).max() <= 5e-4
    assert misfit[2] == pytest.approx(misfit[0] + misfit[1])


def test_accuracies_of_slots_are_means_over_fresh_examples():
    world = make_world("pairs", 2)
    table = world.accuracies()
    fresh = np.random.default_rng(9).normal(0, 1, 2000)
    for picks in [(0,) * SLOTS, (5, 1, 2, 0, 3)]:
        odds = 0.3 + sum(world.effects[k][pick] for k, pick in enumerate(picks))
        odds += sum(
            t[picks[a], picks[b]] for (a, b), t in zip(world.pairs, world.together, strict=True)
        )
        assert table[picks] == pytest.approx(np.mean(1 / (1 + np.exp(fresh - odds))), abs=1e-4)
    assert table.shape == (OPTIONS,) * SLOTS


def test_the_lost_share_is_0_at_the_best_combination_and_1_at_a_median_one():
    table = make_world("strong", 1).accuracies()
    best = np.unravel_index(table.argmax(), table.shape)
    middle = np.unravel_index(np.abs(table - np.median(table)).argmin(), table.shape)
    for picks, share in ((best, 0.0), (middle, 1.0)):
        phi = dict(zip(slots_problems.NAMES, map(int, picks), strict=True))
        assert slots_problems.lost_share("strong", 1, phi) == pytest.approx(share, abs=5e-3)


@pytest.mark.parametrize("is_noisy", [False, True])
def test_a_batch_of_examples_is_an_unbiased_look_at_all_of_them(is_noisy):
    def loss(task, **seed):
        return task.problem.outer.loss(task.problem.inner(task.start(0), **seed))

    batch = slots_problems.slots_task("additive", is_noisy, 16, 0)
    losses = [loss(batch, seed=seed) for seed in range(400)]
    world = make_world("additive", 0)
    picks = (0,) * SLOTS
    right = world.chances(picks) if is_noisy else world.fixed_answers(picks)
    expected = -np.log(0.98) * right.mean() - np.log(0.01) * (1 - right.mean())
    assert abs(np.mean(losses) - expected) < 4 * np.std(losses) / 20
    whole = slots_problems.slots_task("additive", is_noisy, EXAMPLES, 0)
    if is_noisy:
        assert loss(whole, seed=1) != loss(whole, seed=2)
    else:
        assert loss(whole) == pytest.approx(expected)


@pytest.mark.parametrize("reference", sorted(set(REFERENCES) - {"default"}))  # takes seconds a run
def test_references_on_slots_keep_to_their_calls_and_gain_most_of_what_there_is(reference):
    runs = [
        share_gained(reference, "additive", is_noisy=False, calls=640, seed=s) for s in range(5)
    ]
    assert all(calls <= 640 for _, calls in runs)
    assert np.mean([share for share, _ in runs]) > 0.6


def test_a_pole_that_nobody_pushes_hangs():
    lost = cart_pole(lambda seen: np.zeros(1), np.random.default_rng(0))
    assert -250 <= lost < -235  # the sum of cosines of 250 steps, hanging


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_rollouts_are_noisy_and_the_same_for_the_same_seed(name):
    size = ENVIRONMENTS[name].size
    assert 20 <= size <= 40
    phi = {"w": np.random.default_rng(5).normal(0, 0.1, size)}
    returns = [policy_problems.minus_return(name, phi, seed=seed) for seed in (1, 1, *range(8))]
    assert returns[0] == returns[1]
    assert len(set(returns)) > 1
    mean = policy_problems.mean_minus_return(name, phi)
    assert mean == policy_problems.mean_minus_return(name, phi)
