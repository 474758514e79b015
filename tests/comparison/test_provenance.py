"""What a comparison says about where its numbers come from."""

import pytest

import zo_bilevel as zb
from zo_bilevel.comparison.provenance import PACKAGES, versions
from zo_bilevel.methods.names import method_from_name

BASE = {"python", *PACKAGES}


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("default", set()),
        ("scipy:COBYQA", set()),
        ("bobyqa:restarts", {"Py-BOBYQA"}),
        ("dfols", {"DFO-LS"}),
        ("lq-cma", {"cma"}),
        ("nevergrad:OnePlusOne", {"nevergrad"}),
        ("optuna:TPE", {"optuna"}),
        ("optuna:CMA", {"optuna", "cmaes"}),
        ("botorch", {"botorch", "gpytorch"}),
        ("turbo", {"botorch", "gpytorch"}),
        ("smac", {"smac"}),
        ("multi-start:lq-cma", {"cma"}),
    ],
)
def test_the_versions_are_those_of_what_was_compared(name, packages):
    try:
        method = method_from_name(name)
    except zb.MissingPackageError as missing:
        pytest.skip(str(missing))
    found = versions(method.packages)
    assert {key.replace("_", "-") for key in found} - {"coco-experiment"} == BASE | packages
    problem = zb.Problem(zb.Space(a=zb.Real(-1, 1)), lambda phi: phi["a"] ** 2)
    phases = zb.TwoPhase([(zb.RandomSearch(), 1), (method, None)])
    compared = zb.compare(problem, {"m": phases}, max_solves=1, seeds=[0])
    assert packages <= set(compared.facts.versions)
