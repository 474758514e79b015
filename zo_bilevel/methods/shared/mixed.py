"""Mixed spaces: a continuous search at one setting of the integers and choices, then the next."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol, TypeAlias

from zo_bilevel.methods.base import Rounds, Search
from zo_bilevel.methods.shared.discrete import neighbours
from zo_bilevel.methods.shared.whole_rounds import one_round, whole
from zo_bilevel.solve.evaluation import Evaluation, Point

Descent: TypeAlias = Generator[list[Point], list[Evaluation], Evaluation]

MOST_DETOURS = 8
"""Settings descended into without gain before the search ends."""


class Descend(Protocol):
    """Searches the continuous coordinates around one discrete setting."""

    def __call__(self, start: Evaluation, *, may_restart: bool) -> Descent:
        """Give back the best solve found; `may_restart` allows space-filling restarts."""
        ...


def mixed_search(
    search: Search, first: Evaluation, descend: Descend | Callable[..., Descent]
) -> Rounds:
    """Descend, then poll the neighbouring settings and descend into the most promising ones."""
    discrete, best = search.space.discrete, first
    if not discrete.any():
        yield from descend(best, may_restart=True)
        return _why_it_ended(search.notes.unseen, search.notes.returns)
    if not discrete.all():
        best = yield from descend(best, may_restart=False)
    tried = {_setting(search, best)}
    while True:
        moves = neighbours(search.space, best.point.x, search.rng(7, len(tried)))
        neighbourhood = [search.point(x, "neighbour") for x in moves]
        polled = yield from whole(search, one_round(neighbourhood))
        usable = sorted((e for e in polled if e.ok), key=lambda e: e.loss)
        fresh = [e for e in usable if _setting(search, e) not in tried][:MOST_DETOURS]
        improved = False
        for candidate in fresh:
            tried.add(_setting(search, candidate))
            found = candidate
            if not discrete.all():
                found = yield from descend(candidate, may_restart=False)
            improved = found.loss < best.loss
            if improved:
                best = found
                break
        if not improved:
            return "converged: no integer or choice beside the best one is better"


def _why_it_ended(unseen: int, returns: int) -> str:
    if not unseen:
        ended = "converged: nothing left to gain within the bounds"
        if returns == 0:
            return ended
        many = "1 restart" if returns == 1 else f"{returns} restarts"
        return f"{ended}; {many} came back to the same minimum"
    return (
        f"nothing left to gain that differences show: {unseen} of them changed nothing; a "
        "parameter has no effect, or is rounded inside the solver"
    )


def _setting(search: Search, evaluation: Evaluation) -> bytes:
    """Which integers and choices a point stands for."""
    space = search.space
    values = space.decode(evaluation.point.x)
    names = [b.name for b in space.blocks if space.discrete[b.start]]
    return repr([(name, values[name]) for name in names]).encode()
