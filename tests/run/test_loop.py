"""minimize: budgets, stop reasons, failures as values, bad input."""

import dataclasses
import math

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.run.final_point import looks_at, overrules
from zo_bilevel.run.seen_losses import SeenLosses

SPACE = zb.Space(a=zb.Real(-3, 3), b=zb.Log(1e-2, 1e2))


def solver(phi):
    return np.array([phi["a"], math.log(phi["b"])])


def problem(inner=solver, outer=None):
    return zb.Problem(SPACE, inner, outer or zb.SquaredError([1.0, 0.5]))


class Counting:
    def __init__(self, inner=solver):
        self.inner, self.calls = inner, []

    def __call__(self, phi):
        self.calls.append(dict(phi))
        return self.inner(phi)


@pytest.mark.parametrize("method", [zb.RandomSearch(), zb.GradientMethod()])
@pytest.mark.parametrize("budget", [1, 2, 7, 50])
def test_budget_of_solves_is_exact(method, budget):
    inner = Counting()
    result = zb.minimize(problem(inner), method, max_solves=budget)
    assert result.solves == len(inner.calls) == budget == len(result.history)
    assert result.stop_reason == f"budget of {budget} solves spent"


def test_history_counts_and_best_loss_is_monotone():
    result = zb.minimize(problem(), zb.RandomSearch(), max_solves=40, round_width=4)
    assert [record.solve for record in result.history] == list(range(1, 41))
    best = [record.best_loss for record in result.history]
    assert best == sorted(best, reverse=True)
    assert best[-1] == result.loss
    assert result.rounds == result.history[-1].round == 11  # the start, then 39 by fours


def test_tolerance_stops_with_a_reason():
    result = zb.minimize(problem(), zb.RandomSearch(), max_solves=5000, tolerance=0.5)
    assert result.loss <= 0.5
    assert result.solves < 5000
    assert "reached the tolerance 0.5" in result.stop_reason


def test_cost_budget_is_never_overrun():
    def priced(phi):
        return zb.WithCost(solver(phi), 0.3)

    result = zb.minimize(problem(priced), zb.RandomSearch(), max_cost=1.0, round_width=8)
    assert result.solves == 3
    assert result.cost == pytest.approx(0.9)
    assert result.stop_reason.startswith("budget of 1 in cost")


def test_seconds_budget_stops():
    result = zb.minimize(problem(), zb.RandomSearch(), max_seconds=0.05)
    assert result.stop_reason == "budget of 0.05 seconds spent"


def test_start_is_the_initial_point_and_partial_initials_work():
    inner = Counting()
    zb.minimize(problem(inner), zb.RandomSearch(), initial={"a": 2.0}, max_solves=1)
    assert inner.calls == [{"a": 2.0, "b": pytest.approx(1.0)}]


def test_failures_are_values_and_the_run_goes_on():
    def fragile(phi):
        if phi["a"] > 0.5:
            raise RuntimeError("mesh tangled")
        return solver(phi)

    result = zb.minimize(problem(fragile), zb.RandomSearch(), max_solves=100)
    assert result.solves == 100
    assert result.failures["failed"] > 10
    assert result.phi["a"] <= 0.5


def test_a_hopeless_run_ends_with_its_reason():
    calls = []

    def mostly(phi):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("licence server down")
        return solver(phi)

    result = zb.minimize(problem(mostly), zb.RandomSearch(), max_solves=100)
    assert result.solves == 20
    assert "19 of 20 solves failed" in result.stop_reason
    assert "licence server down" in result.stop_reason


def test_nothing_succeeded_is_an_error_that_names_the_first_failure():
    def broken(phi):
        raise KeyError("viscosity")

    with pytest.raises(zb.InnerSolverError, match=r"20 of 20|none of 20 solves.*viscosity"):
        zb.minimize(problem(broken), zb.RandomSearch(), max_solves=100)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (
            lambda phi: np.zeros(3),
            r"returned shape \(3,\).*target of SquaredError has shape \(2,\)",
        ),
        (lambda phi: {"u": np.zeros(2)}, r"shapes \{u: \(2,\)\}"),
        (lambda phi: np.array([np.nan, 1.0]), r"shape \(2,\) has 1 values that are not finite"),
        (lambda phi: "text", "must be a number, array, tensor, or dict"),
        (lambda phi: None, "returned None"),
        (lambda phi: [], "empty"),
    ],
)
def test_an_unusable_first_solve_says_what_it_saw(inner, message):
    with pytest.raises(zb.InnerSolverError, match=message):
        zb.minimize(problem(inner), zb.RandomSearch(), max_solves=5)


