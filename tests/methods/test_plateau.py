"""Local searches among rounded values begin anew where they stand; others are let alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.baselines.plateau import Plateau, StalledError
from zo_bilevel.methods.names import method_from_name
from zo_bilevel.solve.evaluation import Evaluation

OFFSETS = {"steel": 0.6, "wood": 0.0, "tin": 0.9}
RESTARTING = ("bobyqa", "scipy:COBYQA")


def beam_loss(phi):
    waves = 0.2 * math.sin(3 * phi["layers"])
    return OFFSETS[phi["material"]] + 0.01 * (phi["layers"] - 17) ** 2 + phi["x"] ** 2 + waves


BEAM = zb.Problem(
    zb.Space(material=zb.Choice(list(OFFSETS)), layers=zb.Integer(1, 20), x=zb.Real(-1, 1)),
    beam_loss,
)


def solved(loss: float) -> Evaluation:
    status = "ok" if math.isfinite(loss) else "failed"
    return Evaluation(zb.Point(np.zeros(1)), status, None, loss)


def solves_until_it_stands(losses: list[float], size: int = 1) -> int | None:
    plateau = Plateau(size)
    for count, loss in enumerate(losses, start=1):
        try:
            plateau.check([solved(loss)])
        except StalledError:
            return count
    return None


def test_a_search_stands_after_so_many_solves_that_gain_nothing() -> None:
    assert solves_until_it_stands([9.0, 5.0] + [5.0] * 20) == 2 + 5
    assert solves_until_it_stands([9.0, 5.0] + [5.0 - 1e-4 * k for k in range(20)]) == 2 + 5
    assert solves_until_it_stands([9.0 - k for k in range(40)]) is None
    assert solves_until_it_stands([9.0, math.inf, 5.0] + [math.inf] * 20) == 3 + 5
    offset = [1e6 + loss for loss in (9.0, 5.0, 4.0, 3.9, 3.8, 3.7, 3.6, 3.5, 3.4)]
    assert solves_until_it_stands(offset) is None


def test_it_does_not_stand_before_its_first_model_is_there() -> None:
    assert solves_until_it_stands([1.0] * 99, size=9) == 2 * 9 + 2


@pytest.mark.parametrize("name", RESTARTING)
def test_restarts_look_elsewhere_among_rounded_values(name: str) -> None:
    pytest.importorskip("pybobyqa")
    found = []
    for seed in range(3):
        start = {"material": "steel", "layers": 3 + seed, "x": 0.5}
        runs = [
            zb.minimize(BEAM, method_from_name(f), max_solves=80, seed=seed, initial=start)
            for f in (name, f"{name}:restarts")
        ]
        settings = [{(r.phi["material"], r.phi["layers"]) for r in run.history} for run in runs]
        found.append([len(settings[0]), len(settings[1]), runs[0].loss, runs[1].loss])
    once, anew, loss_once, loss_anew = np.median(found, axis=0)
    assert anew >= 1.5 * once
    assert loss_anew < loss_once


@pytest.mark.parametrize("name", ["bobyqa", "scipy:COBYQA"])
def test_among_real_numbers_a_search_ends_by_its_own_rules(name: str) -> None:
    pytest.importorskip("pybobyqa")
    problem = zb.Problem(zb.Space(x=zb.Real(-1, 1, (2,))), lambda phi: float(phi["x"] @ phi["x"]))
    once, anew = (
        zb.minimize(problem, method_from_name(f), max_solves=40) for f in (name, f"{name}:restarts")
    )
    shared = min(once.solves, anew.solves)
    assert shared > 20
    for first, second in zip(once.history[:shared], anew.history[:shared], strict=True):
        assert np.array_equal(first.phi["x"], second.phi["x"])
