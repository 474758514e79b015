"""Integers and choices: one model over all parameters, what it learns and what the search finds."""

import itertools
import math

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.trust_region import mixed_search
from zo_bilevel.methods.trust_region.features import Features
from zo_bilevel.methods.trust_region.mixed_model import MixedModel
from zo_bilevel.methods.trust_region.mixed_search import _compressed, _log_improvement
from zo_bilevel.methods.trust_region.racing_search import SettingDraws

SLOTS = 5
OPTIONS = 6
MIXED = zb.Space(
    order=zb.Integer(3, 9), counts=zb.Integer(0, 1000, (2,)), scheme=zb.Choice(["a", "b", "c"]),
    x=zb.Real(-2, 2), rate=zb.Log(1e-4, 1.0), picks=zb.Choice([True, False], (2,)),
)  # fmt: skip


def test_rows_stand_for_their_points():
    features = Features(MIXED)
    assert features.size == 8
    rng = np.random.default_rng(0)
    for row in features.draw(50, rng):
        phi = MIXED.decode(features.point(row))
        again = MIXED.decode(features.point(features.row(MIXED.encode(phi))))
        assert repr(again) == repr(phi)
        np.testing.assert_array_equal(features.row(features.point(row)), row)


def test_moves_change_something_and_integers_at_least_by_one():
    features = Features(MIXED)
    rng = np.random.default_rng(1)
    rows = features.draw(400, rng)
    moved = features.moves(rows, rng)
    changed = moved != rows
    assert 1.5 < changed.sum(axis=1).mean() < 3.0
    assert (changed.sum(axis=1) == 0).mean() < 0.2  # at a bound, or the option that it was
    unit = 6.0 / 1001
    steps = abs(moved - rows)[:, 1][changed[:, 1]]
    np.testing.assert_allclose(steps / unit, np.round(steps / unit), atol=1e-9)
    assert steps.max() > 100 * unit  # wide integers move by many units


def test_draws_cover_every_option_and_level():
    features = Features(zb.Space(k=zb.Integer(0, 3), c=zb.Choice(list("abc"))))
    assert features.settings == 12
    rows = features.draw(300, np.random.default_rng(0))
    assert len(np.unique(rows, axis=0)) == 12
    assert Features(MIXED).settings == np.inf


def table(seed=0):
    rng = np.random.default_rng(seed)
    effects = rng.normal(0, 1, (SLOTS, OPTIONS))

    def loss(row):
        return float(sum(effects[k, int(row[k])] for k in range(SLOTS)))

    return loss, effects


@pytest.mark.parametrize("together", [0.0, 0.7])
def test_the_model_learns_what_options_add_from_a_fraction_of_their_combinations(together):
    alone, _ = table()
    pairs = np.random.default_rng(5).normal(0, together, (OPTIONS, OPTIONS))

    def loss(row):
        return alone(row) + pairs[int(row[0]), int(row[3])]

    features = Features(zb.Space({f"s{k}": zb.Choice(range(OPTIONS)) for k in range(SLOTS)}))
    rows = features.draw(90, np.random.default_rng(2))
    losses = np.array([loss(row) for row in rows])
    model = MixedModel(features.is_option, is_noisy=False)
    for _ in range(10):
        model.learn(rows, losses)
    fresh = features.draw(300, np.random.default_rng(3))
    truth = np.array([loss(row) for row in fresh])
    mean, deviation = model.predict(fresh)
    error = np.sqrt(np.mean((mean - truth) ** 2))
    assert error < 0.2 * truth.std()  # from 90 of 7,776 combinations
    assert np.sqrt(np.mean(((mean - truth) / deviation) ** 2)) < 1.4
    known, doubt = model.predict(rows)
    np.testing.assert_allclose(known, losses, atol=0.01)
    assert doubt.max() < 0.01


def test_the_model_tells_noise_from_signal_and_parameters_without_effect():
    rng = np.random.default_rng(4)
    rows = rng.uniform(-3, 3, (120, 3))
    losses = np.sin(rows[:, 0]) + 0.2 * rng.standard_normal(120)
    model = MixedModel(np.zeros(3, dtype=bool), is_noisy=True)
    for _ in range(10):
        model.learn(rows, losses)
    lengths = np.exp(model.scales[:3])
    assert lengths[1:].min() > 3 * lengths[0]
    grid = np.linspace(-2.5, 2.5, 20)[:, None] * [1, 0, 0]
    mean, deviation = model.predict(grid)
    assert np.sqrt(np.mean((mean - np.sin(grid[:, 0])) ** 2)) < 0.15
    draws = model.samples(grid, 400, rng)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=4 * deviation.max() / 20)
    np.testing.assert_allclose(draws.std(axis=0), deviation, rtol=0.25)


