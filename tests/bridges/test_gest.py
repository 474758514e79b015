"""Our methods behind the gest-api standard: the standard's own loop, and the real libEnsemble."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zo_bilevel as zb

pytest.importorskip("gest_api", reason="needs the extra gest")
from gest_api import Generator
from gest_api.vocs import VOCS

from zo_bilevel.bridges.gest import GestGenerator

TIMES = np.linspace(0.0, 3.0, 20)
TRUTH = {"size": 2.0, "rate": 0.7}


def simulate(point):
    return point["size"] * np.exp(-point["rate"] * TIMES)


def decay(**changes):
    facts = {
        "variables": {"size": [0.0, 6.0], "rate": [0.01, 10.0]},
        "observables": {"y": (float, (20,))},
    }
    return VOCS(**{**facts, **changes})


def generator(vocs=None, outer=None, **options):
    outer = zb.SquaredError({"y": simulate(TRUTH)}) if outer is None else outer
    return GestGenerator(decay() if vocs is None else vocs, outer=outer, **options)


def run(made, count, batch=1):
    for _ in range(0, count, batch):
        points = made.suggest(batch)
        made.ingest([{**point, "y": simulate(point)} for point in points])
    return made.best


def test_observables_are_the_inner_solution_of_gauss_newton():
    made = generator(space={"rate": zb.Log(0.01, 10)})
    assert isinstance(made, Generator)
    assert made.returns_id
    best = run(made, 20)
    assert best == pytest.approx(TRUTH, rel=1e-6)
    assert made.stop_reason.startswith("converged")


def test_it_asks_for_the_points_that_minimize_asks_for():
    problem = zb.Problem(
        zb.Space(size=zb.Real(0, 6), rate=zb.Real(0.01, 10)),
        lambda phi: {"y": simulate(phi)},
        zb.SquaredError({"y": simulate(TRUTH)}),
    )
    expected = [record.phi for record in zb.minimize(problem, max_solves=8, seed=3).history]
    made, seen = generator(seed=3, max_solves=8), []
    for _ in range(8):
        (point,) = made.suggest(1)
        seen.append({name: point[name] for name in TRUTH})
        made.ingest([{**point, "y": simulate(point)}])
    assert seen == expected


def test_a_single_observable_may_have_a_bare_target():
    best = run(generator(outer=zb.SquaredError(simulate(TRUTH))), 20)
    assert best == pytest.approx(TRUTH, rel=1e-6)


@pytest.mark.parametrize("goal", ["MINIMIZE", "MAXIMIZE"])
def test_an_objective_is_the_loss(goal):
    vocs = VOCS(variables={"a": [0.0, 4.0]}, objectives={"f": goal}, constants={"c": 5})
    made, sign = GestGenerator(vocs), 1.0 if goal == "MINIMIZE" else -1.0
    for _ in range(25):
        (point,) = made.suggest(1)
        assert point["c"] == 5
        made.ingest([{**point, "f": sign * (point["a"] - 1.5) ** 2}])
    assert made.best["a"] == pytest.approx(1.5, abs=1e-3)


def test_exactly_as_many_points_come_as_are_wanted_and_answers_may_come_in_any_order():
    made = generator(num_workers=4)
    points = made.suggest(4) + made.suggest(3)
    assert [point["_id"] for point in points] == list(range(7))
    made.ingest([{**point, "y": simulate(point)} for point in reversed(points)])
    assert run(made, 40, batch=4) == pytest.approx(TRUTH, rel=1e-4)
    assert len(made.suggest()) >= 1


def test_failed_simulations_and_points_of_others_do_no_harm():
    made = generator()
    made.ingest([{"size": 1.0, "rate": 1.0, "y": simulate(TRUTH)}])
    for k in range(25):
        (point,) = made.suggest(1)
        made.ingest([{**point, "y": simulate(point) * (np.nan if k == 3 else 1.0)}])
    assert made.best == pytest.approx(TRUTH, rel=1e-6)


def test_discrete_values_and_defaults_keep_their_kind():
    vocs = VOCS(
        variables={
            "n": {1, 2, 3},
            "kind": {"x", "y"},
            "a": {"type": "ContinuousVariable", "domain": [0, 1], "default_value": 0.25},
        },
        objectives={"f": "MINIMIZE"},
    )
    made = GestGenerator(vocs)
    kinds = {name: type(parameter) for name, parameter in made.space.parameters.items()}
    assert kinds == {"n": zb.Integer, "kind": zb.Choice, "a": zb.Real}
    (point,) = made.suggest(1)
    assert point["a"] == pytest.approx(0.25)
    assert isinstance(point["n"], int)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: generator(decay(constraints={"c": ["LESS_THAN", 0]})), "vocs has constraints"),
        (lambda: generator(decay(observables={})), "outer needs observables"),
        (lambda: GestGenerator(decay()), "one objective, MINIMIZE or MAXIMIZE"),
        (
            lambda: GestGenerator(decay(objectives={"f": "MINIMIZE", "g": "MINIMIZE"})),
            "one objective",
        ),
        (lambda: GestGenerator(decay(objectives={"f": "EXPLORE"})), "one objective"),
        (lambda: generator(decay(variables={"a": "CONTEXTUAL"})), "'a' cannot be searched"),
        (lambda: generator(decay(variables={"a": [0, np.inf]})), "'a' must have a finite domain"),
        (lambda: generator(space={"b": zb.Real(0, 1)}), "'b', which is no variable of vocs"),
        (lambda: generator(num_workers=0), "num_workers must be"),
        (lambda: GestGenerator({"a": [0, 1]}), "must be a gest_api VOCS, got dict"),
        (lambda: generator().ingest([{"_id": 7, "y": 1.0}]), "once each; got _id=7"),
        (lambda: ingest_without_result(), "with all results"),
    ],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(zb.InputError, match=message):
        make()


def ingest_without_result():
    made = generator()
    made.ingest(made.suggest(1))


ENSEMBLE = Path(__file__).parents[1] / "programs" / "ensemble.py"


def test_libensemble_drives_gauss_newton_with_local_workers(tmp_path):
    pytest.importorskip("libensemble", reason="needs libensemble")
    ran = subprocess.run(
        [sys.executable, ENSEMBLE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    simulations, size, rate = map(float, ran.stdout.split())
    assert simulations == 32
    assert (size, rate) == pytest.approx((2.0, 0.7), rel=1e-5)
