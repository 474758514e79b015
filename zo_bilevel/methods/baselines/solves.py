"""What a baseline library sees of a run, from its own thread; ending it, and starting it anew."""

import itertools
import queue
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar, final

from zo_bilevel.methods.base import Search
from zo_bilevel.methods.baselines.coordinates import Coordinates
from zo_bilevel.methods.baselines.failure_values import FailureRule
from zo_bilevel.methods.baselines.plateau import Plateau, StalledError
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arrays import FloatArray

Candidate = TypeVar("Candidate")


class GiveUpError(Exception):
    """Raised by a baseline that cannot go on; the message becomes the reason to stop."""


class ClosedError(BaseException):
    """Raised in the library's thread when the run is over; no library may catch it."""


@final
class Solves:
    """What a library sees of the run, from its own thread: points in, evaluations out."""

    def __init__(self, search: Search, coordinates: Coordinates) -> None:
        self.search = search
        self.coordinates = coordinates
        self.rule = FailureRule()
        self.count = 0
        self.plateau: Plateau | None = None
        self._streams = itertools.count()
        self.asked: queue.SimpleQueue[list[Point] | Exception | str] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[list[Evaluation] | None] = queue.SimpleQueue()

    def evaluate(
        self, rows: Sequence[FloatArray], *, role: str = "trial", stream: int | None = None
    ) -> list[Evaluation]:
        """Solve one round: evaluations in the same order.

        Args:
            rows: Points in the library's coordinates, shape `(N,)` each.
            role: What they are for; the first of all is the start.
            stream: Random numbers that they share, as differences do; `None` for each its own.
        """
        evaluations = self._exchange([self._point(row, role, stream) for row in rows])
        if self.plateau is not None:
            self.plateau.check(evaluations)
        return evaluations

    def _point(self, row: FloatArray, role: str = "trial", stream: int | None = None) -> Point:
        own = self.new_stream() if stream is None else stream
        role = "start" if self.count == 0 else role
        self.count += 1
        return Point(self.coordinates.to_x(row), (own,), role)

    def _exchange(self, points: list[Point]) -> list[Evaluation]:
        self.asked.put(points)
        answer = self.answers.get()
        if answer is None:
            raise ClosedError
        return answer

    def serve(
        self,
        ask: Callable[[], tuple[Candidate, FloatArray]],
        tell: Callable[[Candidate, float], object],
        width: int,
    ) -> NoReturn:
        """Solve a library's candidates for ever: in rounds, or each as soon as one has arrived."""
        open_ones: list[tuple[Point, Candidate]] = []
        while True:
            fresh = [ask() for _ in range(width - len(open_ones))]
            points = [self._point(row) for _, row in fresh]
            open_ones += [(p, candidate) for p, (candidate, _) in zip(points, fresh, strict=True)]
            evaluations = self._exchange(points)
            for evaluation, loss in zip(evaluations, self.rule.losses(evaluations), strict=True):
                asked = evaluation.point
                place = next(k for k, (point, _) in enumerate(open_ones) if point is asked)
                tell(open_ones.pop(place)[1], loss)

    def new_stream(self) -> int:
        """Random numbers that no solve had yet."""
        return next(self._streams)

    def losses(self, rows: Sequence[FloatArray]) -> list[float]:
        """Solve one round, see finite losses only."""
        return self.rule.losses(self.evaluate(rows))

    def loss(self, row: FloatArray) -> float:
        """Solve one point, see a finite loss only."""
        return self.losses([row])[0]


def stop_at(solves: Solves, label: str, limit: int) -> None:
    """End a run that was not told its budget once it has as many solves as can be carried."""
    if solves.count >= limit:
        raise GiveUpError(f"{label}: {limit} solves are all that its Gaussian process can carry")


def restarted(
    solves: Solves,
    run: Callable[[FloatArray], str],
    *,
    is_endless: bool,
    has_sweeps: bool = False,
) -> str:
    """Run a local solver from the start and, if so wished, from random places for ever.

    Among integers and choices it begins anew where it stands, as in `Plateau`.

    Args:
        solves: What the library sees of the run.
        run: From a start to the solver's last words.
        is_endless: Whether to begin anew.
        has_sweeps: Whether it may gain nothing for long and go on elsewhere: it is then let alone.

    Returns:
        The last words of a solver that runs once, or of one that no longer asks for anything.
    """
    start, rng = solves.coordinates.start, solves.search.rng(1)
    space = solves.search.space
    if is_endless and not has_sweeps and space.discrete.any():
        solves.plateau = Plateau(space.size)
    while True:
        before = solves.count
        if solves.plateau is not None:
            solves.plateau.begin()
        try:
            words = run(start)
        except GiveUpError as error:  # its start failed; another need not
            if not is_endless:
                raise
            words = str(error)
        except StalledError:
            words = "nothing was gained any more"
        if not is_endless or solves.count == before:
            return words
        start = solves.coordinates.draw(rng)
