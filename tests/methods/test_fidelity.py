"""Cheap solves first, full ones where it matters."""

from __future__ import annotations

import math

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.fidelity.two_levels import _Model, _Pair
from zo_bilevel.solve.evaluation import Evaluation, Point

TIMES = np.linspace(0.0, 3.0, 30)


def euler(phi):
    """u' = -rate u + drive, by implicit Euler: its error falls with the number of steps."""
    step = TIMES[-1] / phi["steps"]
    fine = np.linspace(0.0, TIMES[-1], phi["steps"] + 1)
    u = (1.0 + step * phi["rate"]) ** -np.arange(phi["steps"] + 1)
    return zb.WithCost(np.interp(TIMES, fine, u) + phi["offset"] * TIMES, float(phi["steps"]))


TRUTH = {"rate": 1.3, "offset": 0.2, "steps": 400}
SPACE = zb.Space(rate=zb.Log(0.05, 20.0), offset=zb.Real(-1.0, 1.0))


def decay(cheap=20, full=400, inner=euler, **more):
    fidelity = zb.Fidelity("steps", cheap, full)
    outer = zb.SquaredError(euler(TRUTH).theta)
    return zb.Problem(SPACE, inner, outer, name="decay", fidelity=fidelity, **more)


def test_a_target_costs_less_than_full_solves_alone():
    ours = full = 0.0
    for start in ({"rate": 5.0}, {"rate": 0.2, "offset": 0.7}, {"offset": -0.5}):
        options = {"initial": start, "max_solves": 200, "tolerance": 1e-4}
        ours += zb.minimize(decay(), **options).cost
        full += zb.minimize(decay(), zb.GaussNewton(), **options).cost
    assert ours < 0.6 * full


def test_the_result_is_that_of_the_full_level_though_the_cheap_one_looks_better():
    def flattering(phi):
        if phi["steps"] < 400:
            return zb.WithCost(euler(TRUTH).theta, 1.0)  # a loss of 0 everywhere
        return euler(phi)

    problem = decay(inner=flattering)
    result = zb.minimize(problem, max_solves=40)
    assert np.array_equal(result.theta, euler({**result.phi, "steps": 400}).theta)
    assert result.loss == pytest.approx(np.mean((result.theta - euler(TRUTH).theta) ** 2))
    assert set(result.phi) == {"rate", "offset"}
    assert min(r.loss for r in result.history) == 0.0 < result.history[1].best_loss


def pair(x, exact, cheap):
    point = Point(np.asarray(x))
    return _Pair(Evaluation(point, "ok", exact, 0.0), exact, cheap)


def test_the_model_is_right_at_every_full_solve_and_of_linear_levels_everywhere():
    rng = np.random.default_rng(0)
    fine, coarse = rng.normal(size=(2, 7, 3))
    xs = rng.normal(size=(5, 3))
    pairs = [pair(x, 1.0 + fine @ x, coarse @ x) for x in xs]
    model = _Model(None, pairs[0], pairs[1:])
    for each in pairs:
        assert model.theta(each.cheap) == pytest.approx(each.exact, abs=1e-12)
    x = rng.normal(size=3)
    assert model.theta(coarse @ x) == pytest.approx(1.0 + fine @ x, abs=1e-12)
    alone = _Model(None, pairs[0], [])
    assert alone.theta(coarse @ x) == pytest.approx(1.0 + fine @ xs[0] + coarse @ (x - xs[0]))


SETTINGS = zb.Space(
    kind=zb.Choice(["a", "b", "c", "d"]), size=zb.Integer(1, 40), rate=zb.Log(1e-3, 1.0)
)


def trained(phi):
    wanted = {"a": 3.0, "b": 0.0, "c": 2.0, "d": 1.0}[phi["kind"]]
    left = wanted + ((phi["size"] - 17) / 10) ** 2 + np.log10(phi["rate"] / 0.03) ** 2
    return zb.WithCost(left + 3.0 / phi["epochs"], float(phi["epochs"]))