def test_the_expected_improvement_is_the_mean_of_what_is_gained():
    rng = np.random.default_rng(0)
    for gain, deviation in ((0.5, 1.0), (-2.0, 1.5), (0.0, 0.1)):
        gained = np.maximum(gain + deviation * rng.standard_normal(400_000), 0.0)
        found = math.exp(_log_improvement(np.array([gain]), np.array([deviation]))[0])
        assert found == pytest.approx(gained.mean(), abs=5 * gained.std() / 632)
    far = _log_improvement(np.array([-7.0, -30.0, -31.0]), np.ones(3))
    assert np.all(np.isfinite(far))
    assert np.all(np.diff(far) < 0)


def test_only_losses_above_the_median_are_brought_nearer():
    losses = np.array([2.0, 3.0, 4.0, 104.0, 1e8])
    np.testing.assert_allclose(
        _compressed(losses), [0.0, 0.5, 1.0, 1 + np.log(51), 1 + np.log(0.5e8 - 1)]
    )


def spring(phi):
    """Coil compression spring (Sandgren 1990), in rough: mass, and penalties for its limits."""
    wire = 0.009 * 1.1 ** phi["wire"]
    mass = math.pi**2 * phi["width"] * wire**2 * (phi["coils"] + 2) / 4
    stress = 8e3 * phi["width"] / (math.pi * wire**3) / 189000 - 1
    deflection = 8 * phi["coils"] * 1e3 * phi["width"] ** 3 / (11.5e6 * wire**4) / 6 - 1
    return mass + 10 * max(0.0, stress) + 10 * max(0.0, deflection)


SPRING = zb.Space(coils=zb.Integer(1, 70), wire=zb.Integer(0, 41), width=zb.Real(0.6, 3.0))


def test_other_integers_are_tried_from_the_first_rounds_on():
    """It once took 138 solves at the integers of the start before others were looked at."""
    seen = []
    zb.minimize(
        zb.Problem(SPRING, lambda phi: seen.append(phi) or spring(phi)), max_solves=20, seed=1
    )
    assert len({(phi["coils"], phi["wire"]) for phi in seen}) >= 12


def test_integers_with_a_real_are_ahead_of_random_search_by_far():
    found, random = (
        [zb.minimize(zb.Problem(SPRING, spring), m, max_solves=80, seed=s).loss for s in range(3)]
        for m in (None, zb.RandomSearch())
    )
    best = min(
        spring({"coils": n, "wire": w, "width": d})
        for n, w, d in itertools.product(range(1, 12), range(25, 42), np.linspace(0.6, 3, 100))
    )
    assert np.median(found) - best < 0.2 * (np.median(random) - best)


def test_wide_integers_of_a_vector_move_by_many_units():
    matrix = np.array([[1.0, 0.2], [0.1, 0.5], [0.4, -0.3]])
    target = matrix @ [713, 211]

    def solve(phi):
        return matrix @ [phi["a"], phi["b"]]

    space = zb.Space(a=zb.Integer(0, 1000), b=zb.Integer(0, 1000))
    result = zb.minimize(zb.Problem(space, solve, zb.SquaredError(target)), max_solves=80)
    assert abs(result.phi["a"] - 713) <= 2
    assert abs(result.phi["b"] - 211) <= 4


@pytest.mark.parametrize("width", [1, 4])
def test_choices_seen_through_draws_are_chosen_by_a_model(width):
    """The lowest loss seen is the luckiest draw; the model knows better, and says which it is."""
    _, effects = table(1)
    space = zb.Space({f"s{k}": zb.Choice(range(OPTIONS)) for k in range(SLOTS)})

    def loss(phi, *, seed):
        exact = sum(effects[k, phi[f"s{k}"]] for k in range(SLOTS))
        return float(exact + 1.5 * np.random.default_rng(seed).standard_normal())

    everything = [sum(row) for row in itertools.product(*effects)]
    best, middle = min(everything), float(np.median(everything))
    shares = []
    for seed in range(2):
        result = zb.minimize(zb.Problem(space, loss), max_solves=100, round_width=width, seed=seed)
        exact = sum(effects[k, result.phi[f"s{k}"]] for k in range(SLOTS))
        shares.append((middle - exact) / (middle - best))
        assert abs(result.loss - exact) < 4 * 1.5 / math.sqrt(4)
    assert np.mean(shares) > 0.8


