"""Published bilevel programs with known optima: `python benchmarks/bilevel_programs.py`.

The follower's linear, integer, quadratic and nonlinear programs are solved exactly; the leader sees
his own loss alone. Formulas and optima as collected in BOLIB (Zhou, Zemkoho, Tin 2018, "BOLIB:
Bilevel Optimization LIBrary of test problems"), where the names are from; `MooreBard1990` is the
integer program of Moore and Bard (1990), Operations Research 38.

Solves until the leader's loss is within 1e-3 of the published one, relative to at least 1: the
median of five random starts, and how many arrive.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import zo_bilevel as zb
from zo_bilevel.adapters import LinearProgram, NonlinearProgram

BUDGET, SEEDS, TOLERANCE = 200, 5, 1e-3


@dataclass(frozen=True)
class Published:
    """A program, and the optimum that its source gives."""

    space: zb.Space
    follower: Callable[..., Any]
    leader: Callable[[Any, dict[str, Any]], float]
    loss: float
    phi: dict[str, float]
    y: list[float]
    constraints: tuple[str, ...] = field(default=())

    @property
    def problem(self):
        return zb.Problem(self.space, self.follower, self.leader)


def bounds(upper, lower=0.0):
    return zb.Space(x=zb.Real(lower, upper))


def nonlinear(objective, leader, low=(-1.0,), high=(1.0,), constraints=None):
    return NonlinearProgram(
        objective, low, high, constraints=constraints, leader=leader, ties="optimistic"
    )


def bard_1984b():
    follower = LinearProgram(
        [1.0],
        [[-0.5], [1.0], [0.5], [-2.0]],
        row_upper=[-2.0, 2.0, 8.0, 4.0],
        row_parameters={"x": [[1.0], [0.25], [-1.0], [-1.0]]},
    )
    leader = lambda y, phi: -5 * phi["x"] - y[0]  # noqa: E731
    return Published(bounds(10.0), follower, leader, -37.6, {"x": 7.2}, [1.6])


def clark_westerberg_1988():
    follower = LinearProgram(
        [1.0],
        [[1.0], [5.0], [-3.0]],
        row_upper=[0.0, 108.0, -4.0],
        row_parameters={"x": [[2.0], [-2.0], [-2.0]]},
    )
    leader = lambda y, phi: phi["x"] - 4 * y[0]  # noqa: E731
    return Published(bounds(30.0), follower, leader, -37.0, {"x": 19.0}, [14.0])


def candler_townsley_1982():
    follower = LinearProgram(
        [1.0, 1.0, 2.0],
        [[-1.0, 1.0, 1.0], [-1.0, 2.0, -0.5], [2.0, -1.0, -0.5]],
        row_upper=1.0,
        row_parameters={"a": [[0.0], [-2.0], [0.0]], "b": [[0.0], [0.0], [-2.0]]},
    )

    def leader(y, phi):
        return -8 * phi["a"] - 4 * phi["b"] + 4 * y[0] - 40 * y[1] - 4 * y[2]

    space = zb.Space(a=zb.Real(0, 2), b=zb.Real(0, 2))
    return Published(space, follower, leader, -29.2, {"a": 0.0, "b": 0.9}, [0.0, 0.6, 0.4])


def toll_setting_p5():
    follower = LinearProgram(
        [8.0, 3.0, 4.0, 6.0],
        [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]],
        row_lower=1.0,
        row_upper=1.0,
        cost_parameters={"x": [[0.0], [2.0], [2.0], [0.0]]},
        ties="optimistic",
        leader_cost_parameters={"x": [[0.0], [-1.0], [-1.0], [0.0]]},
    )
    leader = lambda y, phi: -(y[1] + y[2]) * phi["x"]  # noqa: E731
    return Published(bounds(10.0), follower, leader, -2.5, {"x": 2.5}, [0.0, 1.0, 0.0, 1.0])


def moore_bard_1990():
    follower = LinearProgram(
        [1.0],
        [[20.0], [2.0], [-1.0], [10.0]],
        row_lower=[-np.inf, -np.inf, -np.inf, 15.0],
        row_upper=[30.0, 10.0, 15.0, np.inf],
        row_parameters={"x": [[25.0], [-1.0], [-2.0], [-2.0]]},
        integer=[0],
    )
    leader = lambda y, phi: -phi["x"] - 10 * y[0]  # noqa: E731
    return Published(zb.Space(x=zb.Integer(0, 10)), follower, leader, -22.0, {"x": 2}, [2.0])


def bard_1988_1():
    leader = lambda y, phi: (phi["x"] - 5) ** 2 + (2 * y[0] + 1) ** 2  # noqa: E731
    follower = nonlinear(
        lambda y, phi: (y[0] - 1) ** 2 - 1.5 * phi["x"] * y[0],
        leader,
        [0.0],
        [10.0],
        lambda y, phi: [
            -3 * phi["x"] + y[0] + 3,
            phi["x"] - 0.5 * y[0] - 4,
            phi["x"] + y[0] - 7,
        ],
    )
    return Published(bounds(7.0), follower, leader, 17.0, {"x": 1.0}, [0.0])


def clark_westerberg_1990a():
    leader = lambda y, phi: (phi["x"] - 3) ** 2 + (y[0] - 2) ** 2  # noqa: E731
    follower = nonlinear(
        lambda y, phi: (y[0] - 5) ** 2,
        leader,
        [-20.0],
        [20.0],
        lambda y, phi: [
            -2 * phi["x"] + y[0] - 1,
            phi["x"] - 2 * y[0] + 2,
            phi["x"] + 2 * y[0] - 14,
        ],
    )
    return Published(bounds(8.0), follower, leader, 5.0, {"x": 1.0}, [3.0])


def calvete_gale_1999():
    def leader(y, phi):
        return -8 * phi["a"] - 4 * phi["b"] + y[0] - 40 * y[1] - 4 * y[2]

    def objective(y, phi):
        a, b = phi["a"], phi["b"]
        return (1 + a + b + 2 * y[0] - y[1] + y[2]) / (6 + 2 * a + y[0] + y[1] - 3 * y[2])

    def constraints(y, phi):
        return [
            -y[0] + y[1] + y[2] - 1,
            2 * phi["a"] - y[0] + 2 * y[1] - 0.5 * y[2] - 1,
            2 * phi["b"] + 2 * y[0] - y[1] - 0.5 * y[2] - 1,
        ]

    follower = nonlinear(objective, leader, [0.0] * 3, [1.5] * 3, constraints)
    space = zb.Space(a=zb.Real(0, 2), b=zb.Real(0, 2))
    return Published(space, follower, leader, -29.2, {"a": 0.0, "b": 0.9}, [0.0, 0.6, 0.4])


def mitsos_barton_314():
    leader = lambda y, phi: (phi["x"] - 0.25) ** 2 + y[0] ** 2  # noqa: E731
    follower = nonlinear(lambda y, phi: y[0] ** 3 / 3 - phi["x"] * y[0], leader)
    return Published(bounds(1.0, -1.0), follower, leader, 0.25, {"x": 0.25}, [0.5])


def mitsos_barton_317():
    leader = lambda y, phi: (phi["x"] + 0.5) ** 2 + 0.5 * y[0] ** 2  # noqa: E731
    follower = nonlinear(lambda y, phi: 0.5 * phi["x"] * y[0] ** 2 + 0.25 * y[0] ** 4, leader)
    return Published(bounds(1.0, -1.0), follower, leader, 0.1875, {"x": -0.25}, [0.5])


def mitsos_barton_319():
    leader = lambda y, phi: phi["x"] * y[0] - y[0] + 0.5 * y[0] ** 2  # noqa: E731
    follower = nonlinear(lambda y, phi: -phi["x"] * y[0] ** 2 + 0.5 * y[0] ** 4, leader)
    return Published(bounds(1.0, -1.0), follower, leader, -0.2582, {"x": 0.18944}, [0.43525])


PROGRAMS = {
    "Bard1984b": bard_1984b,
    "ClarkWesterberg1988": clark_westerberg_1988,
    "CandlerTownsley1982": candler_townsley_1982,
    "TollSettingP5": toll_setting_p5,
    "MooreBard1990": moore_bard_1990,
    "Bard1988Ex1": bard_1988_1,
    "ClarkWesterberg1990a": clark_westerberg_1990a,
    "CalveteGale1999P1": calvete_gale_1999,
    "MitsosBarton2006Ex314": mitsos_barton_314,
    "MitsosBarton2006Ex317": mitsos_barton_317,
    "MitsosBarton2006Ex319": mitsos_barton_319,
}

METHODS = {
    "default": zb.DefaultMethod,
    "COBYQA": lambda: zb.Scipy("COBYQA"),
    "NgIohTuned": lambda: zb.Nevergrad("NgIohTuned"),
    "random": zb.RandomSearch,
}


def solves_to_optimum(program, method, seed):
    """Solves until the loss is as published; infinite if it never is."""
    target = program.loss + TOLERANCE * max(1.0, abs(program.loss))
    rng = np.random.default_rng(seed)
    start = program.space.decode(rng.uniform(-3, 3, program.space.size))
    try:
        result = zb.minimize(
            program.problem, method, initial=start, seed=seed, max_solves=BUDGET, tolerance=target
        )
    except zb.InnerSolverError:  # no solve succeeded
        return np.inf
    return next((r.solve for r in result.history if r.best_loss <= target), np.inf)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="*", default=list(PROGRAMS), metavar="PROGRAM")
    chosen = parser.parse_args().programs
    print(f"{'solves to the optimum':24}" + "".join(f"{name:>16}" for name in METHODS))
    for name in chosen:
        program = PROGRAMS[name]()
        cells = []
        for make in METHODS.values():
            counts = [solves_to_optimum(program, make(), seed) for seed in range(SEEDS)]
            median = statistics.median(counts)
            shown = f"{median:.0f}" if np.isfinite(median) else "-"
            cells.append(f"{shown} ({sum(np.isfinite(counts))})")
        print(f"{name:24}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
