"""Parts of a search that need whole rounds, also where answers arrive one by one."""

from collections.abc import Generator
from typing import TypeVar

from zo_bilevel.methods.base import Search
from zo_bilevel.solve.evaluation import Evaluation, Point

Found = TypeVar("Found")


def whole(
    search: Search, rounds: Generator[list[Point], list[Evaluation], Found]
) -> Generator[list[Point], list[Evaluation], Found]:
    """A coroutine of rounds as the search needs it.

    Args:
        search: Says whether answers arrive one by one: each round then waits for all of its own.
            What arrives beside them, of a part of the search that has ended, is let go.
        rounds: Yields rounds, receives their evaluations.
    """
    return _one_by_one(rounds) if search.is_asynchronous else rounds


def _one_by_one(
    rounds: Generator[list[Point], list[Evaluation], Found],
) -> Generator[list[Point], list[Evaluation], Found]:
    evaluations: list[Evaluation] | None = None
    while True:
        try:
            points = next(rounds) if evaluations is None else rounds.send(evaluations)
        except StopIteration as stop:
            found: Found = stop.value
            return found
        evaluations = yield from _gathered(points)


def _gathered(points: list[Point]) -> Generator[list[Point], list[Evaluation], list[Evaluation]]:
    asked, found = points, dict[int, Evaluation]()
    while len(found) < len(points):
        for evaluation in (yield asked):
            places = (k for k, point in enumerate(points) if point is evaluation.point)
            place = next((k for k in places if k not in found), None)
            if place is not None:
                found[place] = evaluation
        asked = []
    return [found[place] for place in range(len(points))]


def one_round(points: list[Point]) -> Generator[list[Point], list[Evaluation], list[Evaluation]]:
    """A round as a coroutine."""
    return (yield points)
