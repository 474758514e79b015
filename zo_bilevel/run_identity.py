"""What makes two runs the same run, and opening one in a store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.problem import Problem
from zo_bilevel.recorder import Recorder
from zo_bilevel.space_text import space_to_text
from zo_bilevel.store import Store

FloatArray: TypeAlias = NDArray[np.float64]


def run_identity(
    problem: Problem, method: str, seed: int, start: FloatArray, round_width: int
) -> str:
    """What makes two runs the same run: everything but the budget and the machine.

    Args:
        problem: The problem.
        method: Name of the method.
        seed: Seed of the run.
        start: Scaled start, shape `(N,)`.
        round_width: Solves a round.

    Returns:
        A hash as text.
    """
    parts = [
        problem.name,
        problem.version,
        repr(problem.space),
        str(problem.is_scalar),
        method,
        str(seed),
        start.tobytes().hex(),
        str(round_width),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def open_recorder(
    store: Store,
    problem: Problem,
    method: str,
    seed: int,
    start: FloatArray,
    settings: dict[str, Any],
    command: Sequence[str] | None = None,
) -> Recorder:
    """Open the run that these arguments name, new or to be resumed.

    Args:
        store: The open store.
        problem: The problem.
        method: Name of the method.
        seed: Seed of the run.
        start: Scaled start, shape `(N,)`.
        settings: Budget and round width, shown by `zo-bilevel show`.
        command: Command line that repeats the run, or `None`.

    Returns:
        The run's recorder.
    """
    width = int(settings.get("round_width", 1))
    facts = {
        "problem": problem.name,
        "version": problem.version,
        "method": method,
        "seed": seed,
        "space": space_to_text(problem.space),
    }
    identity = run_identity(problem, method, seed, start, width)
    run = store.begin_run(identity, facts, settings, command or [])
    return Recorder(store, problem, run)
