"""Where a method stands, between two rounds."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import final

from zo_bilevel.methods.notes import Notes
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.errors import InputError


@final
class State:
    """Where a method stands: the round it asks for, or why it stopped.

    A state is used once: `tell` moves it on and gives it back.
    """

    __slots__ = ("_rounds", "is_asynchronous", "is_over", "notes", "points", "stop_reason")

    def __init__(
        self,
        rounds: Generator[list[Point], list[Evaluation], str],
        notes: Notes | None = None,
        *,
        is_asynchronous: bool = False,
    ) -> None:
        self._rounds, self.is_asynchronous, self.is_over = rounds, is_asynchronous, False
        self.notes = Notes() if notes is None else notes
        self.points: list[Point] = []
        self.stop_reason = ""
        self._advance(None)

    def _advance(self, evaluations: list[Evaluation] | None) -> None:
        try:
            points = next(self._rounds) if evaluations is None else self._rounds.send(evaluations)
        except StopIteration as stop:
            self.points, self.is_over = [], True
            self.stop_reason = "" if stop.value is None else str(stop.value)
            return
        if not isinstance(points, list) or not all(isinstance(p, Point) for p in points):
            raise InputError(f"a method must yield lists of zb.Point, got {type(points).__name__}")
        self.points = points

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Hand over the evaluations of the round asked for, in its order, or the next arrival."""
        if self.is_over and self.is_asynchronous:
            return  # it left solves running when it stopped
        if len(evaluations) != len(self.points) and not self.is_asynchronous:
            raise InputError(
                f"evaluations must match the {len(self.points)} points asked, "
                f"got {len(evaluations)}"
            )
        self.notes.last_ok.extend(evaluation.ok for evaluation in evaluations)
        self._advance(list(evaluations))

    def close(self) -> None:
        """Stop the method where it stands."""
        self._rounds.close()
