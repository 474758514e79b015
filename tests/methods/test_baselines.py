"""The baselines keep the rules of all methods, and are the libraries they say they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_heat import START, heat, watched, workers

import zo_bilevel as zb
from zo_bilevel.methods.names import method_from_name

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for module in (
        "nevergrad",
        "cma",
        "dfols",
        "ibcdfo",
        "pybobyqa",
        "optuna",
        "cmaes",
        "iterative_ensemble_smoother",
    ):
        pytest.importorskip(module)

SCALAR = (
    "nevergrad:CMA",
    "nevergrad:OnePlusOne",
    "nevergrad:Cobyla",
    "cma",
    "scipy:COBYQA",
    "scipy:COBYLA",
    "scipy:L-BFGS-B",
    "scipy:BFGS",
    "scipy:Nelder-Mead",
    "scipy:Powell",
    "scipy:SLSQP",
    "bobyqa",
    "lq-cma",
    "optuna:TPE",
    "optuna:CMA",
    "scipy:SLSQP:restarts",
)
VECTOR = ("scipy:least_squares", "scipy:lm", "dfols", "pounders", "esmda")
ALL = (*SCALAR, *VECTOR)
GRADIENT = ("scipy:L-BFGS-B", "scipy:BFGS", "scipy:SLSQP", "scipy:least_squares", "scipy:lm")
MORE = ("nevergrad:NGOpt", "nevergrad:TBPSA")
PRIOR = (
    "nevergrad:OnePlusOne:prior",
    "cma:prior",
    "dfols:prior",
    "pounders:prior",
    "bobyqa:prior",
    "lq-cma:prior",
    "scipy:L-BFGS-B:prior",
)


@pytest.mark.parametrize("name", [*ALL, *MORE, *PRIOR])
def test_budget_bounds_start_and_threads(name: str) -> None:
    before = workers()
    method = method_from_name(name)
    assert method.name == name
    for budget in (1, 5, 40):
        problem, watch = watched(heat())
        result = zb.minimize(problem, method, initial=START, max_solves=budget, seed=3)
        assert len(watch.seen) == result.solves <= budget
        assert "budget" in result.stop_reason or result.solves < budget
        np.testing.assert_allclose(watch.seen[0], problem.space.encode(START), atol=1e-12)
    assert result.history[0].role == "start"
    assert workers() == before


@pytest.mark.parametrize("name", [*ALL, *MORE, *PRIOR])
@pytest.mark.parametrize("width", [1, 4])
def test_same_seed_same_numbers(name: str, width: int) -> None:
    losses = []
    for _ in range(2):
        result = zb.minimize(
            heat(), method_from_name(name), initial=START, max_solves=33, seed=5, round_width=width
        )
        losses.append([record.loss for record in result.history])
        np.random.default_rng().normal()
        np.random.seed()  # noqa: NPY002 - what the caller does with it must not matter
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "name", ["cma", "lq-cma", "nevergrad:CMA", "nevergrad:OnePlusOne", "optuna:TPE", "esmda"]
)
def test_other_seed_other_numbers(name: str) -> None:
    method = method_from_name(name)
    runs = [zb.minimize(heat(), method, max_solves=30, seed=seed) for seed in (0, 1)]
    assert [r.loss for r in runs[0].history] != [r.loss for r in runs[1].history]


PROGRAM = """
import sys, json, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {folder!r})
from small_heat import heat
from zo_bilevel.methods.names import method_from_name
import zo_bilevel as zb
print(json.dumps([[r.loss for r in zb.minimize(heat(), method_from_name(name), max_solves=25,
    seed=2, round_width=3).history] for name in {names!r}]))
