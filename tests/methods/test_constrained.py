"""Searches under constraints: what they find, where they solve, stores and workers."""

import dataclasses

import numpy as np
import pytest

import zo_bilevel as zb
from benchmarks.arena.constrained_problems import PROBLEMS
from zo_bilevel.methods.names import method_from_name
from zo_bilevel.support.errors import InputError

TIMES = np.linspace(0, 1, 30)
PLANE = zb.Space(a=zb.Real(0, 4), b=zb.Real(0, 4))


def decay(phi):
    return phi["a"] * np.exp(-phi["b"] * TIMES)


def bowl(phi):
    return {"loss": (phi["a"] - 3) ** 2 + (phi["b"] - 2) ** 2, "sum": phi["a"] + phi["b"]}


def loss_of(theta, phi):
    return float(theta["loss"])


def on_loss(*constraints, space=PLANE, inner=bowl):
    return zb.Problem(space, inner, loss_of, constraints=list(constraints))


def solves_to(case, method, seed, *, cheap):
    """Solves until a point within 1e-4 of the optimum, and how many broke a constraint."""
    problem = case.problem(cheap=cheap)
    seen = []

    def inner(phi):
        x = list(phi.values())
        seen.append((max(case.constraints(x)), case.loss(x)))
        return problem.inner(phi)

    watched = dataclasses.replace(problem, inner=inner, name=case.name)
    budget = 30 * (len(case.lower) + 1)
    zb.minimize(watched, method, initial=case.starts(seed), max_solves=budget, seed=seed)
    goal = case.smallest + 1e-4 * max(1.0, abs(case.smallest))
    reached = [place for place, (v, loss) in enumerate(seen, 1) if v <= 1e-4 and loss <= goal]
    return (reached or [np.inf])[0], sum(v > 1e-8 for v, _ in seen)


QUICK = [p for p in PROBLEMS if p.name in ("hs12", "hs43", "three-bar-truss", "speed-reducer")]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_published_optima_are_found_without_a_solve_outside(case):
    solves, outside = solves_to(case, zb.TrustRegion(), 1, cheap=True)
    assert solves <= 4 * (len(case.lower) + 1)
    assert outside == 0


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_published_optima_are_found_through_outputs(case):
    assert solves_to(case, zb.TrustRegion(), 1, cheap=False)[0] <= 6 * (len(case.lower) + 1)


@pytest.mark.slow
def test_half_of_the_published_problems_need_no_more_solves_than_cobyqa_and_cobyla():
    wins = 0
    for case in PROBLEMS[::2]:
        ours, *others = (
            np.median([solves_to(case, method_from_name(m), s, cheap=False)[0] for s in range(5)])
            for m in ("trust-region", "scipy:COBYQA", "scipy:COBYLA")
        )
        wins += ours <= min(others)
    assert wins >= len(PROBLEMS[::2]) - 2


def test_the_whole_inner_solution_is_used_where_it_is_known():
    target = decay({"a": 2.0, "b": 1.0})
    problem = zb.Problem(PLANE, decay, zb.SquaredError(target), constraints=["a <= b"])
    found = zb.minimize(problem, max_solves=20)
    # on the edge a = b the misfit is a function of one number
    edge = np.linspace(1.5, 2.5, 20001)
    curves = edge[:, None] * np.exp(-edge[:, None] * TIMES)
    best = edge[np.argmin(np.mean((curves - target) ** 2, axis=1))]
    assert found.phi["a"] == pytest.approx(best, abs=1e-4)
    assert found.is_feasible
    assert found.solves <= 20
    hidden = zb.minimize(problem.scalar, max_solves=40)
    assert hidden.phi["a"] == pytest.approx(best, abs=1e-3)


def test_outputs_and_parameters_together():
    found = zb.minimize(on_loss("a <= 2 * b", zb.Output("sum <= 3")), max_solves=40)
    assert (found.phi["a"], found.phi["b"]) == pytest.approx((2.0, 1.0), abs=1e-4)
    assert found.violation <= 1e-6
    assert all(r.phi["a"] <= 2 * r.phi["b"] + 1e-6 for r in found.history)


def test_a_result_says_that_the_start_was_moved_and_when_constraints_are_broken():
    moved = zb.minimize(on_loss("a <= b"), initial={"a": 3.0, "b": 1.0}, max_solves=2)
    assert "the start was moved to where constraints hold: a from 3 to 2" in str(moved)
    moved = zb.minimize(on_loss("a <= 1.505"), initial={"a": 1.50500001, "b": 1}, max_solves=2)
    assert "a from 1.50500001 to 1.50499996" in str(moved)
    broken = zb.minimize(on_loss(zb.Output("sum <= -4")), max_solves=30)
    assert not broken.is_feasible
    assert "breaks constraints by 1" in str(broken)
    assert broken.history[-1].best_loss == np.inf


def test_a_feasible_solve_is_better_than_a_lower_loss():
    found = zb.minimize(
        on_loss(zb.Output("sum <= 3")), zb.RandomSearch(), initial={"a": 3, "b": 2}, max_solves=40
    )
    assert found.violation == 0.0
    assert found.loss > 0.0
    losses = [r.best_loss for r in found.history]
    assert losses[0] == np.inf
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize(
    "name", ["scipy:COBYQA", "scipy:COBYLA", "scipy:SLSQP", "scipy:Nelder-Mead", "nevergrad:CMA"]
)
def test_baselines_keep_constraints_in_the_end(name):
    problem = on_loss("a <= 2 * b", zb.Output("sum <= 3"))
    found = zb.minimize(problem, method_from_name(name), max_solves=120)
    assert found.is_feasible
    assert found.loss <= 2.0 * 1.05