def test_a_later_wrong_shape_is_a_value():
    calls = []

    def shrinking(phi):
        calls.append(1)
        return solver(phi)[: 1 if len(calls) == 3 else 2]

    result = zb.minimize(problem(shrinking), zb.RandomSearch(), max_solves=5)
    assert sum(result.failures.values()) == 1
    assert result.history[2].status != "ok"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_solves": 0}, "max_solves must be a whole number >= 1, got 0"),
        ({"max_solves": -5}, "max_solves must be a whole number >= 1, got -5"),
        ({"max_seconds": 0}, "max_seconds must be finite and > 0, got 0"),
        ({"max_cost": -1}, "max_cost must be finite and > 0, got -1"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"round_width": 0}, "round_width must be a whole number >= 1, got 0"),
        ({"max_failure_rate": 1.5}, r"max_failure_rate must lie in \[0, 1\], got 1.5"),
        ({"initial": {"a": 5.0}}, r"a must lie in \[-3, 3\], got 5.0"),
        ({"initial": {"aa": 1.0}}, "unknown parameter 'aa'"),
        ({"initial": {"a": np.ma.masked_array(1.0, True)}}, "a must not be masked"),
        ({"tolerance": np.nan}, "tolerance must be finite, got nan"),
        ({"tolerance": "x"}, "tolerance must be finite, got 'x'"),
        ({"max_failure_rate": "x"}, "max_failure_rate must be finite, got 'x'"),
        ({"method": "gauss-newton"}, "method must be a Method, got str"),
    ],
)
def test_bad_input_is_refused_before_the_first_solve(arguments, message):
    inner = Counting()
    with pytest.raises(zb.InputError, match=message):
        zb.minimize(problem(inner), **{"method": zb.RandomSearch(), **arguments})
    assert not inner.calls


class Unkeyed:
    def __getattr__(self, name):
        return {}[name]

    def __call__(self, phi):
        return 1.0


class Asks(zb.Method):
    name = "asks"

    def __init__(self, second):
        self.second = second

    def rounds(self, search):
        yield [zb.Point(search.start)]
        yield self.second(search.start)
        return "done"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (lambda x: [zb.Point(x + 3.001)], r"within the bounds, -3 to 3, got \[3.001"),
        (lambda x: [zb.Point(x * np.nan)], r"within the bounds, -3 to 3, got \[nan"),
        (lambda x: x, "must yield lists of zb.Point, got ndarray"),
        (lambda x: (zb.Point(x) for _ in range(2)), "lists of zb.Point, got generator"),
        (lambda x: [x], "must yield lists of zb.Point, got list"),
    ],
)
def test_a_method_may_only_ask_for_points_within_the_bounds(second, message):
    with pytest.raises(zb.InputError, match=message):
        zb.minimize(problem(), Asks(second), max_solves=9)
    within = Asks(lambda x: [zb.Point(x + 3.0 + 1e-12), zb.Point(x - 3.0)])
    assert zb.minimize(problem(), within, max_solves=9).solves == 3


