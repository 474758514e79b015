"""What makes two runs the same run, what makes them comparable, and opening one in a store."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from zo_bilevel.problem.experiments import Experiments
from zo_bilevel.problem.problem import OBJECTIVES, Problem
from zo_bilevel.problem.solver_identity import fingerprint, solver_identity
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.space_text import space_to_text
from zo_bilevel.run.result import Result
from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.store.arrays import pack_array
from zo_bilevel.store.recorder import Recorder
from zo_bilevel.store.records import StoredRun
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.json_data import to_plain
from zo_bilevel.support.tables import number

Initial: TypeAlias = Mapping[str, Any] | Callable[[int], Mapping[str, Any]] | Result | None
"""A start by name, a function from a seed to one, or the result of another run."""
LIMITS: Final = {
    "solves a run": "max_solves",
    "seconds a run": "max_seconds",
    "cost a run": "max_cost",
    "runs stop at loss": "tolerance",
    "round width": "round_width",
}
EACH_SEED: Final = "another for each seed"
SHORT_VALUES: Final = 8


def objective_text(problem: Problem) -> str:
    """What tells apart the outer objectives of problems that share a name, for people too.

    Returns:
        The kind of objective and a hash of what it holds; the same in every process.

    Raises:
        InputError: If it cannot be told from others.

    Example:
        >>> from zo_bilevel import Real, Space
        >>> objective_text(Problem(Space(a=Real(0, 1)), lambda phi: phi["a"]))
        'Identity'
    """
    outer = problem.outer
    # the last bits of data that were computed depend on the machine
    is_ours = isinstance(outer, OBJECTIVES)
    held = {name: _coarse(part) for name, part in vars(outer).items()} if is_ours else outer
    kind = type(outer).__name__ if is_ours else getattr(outer, "__name__", type(outer).__name__)
    if held:
        kind = f"{kind} #{fingerprint(held, 'the outer objective')[:SHORT_VALUES]}"
    if problem.space.has_prior:
        priors = {n: getattr(p, "prior", None) for n, p in problem.space.parameters.items()}
        kind += f", priors #{fingerprint(priors, 'the space')[:SHORT_VALUES]}"
    return f"{kind}, seen as its loss only" if problem.is_scalar else kind


def constraints_text(problem: Problem) -> str:
    """What tells apart the constraints of problems, for people too.

    Raises:
        InputError: If a function among them cannot be told from others.
    """
    words = [c if isinstance(c, str) else getattr(c, "text", "") for c in problem.constraints]
    digest = fingerprint(tuple(problem.constraints), "a constraint")[:SHORT_VALUES]
    return f"{len(words)} #{digest} {'; '.join(word for word in words if word)}".strip()


def _coarse(value: Any) -> Any:  # noqa: ANN401 - whatever an objective holds
    is_numbers = isinstance(value, np.ndarray) and value.dtype == np.float64
    return value.astype(np.float32) if is_numbers else value


def start_at(initial: Initial, seed: int) -> Mapping[str, Any] | None:
    """The start of a run by name."""
    if isinstance(initial, Result):
        return initial.phi
    return initial(seed) if callable(initial) else initial


def facts_of_run(
    problem: Problem,
    method: str,
    seed: int,
    initial: Initial,
    settings: Mapping[str, Any],
    command: Sequence[str] = (),
) -> StoredRun:
    """What a store keeps of a run before its first solve.

    Raises:
        InputError: If the inner solver, the space or the outer objective cannot be told from
            others.
    """
    problem = problem.placed_at(start_at(initial, seed))
    solver, objective = _solver(problem), objective_text(problem)
    anywhere = _solver(problem, is_placed=False)
    start = problem.space.encode(start_at(initial, seed))
    parts = [solver, problem.is_scalar, method, seed, start.tobytes().hex()]
    parts += [] if problem.fidelity is None else [problem.fidelity]
    parts += ["asynchronous"] if settings.get("asynchronous") else []
    parts += [constraints_text(problem)] if problem.feasible else []
    parts += [settings["known"]] if settings.get("known") else []
    return StoredRun(
        identity=_hash(*parts, settings.get("round_width", 1), objective),
        problem=problem.name,
        version=problem.version,
        method=method,
        seed=seed,
        space=space_to_text(problem.space),
        start=pack_array(start),
        conditions=conditions_text(problem, anywhere, objective, initial, seed, settings),
        settings=json.dumps(to_plain(settings)),
        command=json.dumps(list(command)),
    )


def steered(run: StoredRun, limits: Mapping[str, float]) -> dict[str, str]:
    """What changes in the record of a run that gets other limits."""
    settings, conditions = json.loads(run.settings), json.loads(run.conditions)
    settings |= limits
    for name, key in LIMITS.items():
        if key in limits:
            conditions[name] = [_limit_words(limits[key]), _hash(repr(limits[key]))[:16]]
    return {"settings": json.dumps(settings), "conditions": json.dumps(conditions)}


def _limit_words(limit: float | None) -> str:
    return "none" if limit is None else f"{limit:g}"


def open_recorder(store: AbstractStore, problem: Problem, *facts: Any, **more: Any) -> Recorder:  # noqa: ANN401
    """Open the run that these arguments name, new or to be resumed.

    Raises:
        InputError: As `facts_of_run`.
        StoreError: If somebody else is working on the run.
    """
    run = facts_of_run(problem, *facts, **more)
    return Recorder(store, run, problem, solvers_of(problem, problem.space))


def _solver(problem: Problem, *, is_placed: bool = True) -> str:
    """What tells inner solver and space from others, and where numbers without bounds start."""
    space = _space_text(problem.space, is_placed=is_placed)
    return f"{solver_identity(problem.inner, problem.name, problem.version)}\0{space}"


def _space_text(space: Space, *, is_placed: bool = True) -> str:
    text = fingerprint(space.identity, "the space")
    if is_placed and space.is_placed:
        text += fingerprint(space.placements, "the space")
    return text


def solvers_of(problem: Problem, space: Space) -> dict[str, str]:
    """The same for each experiment by its name, whatever the others are; else under ""."""
    inner = problem.inner
    if not isinstance(inner, Experiments):
        return {"": _solver(problem)}
    text = _space_text(space)
    simulate = solver_identity(inner.simulate, problem.name, problem.version)
    return {
        name: f"{simulate}\0{fingerprint(given, 'an experiment')}\0{text}"
        for name, given in inner.conditions.items()
    }


def conditions_text(
    problem: Problem,
    solver: str,
    objective: str,
    initial: Initial,
    seed: int,
    settings: Mapping[str, Any],
) -> str:
    """What must be the same for runs to be compared: all but the method and the seed.

    Returns:
        JSON: by name, what it is in words, and a hash of what it is exactly.
    """
    limits = {name: settings.get(key) for name, key in LIMITS.items()}
    words = {name: _limit_words(limit) for name, limit in limits.items()}
    space = space_to_text(Space(problem.space.declared))  # wherever it is searched
    words |= {"outer objective": objective, "version": problem.version, "space": space}
    exact = {name: [text] for name, text in words.items()}
    exact |= {**{name: [repr(limit)] for name, limit in limits.items()}, "inner solver": [solver]}
    if problem.feasible:
        words["constraints"] = constraints_text(problem)
        exact["constraints"] = [words["constraints"]]
    if settings.get("stop rules"):
        words["stop rules"] = settings["stop rules"]
        exact["stop rules"] = [settings["stop rules"]]
    words["inner solver"] = f"{problem.name} {_hash(solver)[:SHORT_VALUES]}"
    words["start"], exact["start"] = _start(problem.space, initial, seed)
    return json.dumps({name: [text, _hash(*exact[name])[:16]] for name, text in words.items()})


def _start(space: Space, initial: Initial, seed: int) -> tuple[str, list[str]]:
    """A start in words and exactly; of a function of the seed, what it gives for two of them."""
    starts = [start_at(initial, seed)]
    if callable(initial):
        try:
            starts = [initial(probe) for probe in (0, 1)]
            exact = [_exact_start(space, start) for start in starts]
        except Exception:  # noqa: BLE001 - the user's function may know its own seeds only
            return EACH_SEED, [fingerprint(initial, "initial")]
    else:
        exact = [_exact_start(space, starts[0])]
    if exact[0] != exact[-1]:
        return EACH_SEED, exact
    return _shown(space, space.encode(starts[0])), exact[:1]


def _exact_start(space: Space, start: Mapping[str, Any] | None) -> str:
    placed = space.placed_at(start)
    where = fingerprint(placed.placements, "the start") if placed.is_placed else ""
    return placed.encode(start).tobytes().hex() + where


def _shown(space: Space, start: FloatArray) -> str:
    phi = space.decode(start)
    shown = {n: number(v, 4) if isinstance(v, float) else str(v) for n, v in phi.items()}
    return ", ".join(f"{name}={' '.join(value.split())}" for name, value in shown.items())


def _hash(*parts: Any) -> str:  # noqa: ANN401 - anything with a text
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()
