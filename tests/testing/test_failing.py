"""Whatever a solve comes to, the run ends, counts it, and finds its way."""

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.testing.failing import FAULTS, FOUND_LOSS, Failing, check_survives

METHODS = {
    "default": zb.DefaultMethod(),
    "trust-region": zb.TrustRegion(),
    "gradient": zb.GradientMethod(),
    "random": zb.RandomSearch(),
    "cma": zb.CMA(),
    "nevergrad": zb.Nevergrad("OnePlusOne"),
    "cobyla": zb.Scipy("COBYLA"),
    "least-squares": zb.Scipy("least_squares"),
    "dfols": zb.DFOLS(),
    "esmda": zb.ESMDA(),
}
DISPATCHERS = {
    "serial": zb.Serial,
    "threads": lambda: zb.Joblib(3, "threading"),
    "processes": lambda: zb.Joblib(2),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_the_default_method_survives(kind):
    check_survives(METHODS["default"], kind)


@pytest.mark.parametrize("method", ["dfols", "least-squares"])
def test_methods_on_residuals_seldom_settle_beside_the_minimum(method):
    # where a library's last points fail depends on the last bits of its steps
    found = [
        zb.minimize(Failing("raises", draw).problem(), METHODS[method], max_solves=60).loss
        for draw in range(5)
    ]
    assert np.median(found) < FOUND_LOSS


@pytest.mark.parametrize("name", DISPATCHERS)
def test_every_dispatcher_survives(name):
    with DISPATCHERS[name]() as dispatcher:
        for kind in FAULTS:
            check_survives(METHODS["random"], kind, dispatcher, with_store=True, max_solves=25)


@pytest.mark.slow
@pytest.mark.parametrize("with_store", [False, True])
@pytest.mark.parametrize("name", DISPATCHERS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_dispatcher_survives(method, name, with_store):
    with DISPATCHERS[name]() as dispatcher:
        for kind in FAULTS:
            check_survives(METHODS[method], kind, dispatcher, with_store=with_store)
