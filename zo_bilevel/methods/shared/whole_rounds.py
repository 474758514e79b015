"""Parts of a search that need whole rounds, also where answers arrive one by one."""

from zo_bilevel.methods.base import Search
from zo_bilevel.methods.state import Found, RoundsThen
from zo_bilevel.solve.evaluation import Evaluation, Point


def whole(search: Search, rounds: RoundsThen[Found]) -> RoundsThen[Found]:
    """A coroutine of rounds as the search needs it.

    Args:
        search: Says whether answers arrive one by one: each round then waits for all of its own.
            What arrives beside them, of a part of the search that has ended, is let go.
        rounds: Yields rounds, receives their evaluations.
    """
    return _one_by_one(rounds) if search.is_asynchronous else rounds


def _one_by_one(
    rounds: RoundsThen[Found],
) -> RoundsThen[Found]:
    evaluations: list[Evaluation] | None = None
    while True:
        try:
            points = next(rounds) if evaluations is None else rounds.send(evaluations)
        except StopIteration as stop:
            found: Found = stop.value
            return found
        evaluations = yield from _gathered(points)


def _gathered(points: list[Point]) -> RoundsThen[list[Evaluation]]:
    asked, found = points, dict[int, Evaluation]()
    while len(found) < len(points):
        for evaluation in (yield asked):
            places = (k for k, point in enumerate(points) if point is evaluation.point)
            place = next((k for k in places if k not in found), None)
            if place is not None:
                found[place] = evaluation
        asked = []
    return [found[place] for place in range(len(points))]


def one_round(points: list[Point]) -> RoundsThen[list[Evaluation]]:
    """A round as a coroutine."""
    return (yield points)
