"""Runs a method on a problem once, and remembers the run on disk."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import zo_bilevel as zb
from benchmarks.arena.best import smallest_loss
from benchmarks.arena.methods import fingerprint
from benchmarks.arena.peers import PEERS, peer_version, run_peer
from benchmarks.arena.problem import ArenaProblem
from benchmarks.arena.remembered import Work, results
from benchmarks.arena.watching import Watched
from zo_bilevel.methods.names import method_from_name

SCALAR = "scalar"
"""`METHOD/scalar` sees only the loss."""
FINEST = 1e-8
"""Share of the possible gain at which a run without noise may end: finer than any score."""


@dataclass(frozen=True)
class ArenaRun:
    """One method on one problem.

    Args:
        problem: Its name.
        method: Its name.
        seed: Of the run and of the noise.
        solves: Spent.
        best: Pairs of a solve and the lowest noiseless loss so far, where it falls.
        incumbent: Pairs of a solve and the noiseless loss of the point whose measured loss is
            the lowest so far, where that point changes.
        returned: Noiseless loss of the point that the method gave back; its incumbent's where
            the arena ended the run.
        own_seconds: Of the processor, outside the solver.
        reason: Why it stopped.
    """

    problem: str
    method: str
    seed: int
    solves: int
    best: tuple[tuple[int, float], ...]
    incumbent: tuple[tuple[int, float], ...]
    returned: float
    own_seconds: float
    reason: str


def run_once(
    problem: ArenaProblem, method: str, seed: int = 0, *, to_the_end: bool = False
) -> ArenaRun:
    """Run, without looking at what is remembered.

    Args:
        problem: What is solved.
        method: A peer, or a method's name on the project's command line.
        seed: Of the run and of the noise.
        to_the_end: Wait until the method stops itself or the budget is spent, also without noise.
    """
    watched = Watched(problem, seed, -float("inf") if to_the_end else _enough(problem))
    begin = time.process_time()
    returned: float | None = None
    if method in PEERS:
        reason = run_peer(method, problem, watched, seed)
    else:
        reason, returned = _run_own(problem, method, seed, watched)
    own = time.process_time() - begin - watched.seconds
    best, incumbent = _falls(watched)
    if returned is None:
        returned = incumbent[-1][1] if incumbent else float("inf")
    solves = len(watched.true_losses)
    return ArenaRun(problem.name, method, seed, solves, best, incumbent, returned, own, reason)


def _enough(problem: ArenaProblem) -> float:
    if problem.noise is not None:
        return -float("inf")
    lowest, first = smallest_loss(problem), problem.start_loss
    return lowest + FINEST * (first - lowest)


def _run_own(
    problem: ArenaProblem, method: str, seed: int, watched: Watched
) -> tuple[str, float | None]:
    def inner(phi: dict[str, Any]) -> Any:
        return watched(problem.from_phi(phi))

    outer = zb.SquaredError(problem.target) if problem.outer is None else problem.outer
    name, _, view = method.partition("/")
    bilevel = zb.Problem(problem.space(), inner, outer, name=problem.name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of answers that overflow, hundreds a run
            result = zb.minimize(
                bilevel.scalar if view == SCALAR else bilevel,
                method_from_name(name),
                initial=problem.to_phi(problem.start),
                max_solves=problem.max_solves,
                tolerance=watched.enough if np.isfinite(watched.enough) else None,
                seed=seed,
            )
    except zb.ZoBilevelError as error:
        return f"refused: {error}", None
    return result.stop_reason, problem.true_loss(problem.from_phi(result.phi))


def _falls(watched: Watched) -> tuple[tuple[tuple[int, float], ...], ...]:
    best: list[tuple[int, float]] = []
    incumbent: list[tuple[int, float]] = []
    lowest = measured_lowest = float("inf")
    pairs = zip(watched.true_losses, watched.measured_losses, strict=True)
    for solve, (true, measured) in enumerate(pairs, start=1):
        if true < lowest:
            lowest = true
            best.append((solve, true))
        if measured < measured_lowest:
            measured_lowest = measured
            incumbent.append((solve, true))
    return tuple(best), tuple(incumbent)


def version_of(method: str) -> str:
    """What runs are remembered under: a package's version, or a digest of what they depend on.

    Args:
        method: Its name.
    """
    if method in PEERS:
        return peer_version(method)
    return fingerprint(method.partition("/")[0])[:12]


@dataclass(frozen=True)
class Cache:
    """Finished runs, a file each.

    Args:
        folder: Where; made when missing.
        versions: Version by method.
        to_the_end: See `run_once`; such runs are remembered apart.
    """

    folder: Path
    versions: dict[str, str]
    to_the_end: bool = False

    def file(self, problem: ArenaProblem, method: str, seed: int) -> Path:
        """Where a run is remembered."""
        place = (
            self.folder / f"{method.replace(':', '-').replace('/', '-')}@{self.versions[method]}"
        )
        stem = problem.name.replace("/", "__")
        end = "__end" if self.to_the_end and problem.noise is None else ""
        return place / f"{stem}__{problem.key}__{problem.max_groups}__{seed}{end}.json"


def run_all(
    problems: Iterable[ArenaProblem],
    methods: Sequence[str],
    cache: Cache,
    *,
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
) -> Iterator[ArenaRun]:
    """Every method on every problem, remembered ones first.

    Args:
        problems: With or without noise; without noise only the first seed is run.
        methods: Names.
        cache: What is remembered.
        seeds: Of runs with noise.
        jobs: Processes.

    Returns:
        Runs, in the order in which they are ready.
    """
    work = [
        Work(
            partial(_run_named, problem.name, method, seed, cache.to_the_end),
            cache.file(problem, method, seed),
        )
        for problem in problems
        for method in methods
        for seed in (seeds if problem.noise else seeds[:1])
    ]
    return results(work, ArenaRun, jobs)


def _run_named(name: str, method: str, seed: int, to_the_end: bool) -> ArenaRun:
    from benchmarks.arena.catalogue import problem_named

    return run_once(problem_named(name), method, seed, to_the_end=to_the_end)