def training(inner=trained):
    fidelity = zb.Fidelity("epochs", 1, 81)
    return zb.Problem(SETTINGS, inner, name="training", fidelity=fidelity)


def test_races_beat_full_solves_at_the_same_cost():
    budget = {"max_cost": 81.0 * 20}
    ours, full = [], []
    for seed in range(5):
        result = zb.minimize(training(), seed=seed, **budget)
        ours.append(result.loss)
        full.append(zb.minimize(training(), zb.RandomSearch(), seed=seed, **budget).loss)
        phi = {**result.phi, "epochs": 81}
        assert result.loss == trained(phi).theta
    assert np.median(ours) < 0.5 * np.median(full)
    assert np.median(ours) < 0.5


def test_races_survive_failures_and_end_when_everything_was_tried():
    def fragile(phi):
        if phi["kind"] == "a":
            raise RuntimeError("no")
        return zb.WithCost(float("abcd".index(phi["kind"])), float(phi["epochs"]))

    space = zb.Space(kind=zb.Choice(["a", "b", "c", "d"]))
    fidelity = zb.Fidelity("epochs", 1, 9)
    problem = zb.Problem(space, fragile, name="p", fidelity=fidelity)
    result = zb.minimize(problem, initial={"kind": "d"}, max_solves=200)
    assert (result.loss, result.phi) == (1.0, {"kind": "b"})
    assert "every setting that could be drawn was tried" in result.stop_reason


@pytest.mark.parametrize("problem", [decay(), training()], ids=["levels", "race"])
def test_runs_repeat_and_resume_to_the_bit(problem, tmp_path):
    store = str(tmp_path / "runs.sqlite")
    quiet = zb.minimize(problem, max_solves=40, round_width=2)
    zb.minimize(problem, max_solves=15, round_width=2, store=store)
    again = zb.minimize(problem, max_solves=40, round_width=2, store=store)
    assert [r.loss for r in again.history] == [r.loss for r in quiet.history]
    with zb.Store(store) as opened:
        (run,) = opened.runs()
        assert run["best_loss"] == quiet.history[-1].best_loss
        assert any(solve.role == "cheap" for solve in opened.solves(opened.find_run(1)))


def test_another_level_is_solved_anew(tmp_path):
    store, calls = str(tmp_path / "runs.sqlite"), []

    def counting(phi, calls=calls):
        calls.append(phi["steps"])
        return euler(phi)

    for full in (400, 800):
        zb.minimize(decay(full=full, inner=counting), zb.GaussNewton(), max_solves=3, store=store)
    assert calls == [400] * 3 + [800] * 3


def test_hyperband_of_optuna_prunes_cheap_trials():
    pytest.importorskip("optuna")
    result = zb.minimize(training(), zb.OptunaHyperband(), max_cost=81.0 * 10)
    roles = [record.role for record in result.history]
    assert roles.count("cheap") > 2 * (len(roles) - roles.count("cheap"))
    again = zb.minimize(training(), zb.OptunaHyperband(), max_cost=81.0 * 10)
    assert [record.loss for record in again.history] == [record.loss for record in result.history]
    with pytest.raises(zb.UnsupportedProblemError, match=r"needs a problem with a zb\.Fidelity"):
        zb.minimize(zb.Problem(SPACE, lambda phi: 0.0), zb.OptunaHyperband())


