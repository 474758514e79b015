"""Solves to a feasible optimum on published constrained problems, as a Markdown table.

    python -m benchmarks.arena.constrained_main [SEEDS]

A point counts when its loss is within 1e-4 of the lowest known one (relative where that is above 1)
and no constraint is broken by more than 1e-4 of its right side. Seed 0 is the published start, the
others lie within a quarter of the box around it. Every method gets 50 groups of N + 1 solves.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

import numpy as np

import zo_bilevel as zb
from benchmarks.arena.constrained_case import ConstrainedProblem
from benchmarks.arena.constrained_problems import PROBLEMS
from zo_bilevel.methods.names import method_from_name

METHODS = ("default", "scipy:COBYQA", "scipy:COBYLA", "scipy:SLSQP")
ACCURACY = 1e-4
GROUPS = 50


def solves_to_optimum(
    case: ConstrainedProblem, method: str, seed: int, *, cheap: bool
) -> tuple[float, int]:
    """Solves until the optimum, infinite where it was not found, and how many were outside."""
    problem, goal = case.problem(cheap=cheap), case.smallest
    goal += ACCURACY * max(1.0, abs(goal))
    violations: list[float] = []
    reached = math.inf

    def inner(phi: dict[str, Any]) -> Any:
        nonlocal reached
        x = list(phi.values())
        violations.append(max(case.constraints(x)))
        if violations[-1] <= ACCURACY and case.loss(x) <= goal:
            reached = min(reached, len(violations))
        return problem.inner(phi)

    def stop(_: object) -> None:
        if reached < math.inf:
            raise StopIteration

    zb.minimize(
        dataclasses.replace(problem, inner=inner, name=case.name),
        method_from_name(method),
        initial=case.starts(seed),
        max_solves=GROUPS * (len(case.lower) + 1),
        seed=seed,
        callback=stop,
    )
    return reached, sum(violation > 1e-8 for violation in violations)


def main(seeds: int) -> None:
    """Print the table and what it comes to."""
    print("| problem | half | N | known |", " | ".join(METHODS), "|")
    print("|" + ":--|" * 2 + "--:|:--|" + "--:|" * len(METHODS))
    for cheap in (False, True):
        medians: list[list[float]] = []
        for case in PROBLEMS:
            row = []
            for method in METHODS:
                runs = [solves_to_optimum(case, method, s, cheap=cheap)[0] for s in range(seeds)]
                row.append((float(np.median(runs)), sum(map(math.isfinite, runs))))
            medians.append([median for median, _ in row])
            cells = [f"{m:g} ({found}/{seeds})" if found else "-" for m, found in row]
            known = "before" if cheap else "after"
            facts = [case.name, case.half, str(len(case.lower)), known]
            print("|", " | ".join([*facts, *cells]), "|", flush=True)
        table = np.array(medians)
        for half in ("tune", "held"):
            own = table[[case.half == half for case in PROBLEMS]]
            wins = int(np.sum(own[:, 0] <= own[:, 1:3].min(axis=1)))
            print(f"{half}: at or below COBYQA and COBYLA on {wins} of {len(own)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
