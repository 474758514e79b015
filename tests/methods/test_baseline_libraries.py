"""The baselines ask for the very points that their libraries ask for, and stay in their place."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from typing import Any

import numpy as np
import pytest
from scipy import optimize
from small_heat import START, diffuse, heat, workers

import zo_bilevel as zb
from zo_bilevel.methods.base import Method
from zo_bilevel.methods.baselines.coordinates import Coordinates
from zo_bilevel.methods.baselines.failure_values import FailureRule
from zo_bilevel.methods.names import method_from_name
from zo_bilevel.problem.prior_term import Residuals
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.dispatch.serial import Serial

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for module in ("nevergrad", "cma", "dfols", "iterative_ensemble_smoother"):
        pytest.importorskip(module)

GRADIENT = ("scipy:L-BFGS-B", "scipy:BFGS", "scipy:SLSQP", "scipy:least_squares")


class RecordedError(Exception):
    """Ends a library's own run at the budget."""


def _own_points(call: Any, problem: zb.Problem, budget: int) -> list[np.ndarray]:
    """The points that a library asks for when it is called directly."""
    points: list[np.ndarray] = []
    last: list[float] = []
    outer = problem.outer

    def residuals(x: np.ndarray) -> np.ndarray:
        if len(points) == budget:
            raise RecordedError
        points.append(np.clip(x, -3.0, 3.0))
        theta = problem.inner(problem.space.decode(points[-1]))
        last.append(outer.loss(theta))
        return np.sqrt(outer.weights / outer.target.size) * (theta - outer.target)

    def loss(x: np.ndarray) -> float:
        residuals(x)
        return last[-1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(RecordedError):
            call(loss, residuals)
    return points


def _our_points(method: Method, problem: zb.Problem, budget: int) -> list[np.ndarray]:
    state, points = method.start(problem, initial=START, max_solves=budget), []
    evaluator = Evaluator(problem, Serial(), 0)
    while len(points) < budget and (asked := method.ask(state)):
        points += [point.x for point in asked]
        state = method.tell(state, evaluator.evaluate(asked))
    state.close()
    return points[:budget]


@pytest.mark.parametrize(
    "name", ["L-BFGS-B", "BFGS", "SLSQP", "COBYQA", "COBYLA", "Nelder-Mead", "Powell"]
)
def test_scipy_asks_for_the_points_that_scipy_itself_asks_for(name: str) -> None:
    problem, budget = heat(), 60
    x0 = problem.space.encode(START)
    method = zb.Scipy(name)
    options = dict(method.options)
    if name == "Nelder-Mead":
        options["initial_simplex"] = np.vstack([x0, x0 + np.eye(6)])

    def call(loss: Any, _: Any) -> None:
        optimize.minimize(
            loss,
            x0,
            method=name,
            jac="2-point" if name in ("L-BFGS-B", "BFGS", "SLSQP") else None,
            bounds=None if name == "BFGS" else optimize.Bounds(np.full(6, -3.0), np.full(6, 3.0)),
            options=options,
        )

    own, ours = _own_points(call, problem, budget), _our_points(method, problem, budget)
    assert len(ours) == len(own) > 20
    np.testing.assert_allclose(ours, own, rtol=0, atol=0)


def test_least_squares_and_dfols_ask_for_their_own_points() -> None:
    problem, budget = heat(), 50
    x0, low, high = problem.space.encode(START), np.full(6, -3.0), np.full(6, 3.0)
    tight = dict.fromkeys(("ftol", "xtol", "gtol"), 1e-15)

    def least_squares(_: Any, residuals: Any) -> None:
        optimize.least_squares(residuals, x0, bounds=(low, high), **tight)

    def dfols(_: Any, residuals: Any) -> None:
        tolerances = {"model.abs_tol": 1e-200, "model.rel_tol": 1e-200}
        importlib.import_module("dfols").solve(
            residuals, x0, bounds=(low, high), maxfun=1000, user_params=tolerances,
            rhoend=2.3e-16, do_logging=False,
        )  # fmt: skip

    for call, method in ((least_squares, zb.Scipy("least_squares")), (dfols, zb.DFOLS())):
        own, ours = _own_points(call, problem, budget), _our_points(method, problem, budget)
        shared = min(len(own), len(ours))
        assert shared > 25
        np.testing.assert_allclose(ours[:shared], own[:shared], rtol=0, atol=0)


def test_nevergrad_asks_for_the_points_that_nevergrad_itself_asks_for() -> None:
    ng = importlib.import_module("nevergrad")
    problem, budget = heat(), 40
    x0 = problem.space.encode(START)
    method = zb.Nevergrad("CMA")
    ours = _our_points(method, problem, budget)
    search_rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(1 << 20, 1)))
    random = int(search_rng.integers(2**32, dtype=np.uint32))

    def call(loss: Any, _: Any) -> None:
        array = ng.p.Array(init=x0).set_mutation(sigma=1.0)
        array.set_bounds(np.full(6, -3.0), np.full(6, 3.0))
        array.random_state = np.random.RandomState(random)
        optimizer = ng.optimizers.CMA(array, budget=budget)
        optimizer.suggest(x0)
        optimizer.minimize(loss)

    np.testing.assert_allclose(ours, _own_points(call, problem, budget), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", GRADIENT)
def test_a_finite_difference_gradient_is_one_round(name: str) -> None:
    method = method_from_name(name)
    state, problem = method.start(heat(), initial=START), heat()
    evaluator = Evaluator(problem, Serial(), 0)
    rounds = []
    for _ in range(4):
        points = method.ask(state)
        rounds.append(len(points))
        assert len({point.stream for point in points}) == 1  # common random numbers
        state = method.tell(state, evaluator.evaluate(points))
    state.close()
    assert rounds[:2] == ([7, 7] if name == "scipy:L-BFGS-B" else [1, 6])


def test_a_difference_turns_around_at_the_upper_bound() -> None:
    method = zb.Scipy("L-BFGS-B")
    state = method.start(heat(), initial={"field": np.full(6, 2.0)})
    xs = np.array([point.x for point in method.ask(state)])
    state.close()
    step = 3.0 * np.sqrt(np.finfo(float).eps)
    np.testing.assert_allclose(xs[1:] - xs[0], -step * np.eye(6), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["scipy:COBYQA", "nevergrad:Cobyla", "dfols", "cma"])
def test_two_searches_take_turns_and_end_when_dropped(name: str) -> None:
    before, problem, method = workers(), heat(), method_from_name(name)
    expected = [record.loss for record in zb.minimize(problem, method, max_solves=9).history]
    states = [method.start(problem, max_solves=9) for _ in range(2)]
    evaluators = [Evaluator(problem, Serial(), 0) for _ in range(2)]
    losses: list[list[float]] = [[], []]
    while len(losses[0]) < 9:
        for index, state in enumerate(states):
            evaluations = evaluators[index].evaluate(method.ask(state))
            losses[index] += [evaluation.loss for evaluation in evaluations]
            method.tell(state, evaluations)
    assert losses[0][:9] == losses[1][:9] == expected
    del states, state
    assert workers() == before


def test_the_caller_keeps_its_random_numbers_warnings_and_screen(
    capfd: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def inner(phi: dict[str, Any]) -> np.ndarray:
        assert warnings.filters == filters  # a solve sees the caller's filters, not the library's
        assert np.random.get_state()[2] == position  # noqa: NPY002
        return diffuse(phi)

    filters = list(warnings.filters)
    np.random.seed(3)  # noqa: NPY002
    position = np.random.get_state()[2]  # noqa: NPY002
    problem = zb.Problem(heat().space, inner, heat().outer)
    for name in ("nevergrad:CMA", "nevergrad:Cobyla", "cma", "dfols", "esmda", "scipy:Powell"):
        result = zb.minimize(problem, method_from_name(name), max_solves=20)
        assert not result.failures, result.history
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_convergence_before_the_budget_is_told_in_the_librarys_words() -> None:
    result = zb.minimize(heat(), zb.Scipy("least_squares", xtol=1e-6), max_solves=1000)
    assert result.solves < 1000
    assert result.stop_reason.startswith("scipy:least_squares: `")


def test_cma_begins_anew_with_twice_the_population() -> None:
    problem = zb.Problem(zb.Space(a=zb.Real(-1, 1), b=zb.Real(-1, 1)), lambda phi: 0.0 * phi["a"])
    method, sizes = zb.CMA(), []
    state, evaluator = method.start(problem), Evaluator(problem, Serial(), 0)
    while sum(sizes) < 100:
        sizes.append(len(method.ask(state)))
        state = method.tell(state, evaluator.evaluate(method.ask(state)))
    state.close()
    assert sizes[0] == 7  # the start beside the first generation
    assert {12, 24, 48} <= set(sizes)  # a flat loss stops it at once


def test_prior_coordinates_are_modes_around_the_start_within_the_bounds() -> None:
    space = heat(32).space
    start = space.encode({"field": np.full(32, 1.0)})
    place = Coordinates(space, start, "prior")
    np.testing.assert_array_equal(place.to_x(place.start), start)
    first = place.to_x(np.eye(32)[0]) - start
    assert np.ptp(first) < 1e-12 < first[0]  # the smoothest mode is constant
    swing = [np.ptp(place.to_x(row) - start) for row in np.eye(32)]
    assert swing[1] == max(swing)
    assert swing[-1] < 0.01 * swing[1]
    assert np.abs(place.to_x(np.full(32, 100.0))).max() <= 3.0
    draws = np.stack([place.to_x(row) for row in np.random.default_rng(0).normal(size=(500, 32))])
    assert 0.8 < np.std(draws - start) < 1.1
    np.testing.assert_array_equal(place.to_x(np.full(32, np.nan)), start)


def test_a_failed_solve_is_worse_than_any_seen() -> None:
    rule, space = FailureRule(), heat().space
    point = zb.Point(np.zeros(space.size))
    good = [zb.Evaluation(point, "ok", np.zeros(1), loss) for loss in (3.0, -5.0)]
    failed = zb.Evaluation(point, "crashed", None, float("inf"))
    assert rule.losses([failed]) == [1e10]
    assert rule.losses([*good, failed]) == [3.0, -5.0, 11.0]
    outer = Residuals(space, zb.SquaredError([0.0, 0.0, 0.0, 4.0]))
    assert np.sum(rule.residuals([failed], outer)[0] ** 2) == pytest.approx(1e10)
    near, far = (zb.Evaluation(point, "ok", np.full(4, v), v**2) for v in (1.0, 9.0))
    found = rule.residuals([far, near, far, failed], outer)
    np.testing.assert_allclose(found[0], [4.5, 4.5, 4.5, 2.5])
    np.testing.assert_allclose(found[3], [1.0, 1.0, 1.0, -3.0])  # twice those of the best


@pytest.mark.parametrize("name", ["DiscreteOnePlusOne", "OnePlusOne", "CMA", "RandomSearch"])
def test_nevergrad_gets_choices_and_integers_as_its_own_kinds(name):
    pytest.importorskip("nevergrad")
    truth = {"a": 0.5, "k": 3, "c": "z", "d": ["q", "p", "q"]}
    space = zb.Space(
        a=zb.Real(-1, 1), k=zb.Integer(1, 6), c=zb.Choice([*"xyz"]), d=zb.Choice([*"pq"], (3,))
    )
    seen = []

    def simulate(phi):
        seen.append(phi)
        wrong = sum(x != y for x, y in zip(phi["d"], truth["d"], strict=True))
        wrong += (phi["c"] != truth["c"]) + abs(phi["k"] - truth["k"])
        return float(wrong + (phi["a"] - truth["a"]) ** 2)

    start = {"a": -0.25, "k": 5, "c": "y", "d": ["q", "q", "q"]}
    options = {"max_solves": 120, "seed": 1, "initial": start}
    result = zb.minimize(zb.Problem(space, simulate), zb.Nevergrad(name), **options)
    first = {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in seen[0].items()}
    assert first == start
    assert all(isinstance(phi["k"], int) and 1 <= phi["k"] <= 6 for phi in seen)
    again = zb.minimize(zb.Problem(space, simulate), zb.Nevergrad(name), **options)
    assert again.loss == result.loss
    if name != "RandomSearch":
        assert result.loss < 0.5 * result.history[0].loss
