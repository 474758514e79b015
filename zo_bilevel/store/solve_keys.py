"""What a solve is found by: everything that decides its answer, as 32 bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import final

import numpy as np

from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.solver_identity import fingerprint
from zo_bilevel.solve.evaluation import Point
from zo_bilevel.store.arrays import LITTLE_ENDIAN


@final
class SolveKeys:
    """Keys of the solves of a problem, as its objective is now: it may change while a run goes on.

    Args:
        problem: The problem.
        solvers: What tells its inner solver and space from others, by the name of an experiment,
            or under "".
    """

    def __init__(self, problem: Problem, solvers: Mapping[str, str]) -> None:
        self._digests = {
            part: hashlib.sha256(f"{solver}\0".encode("utf-8", "surrogatepass"))
            for part, solver in solvers.items()
        }
        self._outer = fingerprint(problem.outer, "the outer objective").encode()
        self._fidelity = problem.fidelity

    def key(self, point: Point, seed: int) -> bytes:
        """Of a solve at a point with a seed."""
        digest = self._digests[point.part[0] if point.part else ""].copy()
        digest.update(str(seed).encode())
        digest.update(np.ascontiguousarray(point.x, LITTLE_ENDIAN).tobytes())
        if self._fidelity is not None:
            level = self._fidelity.full if point.level is None else point.level
            digest.update(f"\0level\0{self._fidelity.name}\0{level!r}".encode())
        if point.derivative is not None:
            digest.update(b"\0derivative\0" + point.derivative.key())
            if point.derivative.uses_outer:
                digest.update(self._outer)
        return digest.digest()