left = method_from_name("scipy:COBYLA").start(heat())  # nobody closes it: must not hang
"""


def test_same_numbers_in_a_fresh_process_that_ends_with_an_open_search() -> None:
    names = ("nevergrad:CMA", "nevergrad:NGOpt", "cma", "dfols", "esmda", "scipy:Powell")
    here = [
        [
            record.loss
            for record in zb.minimize(
                heat(), method_from_name(name), max_solves=25, seed=2, round_width=3
            ).history
        ]
        for name in names
    ]
    program = PROGRAM.format(folder=str(Path(__file__).parents[1]), names=names)
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=True,
    )
    assert json.loads(ended.stdout) == here


@pytest.mark.parametrize("name", ALL)
def test_failed_solves_and_nan_are_survived_and_counted(name: str) -> None:
    fate = np.random.default_rng(4)

    def fails(call: int) -> Any:
        draw = fate.random()
        return call > 1 and (True if draw < 0.2 else np.nan if draw < 0.25 else False)

    problem, watch = watched(heat(), fails=fails)
    result = zb.minimize(problem, method_from_name(name), initial=START, max_solves=60, seed=1)
    assert len(watch.seen) == result.solves
    assert 0 < sum(result.failures.values()) < result.solves
    assert np.isfinite(result.loss)
    assert result.loss <= result.history[0].loss


@pytest.mark.parametrize("name", [*GRADIENT, "esmda"])
def test_a_failed_start_is_one_failed_solve(name: str) -> None:
    problem, _ = watched(heat(), fails=lambda call: call == 1)
    result = zb.minimize(problem, method_from_name(name), max_solves=40)
    assert result.failures == {"failed": 1}
    assert result.solves > 10


@pytest.mark.parametrize("name", ["scipy:COBYLA", "scipy:least_squares", "dfols", "cma", "bobyqa"])
def test_a_start_that_never_solves_is_left(name: str) -> None:
    def solve(phi: dict[str, Any]) -> Any:
        if phi["a"] > 2.0:
            raise ArithmeticError("unstable")
        return np.array([phi["a"] - 1.0, phi["b"]])

    space = zb.Space(a=zb.Real(0, 5), b=zb.Real(-1, 1))
    problem = zb.Problem(space, solve, zb.SquaredError([0.0, 0.0]))
    start = {"a": 4.5, "b": 0.1}
    result = zb.minimize(problem, method_from_name(name), initial=start, max_solves=60)
    assert result.loss < 1e-2
    nowhere = zb.Problem(space, lambda phi: [np.nan, 0.0], zb.SquaredError([0.0, 0.0]))
    with pytest.raises(zb.InnerSolverError, match="solves succeeded"):
        zb.minimize(nowhere, method_from_name(name), initial=start, max_solves=60)


@pytest.mark.parametrize(
    ("name", "budget", "target"),
    [
        ("scipy:L-BFGS-B", 200, 1e-6),
        ("scipy:SLSQP", 200, 1e-6),
        ("scipy:BFGS", 300, 1e-4),
        ("scipy:COBYQA", 200, 1e-3),
        ("scipy:COBYLA", 400, 1e-1),
        ("scipy:Nelder-Mead", 300, 1e-6),
        ("scipy:Powell", 600, 1e-3),
        ("cma", 800, 1e-3),
        ("lq-cma", 150, 1e-3),
        ("bobyqa", 150, 1e-3),
        ("nevergrad:CMA", 800, 5e-1),
        ("nevergrad:Cobyla", 400, 1e-1),
    ],
)
def test_rosenbrock(name: str, budget: int, target: float) -> None:
    def rosenbrock(phi: dict[str, float]) -> float:
        return (1 - phi["a"]) ** 2 + 100 * (phi["b"] - phi["a"] ** 2) ** 2

    problem = zb.Problem(zb.Space(a=zb.Real(-2, 2), b=zb.Real(-2, 2)), rosenbrock)
    start = {"a": -0.5, "b": 0.5}
    result = zb.minimize(problem, method_from_name(name), initial=start, max_solves=budget)
    assert result.loss < target


@pytest.mark.parametrize("name", VECTOR)
def test_residual_methods_solve_the_field(name: str) -> None:
    result = zb.minimize(heat(), method_from_name(name), initial=START, max_solves=120)
    assert result.loss < 1e-4 * result.history[0].loss


@pytest.mark.parametrize("name", ALL)
def test_minimum_on_a_bound(name: str) -> None:
    problem = zb.Problem(
        zb.Space(a=zb.Real(0, 1), b=zb.Real(0, 1)),
        lambda phi: np.array([phi["a"] + 0.5, phi["b"] - 0.4]),
        zb.SquaredError([0.0, 0.0]),
    )
    result = zb.minimize(problem, method_from_name(name), max_solves=150, seed=2)
    best = np.array([result.phi["a"], result.phi["b"]])
    assert np.abs(best - [0.0, 0.4]).max() < 0.05


@pytest.mark.parametrize("name", [*SCALAR, *VECTOR])
def test_one_parameter(name: str) -> None:
    problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), lambda phi: phi["a"] ** 2, zb.SquaredError(4.0))
    result = zb.minimize(problem, method_from_name(name), max_solves=120, seed=1)
    assert abs(result.phi["a"] - 2.0) < 0.05


@pytest.mark.parametrize("name", ["nevergrad:OnePlusOne", "cma", "scipy:COBYQA", "scipy:Powell"])
def test_discrete_coordinates_are_searched_as_their_relaxation(name: str) -> None:
    space = zb.Space(n=zb.Integer(1, 9), kind=zb.Choice(["a", "b", "c"]))
    problem = zb.Problem(space, lambda phi: abs(phi["n"] - 3.0) + (phi["kind"] != "c"))
    result = zb.minimize(problem, method_from_name(name), max_solves=80, seed=1)
    assert result.phi["n"] in (2, 3, 4)


@pytest.mark.parametrize("name", ["cma", "nevergrad:CMA", "nevergrad:OnePlusOne", "esmda"])
def test_round_width_widens_rounds(name: str) -> None:
    method = method_from_name(name)
    state = method.start(heat(), round_width=16, max_solves=100)
    assert len(method.ask(state)) >= 16
    state.close()


def test_nevergrad_asks_sequential_optimizers_for_one_point() -> None:
    method = zb.Nevergrad("Cobyla")
    state = method.start(heat(), round_width=8)
    assert len(method.ask(state)) == 1
    state.close()


@pytest.mark.parametrize("name", ["dfols", "pounders", "esmda", "scipy:least_squares", "scipy:lm"])
def test_residual_methods_refuse_problems_without_residuals(name: str) -> None:
    method = method_from_name(name)
    with pytest.raises(zb.UnsupportedProblemError, match="the problem is scalar"):
        method.start(heat().scalar)
    space = zb.Space(a=zb.Real(-1, 1))
    with pytest.raises(zb.UnsupportedProblemError, match="residuals of a SquaredError"):
        method.start(zb.Problem(space, lambda phi: phi["a"]))


def test_what_a_library_prints_is_silenced_and_what_the_solver_prints_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def solver(phi: dict[str, Any]) -> float:
        print("solved")
        return phi["a"] ** 2

    problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), solver, zb.SquaredError(4.0))
    result = zb.minimize(problem, zb.POUNDERS(), max_solves=30)  # says "g is sufficiently small."
    assert result.stop_reason.startswith("pounders: flag")
    assert capsys.readouterr().out == "solved\n" * result.solves


def test_runs_in_threads_leave_standard_output_and_each_others_words_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def search(seed: int) -> zb.Result:
        def solver(phi: dict[str, Any]) -> float:
            print("solved")
            return (phi["a"] - 1.0) ** 2

        problem = zb.Problem(zb.Space(a=zb.Real(0, 4), b=zb.Real(0, 1)), solver)
        return zb.minimize(problem, zb.Nevergrad("CMA"), max_solves=40, seed=seed)

    outside = sys.stdout
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(search, range(8)))
    assert sys.stdout is outside
    assert capsys.readouterr().out.count("solved") == sum(result.solves for result in results)
    for seed in (0, 7):
        assert search(seed).x.tobytes() == results[seed].x.tobytes()


def test_levenberg_marquardt_refuses_fewer_residuals_than_coordinates() -> None:
    space = zb.Space(x=zb.Real(-1, 1, shape=(3,)))
    problem = zb.Problem(space, lambda phi: phi["x"][:2], zb.SquaredError(np.zeros(2)))
    with pytest.raises(zb.UnsupportedProblemError, match="residuals as coordinates, got 2 for 3"):
        zb.Scipy("lm").start(problem)


@pytest.mark.parametrize("name", ["scipy:SLSQP:restarts", "bobyqa:restarts"])
def test_restarts_spend_the_budget_in_several_basins(name: str) -> None:
    tried: list[float] = []

    def two_basins(phi: dict[str, Any]) -> float:  # the start's is the worse one
        tried.append(phi["a"])
        return min((phi["a"] - 1) ** 2 + 0.5, 2 * (phi["a"] + 1) ** 2)

    problem = zb.Problem(zb.Space(a=zb.Real(-2, 2)), two_basins)
    once = zb.minimize(problem, method_from_name(name.removesuffix(":restarts")), max_solves=300)
    assert once.solves < 300
    first = list(tried)
    tried.clear()
    result = zb.minimize(problem, method_from_name(name), max_solves=300)
    assert result.solves == 300
    assert tried[: len(first)] == first
    assert result.loss < 1e-6


def test_restarts_go_on_where_the_solve_at_the_start_failed() -> None:
    problem, _ = watched(heat(), fails=lambda call: call == 1)
    result = zb.minimize(problem, zb.Scipy("SLSQP", restarts=True), max_solves=60, seed=1)
    assert (result.solves, result.failures) == (60, {"failed": 1})


@pytest.mark.parametrize("name", ["cma", "lq-cma"])
def test_cma_searches_a_single_parameter_to_the_end_of_its_budget(name: str) -> None:
    space = zb.Space(n=zb.Integer(0, 10**6))
    problem = zb.Problem(space, lambda phi: abs(phi["n"] - 123457) / 1e6)
    for seed in range(5):
        result = zb.minimize(problem, method_from_name(name), max_solves=60, seed=seed)
        assert (result.solves, result.stop_reason) == (60, "budget of 60 solves spent")


@pytest.mark.parametrize("name", GRADIENT[:3])
def test_derivative_methods_refuse_discrete_coordinates(name: str) -> None:
    problem = zb.Problem(zb.Space(a=zb.Real(-1, 1), n=zb.Integer(1, 3)), lambda phi: phi["a"])
    with pytest.raises(zb.UnsupportedProblemError, match="1 of 2 coordinates are integers"):
        method_from_name(name).start(problem)


def test_ngopt_is_refused_where_numpy_is_too_new(monkeypatch: pytest.MonkeyPatch) -> None:
    method = zb.Nevergrad("NGOpt")
    monkeypatch.setattr(np, "__version__", "2.4.1")
    with pytest.raises(zb.UnsupportedProblemError, match=r"numpy is 2\.4\.1"):
        method.start(heat())


def test_nevergrad_says_that_an_optimizer_must_know_the_budget() -> None:
    with pytest.raises(zb.UnsupportedProblemError, match="give max_solves or budget"):
        zb.Nevergrad("NGOpt").start(heat())
    for budget in (1, 3):  # fewer solves than a round is wide
        result = zb.minimize(heat(), zb.Nevergrad("NgIohTuned"), max_solves=budget, round_width=4)
        assert result.solves == budget


def test_a_library_that_cannot_start_is_unsupported_and_one_that_breaks_ends_in_words() -> None:
    with pytest.raises(zb.UnsupportedProblemError, match=r"scipy:least_squares cannot work .*loss"):
        zb.Scipy("least_squares", loss=3).start(heat())
    result = zb.minimize(heat(), zb.Scipy("least_squares", loss="huber", f_scale="x"), max_solves=9)
    assert "broke off" in result.stop_reason


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zb.Nevergrad("CMAA"), "unknown Nevergrad optimizer 'CMAA'; did you mean"),
        (lambda: zb.Nevergrad("CMA", budget=0), "budget must be a whole number >= 1, got 0"),
        (lambda: zb.Scipy("LBFGSB"), "unknown scipy solver 'LBFGSB'; did you mean 'L-BFGS-B'"),
        (lambda: zb.Scipy("COBYQA:restarts"), r"write zb\.Scipy\('COBYQA', restarts=True\)"),
        (lambda: zb.Scipy("SLSQP:restarts:prior"), r"\('SLSQP', 'prior', restarts=True\)"),
        (lambda: zb.CMA("white"), "coordinates must be 'scaled' or 'prior', got 'white'"),
        (lambda: zb.DFOLS(growing=0), "growing must be a whole number >= 1, got 0"),
        (lambda: zb.DFOLS(radius=0.0), "radius must be finite and > 0, got 0.0"),
        (lambda: zb.POUNDERS(radius=0.0), "radius must be finite and > 0, got 0.0"),
        (lambda: zb.BOBYQA(radius=-1.0), "radius must be finite and > 0, got -1.0"),
        (lambda: zb.Scipy("lm", restarts=True), "restarts must be False for lm, got True"),
        (lambda: method_from_name("scipy:SLSQP:restart"), "'scaled' or 'prior', got 'restart'"),
        (lambda: zb.Optuna("TPES"), "unknown Optuna sampler 'TPES'; did you mean 'TPE'"),
        (lambda: zb.ESMDA(ensemble_size=1), "ensemble_size must be a whole number >= 2, got 1"),
        (
            lambda: zb.ESMDA(num_assimilations=0),
            "num_assimilations must be a whole number >= 1, got 0",
        ),
        (
            lambda: zb.ESMDA(observation_error=0.0),
            "observation_error must be finite and > 0, got 0.0",
        ),
        (lambda: zb.CMA().start(heat(), max_solves=0), "max_solves must be a whole number >= 1"),
    ],
)
def test_bad_arguments_are_named(make: Any, message: str) -> None:
    with pytest.raises(zb.InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("module", "make", "extra"),
    [
        ("nevergrad", lambda: zb.Nevergrad("CMA"), "baselines"),
        ("cma", lambda: zb.CMA(), "baselines"),
        ("dfols", lambda: zb.DFOLS(), "baselines"),
        ("ibcdfo", lambda: zb.POUNDERS(), "pounders"),
        ("pybobyqa", lambda: zb.BOBYQA(), "baselines"),
        ("iterative_ensemble_smoother", lambda: zb.ESMDA(), "baselines"),
        ("cma", lambda: zb.LqCMA(), "baselines"),
        ("optuna", lambda: zb.Optuna("TPE"), "optuna"),
        ("cmaes", lambda: zb.Optuna("CMA"), "optuna"),
        ("botorch", lambda: zb.BoTorch(), "botorch"),
        ("botorch", lambda: zb.TuRBO(), "botorch"),
        ("smac", lambda: zb.SMAC(), "smac"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(
    module: str, make: Any, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(zb.MissingPackageError, match=rf"{module}.*zo-bilevel\[{extra}\]"):
        make()
