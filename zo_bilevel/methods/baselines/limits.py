"""What some baselines cannot do, said by name before the first solve; and starting them anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zo_bilevel.methods.base import Search
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import UnsupportedProblemError

if TYPE_CHECKING:
    from zo_bilevel.methods.baselines.threaded import Solves


class GiveUpError(Exception):
    """Raised by a baseline that cannot go on; the message becomes the reason to stop."""


def refuse_discrete(search: Search, label: str, reason: str, *, only_choices: bool = False) -> None:
    """Refuse integers and choices, or choices alone, with how many coordinates they are."""
    space = search.space
    found = int((space.is_choice if only_choices else space.discrete).sum())
    if found:
        kinds = "choices" if only_choices else "integers or choices"
        raise UnsupportedProblemError(
            f"{label} {reason}, but {found} of {space.size} coordinates are {kinds}"
        )


def refuse_many_solves(search: Search, label: str, limit: int) -> None:
    """Refuse more solves than a Gaussian process on all of them can carry."""
    if search.max_solves is not None and search.max_solves > limit:
        raise UnsupportedProblemError(
            f"{label} fits a Gaussian process to all solves, at a cost of their cube: max_solves "
            f"must be <= {limit}, got {search.max_solves}"
        )


def stop_at(solves: Solves, label: str, limit: int) -> None:
    """End a run that was not told its budget once it has as many solves as can be carried."""
    if solves.count >= limit:
        raise GiveUpError(f"{label}: {limit} solves are all that its Gaussian process can carry")


def restarted(solves: Solves, run: Callable[[FloatArray], str], *, is_endless: bool) -> str:
    """Run a local solver from the start and, if so wished, from random places for ever.

    Returns:
        The last words of a solver that runs once, or of one that no longer asks for anything.
    """
    start, rng = solves.coordinates.start, solves.search.rng(1)
    while True:
        before = solves.count
        try:
            words = run(start)
        except GiveUpError as error:  # its start failed; another need not
            if not is_endless:
                raise
            words = str(error)
        if not is_endless or solves.count == before:
            return words
        start = solves.coordinates.draw(rng)
