"""What solvers do beside solving changes no number."""

import sys

import pytest

import zo_bilevel as zb
from zo_bilevel.testing.perversions import PERVERSIONS, check_same_numbers

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.skipif(sys.platform == "win32", reason="forks"),
]

METHODS = {
    "default": zb.DefaultMethod(),
    "trust-region": zb.TrustRegion(),
    "gradient": zb.GradientMethod(),
    "two-phase": zb.TwoPhase([(zb.RandomSearch(), 8), (zb.GaussNewton(), None)]),
    "random": zb.RandomSearch(),
    "cma": zb.CMA(),
    "nevergrad": zb.Nevergrad("OnePlusOne"),
    "nevergrad-cma": zb.Nevergrad("CMA"),
    "cobyla": zb.Scipy("COBYLA"),
    "least-squares": zb.Scipy("least_squares"),
    "dfols": zb.DFOLS(),
    "esmda": zb.ESMDA(),
}
DISPATCHERS = {
    "serial": zb.Serial,
    "threads": lambda: zb.Joblib(3, "threading"),
    "processes": lambda: zb.Joblib(2),
    "batched": zb.Batched,
}


@pytest.mark.parametrize("kind", PERVERSIONS)
def test_the_default_method_gives_the_same_numbers(kind):
    assert check_same_numbers(METHODS["default"], kind) == ""


@pytest.mark.parametrize("method", METHODS)
def test_every_method_survives_what_touches_its_own_state(method):
    for kind in ("reused buffers", "reseeding", "gradients off"):
        assert check_same_numbers(METHODS[method], kind, with_store=True) == ""


@pytest.mark.parametrize("name", DISPATCHERS)
def test_every_dispatcher_survives_what_touches_its_answers(name):
    with DISPATCHERS[name]() as dispatcher:
        for kind in ("reused buffers", "phi changed in place", "other folder", "labelled"):
            assert check_same_numbers(METHODS["random"], kind, dispatcher, with_store=True) == ""


@pytest.mark.slow
@pytest.mark.parametrize("with_store", [False, True])
@pytest.mark.parametrize("name", DISPATCHERS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_dispatcher_with_every_perversion(method, name, with_store):
    with DISPATCHERS[name]() as dispatcher:
        for kind in PERVERSIONS:
            why = check_same_numbers(METHODS[method], kind, dispatcher, with_store=with_store)
            assert why == "", kind
