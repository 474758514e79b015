"""What `zo-bilevel prompt` shows: a row for each method, in the terminal and on a page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.comparison.provenance import environment
from zo_bilevel.support.tables import Grid, number

if TYPE_CHECKING:
    from zo_bilevel.run.result import Result
    from zo_bilevel.run.runs import Run
    from zo_bilevel.tasks.scoring import Score, Scores

BOUNDS_NOTE = (
    "Each method has the bounds of the soft prompt that suit it (choosing them is part of using "
    "it); the prompt it starts from, the examples and the calls are the same for all."
)


@final
@dataclass(frozen=True, slots=True)
class Found:
    """What one method found.

    Args:
        run: Its run, as a row of a comparison.
        scores: On held-out texts.
        result: What the run gave; `None` for the prompt that was written by hand.
    """

    run: Run
    scores: Scores
    result: Result | None = None


def grid(title: str, found: Sequence[Found]) -> Grid:
    """The table: a row a method, the held-out scores with their intervals.

    Args:
        title: What it is about.
        found: What the methods found, the hand-written prompt first.
    """
    rows = [
        (
            row.run.method,
            str(row.run.solves),
            number(row.run.loss),
            _cell(row.scores.accuracy),
            number(row.scores.f1.value),
            _value(row.scores.cross_entropy),
            f"{row.run.seconds:.0f}",
        )
        for row in found
    ]
    header = (
        "prompt",
        "calls",
        "cross-entropy\nof the examples",
        "accuracy, held out\n(95 % interval)",
        "F1\nheld out",
        "cross-entropy\nheld out",
        "seconds",
    )
    note = "A call runs the model on all examples under one prompt; intervals are by bootstrap."
    return Grid(title, header, tuple(rows), (note,))


def _value(score: Score | None) -> str:
    return "-" if score is None else f"{score.value:.3f}"


def _cell(score: Score) -> str:
    return f"{score.value:.3f} ({score.lower:.3f} to {score.upper:.3f})"


def _judged(row: Found) -> Run:
    held_out = row.scores.cross_entropy
    return dataclasses.replace(row.run, held_out_loss=None if held_out is None else held_out.value)


def comparison(
    title: str, found: Sequence[Found], calls: int, width: int, size: int, command: Sequence[str]
) -> Comparison:
    """The same as a comparison, which has a page.

    Args:
        title: What it is about.
        found: What the methods found, the hand-written prompt first.
        calls: Calls that each method had.
        width: Calls that a method that draws points makes in a round.
        size: Number of coordinates N.
        command: Words of the command line.
    """
    runs = tuple(_judged(row) for row in found)
    return Comparison(
        problem=title,
        methods=tuple(run.method for run in runs),
        seeds=tuple(dict.fromkeys(run.seed for run in runs)),
        max_solves=calls,
        runs=runs,
        round_width=width,
        dispatcher="batches",
        size=size,
        facts=environment(command),
        notes=(BOUNDS_NOTE,),
        tables=(grid("Scores on held-out texts", found),),
    )
