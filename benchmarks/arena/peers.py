"""Methods of others, called as their own users call them, in the problem's own coordinates."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import warnings
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from scipy import optimize

from benchmarks.arena.problem import ArenaProblem
from benchmarks.arena.watching import DoneError, Watched

Peer: TypeAlias = Callable[[ArenaProblem, Watched], str]
TIGHT = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "max_nfev": 10**9}
GROW_ABOVE = 50
GROWING_DIRECTIONS = 20


def _dfols(problem: ArenaProblem, watched: Watched, *, scaled: bool) -> str:
    import dfols

    grows = problem.size > GROW_ABOVE
    bounds = (problem.lower, problem.upper)
    return str(
        dfols.solve(
            watched.residuals,
            problem.start,
            bounds=bounds if scaled or problem.has_bounds else None,
            maxfun=problem.max_solves + 1,
            scaling_within_bounds=scaled,
            objfun_has_noise=problem.noise is not None,
            user_params={"growing.ndirs_initial": GROWING_DIRECTIONS} if grows else None,
            do_logging=False,
        ).msg
    )


def _trf(problem: ArenaProblem, watched: Watched) -> str:
    bounds = (problem.lower, problem.upper) if problem.has_bounds else (-np.inf, np.inf)
    found = optimize.least_squares(watched.residuals, problem.start, bounds=bounds, **TIGHT)
    return str(found.message)


def _lm(problem: ArenaProblem, watched: Watched) -> str:
    if problem.target.size < problem.size:
        return "refused: fewer residuals than unknowns"
    found = optimize.least_squares(watched.residuals, problem.start, method="lm", **TIGHT)
    return str(found.message)


def _pounders(problem: ArenaProblem, watched: Watched) -> str:
    from ibcdfo.pounders.pounders import pounders

    free = np.full(problem.size, np.inf)
    low, high = (problem.lower, problem.upper) if problem.has_bounds else (-free, free)
    radius = 0.1 * max(1.0, float(np.abs(problem.start).max()))  # as DFO-LS takes it
    options = {"spsolver": 1, "delta_max": 1e3 * radius}  # 1: its own solver; 2 wants a download
    start, size, m = problem.start[None], problem.size, problem.target.size
    solves = problem.max_solves
    *_, flag, _ = pounders(
        watched.residuals, start, size, solves, 1e-13, radius, m, low, high, Options=options
    )
    return f"flag {flag}"


def _bobyqa(problem: ArenaProblem, watched: Watched) -> str:
    import pybobyqa

    return str(
        pybobyqa.solve(
            watched.loss,
            problem.start,
            bounds=(problem.lower, problem.upper) if problem.has_bounds else None,
            maxfun=problem.max_solves + 1,
            objfun_has_noise=problem.noise is not None,
            do_logging=False,
        ).msg
    )


PEERS: dict[str, tuple[Peer, str]] = {
    "dfols": (lambda p, w: _dfols(p, w, scaled=False), "DFO-LS"),
    "dfols-scaled": (lambda p, w: _dfols(p, w, scaled=True), "DFO-LS"),
    "trf": (_trf, "scipy"),
    "lm": (_lm, "scipy"),
    "pounders": (_pounders, "ibcdfo"),
    "bobyqa": (_bobyqa, "Py-BOBYQA"),
}
"""By name: the call, and the package whose version the runs are remembered under."""


SQUARES = ("dfols", "dfols-scaled", "trf", "lm")
SUITED = {
    "fields": ("dfols", "dfols-scaled", "trf", "dfols:prior", "esmda"),
    "outer": ("default/scalar", "bobyqa", "scipy:L-BFGS-B", "nevergrad:Cobyla"),
}


def peers_of(group: str) -> tuple[str, ...]:
    """Peers that suit a group; names beyond `PEERS` are the project's, behind its own seam."""
    return SUITED.get(group, SQUARES)


def peer_version(name: str) -> str:
    """Version of a peer's package."""
    return importlib.metadata.version(PEERS[name][1])


def run_peer(name: str, problem: ArenaProblem, watched: Watched, seed: int) -> str:
    """Run a peer to its end, in silence; numpy's global random numbers are the seed's.

    Args:
        name: Of `PEERS`.
        problem: What is solved.
        watched: The run's solver.
        seed: Of the run.

    Returns:
        Why it stopped, in words.
    """
    np.random.seed(seed)  # noqa: NPY002 - DFO-LS and Py-BOBYQA draw from the global generator
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            np.errstate(all="ignore"),
        ):
            warnings.simplefilter("ignore")
            return " ".join(PEERS[name][0](problem, watched).split())
    except DoneError:
        return "done"
    except Exception as error:  # noqa: BLE001 - a peer that breaks has found what it has found
        return f"broke off with {type(error).__name__}: {error}"