def test_a_small_space_is_solved_whole_and_no_setting_twice():
    seen = []

    def loss(phi):
        seen.append((phi["k"], phi["c"]))
        return float((phi["k"] - 2) ** 2 + (phi["c"] == "b"))

    space = zb.Space(k=zb.Integer(0, 4), c=zb.Choice(list("abc")))
    result = zb.minimize(zb.Problem(space, loss), max_solves=100)
    assert result.stop_reason == ("converged: every setting of the integers and choices is solved")
    assert len(seen) == len(set(seen)) == 15
    assert result.loss == 0.0


SMALL = {
    "choice": zb.Space(a=zb.Choice(list("abcde"))),
    "two": zb.Space(a=zb.Choice(list("ab"))),
    "integer": zb.Space(a=zb.Integer(-2, 2)),
    "2x2": zb.Space(a=zb.Choice(list("ab")), b=zb.Integer(0, 1)),
    "3x3": zb.Space(a=zb.Choice(list("abc")), b=zb.Integer(7, 9)),
    "2x2x2": zb.Space(a=zb.Integer(0, 1, shape=(2,)), b=zb.Choice([True, False])),
}


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("space", SMALL.values(), ids=SMALL.keys())
def test_every_setting_of_a_small_space_is_solved_once(space, width):
    """Repeats counted as settings, and the run said of half of them that they were all."""
    settings = round(Features(space).settings)
    table, asked = {}, []

    def loss(phi):
        asked.append(repr(phi))
        return table.setdefault(repr(phi), float(draws.uniform(0.2, 0.9)))

    for seed in range(10):
        table.clear(), asked.clear()
        draws = np.random.default_rng(seed)
        problem = zb.Problem(space, loss)
        result = zb.minimize(problem, max_solves=60, seed=seed, round_width=width)
        assert len(asked) == len(table) == result.solves == settings
        assert repr(dict(result.phi)) == min(table, key=lambda phi: table[phi])
        assert result.stop_reason.endswith("every setting of the integers and choices is solved")


def test_a_budget_for_every_setting_solves_every_setting(monkeypatch):
    """Settings were forgotten that the model is not fitted to, and few gave up for all."""
    monkeypatch.setattr(mixed_search, "MOST_POINTS", 20)
    monkeypatch.setattr(mixed_search, "MOST_STALLS", 2)
    asked = []

    def loss(phi):
        asked.append((phi["a"], phi["b"]))
        return float(len(asked))

    problem = zb.Problem(zb.Space(a=zb.Choice(list(range(8))), b=zb.Integer(0, 8)), loss)
    zb.minimize(problem, max_solves=72, round_width=5)
    assert len(asked) == len(set(asked)) == 72
    result = zb.minimize(problem, max_solves=71)
    assert "no better setting was found in 2 looks elsewhere" in result.stop_reason


def test_settings_that_failed_are_not_called_solved():
    def loss(phi):
        return float("abcd".index(phi["c"])) if phi["c"] in "cd" else math.nan

    space, end = zb.Space(c=zb.Choice(list("abcd"))), "choices is solved, but for 2 that "
    result = zb.minimize(zb.Problem(space, loss), initial={"c": "d"}, max_solves=30)
    assert (result.phi["c"], result.solves) == ("c", 4)
    assert result.stop_reason.endswith(f"{end}failed")
    problem = zb.Problem(space, loss, constraints=[lambda phi: float(phi["c"] in "ab")])
    result = zb.minimize(problem, initial={"c": "d"}, max_solves=30)
    assert (result.phi["c"], result.solves) == ("c", 2)
    assert result.stop_reason.endswith(f"{end}failed or are forbidden")


def test_settings_that_fail_are_left_out():
    def loss(phi):
        if phi["c"] == "b" and phi["x"] > 0:
            raise RuntimeError("no mesh")
        return float((phi["x"] + 1) ** 2 + {"a": 1.0, "b": 0.0, "c": 2.0}[phi["c"]])

    space = zb.Space(c=zb.Choice(list("abc")), x=zb.Real(-3, 3))
    result = zb.minimize(zb.Problem(space, loss), initial={"c": "a"}, max_solves=80)
    assert result.loss < 1e-6
    assert result.phi["c"] == "b"


