"""What `zo-bilevel prompt` shows: a row for each method, in the terminal and on a page."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.comparison.provenance import environment
from zo_bilevel.run.result import Result
from zo_bilevel.run.runs import Run
from zo_bilevel.support.tables import Grid, number
from zo_bilevel.tasks.scoring import PairedDifference, Score, Scores

PROBE = "linear probe"
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
        result: What the run gave, its `phi` the prompt that is kept; `None` where none was tuned.
        gain: Accuracy minus the hand-written prompt's, on the same texts.
    """

    run: Run
    scores: Scores
    result: Result | None = None
    gain: PairedDifference | None = None


def grid(title: str, found: Sequence[Found]) -> Grid:
    """The table: a row a method, the held-out scores with their intervals."""
    rows = [
        (
            row.run.method,
            str(row.run.solves),
            number(row.run.loss) if row.run.solves else "-",
            _cell(row.scores.accuracy),
            _gain(row.gain),
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
        "over the\nhand-written",
        "cross-entropy\nheld out",
        "time\n(s)",
    )
    note = (
        "A call runs the model on all examples under one prompt; p is of a paired test by random "
        "changes of sign."
    )
    return Grid(title, header, tuple(rows), (note, *_warning(found)))


def _warning(found: Sequence[Found]) -> tuple[str, ...]:
    """Say where no prompt is worth it."""
    probe = next((row.scores.accuracy.value for row in found if row.run.method == PROBE), None)
    tuned = max((row.scores.accuracy.value for row in found if row.result is not None), default=0.0)
    if probe is None or probe <= tuned:
        return ()
    return (f"A {PROBE} on the same examples is better here ({probe:.3f}): use that instead.",)


def medians(found: Sequence[Sequence[Found]]) -> Grid:
    """Medians over seeds, with quartiles: a row a method."""
    rows = []
    for name in dict.fromkeys(row.run.method for rows in found for row in rows):
        same = [row for rows in found for row in rows if row.run.method == name]
        parts = [[row.scores.accuracy.value for row in same]]
        parts.append([row.scores.cross_entropy.value for row in same if row.scores.cross_entropy])
        low, middle, high = np.percentile(parts[0], [25, 50, 75])
        cross = f"{np.median(parts[1]):.3f}" if parts[1] else "-"
        gains = [row.gain.mean for row in same if row.gain is not None]
        cell = f"{middle:.3f} ({low:.3f} to {high:.3f})"
        rows.append((name, cell, f"{np.median(gains):+.3f}", cross))
    header = ("prompt", "accuracy\n(quartiles)", "over the\nhand-written", "cross-entropy")
    return Grid(f"Medians of {len(found)} seeds, held out", header, tuple(rows))


def _gain(gain: PairedDifference | None) -> str:
    return "-" if gain is None else f"{gain.mean:+.3f} (p {gain.p_value:.2g})"


def _value(score: Score | None) -> str:
    return "-" if score is None else f"{score.value:.3f}"


def _cell(score: Score) -> str:
    return f"{score.value:.3f} ({score.lower:.3f} to {score.upper:.3f})"


def _judged(row: Found) -> Run:
    held_out = row.scores.cross_entropy
    return dataclasses.replace(row.run, held_out_loss=None if held_out is None else held_out.value)


def comparison(
    title: str,
    found: Sequence[Sequence[Found]],
    calls: int,
    width: int,
    size: int,
    command: Sequence[str],
) -> Comparison:
    """The same as a comparison, which has a page.

    Args:
        title: What it is about.
        found: What the methods found, a list a seed, the hand-written prompt first.
        calls: Calls that each method had.
        width: Calls that a method that draws points makes in a round.
        size: Number of coordinates N.
        command: Words of the command line.
    """
    runs = tuple(_judged(row) for rows in found for row in rows if row.run.solves)
    tables = [grid(f"Scores on held-out texts, seed {r[0].run.seed}", r) for r in found]
    if len(found) == 1:
        tables = [grid("Scores on held-out texts", found[0])]
    else:
        tables.insert(0, medians(found))
    return Comparison(
        problem=title,
        methods=tuple(dict.fromkeys(run.method for run in runs)),
        seeds=tuple(dict.fromkeys(run.seed for run in runs)),
        max_solves=calls,
        runs=runs,
        round_width=width,
        dispatcher="batches",
        size=size,
        facts=environment(command),
        notes=(BOUNDS_NOTE,),
        tables=tuple(tables),
    )
