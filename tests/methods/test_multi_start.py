"""Several starts: the minima they end in, the budget they share, what becomes of failing ones."""

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.names import method_from_name
from zo_bilevel.testing import check_method, sample_problem

SPACE = zb.Space(a=zb.Real(-2, 2), b=zb.Real(-2, 2))
METHOD = zb.MultiStart(zb.TrustRegion(), 6)


def two_valleys(phi):
    return (phi["a"] ** 2 - 1) ** 2 + 0.1 * phi["a"] + phi["b"] ** 2


# where 4 a (a^2 - 1) + 0.1 vanishes, with a minimum
LOW, HIGH = (root for root in np.sort(np.roots([4, 0, -4, 0.1])) if 12 * root**2 > 4)


def problem(inner=two_valleys, **more):
    return zb.Problem(SPACE, inner, **more)


@pytest.mark.parametrize("method", [METHOD, zb.MultiStart(zb.DefaultMethod(), 3)])
def test_conformance(method):
    check_method(method, sample_problem())


def test_conformance_on_a_scalar_problem():
    check_method(METHOD, sample_problem().scalar)


@pytest.mark.parametrize("width", [1, 3, 12])
def test_both_minima_are_found_the_better_first(width):
    found = zb.minimize(problem(), METHOD, max_solves=600, round_width=width)
    assert len(found.minima) == 2
    low, high = found.minima
    assert low.phi["a"] == pytest.approx(LOW, abs=1e-4)
    assert high.phi["a"] == pytest.approx(HIGH, abs=1e-4)
    assert low.starts + high.starts == 6
    assert low.solves + high.solves == found.solves
    assert low.has_converged
    assert found.loss == low.loss
    assert "all 6 starts have ended: 2 minima" in found.stop_reason
    assert "  2. loss" in str(found)


def test_the_budget_is_shared():
    found = zb.minimize(problem(), METHOD, max_solves=60)
    assert found.solves <= 60
    said = f"{len(found.minima)} minima ({len(found.minima)} not converged)"
    assert said in found.stop_reason
    assert [minimum.solves for minimum in found.minima] == [10] * len(found.minima)
    assert not any(minimum.has_converged for minimum in found.minima)


def test_the_first_start_is_the_one_given_and_numbers_repeat():
    starts = [
        zb.minimize(problem(), METHOD, initial={"a": 0.5}, max_solves=40, seed=3) for _ in range(2)
    ]
    assert starts[0].history[0].phi == {"a": 0.5, "b": 0.0}
    assert [r.loss for r in starts[0].history] == [r.loss for r in starts[1].history]


def test_starts_that_fail_are_dropped():
    def half(phi):
        if phi["b"] > 0.5:
            raise RuntimeError("no convergence")
        return two_valleys(phi)

    found = zb.minimize(problem(half), zb.MultiStart(method_from_name("scipy:COBYLA"), 6))
    dropped = 6 - sum(minimum.starts for minimum in found.minima)
    assert dropped > 0
    assert f"{dropped} starts failed" in found.stop_reason
    assert found.phi["a"] == pytest.approx(LOW, abs=1e-3)


def test_starts_keep_constraints():
    found = zb.minimize(problem(constraints=["a >= 0.1"]), METHOD, max_solves=300)
    assert found.phi["a"] == pytest.approx(HIGH, abs=1e-3)
    assert all(record.phi["a"] >= 0.1 - 1e-6 for record in found.history)
    penalized = zb.MultiStart(method_from_name("nevergrad:CMA"), 3)
    kept = zb.minimize(problem(constraints=["a >= 0.1"]), penalized, max_solves=90)
    assert all(record.phi["a"] >= 0.1 - 1e-6 for record in kept.history)


def test_a_store_resumes(tmp_path):
    store = tmp_path / "runs.sqlite"
    zb.minimize(problem(name="valleys"), METHOD, max_solves=60, store=store)
    again = zb.minimize(problem(name="valleys"), METHOD, max_solves=60, store=store)
    fresh = zb.minimize(problem(), METHOD, max_solves=60)
    assert [r.loss for r in again.history] == [r.loss for r in fresh.history]


def test_names_and_refusals():
    assert method_from_name("multi-start:scipy:COBYQA").name == "10 starts of scipy:COBYQA"
    with pytest.raises(zb.InputError, match="starts must be"):
        zb.MultiStart(zb.TrustRegion(), 0)
    with pytest.raises(zb.InputError, match="method must be a Method"):
        zb.MultiStart("default")