class Answers:
    """Runs a round and then gives some of its answers."""

    def __init__(self, given):
        self.given = given

    def run(self, solve, jobs):
        yield from self.given([(job.index, solve(job)) for job in jobs])

    def close(self):
        pass


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda answers: answers[:1], "job 1 was not answered"),
        (lambda answers: answers + answers[:1], "job 0 was answered twice or never asked"),
        (lambda answers: [*answers, (7, answers[0][1])], "job 7 was answered twice or never asked"),
    ],
)
def test_a_dispatcher_answers_every_job_once(given, words):
    asked = Asks(lambda x: [zb.Point(x), zb.Point(x + 1)])
    with pytest.raises(zb.InputError, match=f"dispatcher Answers .* once, but {words}"):
        zb.minimize(
            problem(),
            asked,
            max_solves=9,
            dispatcher=Answers(lambda found: given(found) if len(found) > 1 else found),
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zb.Problem({"a": 1}, solver), "space must be a zb.Space, got dict"),
        (lambda: zb.Problem(SPACE, 3), "inner must be callable, got int"),
        (lambda: zb.Problem(SPACE, Unkeyed()), "inner must raise AttributeError .* got KeyError"),
        (lambda: zb.Problem(SPACE, solver, 3), "outer must be callable or an objective, got int"),
        (lambda: zb.SquaredError([1.0, np.inf]), "target must be finite, .* got inf at position 1"),
        (lambda: zb.SquaredError([1.0], weights=[-1.0]), "weights must be finite, >= 0"),
        (
            lambda: zb.SquaredError([1.0, 2.0], weights=[1.0, 2.0, 3.0]),
            r"target, shape \(2,\), got shape \(3,\)",
        ),
        (lambda: zb.CrossEntropy([0.5]), "labels must be a non-empty vector of whole numbers"),
    ],
)
def test_bad_problems_are_refused_by_name(make, message):
    with pytest.raises(zb.InputError, match=message):
        make()


def torch_outer(theta, phi):
    return ((theta - 1.0) ** 2).sum() + 0.1 * phi["a"] ** 2


def plain_outer(theta, phi):
    return float(np.sum((np.asarray(theta) - 1.0) ** 2) + 0.1 * phi["a"] ** 2)


def test_torch_and_python_objectives_are_told_apart_and_agree():
    from zo_bilevel.problem.theta import flatten_theta

    theta, layout = flatten_theta(np.array([0.3, 0.7]))
    x = SPACE.encode({"a": 2.0})
    torch_bound = problem(outer=torch_outer).bind(theta, layout, x)
    plain_bound = problem(outer=plain_outer).bind(theta, layout, x)
    assert torch_bound.is_vector
    assert not plain_bound.is_vector
    assert torch_bound.value(theta, x) == pytest.approx(plain_bound.value(theta, x), rel=1e-14)
    theta_part, x_part = torch_bound.gradient(theta, x)
    assert np.allclose(theta_part, 2 * (theta - 1.0))
    assert np.allclose(x_part, [0.1 * 2 * 2.0, 0.0])  # one scaled unit of a is 1


def test_seeds_reach_the_solver_and_are_shared_within_a_sketch():
    seen = []

    def seeded(phi, *, seed):
        seen.append(seed)
        return solver(phi)

    zb.minimize(problem(seeded), zb.GradientMethod(zb.FG2UZO(2)), max_solves=7)
    assert seen[0] == seen[1] == seen[2]
    assert seen[3] == seen[4] == seen[5] != seen[0]
    first = list(seen)
    seen.clear()
    zb.minimize(problem(seeded), zb.GradientMethod(zb.FG2UZO(2)), max_solves=7)
    assert seen == first


def test_ask_and_tell_by_hand_gives_the_numbers_of_minimize():
    from zo_bilevel.run.evaluator import Evaluator

    task, method = problem(), zb.GradientMethod()
    state = method.start(task, seed=3)
    evaluator, losses = Evaluator(task, zb.Serial(), 3), []
    while len(losses) < 30:
        evaluations = evaluator.evaluate(method.ask(state))
        losses += [e.loss for e in evaluations]
        state = method.tell(state, evaluations)
    result = zb.minimize(task, method, seed=3, max_solves=30)
    assert [record.loss for record in result.history] == losses[:30]


def test_gradient_method_takes_any_optimizer_and_scheduler():
    import torch

    method = zb.GradientMethod(
        zb.FG2UZO(2),
        torch.optim.SGD,
        lr=0.5,
        scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.99),
    )
    assert method.name == "zo-sgd"
    assert zb.minimize(problem(), method, max_solves=300).loss < 1e-4
    with pytest.raises(zb.InputError, match="optimizer refuses its options"):
        zb.GradientMethod(learning=0.1)


