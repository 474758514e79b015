"""The front of two objectives against closed forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.support.errors import InputError

SPACE = zb.Space(x=zb.Real(-1, 3))
OBJECTIVES = {"left": lambda x, phi: x**2, "right": lambda x, phi: (x - 2) ** 2}


def solve(phi):
    return phi["x"]


def test_two_parabolas_have_the_front_between_their_minima():
    front = zb.front(zb.Problem(SPACE, solve), OBJECTIVES, num_points=5)
    # x between 0 and 2: the roots of both objectives add up to 2
    np.testing.assert_allclose(np.sqrt(front.values).sum(axis=1), 2.0, atol=1e-3)
    assert front.values[0, 0] < 1e-8
    assert front.values[-1, 1] < 1e-8
    inner = front.values[:, 1]
    for bound in (1.0, 2.0, 3.0):  # where the searches between end
        assert np.abs(inner - bound).min() < 0.05
    assert (np.diff(front.values[:, 0]) > 0).all()
    assert (np.diff(inner) < 0).all()
    assert len(str(front).splitlines()) <= 17


def test_no_point_of_the_front_is_beaten_by_any_solve():
    target = zb.SquaredError([2.0, 3.0, 6.0])

    def product(phi):
        return [phi["a"], phi["b"], phi["a"] * phi["b"]]

    space = zb.Space(a=zb.Real(0, 4), b=zb.Real(0, 4))
    objectives = {"misfit": target, "size": lambda theta, phi: phi["a"] + phi["b"]}
    front = zb.front(zb.Problem(space, product), objectives, num_points=4, max_solves=40)
    assert front.values[0, 0] < 1e-8
    assert front.values[-1, 1] < 1e-6
    for other in front.others:
        assert not (other < front.values).all(axis=1).any()
    for phi, value in zip(front.phi, front.values, strict=True):
        assert value[1] == pytest.approx(phi["a"] + phi["b"])


def test_what_breaks_a_constraint_of_the_problem_is_counted_and_is_no_point_of_the_front():
    problem = zb.Problem(SPACE, solve, constraints=[zb.Output("theta >= 0.5")])
    front = zb.front(problem, OBJECTIVES, num_points=4, max_solves=30)
    assert min(phi["x"] for phi in front.phi) == pytest.approx(0.5, abs=1e-4)
    assert min(phi["x"] for phi in front.phi) > 0.5 - 1e-5
    assert len(front.broken) > 0
    assert f"{len(front.broken)} solves break constraints" in str(front)
    never = zb.Problem(SPACE, solve, constraints=[zb.Output("theta >= 4")])
    front = zb.front(never, OBJECTIVES, num_points=2, max_solves=10)
    assert not front.phi
    assert "no solve keeps the constraints" in str(front)


def test_the_picture_is_written(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    front = zb.front(zb.Problem(SPACE, solve), OBJECTIVES, num_points=2, max_solves=15)
    dataclasses.replace(front, broken=front.others).plot()
    front.plot(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("objectives", "options", "message"),
    [
        ({"left": OBJECTIVES["left"]}, {}, "two by name"),
        (OBJECTIVES, {"num_points": 1}, "num_points"),
        ({**OBJECTIVES, "left": zb.RobustError(1.0)}, {}, "'left' must be a SquaredError"),
    ],
)
def test_bad_arguments_are_refused_by_name(objectives, options, message):
    with pytest.raises(InputError, match=message):
        zb.front(zb.Problem(SPACE, solve), objectives, **options)
