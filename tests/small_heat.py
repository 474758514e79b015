"""A small conductivity field and a solver that watches its calls, for the tests of baselines."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np

import zo_bilevel as zb

START = {"field": np.full(6, 0.4)}


def diffuse(phi: dict[str, Any]) -> np.ndarray:
    conductivity = np.exp(phi["field"])
    size = conductivity.size
    matrix = np.diag(conductivity + np.roll(conductivity, 1))
    matrix -= np.diag(conductivity[:-1], 1) + np.diag(conductivity[:-1], -1)
    return np.linalg.solve(matrix, np.stack([np.ones(size), np.arange(size)], 1)).ravel()


def heat(size: int = 6) -> zb.Problem:
    """A small conductivity field, as the heat-field task."""
    space = zb.Space(field=zb.Real(-2, 2, shape=(size,), correlation_length=0.3))
    truth = 0.8 * np.sin(2 * np.pi * (np.arange(size) + 0.5) / size)
    return zb.Problem(space, diffuse, zb.SquaredError(diffuse({"field": truth})), name="heat")


class Watch:
    """An inner solver that keeps the points it saw and fails where told."""

    def __init__(self, problem: zb.Problem, fails: Any = lambda call: False) -> None:
        self.inner, self.space, self.fails = problem.inner, problem.space, fails
        self.seen: list[np.ndarray] = []

    def __call__(self, phi: dict[str, Any]) -> Any:
        self.seen.append(self.space.encode(phi))  # raises beyond the bounds
        outcome = self.fails(len(self.seen))
        if outcome is True:
            raise RuntimeError("planned failure")
        return self.inner(phi) * (outcome or 1.0)


def watched(problem: zb.Problem, **options: Any) -> tuple[zb.Problem, Watch]:
    watch = Watch(problem, **options)
    outer, scalar = problem.outer, problem.is_scalar
    return zb.Problem(problem.space, watch, outer, name="heat", is_scalar=scalar), watch


def workers() -> list[str]:
    gc.collect()
    return [t.name for t in threading.enumerate() if t is not threading.main_thread()]
