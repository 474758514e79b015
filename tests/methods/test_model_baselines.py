"""Baselines that model the loss over numbers, integers and choices, and what they refuse."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.baselines.single_values import SingleValues
from zo_bilevel.methods.baselines.solves import GiveUpError, stop_at
from zo_bilevel.methods.names import method_from_name

MIXED = zb.Space(
    rate=zb.Log(1e-3, 10.0),
    counts=zb.Integer(-2, 7, shape=(2,)),
    kind=zb.Choice(["a", "b", "c"]),
    x=zb.Real(-1, 1),
)


def mixed_loss(phi: dict[str, Any]) -> float:
    distance = abs(np.log10(phi["rate"]) + 1) + abs(phi["counts"] - [3, -1]).sum() / 5
    return float(distance + (phi["kind"] != "b") + abs(phi["x"] - 0.4))


def make(name: str) -> zb.Method:
    try:
        return method_from_name(name)
    except zb.MissingPackageError as error:
        pytest.skip(str(error))


def test_single_values_name_every_number_and_choice() -> None:
    values = SingleValues(MIXED)
    assert [(item.name, item.kind) for item in values.items] == [
        ("rate", "real"),
        ("counts[0]", "integer"),
        ("counts[1]", "integer"),
        ("kind", "choice"),
        ("x", "real"),
    ]
    assert [item.upper for item in values.items] == [3.0, 7, 7, 2, 3.0]
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.uniform(MIXED.lower, MIXED.upper)
        decoded, again = MIXED.decode(x), MIXED.decode(values.row(values.of(x)))
        np.testing.assert_array_equal(again.pop("counts"), decoded.pop("counts"))
        assert again == decoded


@pytest.mark.parametrize("lower_or_upper", [-2, 7])
def test_integers_at_their_bounds_are_reached(lower_or_upper: int) -> None:
    values = SingleValues(MIXED)
    found = values.of(np.zeros(MIXED.size)) | {"counts[0]": lower_or_upper}
    assert MIXED.decode(values.row(found))["counts"][0] == lower_or_upper


@pytest.mark.parametrize(
    "name",
    ["optuna:TPE", *(pytest.param(n, marks=pytest.mark.slow) for n in ("optuna:GP", "smac"))],
)
def test_mixed_spaces_are_searched_better_than_at_random(name: str) -> None:
    problem = zb.Problem(MIXED, mixed_loss)
    start = {"rate": 5.0, "counts": [7, 7], "kind": "c", "x": -0.9}
    decoded = MIXED.decode(MIXED.encode(start))
    losses = {}
    for method in (make(name), zb.RandomSearch()):
        runs = [
            zb.minimize(problem, method, initial=start, max_solves=40, seed=seed)
            for seed in range(3)
        ]
        assert {run.history[0].loss for run in runs} == {mixed_loss(decoded)}
        losses[method.name] = np.mean([run.loss for run in runs])
    assert losses[name] < losses["random"]


def test_optuna_asks_for_the_trials_that_optuna_itself_asks_for() -> None:
    optuna = pytest.importorskip("optuna")
    asked: list[dict[str, Any]] = []

    def loss(phi: dict[str, Any]) -> float:
        asked.append({"a": phi["a"], "n": phi["n"], "c": phi["c"]})
        return abs(phi["a"] - 0.5) + abs(phi["n"] - 4) + (phi["c"] != "v")

    space = zb.Space(a=zb.Real(-3, 3), n=zb.Integer(1, 9), c=zb.Choice(["u", "v"]))
    start = {"a": 0.0, "n": 5, "c": "u"}
    method = zb.Optuna("TPE", seed=11)
    zb.minimize(zb.Problem(space, loss), method, initial=start, max_solves=25)
    ours = list(asked)
    asked.clear()

    def objective(trial: Any) -> float:
        a, n = trial.suggest_float("a", -3, 3), trial.suggest_int("n", 1, 9)
        return loss({"a": a, "n": n, "c": "uv"[trial.suggest_categorical("c", [0, 1])]})

    loudness = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=11))
    study.enqueue_trial({"a": 0.0, "n": 5, "c": 0})
    study.optimize(objective, n_trials=25)
    optuna.logging.set_verbosity(loudness)
    assert [row["n"] for row in ours] == [row["n"] for row in asked]
    assert [row["c"] for row in ours] == [row["c"] for row in asked]
    np.testing.assert_allclose([r["a"] for r in ours], [r["a"] for r in asked], atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["botorch", "turbo"])
def test_gaussian_processes_come_close_in_few_solves(name: str) -> None:
    space = zb.Space(a=zb.Real(-1, 1), b=zb.Real(-1, 1))
    problem = zb.Problem(space, lambda phi: (phi["a"] - 0.3) ** 2 + (phi["b"] + 0.6) ** 2)
    torch = importlib.import_module("torch")
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    result = zb.minimize(problem, make(name), max_solves=14, seed=2)
    assert torch.equal(torch.rand(1), expected)  # the caller's random numbers are untouched
    best_of_random = zb.minimize(problem, zb.RandomSearch(), max_solves=14, seed=2).loss
    assert result.loss < 0.2 * best_of_random


def test_a_round_of_gaussian_process_proposals_is_as_wide_as_asked() -> None:
    space = zb.Space(a=zb.Real(-1, 1))
    problem = zb.Problem(space, lambda phi: (phi["a"] - 0.3) ** 2)
    result = zb.minimize(problem, make("botorch"), max_solves=8, seed=0, round_width=3)
    assert [record.round for record in result.history] == [1, 1, 2, 2, 2, 3, 3, 3]


def test_lq_cma_needs_far_fewer_solves_than_cma_where_it_is_ill_conditioned() -> None:
    pytest.importorskip("cma")
    scales = 10.0 ** np.arange(5)

    def ellipsoid(phi: dict[str, Any]) -> float:
        return float(scales @ (phi["x"] - 0.2) ** 2)

    problem = zb.Problem(zb.Space(x=zb.Real(-1, 1, shape=(5,))), ellipsoid)
    found = [
        zb.minimize(problem, method, max_solves=2000, tolerance=1e-6, seed=1).solves
        for method in (zb.LqCMA(), zb.CMA())
    ]
    assert 4 * found[0] < found[1] < 2000


@pytest.mark.parametrize(
    ("name", "space", "message"),
    [
        ("optuna:CMA", MIXED, "optuna:CMA draws numbers, but 3 of 7 coordinates are choices"),
        (
            "botorch",
            MIXED,
            "botorch models numbers, but 5 of 7 coordinates are integers or choices",
        ),
        ("turbo", MIXED, "turbo models numbers, but 5 of 7 coordinates are integers or choices"),
        ("scipy:SLSQP:restarts", MIXED, "SLSQP:restarts needs derivatives, but 5 of 7"),
    ],
)
def test_kinds_that_a_method_cannot_search_are_refused_by_name(
    name: str, space: zb.Space, message: str
) -> None:
    with pytest.raises(zb.UnsupportedProblemError, match=message):
        make(name).start(zb.Problem(space, mixed_loss))


@pytest.mark.parametrize(("name", "limit"), [("optuna:GP", 500), ("botorch", 500), ("turbo", 2000)])
def test_more_solves_than_a_gaussian_process_carries_are_refused(name: str, limit: int) -> None:
    problem = zb.Problem(zb.Space(a=zb.Real(-1, 1)), lambda phi: phi["a"])
    message = f"max_solves must be <= {limit}, got {limit + 1}"
    with pytest.raises(zb.UnsupportedProblemError, match=message):
        make(name).start(problem, max_solves=limit + 1)
    make(name).start(problem, max_solves=limit).close()


def test_a_run_without_a_known_budget_ends_in_words_at_the_limit() -> None:
    class Solves:
        count = 500

    with pytest.raises(GiveUpError, match="botorch: 500 solves are all that"):
        stop_at(Solves(), "botorch", 500)  # type: ignore[arg-type]
    Solves.count = 499
    stop_at(Solves(), "botorch", 500)  # type: ignore[arg-type]


def test_optuna_keeps_its_own_loudness_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    optuna = pytest.importorskip("optuna")
    before = optuna.logging.get_verbosity()
    problem = zb.Problem(zb.Space(a=zb.Real(-1, 1)), lambda phi: phi["a"] ** 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zb.minimize(problem, zb.Optuna("TPE"), max_solves=12)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")