def test_penalized_methods_spend_no_solve_outside():
    found = zb.minimize(on_loss("a + b <= 1"), method_from_name("nevergrad:CMA"), max_solves=40)
    assert all(r.phi["a"] + r.phi["b"] <= 1 + 1e-6 for r in found.history)


def test_methods_that_cannot_are_refused_by_name():
    problem = zb.Problem(
        PLANE, decay, zb.SquaredError(decay({"a": 1, "b": 1})), constraints=["a<=b"]
    )
    for name in ("zo-adam", "scipy:least_squares", "scipy:lm"):
        with pytest.raises(zb.UnsupportedProblemError, match="cannot keep constraints"):
            zb.minimize(problem, method_from_name(name), max_solves=5)


def test_integers_and_choices_are_searched_under_a_penalty():
    def inner(phi):
        return {"loss": (phi["n"] - 7) ** 2 + phi["a"], "size": phi["n"] + phi["a"]}

    space = zb.Space(n=zb.Integer(0, 9), a=zb.Real(0, 1))
    problem = on_loss("n >= 1", zb.Output("size <= 5"), space=space, inner=inner)
    found = zb.minimize(problem, max_solves=60)
    assert found.phi["n"] == 5
    assert found.is_feasible


def test_a_store_knows_constraints_apart_and_resumes(tmp_path):
    store = tmp_path / "runs.sqlite"
    first = zb.minimize(on_loss("a <= b"), max_solves=8, store=store)
    longer = zb.minimize(on_loss("a <= b"), max_solves=16, store=store)
    fresh = zb.minimize(on_loss("a <= b"), max_solves=16)
    assert [r.loss for r in longer.history] == [r.loss for r in fresh.history]
    assert [r.loss for r in first.history] == [r.loss for r in fresh.history][:8]
    other = zb.minimize(on_loss("a <= 2 * b"), max_solves=8, store=store)
    assert other.loss < first.loss


@pytest.mark.parametrize("dispatcher", [zb.Joblib(2, "threading"), zb.Joblib(2)])
def test_numbers_do_not_depend_on_workers(dispatcher):
    problem = on_loss("a <= 2 * b", zb.Output("sum <= 3"))
    serial = zb.minimize(problem, max_solves=12, round_width=3)
    with dispatcher:
        parallel = zb.minimize(problem, max_solves=12, round_width=3, dispatcher=dispatcher)
    assert [r.loss for r in serial.history] == [r.loss for r in parallel.history]


def test_a_comparison_counts_feasibility():
    found = zb.compare(
        on_loss(zb.Output("sum <= 3")),
        {"ours": zb.TrustRegion(), "random": zb.RandomSearch()},
        seeds=range(5),
        max_solves=15,
    )
    assert "5 of 5" in str(found)
    assert "penalized" in str(found)
    never = zb.compare(
        on_loss(zb.Output("sum <= -1")), {"random": zb.RandomSearch()}, seeds=range(2), max_solves=5
    )
    assert "0 of 2" in str(never)
    assert all(run.loss == np.inf for run in never.runs)


def test_failed_solves_are_no_end():
    def sometimes(phi):
        if phi["a"] > 2.5:
            raise RuntimeError("no convergence")
        return bowl(phi)

    found = zb.minimize(on_loss(zb.Output("sum <= 3"), inner=sometimes), max_solves=60)
    assert (found.phi["a"], found.phi["b"]) == pytest.approx((2.0, 1.0), abs=1e-3)


def from_one(phi):
    return (phi["a"] - 1) ** 2 + (phi["h"] - 1) ** 2


@pytest.mark.parametrize("reach", [None, 1e6, 1e9])
@pytest.mark.parametrize(
    ("text", "phi"),
    [("a + h <= 1", (0.5, 0.5)), ("a + h <= 3", (1.0, 1.0)), ("a + 0.5 <= h", (0.75, 1.25))],
)
def test_texts_hold_for_parameters_without_near_bounds(text, phi, reach):
    real = zb.Real() if reach is None else zb.Real(-reach, reach)
    asked = []

    def loss(point):
        asked.append(point)
        return from_one(point)

    problem = zb.Problem(zb.Space(a=real, h=real), loss, name="near", constraints=[text])
    result = zb.minimize(problem, initial={"a": 0.3, "h": 0.4}, max_solves=60)
    assert (result.phi["a"], result.phi["h"]) == pytest.approx(phi, abs=1e-4)
    sums = [eval(text.replace("<=", "-"), {}, point) for point in asked]
    assert max(sums) < 1e-5  # no solve is spent outside


def test_near_and_far_bounds_do_not_contradict_each_other():
    space = zb.Space(a=zb.Real(0.01, 10), b=zb.Real(0.01, 10), h=zb.Real(lower=0.05))
    problem = zb.Problem(space, lambda phi: phi["a"], constraints=["a < b", "a + b + h <= 3"])
    assert zb.minimize(problem, max_solves=30).phi["a"] == pytest.approx(0.01, abs=1e-5)


def test_inequalities_that_leave_no_room_are_refused():
    space = zb.Space(a=zb.Real(0, 4), h=zb.Real(0, 4))
    with pytest.raises(InputError, match=r"leave room .* zb\.Tied"):
        zb.Problem(space, from_one, constraints=["a <= h", "a >= h"])