def test_gradient_method_finds_a_minimum_on_a_bound():
    edge = zb.Problem(
        zb.Space(a=zb.Real(0, 2), b=zb.Real(0, 2)),
        lambda p: [p["a"], p["b"]],
        zb.SquaredError([-1.0, 1.0]),
    )
    result = zb.minimize(edge, zb.GradientMethod(), max_solves=600)
    assert result.phi["a"] < 1e-4
    assert result.phi["b"] == pytest.approx(1.0, abs=0.02)


def test_what_is_known_of_a_loss_is_printed_in_words():
    result = zb.minimize(problem(), zb.RandomSearch(), max_solves=3)
    assert str(dataclasses.replace(result, loss=0.25)).startswith("loss 0.25 at a=")
    text = str(dataclasses.replace(result, loss=0.25, interval=(0.2, 0.4), draws=7))
    assert text.startswith("loss 0.25 (95 % interval 0.2 to 0.4, 7 draws) at a=")
    text = str(dataclasses.replace(result, loss=0.25, standard_error=math.nan, draws=1))
    assert text.startswith("loss 0.25 (one draw) at a=")


def test_noisy_solvers_are_judged_on_fresh_seeds_not_on_the_luckiest_draw():
    def noisy(phi, *, seed):
        return 1.0 + phi["a"] ** 2 + np.random.default_rng(seed).normal()

    task = zb.Problem(zb.Space(a=zb.Real(-1, 1)), noisy)
    results = [zb.minimize(task, zb.RandomSearch(), max_solves=100, seed=s) for s in range(20)]
    for result in results:
        assert result.solves == 100
        assert sum(record.role == "confirm" for record in result.history) == 10 == result.draws
    lucky = np.mean([result.history[-1].best_loss for result in results])
    assert lucky < 0.0  # the lowest of 92 draws, far below anything true
    truth = np.array([1.0 + result.phi["a"] ** 2 for result in results])
    pull = np.array([r.loss - t for r, t in zip(results, truth, strict=True)]) / np.array(
        [r.standard_error for r in results]
    )
    assert np.median(np.abs(pull)) < 2.0
    assert abs(np.mean([r.loss for r in results]) - truth.mean()) < 4 / math.sqrt(10 * 20)


def test_a_recommendation_stands_unless_the_lowest_loss_proves_better():
    def told(differences, seen=()):
        losses = SeenLosses()
        losses.look_at(seen)
        return overrules(differences, losses)

    assert told([-0.3, -0.1]) is None
    assert told([-0.3, -0.31]) is True
    assert told([0.3, 0.31]) is False
    assert told([-0.2, -0.3, -0.25, -0.2]) is True
    assert told([-0.2]) is None  # one solve each: nothing is known
    assert told([math.nan, -0.3]) is None
    # losses of 0 and 1 that agree by chance
    assert told([-1.0, -1.0], [0.0, 1.0] * 4) is None
    assert told([-1.0] * 8, [0.0, 1.0] * 4) is True
    assert [looks_at(allowed) for allowed in (4, 5, 20)] == [[], [2], [2, 5]]


def test_a_deterministic_solver_that_takes_a_seed_pays_for_four_draws_of_its_best_point():
    solved = []

    def inner(phi, seed):
        solved.append(phi)
        return solver(phi)

    for max_solves, solves, fresh in ((20, 19, 4), (200, 198, 4)):
        result = zb.minimize(problem(inner), zb.RandomSearch(), max_solves=max_solves)
        assert result.standard_error == 0.0
        assert result.loss == result.history[-1].best_loss
        assert "(the same in " in str(result)
        roles = [record.role for record in result.history]
        assert (result.solves, roles.count("confirm")) == (solves, fresh)


def test_time_that_runs_out_in_a_round_gives_up_the_rest_of_it():
    import time

    def slow(phi):
        time.sleep(0.2)
        return solver(phi)

    result = zb.minimize(problem(slow), zb.RandomSearch(), max_seconds=2, round_width=1000)
    assert result.rounds == 2  # a busy machine has two seconds for the first solve
    assert result.solves < 20
    assert result.stop_reason == "budget of 2 seconds spent"