def test_bad_input_is_refused_by_name():
    with pytest.raises(zb.InputError, match="cheap must be below full, got 10 and 10"):
        zb.Fidelity("steps", 10, 10)
    with pytest.raises(zb.InputError, match="cheap must be finite and > 0, got 0"):
        zb.Fidelity("steps", 0, 10)
    with pytest.raises(zb.InputError, match="must not be called like a parameter, got 'rate'"):
        zb.Problem(SPACE, euler, fidelity=zb.Fidelity("rate", 1, 2))
    with pytest.raises(zb.InputError, match=r"'steps' needs the price of each solve.* cost of 0"):
        zb.minimize(decay(inner=lambda phi: euler(phi).theta), max_solves=20)
    with pytest.raises(zb.InputError, match="'steps' must cost less at 20 than at 400"):
        zb.minimize(decay(inner=lambda phi: zb.WithCost(euler(phi).theta, 1.0)), max_solves=20)


def answered(asked, chances):
    """A share of wrong answers to examples drawn anew, so many as the level says."""

    def inner(phi, *, seed):
        asked.append((phi["k"], phi["examples"]))
        draws = np.random.default_rng(seed).random(phi["examples"])
        return zb.WithCost(float(np.mean(draws > chances[phi["k"]])), float(phi["examples"]))

    return inner


@pytest.mark.parametrize("width", [1, 4])
def test_settings_are_raced_on_few_examples_and_the_best_is_judged_on_all(width):
    chances = np.random.default_rng(3).random(12) * 0.6
    chances[7] = 0.95
    asked = []
    space = zb.Space(k=zb.Choice(list(range(12))))
    fidelity = zb.Fidelity("examples", 4, 64)
    problem = zb.Problem(space, answered(asked, chances), name="answers", fidelity=fidelity)
    result = zb.minimize(problem, max_cost=640, round_width=width)
    assert result.phi["k"] == 7
    assert 640 - 64 < result.cost <= 640
    levels = [level for _, level in asked]
    assert (levels[0], levels[-1], asked[-1][0]) == (64, 64, 7)
    assert levels.count(64) <= 3
    assert levels.count(4) > 100
    times = [asked.count((option, 4)) for option in range(12)]
    assert times[7] == max(times) > 3 * np.median(times)
    assert result.loss == result.history[-1].loss  # on all examples, drawn afresh


def wordings(interrupt_at=0, failing=()):
    asked = []

    def ask(phi, *, seed):
        asked.append(phi["examples"])
        if len(asked) == interrupt_at:
            raise KeyboardInterrupt
        if phi["w"] in failing and phi["examples"] < 64:
            raise RuntimeError("too few")
        wrong = {"plain": 0.8, "steps": 0.1, "odd": 0.7}[phi["w"]]
        draws = np.random.default_rng(seed).random(phi["examples"])
        return zb.WithCost(float(np.mean(draws < wrong)), phi["examples"])

    space = zb.Space(w=zb.Choice(["plain", "steps", "odd"]))
    return zb.Problem(space, ask, fidelity=zb.Fidelity("examples", 4, 64))


@pytest.mark.parametrize("failing", [(), ("plain",)])
@pytest.mark.parametrize("limit", [{"max_cost": 200}, {"max_cost": 320}, {"max_solves": 9}])
def test_draws_leave_enough_to_judge_what_they_recommend(limit, failing):
    """The start was reported, though cheap draws had shown a better setting."""
    result = zb.minimize(wordings(failing=failing), initial={"w": "plain"}, **limit)
    assert result.history[-1].role == "confirm"
    assert result.phi["w"] != "plain"
    assert result.cost <= limit.get("max_cost", math.inf)


def test_draws_that_all_fail_end_the_run_in_words():
    problem = wordings(failing=("plain", "steps", "odd"))
    result = zb.minimize(problem, initial={"w": "plain"}, max_solves=40)
    assert result.phi["w"] == "plain"
    assert "19 of 20 solves failed" in result.stop_reason


def test_a_recommendation_that_no_full_solve_judged_is_told():
    result = zb.minimize(wordings(30), initial={"w": "plain"}, max_cost=640)
    assert result.phi["w"] == "plain"
    end = "; cheap solves recommend w=steps, which no full solve has confirmed"
    assert result.stop_reason.endswith(end)
