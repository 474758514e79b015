"""What makes two runs the same run, and opening one in a store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from zo_bilevel.problem.problem import OBJECTIVES, Problem
from zo_bilevel.problem.solver_identity import content_text, short_hash
from zo_bilevel.problem.space_text import space_to_text
from zo_bilevel.store.arrays import pack_array
from zo_bilevel.store.recorder import Recorder
from zo_bilevel.store.store import Store
from zo_bilevel.support.arrays import FloatArray


def objective_text(problem: Problem) -> str:
    """What tells apart the outer objectives of problems that share a name, for people too.

    Args:
        problem: The problem.

    Returns:
        The kind of objective and a hash of what it holds; the same in every process.

    Example:
        >>> from zo_bilevel import Real, Space
        >>> objective_text(Problem(Space(a=Real(0, 1)), lambda phi: phi["a"]))
        'Identity'
    """
    outer = problem.outer
    if isinstance(outer, OBJECTIVES):
        # the last bits of data that were computed depend on the machine
        held = {name: _coarse(value) for name, value in vars(outer).items()}
        text, kind = content_text(tuple(sorted(held.items())), depth=1), type(outer).__name__
        found = f"{kind} #{short_hash(text)}" if held else kind
    else:
        kind = getattr(outer, "__name__", type(outer).__name__)
        found = f"{kind} #{short_hash(content_text(outer, depth=1))}"
    return f"{found}, seen as its loss only" if problem.is_scalar else found


def _coarse(value: Any) -> Any:  # noqa: ANN401 - whatever an objective holds
    is_numbers = isinstance(value, np.ndarray) and value.dtype == np.float64
    return value.astype(np.float32) if is_numbers else value


def run_identity(
    problem: Problem,
    method: str,
    seed: int,
    start: FloatArray,
    round_width: int,
    objective: str,
) -> str:
    """What makes two runs the same run: everything but the budget and the machine.

    Args:
        problem: The problem.
        method: Name of the method.
        seed: Seed of the run.
        start: Scaled start, shape `(N,)`.
        round_width: Solves a round.
        objective: From `objective_text`; empty as in stores of the schemas before 3.

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
        *([objective] if objective else []),
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
    objective = objective_text(problem)
    facts = {
        "problem": problem.name,
        "version": problem.version,
        "method": method,
        "seed": seed,
        "space": space_to_text(problem.space),
        "start": pack_array(start),
        "objective": objective,
    }
    identity, former = (
        run_identity(problem, method, seed, start, width, known) for known in (objective, "")
    )
    run = store.begin_run(identity, facts, settings, command or [], former)
    return Recorder(store, problem, run)