def test_means_of_many_draws_teach_the_model_what_every_draw_does():
    rng = np.random.default_rng(0)
    few = rng.uniform(-3, 3, (12, 2))
    index = np.repeat(np.arange(12), 9)[:-5]
    losses = few[index, 0] + 0.5 * rng.standard_normal(103)
    draws = SettingDraws()
    for place, loss in zip(index, losses, strict=True):
        draws.add(few[place], loss)
    rows, means, counts, squares = draws.data()
    np.testing.assert_array_equal(rows, few)
    assert counts.tolist() == [9] * 11 + [4]
    assert np.corrcoef(means, few[:, 0])[0, 1] > 0.95
    assert squares > 0.0
    means = np.bincount(index, losses) / counts
    squares = float(np.square(losses - means[index]).sum())
    scales, off = np.array([0.3, 0.9, 0.5, -0.4]), np.array([0.2, 0.0, 0.3, 0.8])
    evidence, found = [], []
    for seen in ((few, means, counts, squares), (few[index], losses, np.ones(103), 0.0)):
        model = MixedModel(np.zeros(2, dtype=bool), is_noisy=True)
        model._rows, model._targets, model._counts, model._squares = seen
        model._centre, model._spread, model.scales = 0.0, 1.0, scales
        apart = model._distances(model._rows, model._rows)
        worse = model._fit(apart, scales + off)
        evidence.append(model._fit(apart, scales) - worse)
        found.append(model.predict(few + 0.1))
    assert evidence[0] == pytest.approx(evidence[1], rel=1e-5)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_a_race_reports_how_sure_it_is_and_repeats_what_may_be_best():
    """One draw a solve: the search decides how many draws a setting gets."""
    chances = np.random.default_rng(3).random(12) * 0.6
    chances[7] = 0.95
    asked = []

    def answer(phi, *, seed):
        asked.append((phi["k"], seed))
        return float(np.random.default_rng(seed).random() > chances[phi["k"]])

    space = zb.Space(k=zb.Choice(list(range(12))))
    result = zb.minimize(zb.Problem(space, answer), max_solves=150)
    assert result.phi["k"] == 7
    words = "the point reported is the best of those solved with probability "
    assert float(result.stop_reason.partition(words)[2]) > 0.9
    times = [sum(k == option for k, _ in asked) for option in range(12)]
    assert times[7] == max(times) > 3 * np.median(times)
    assert len(set(asked)) == len(asked)  # no draw of a setting is asked for twice
    seeds = [seed for _, seed in asked[105:141]]
    assert len(set(seeds)) < len(seeds)  # finalists share theirs


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_integer_is_found_to_the_unit(seed):
    space = zb.Space(n=zb.Integer(0, 10**6))
    start = {"n": int(np.random.default_rng([5, seed]).integers(10**6))}
    problem = zb.Problem(space, lambda phi: abs(phi["n"] - 123_457) / 1e6)
    result = zb.minimize(problem, initial=start, max_solves=60, seed=seed)
    assert result.phi["n"] == 123_457


def test_wide_integers_beside_reals_and_choices_are_found_to_the_unit():
    def loss(phi):
        reals = (phi["x"] - 0.1 * phi["c"]) ** 2
        return float(((phi["n"] - 1777) / 100) ** 2 + reals + phi["c"])

    space = zb.Space(n=zb.Integer(0, 5000), x=zb.Real(-5, 5), c=zb.Choice([0, 5, 9]))
    result = zb.minimize(zb.Problem(space, loss), initial={"n": 0, "x": 4, "c": 9}, max_solves=120)
    assert (result.phi["n"], result.phi["c"]) == (1777, 0)
    assert abs(result.phi["x"]) < 1e-3


def test_a_race_sets_aside_whole_full_solves_and_spends_the_rest_on_draws():
    """A tenth of the budget was set aside where that was more, and one full solve of it used."""
    asked = []

    def wrong(phi, *, seed):
        asked.append((phi["k"], phi["examples"]))
        draws = np.random.default_rng(seed).random(phi["examples"])
        return zb.WithCost(float(np.mean(draws < 0.1 * phi["k"])), phi["examples"])

    space = zb.Space(k=zb.Choice(list(range(8))))
    problem = zb.Problem(space, wrong, fidelity=zb.Fidelity("examples", 4, 32))
    result = zb.minimize(problem, max_cost=800)
    assert sum(examples for _, examples in asked) > 800 - 4
    assert [examples for _, examples in asked].count(
        32
    ) == 3  # the start, and what is reported, twice
    assert asked[-1] == (result.phi["k"], 32)
